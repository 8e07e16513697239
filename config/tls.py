"""TLS as the operator writes it: which files, whether both sides show a certificate, which profile.

Two profiles of PS3.15, both with TLS 1.2 as their floor and authenticated encryption only:

bcp195                  B.12, RFC 8996 and 9325: ephemeral elliptic curves
bcp195-non-downgrading  B.10, RFC 7525: the same and finite-field Diffie-Hellman, for older peers
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from config.errors import refusal
from config.names import Host

TlsProfile = Literal["bcp195", "bcp195-non-downgrading"]
FILE_KEYS = ("certificate", "key", "ca")


def plain_path(value: Path) -> Path:
    """Refuse a path that a shell or a URL would read otherwise than it is written."""
    if str(value).startswith("~") or "?" in str(value) or not str(value).isprintable():
        raise refusal("write the path out, without ~, ? or control characters")
    return value


PlainPath = Annotated[Path, AfterValidator(plain_path)]


class TlsSection(BaseModel):
    """What both directions have in common. Paths name PEM files.

    certificate  ours, with the chain up to a root the other side knows
    key          its private key, without a passphrase, readable by the node's user alone
    ca           whom we believe: certificates that sign those of the other side
    mutual       both sides show a certificate
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: PlainPath | None = None
    key: PlainPath | None = None
    ca: PlainPath | None = None
    mutual: bool = True
    profile: TlsProfile = "bcp195"

    def below(self, folder: Path) -> Any:
        """Return the section with relative paths starting from `folder`."""
        written = {key: getattr(self, key) for key in FILE_KEYS}
        return self.model_copy(
            update={key: folder / path for key, path in written.items() if path is not None}
        )

    def _require(self, *keys: str, because: str) -> None:
        missing = [key for key in keys if getattr(self, key) is None]
        if missing:
            raise refusal(f"{' and '.join(missing)} missing: {because}")


class ListenerTls(TlsSection):
    """TLS of our own port; with it the port speaks nothing else."""

    @model_validator(mode="after")
    def _complete(self) -> ListenerTls:
        self._require("certificate", "key", because="the node shows them to whoever calls")
        if self.mutual:
            self._require("ca", because="it says whose callers are believed; mutual: false lets anyone in")
        return self


class PeerTls(TlsSection):
    """TLS towards a peer. `server_name`, by default its host, is what its certificate has to name."""

    server_name: Host | None = None
    check_name: bool = True

    @model_validator(mode="after")
    def _complete(self) -> PeerTls:
        self._require("ca", because="it says which certificate of the peer is believed")
        if self.mutual:
            self._require(
                "certificate", "key", because="the peer wants to see ours; mutual: false leaves it out"
            )
        if (self.certificate is None) != (self.key is None):
            self._require("certificate", "key", because="a certificate is of no use without its key")
        return self

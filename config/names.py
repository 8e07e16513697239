"""Names as DICOM and the network define them, as types for the sections."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from config.conditions import normal_modality, one_or_many
from config.errors import refusal

RETURN_TO_SENDER = "return-to-sender"
"""The destination that stands for the peer whose AE title called us."""

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UID_ROOT = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_LONGEST_UID_ROOT = 43  # leaves a point and 20 digits of our own within 64 characters (PS3.5 9.1)
_WILDCARD_HOSTS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


def printable_ascii(value: str) -> bool:
    """Whether the text is within the default repertoire of DICOM without control characters (PS3.5 6.1.1)."""
    return value.isascii() and value.isprintable()


def _ae_title(value: str) -> str:
    """PS3.5 6.2, VR AE: 1-16 characters, no backslash, no control; spaces at the ends do not count."""
    title = value.strip(" ")
    if not 1 <= len(title) <= 16:
        raise refusal(f"an AE title has 1 to 16 characters, this has {len(title)}")
    if "\\" in title or not printable_ascii(title):
        raise refusal("an AE title holds ASCII letters, digits and signs, but no backslash or control")
    return title


def _modality(value: str) -> str:
    if normal_modality(value) != value:
        raise refusal(f"write the modality in capitals: {normal_modality(value)}")
    return value


def _slug(value: str) -> str:
    if _SLUG.fullmatch(value) is None:
        raise refusal(
            "a name has 1 to 64 letters, digits, points, underscores or hyphens and starts with a letter or digit",
        )
    if value.casefold() == RETURN_TO_SENDER:
        raise refusal(f"{RETURN_TO_SENDER} is the word for the calling AE and cannot be a name")
    return value


def _title_line(value: str) -> str:
    text = value.strip()
    if not 1 <= len(text) <= 64 or not text.isprintable():
        raise refusal("a name has 1 to 64 printable characters")
    return text


def _host(value: str) -> str:
    host = value.strip()
    if not host or not printable_ascii(host) or any(sign in host for sign in " /\\[]@"):
        raise refusal("expected a host name or an IP address, without port or brackets")
    return host


def _network(value: Any) -> Any:
    """Read "10.1.0.0/16" or one address; a network with host bits is a slip that would admit the wrong hosts."""
    if value is None or isinstance(value, (IPv4Network, IPv6Network)):
        return value
    try:
        return ip_network(value if isinstance(value, str) else "")
    except ValueError:
        pass
    try:
        meant = ip_network(value, strict=False)
    except (ValueError, TypeError) as exc:
        raise refusal("expected a network such as 10.1.0.0/16, or one IP address") from exc
    raise refusal(f"{value} names a host inside a network; write {meant}, or the address alone")


def _uid_root(value: str) -> str:
    if len(value) > _LONGEST_UID_ROOT or _UID_ROOT.fullmatch(value) is None:
        raise refusal(
            f"expected a UID root such as 1.2.826.0.1, at most {_LONGEST_UID_ROOT} characters, "
            "without a point at the end",
        )
    return value


def _dicom_text(longest: int) -> AfterValidator:
    """A value of VR SH or LO in the default repertoire (PS3.5 6.2)."""

    def check(value: str) -> str:
        text = value.strip(" ")
        if not 1 <= len(text) <= longest or "\\" in text or not printable_ascii(text):
            raise refusal(f"expected 1 to {longest} ASCII characters without backslash or control")
        return text

    return AfterValidator(check)


Text = Annotated[str, Field(strict=True)]
AETitle = Annotated[Text, AfterValidator(_ae_title)]
AETitles = Annotated[tuple[AETitle, ...], BeforeValidator(one_or_many), Field(min_length=1)]
Modality = Annotated[Text, AfterValidator(_modality)]
PeerName = Annotated[Text, AfterValidator(_slug)]
RouteName = Annotated[Text, AfterValidator(_title_line)]
EnhancerName = Annotated[Text, AfterValidator(_slug)]
Host = Annotated[Text, AfterValidator(_host)]
Network = Annotated[IPv4Network | IPv6Network | None, BeforeValidator(_network)]
UidRoot = Annotated[Text, AfterValidator(_uid_root)]
ShortText = Annotated[Text, _dicom_text(16)]
LongText = Annotated[Text, _dicom_text(64)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
PortOrFree = Annotated[int, Field(strict=True, ge=0, le=65535)]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name other than localhost is not trusted to be."""
    if host.casefold() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def same_host(bound: str, other: str) -> bool:
    """Whether `other` is surely an address of a listener bound to `bound`; asks no name server."""
    if bound.casefold() == other.casefold():
        return True
    if is_loopback(other):
        return is_loopback(bound) or bound in _WILDCARD_HOSTS
    return other in _WILDCARD_HOSTS

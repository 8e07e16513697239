"""What tests of several rooms share: a certificate authority made by the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificate:
    """Where a certificate and its key lie."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of its own; `ca` is what believers load."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        root = self._make("ca", "-x509", "-days", "30", "-addext", "basicConstraints=critical,CA:TRUE")
        self.ca = root.certificate
        self._root = root

    def issue(
        self, name: str, *, days: int = 30, names: str = "IP:127.0.0.1,DNS:localhost", key: str = "rsa:2048"
    ) -> Certificate:
        """Issue a certificate for `names`; a negative number of days makes one that has ended."""
        made = self._make(name, key=key)
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        self._openssl(
            *(
                "x509",
                "-req",
                "-in",
                made.certificate,
                "-CA",
                self._root.certificate,
                "-CAkey",
                self._root.key,
            ),
            *("-days", days, "-extfile", extensions, "-out", made.certificate),
        )
        return made

    def _make(self, name: str, *options: str, key: str = "rsa:2048") -> Certificate:
        made = Certificate(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        extra = ("-pkeyopt", "ec_paramgen_curve:P-256") if key == "ec" else ()
        self._openssl(
            *("req", "-newkey", key, *extra, "-nodes", "-subj", f"/CN={name}", *options),
            *("-keyout", made.key, "-out", made.certificate),
        )
        made.key.chmod(0o600)
        return made

    def _openssl(self, *arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path: Path) -> Callable[[str], Authority]:
    """Make an authority of that name; the test is skipped where openssl is not installed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return lambda name="hospital": Authority(tmp_path / "pki", name)

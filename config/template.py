"""The commented configuration that `dicom-node init` writes; it loads as it is."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

TEMPLATE: Final[str] = (files("config") / "node.yaml").read_text(encoding="utf-8")
"""Part of the package like its code, and as constant: the one file that is read on import."""

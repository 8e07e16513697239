"""UIDs of a derived series, fixed by the job that makes it.

A retry of the same job writes the same UIDs, so a crash can never give an archive two derived series for
one job; another job writes others, so one UID can never name two different images.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

IMPLEMENTATION_CLASS_UID = f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, 'dicom-enhancement-node').int}"
"""Names this implementation in the file meta information (PS3.7 D.3.3.2)."""

IMPLEMENTATION_VERSION_NAME = "DCMENHANCE"

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "dicom-enhancement-node/derived")
_COMPONENT = r"(?:0|[1-9][0-9]*)"
_UID = re.compile(rf"{_COMPONENT}(?:\.{_COMPONENT})+")
_LONGEST = 64  # characters (PS3.5 9.1)
_UUID_DIGITS = 39  # decimal digits of 2**128


def is_valid_uid(uid: str) -> bool:
    """Whether the text is a UID: digits and dots, no leading zeros, at most 64 characters (PS3.5 9.1)."""
    return len(uid) <= _LONGEST and _UID.fullmatch(uid) is not None


@dataclass(frozen=True)
class UidPlan:
    """The UIDs one job may use.

    job_key  the job's own key; the same key always gives the same UIDs
    root     a registered root, or None for ``2.25.`` and the UUID as a decimal number (PS3.5 B.2)

    Raises `ValueError` for a root that leaves no room or is no UID.
    """

    job_key: str
    root: str | None = None

    def __post_init__(self) -> None:
        if self.root is None:
            return
        if not is_valid_uid(self.root) or len(self.root) + 1 > _LONGEST - 20:
            raise ValueError(f"not a usable UID root: {self.root!r}")

    @property
    def series_uid(self) -> str:
        """The Series Instance UID of the derived series."""
        return self._uid("series", "")

    def companion_series_uid(self, kind: str) -> str:
        """Return the Series Instance UID of the objects of a kind that accompany the derived series."""
        return self._uid("companion series", kind)

    def instance_uid(self, source_sop_uid: str) -> str:
        """Return the SOP Instance UID of the instance derived from `source_sop_uid`."""
        return self._uid("instance", source_sop_uid)

    def _uid(self, role: str, name: str) -> str:
        number = uuid.uuid5(_NAMESPACE, "\n".join((self.job_key, role, name))).int
        if self.root is None:
            return f"2.25.{number}"
        room = _LONGEST - len(self.root) - 1
        # A long root leaves fewer digits; 20 digits still make a collision less likely than a disk error.
        digits = str(number) if room >= _UUID_DIGITS else str(number % 10**room)
        return f"{self.root}.{digits}"

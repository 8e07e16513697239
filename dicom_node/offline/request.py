"""What a person asks for: one request, refused with one line when it makes no sense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicom_node.errors import NodeError
from dicom_node.imaging.nifti import Modality

MINIMUM_SLICES: Final = 8
"""As the routes of a node demand by default."""


class OfflineError(NodeError):
    """The request or its files cannot be worked with; the message is one line that names the cause."""


@dataclass(frozen=True)
class EnhanceRequest:
    """What to enhance, how, and where everything goes.

    source       a NIfTI file, or a folder with NIfTI files, DICOM series or both
    modality     of NIfTI files; DICOM series of another modality are left alone
    strength     in [0, 1]
    options      passed to the enhancer as they are; it refuses what it does not know
    report       where the JSON report goes, or None
    uncertainty  where the uncertainty map goes, or None; only for one volume
    force        whether files that exist may be replaced

    Raises `OfflineError`.
    """

    source: Path
    output: Path
    model: str
    strength: float
    modality: Modality | None = None
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    report: Path | None = None
    uncertainty: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise OfflineError(f"strength lies between 0 and 1, found {self.strength:g}")
        if not self.source.exists():
            raise OfflineError(f"{self.source} does not exist")
        named = [path for path in (self.output, self.report, self.uncertainty) if path is not None]
        places = [path.resolve() for path in named]
        for index, place in enumerate(places):
            _keep_apart(self.source.resolve(), place)
            for other in places[index + 1 :]:
                if place == other or place in other.parents or other in place.parents:
                    raise OfflineError(f"{place} and {other} cannot both be written")


def _keep_apart(source: Path, place: Path) -> None:
    """The input is never written over."""
    if place == source or place in source.parents:
        raise OfflineError(f"{place} would replace the input; choose another name")

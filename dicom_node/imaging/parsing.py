"""Opening a stored instance: one place that turns every parser failure into an error safe to log."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset

from dicom_node.errors import UnreadableInstanceError
from dicom_node.imaging.elements import quiet


def read_dataset(path: Path, *, pixels: bool) -> FileDataset:
    """Parse a Part 10 file without converting its values; without `pixels` stop before the pixel data.

    Raises `UnreadableInstanceError`, which names the kind of failure and never a value: the parser's own
    messages may quote one.
    """
    try:
        with quiet():
            ds = dcmread(path, stop_before_pixels=not pixels)
            syntax = str(ds.file_meta.TransferSyntaxUID)
    except OSError as exc:
        raise UnreadableInstanceError(f"The file cannot be read ({type(exc).__name__}).") from exc
    except Exception as exc:
        # A damaged file makes the parser raise whatever it stumbles over; the text stays out (no `from`).
        raise UnreadableInstanceError(f"The parser failed ({type(exc).__name__}).") from None
    if not syntax or len(ds) == 0:
        raise UnreadableInstanceError("The data set is empty or names no transfer syntax.")
    return ds


def transfer_syntax(ds: FileDataset) -> str:
    """Return the transfer syntax the file declares."""
    with quiet():
        return str(ds.file_meta.TransferSyntaxUID)

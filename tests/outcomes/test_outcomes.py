"""Every kind of series and its end: the outcome, its reason, and nothing added for the validators.

In the suite the generated cases run once with two slices of each validated. The full table, with every
public scan and the images that pydicom carries:

    DICOM_NODE_OUTCOMES=FOLDER python -m pytest tests/outcomes -m "drill or not drill" -q

writes `outcomes.md` and `outcomes.json` into FOLDER. DICOM_NODE_OUTCOMES_ENHANCER names another enhancer.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info

from dicom_node.documents.markdown import document, table
from dicom_node.errors import HoldSeriesError, Reason, ReasonedError, RefusedInstanceError, SkipSeriesError
from dicom_node.imaging.assembly import AssemblyPolicy
from dicom_node.imaging.derivation import DerivationPolicy
from dicom_node.imaging.elements import quiet
from dicom_node.imaging.series import judge_series, read_headers_of, verify_source
from dicom_node.imaging.summary import summarise
from dicom_node.imaging.verify_tools import validator_messages
from dicom_node.intake.admission import identify
from dicom_node.network.received import AssociationInfo, ReceivedInstance
from dicom_node.pipeline.attempt import AttemptSpec, SourceFile
from dicom_node.pipeline.executor import AttemptFailedError, EnhancementProcess
from dicom_node.pipeline.stages import data_set_digest

FOLDER = os.environ.get("DICOM_NODE_OUTCOMES")
FULL = FOLDER is not None
ENHANCER = os.environ.get("DICOM_NODE_OUTCOMES_ENHANCER", "classical")
MINIMUM_SLICES = 8
TIME_LIMIT = timedelta(minutes=10)
DATA = (
    Path(os.environ.get("DICOM_NODE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "dicom"
)


@dataclass
class Row:
    """How one series came out."""

    name: str
    outcome: str = ""
    reason: str = ""
    detail: str = ""
    refused: int = 0
    slices: int = 0
    derived: int = 0
    left_out: int = 0
    notes: list[str] = field(default_factory=list)
    assertions: str = ""
    added_messages: list[str] = field(default_factory=list)
    dcm2niix: str = ""


class Line:
    """The node's way for a folder of files, with the enhancement in a process of its own."""

    def __init__(self) -> None:
        self._process = EnhancementProcess()

    def take(self, name: str, paths: Sequence[Path], directory: Path) -> Row:
        """Take a series from the door to the validators."""
        row = Row(name)
        admitted = [path for path in paths if self._admit(path, row)]
        row.slices = len(admitted)
        if not admitted:
            row.outcome = "REFUSED"
            return row
        try:
            headers = read_headers_of(admitted)
            summarise(headers, calling_ae="ANY", called_ae="ENHANCE")
            policy = AssemblyPolicy(minimum_slices=MINIMUM_SLICES)
            plan = judge_series(headers, policy)
            row.notes = [str(note) for note in plan.evidence.notes]
            row.left_out = len(plan.left_out)
            spared = {entry.sop_instance_uid for entry in plan.left_out}
            used = [p for p, h in zip(admitted, headers, strict=False) if h.sop_instance_uid not in spared]
            self._enhance(row, admitted, directory, used if spared else admitted)
        except SkipSeriesError as exc:
            row.outcome, row.reason, row.detail = "SKIPPED", str(exc.reason), exc.detail
        except HoldSeriesError as exc:
            row.outcome, row.reason, row.detail = "HELD", str(exc.reason), exc.detail
        except ReasonedError as exc:
            row.outcome, row.reason, row.detail = "FAILED", str(exc.reason), exc.detail
        return row

    def _admit(self, path: Path, row: Row) -> bool:
        """Whether the door lets one file in, asked as if it had come by C-STORE."""
        content = path.read_bytes()
        start = 144 + int.from_bytes(content[140:144], "little")
        with quiet():
            meta = read_file_meta_info(path)
        instance = ReceivedInstance(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            data=memoryview(content)[start:],
            association=AssociationInfo(1, "ANY", "ENHANCE", "127.0.0.1"),
        )
        try:
            identify(instance)
        except RefusedInstanceError as exc:
            row.refused += 1
            row.reason, row.detail = str(exc.reason), exc.detail
            return False
        return True

    def _enhance(self, row: Row, paths: Sequence[Path], directory: Path, used: Sequence[Path]) -> None:
        """The attempt, and what others say about its files; `used` are those from which something is derived."""
        spec = AttemptSpec(
            job_key=row.name,
            sources=tuple(SourceFile(path, path.name, data_set_digest(path)) for path in paths),
            enhancer=ENHANCER,
            options={},
            strength=0.9,
            policy={},
            assembly={"minimum_slices": MINIMUM_SLICES},
            neighbours=(),
            directory=directory,
            node_version="0",
            processed_at=datetime.now(UTC).astimezone().isoformat(),
        )
        result = self._process.run(spec, time_limit=TIME_LIMIT, heard=lambda _: None)
        derived = [Path(plain["path"]) for plain in result["derived"]]
        row.outcome, row.derived, row.reason, row.detail = "ENHANCED", len(derived), "", ""
        report = verify_source(list(paths), derived, policy=DerivationPolicy())
        passed = sum(check.passed for check in report.checks)
        row.assertions = f"{passed}/{len(report.checks)}"
        row.added_messages = sorted(added_messages(paths, derived))
        if FULL:
            row.dcm2niix = geometry_by_dcm2niix(used, derived, directory.parent)

    def close(self) -> None:
        """End the process."""
        self._process.stop()


def added_messages(paths: Sequence[Path], derived: Sequence[Path]) -> set[str]:
    """Messages of dciodvfy and dcentvfy about derived files that no source file has."""
    chosen = derived if FULL else [derived[0], derived[-1]]
    known = set().union(*(validator_messages(path) for path in (paths if FULL else paths[::5])))
    added = set().union(*(validator_messages(path) for path in chosen)) - known
    if shutil.which("dcentvfy"):
        added |= entity_errors([*paths, *derived]) - entity_errors(paths)
    return added


def entity_errors(paths: Sequence[Path]) -> set[str]:
    """Errors of dcentvfy without their values."""
    done = subprocess.run(
        ["dcentvfy", *map(str, paths)], capture_output=True, text=True, check=False, errors="replace"
    )
    lines = (done.stdout + done.stderr).splitlines()
    return {re.sub(r"<[^<>]*>|/\S+", "<>", line) for line in lines if line.startswith("Error")}


def geometry_by_dcm2niix(paths: Sequence[Path], derived: Sequence[Path], work: Path) -> str:
    """Whether dcm2niix makes volumes of the same geometry and scaling of source and derived files."""
    import nibabel

    found = []
    for name, files in (("before", paths), ("after", derived)):
        folder = work / f"nii-{name}"
        (folder / "in").mkdir(parents=True)
        for number, path in enumerate(files):
            shutil.copy(path, folder / "in" / f"{number:04d}.dcm")
        subprocess.run(
            ["dcm2niix", "-b", "n", "-f", "x", "-o", str(folder), str(folder / "in")],
            capture_output=True, check=False, timeout=300,
        )  # fmt: skip
        headers = [nibabel.load(path).header for path in sorted(folder.glob("*.nii*"))]
        found.append(sorted(facts for header in headers for facts in facts_of(header)))
    if not found[0]:
        return "makes nothing of the source"
    return "equal" if found[0] == found[1] else f"differs: {found[0]} {found[1]}"


def facts_of(header: Any) -> list[list[list[str]]]:
    """Dimensions, spacing, placement and scaling of every volume of a NIfTI file, as text: no scaling is NaN there.

    Volume by volume, for which of them share a file depends on the manufacturer, and that is ours.
    """
    names = ("srow_x", "srow_y", "srow_z", "scl_slope", "scl_inter", "qoffset_x")
    values = [header["dim"][1:4], header["pixdim"][:4], *(header[name] for name in names)]
    volume = [[f"{float(v):.4f}" for v in value.flatten()] for value in values]
    return [volume] * max(int(header["dim"][4]), 1)


@pytest.fixture(scope="session")
def line() -> Iterator[Line]:
    """One warm line for all cases."""
    made = Line()
    yield made
    made.close()


@pytest.fixture(scope="session")
def rows() -> Iterator[list[Row]]:
    """The table under way; written when all cases are through."""
    made: list[Row] = []
    yield made
    if FOLDER is not None and made:
        write_table(Path(FOLDER), made)


def write_table(folder: Path, made: list[Row]) -> None:
    """Write the table as Markdown and JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outcomes.json").write_text(json.dumps([asdict(row) for row in made], indent=1) + "\n")
    columns = ("series", "outcome", "reason", "detail", "files", "derived", "left out", "notes", "assertions")
    cells = [
        (r.name, r.outcome, r.reason, r.detail, r.slices + r.refused, r.derived, r.left_out, " ".join(r.notes),
         r.assertions, len(r.added_messages), r.dcm2niix)
        for r in made
    ]  # fmt: skip
    totals = [
        f"{sum(row.outcome == end for row in made)} {end}" for end in sorted({row.outcome for row in made})
    ]
    (folder / "outcomes.md").write_text(
        document(
            "# Outcomes",
            f"{len(made)} series: {', '.join(totals)}. Enhancer: {ENHANCER}. Messages added: dciodvfy, dcentvfy.",
            table((*columns, "messages added", "dcm2niix"), cells),
        )
    )


def finish(row: Row, rows: list[Row]) -> None:
    """Keep the row, and hold what has to be true of every one."""
    rows.append(row)
    assert row.outcome
    if row.outcome == "ENHANCED":
        assert row.assertions == "30/30"
        assert row.added_messages == []
        assert row.dcm2niix in ("", "equal", "makes nothing of the source")
        return
    assert row.reason in set(Reason)
    assert row.reason not in (Reason.INTERNAL_ERROR, Reason.WORKER_DIED, Reason.TIME_LIMIT)


@pytest.mark.timeout(900)
def test_a_generated_series_ends_as_it_has_to(
    table_case: Any, material: Any, case_folder: Path, line: Line, rows: list[Row], tmp_path: Path
) -> None:
    table_case.make(case_folder, material)
    (tmp_path / "derived").mkdir()
    paths = sorted(path for path in case_folder.rglob("*.dcm"))

    row = line.take(table_case.name, paths, tmp_path / "derived")

    finish(row, rows)
    assert (row.outcome, row.reason or None) == (table_case.outcome, table_case.reason), row.detail
    assert row.refused == table_case.refused
    assert set(map(str, table_case.notes)) <= set(row.notes)


def public_scans() -> list[Path]:
    """Folders of the public scans, none where they are not installed."""
    return sorted(path for path in DATA.iterdir() if path.is_dir()) if DATA.is_dir() else []


def by_series(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Files by Series Instance UID, in the order they come."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        with quiet():
            ds = dcmread(path, stop_before_pixels=True, force=True)
            groups.setdefault(str(ds.get("SeriesInstanceUID", "")), []).append(path)
    return groups


@pytest.mark.drill
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("folder", public_scans(), ids=lambda path: path.name)
def test_a_public_scan_ends_with_a_reason_or_enhanced(
    folder: Path, line: Line, rows: list[Row], tmp_path: Path
) -> None:
    for number, paths in enumerate(by_series(sorted(folder.rglob("*.dcm"))).values()):
        directory = tmp_path / str(number) / "derived"
        directory.mkdir(parents=True)
        finish(line.take(f"{folder.name} {number}".removesuffix(" 0"), paths, directory), rows)


def carried_images() -> list[Path]:
    """CT and MR images that pydicom brings along and that need no download."""
    import pydicom.data

    root = Path(pydicom.data.DATA_ROOT) / "test_files"
    found = []
    for path in sorted(root.rglob("*.dcm")):
        with quiet():
            try:
                ds = dcmread(path, stop_before_pixels=True)
            except Exception:
                continue
            if str(ds.get("Modality", "")) in ("CT", "MR"):
                found.append(path)
    return found


@pytest.mark.drill
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", carried_images(), ids=lambda path: path.name)
def test_an_image_that_pydicom_carries_ends_with_a_reason(
    path: Path, line: Line, rows: list[Row], tmp_path: Path
) -> None:
    (tmp_path / "derived").mkdir()
    finish(line.take(f"pydicom {path.name}", [path], tmp_path / "derived"), rows)


def test_attempts_that_fail_say_so_by_an_error_of_their_own() -> None:
    assert issubclass(AttemptFailedError, ReasonedError)

"""One JSON line per event, and no text that we did not choose."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from dicom_node.errors import PeerUnreachableError
from dicom_node.observability.logs import configure


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    configure(level="INFO", fmt="json", stream=stream)
    yield stream
    root.handlers[:], root.level = before[0], before[1]
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def read(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_bound_ids(lines: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(job=7, series=3):
        structlog.get_logger("dicom_node.x").info("job.claimed", kind="ENHANCE")
    (event,) = read(lines)
    assert (event["event"], event["job"], event["series"], event["kind"]) == ("job.claimed", 7, 3, "ENHANCE")
    assert str(event["timestamp"]).endswith("Z")


@pytest.mark.parametrize("library", ["pydicom", "pynetdicom.assoc", "sqlalchemy.engine", "PIL"])
def test_the_text_of_a_library_is_dropped_and_its_place_is_kept(lines: io.StringIO, library: str) -> None:
    logging.getLogger(library).warning("value %r is not valid", "DOE^JOHN")
    (event,) = read(lines)
    assert (event["event"], event["logger"]) == ("library.message", library)
    assert "where" in event
    assert "DOE" not in lines.getvalue()


def test_a_python_warning_is_logged_without_its_text(lines: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("Invalid value for VR PN: DOE^JOHN", UserWarning, stacklevel=1)
    assert read(lines)[0]["logger"] == "py.warnings"
    assert "DOE" not in lines.getvalue()


def test_a_foreign_exception_is_logged_by_type_and_place_only(lines: io.StringIO) -> None:
    try:
        raise ValueError("bad name DOE^JOHN")
    except ValueError:
        structlog.get_logger("dicom_node.x").error("sweep.failed", exc_info=True)
    (event,) = read(lines)
    assert event["error"] == "builtins.ValueError"
    assert "test_logs.py" in str(event["frames"])
    assert "DOE" not in lines.getvalue()


def test_a_foreign_exception_in_a_library_record_is_treated_the_same(lines: io.StringIO) -> None:
    try:
        raise ValueError("bad name DOE^JOHN")
    except ValueError:
        logging.getLogger("pynetdicom").exception("handler raised")
    assert read(lines)[0]["error"] == "builtins.ValueError"
    assert "DOE" not in lines.getvalue()


def test_our_own_errors_keep_their_text(lines: io.StringIO) -> None:
    try:
        raise PeerUnreachableError("Connection refused.")
    except PeerUnreachableError:
        structlog.get_logger("dicom_node.x").error("delivery.deferred", exc_info=True)
    assert "Connection refused." in str(read(lines)[0]["message"])


def test_a_log_that_cannot_be_written_says_nothing_of_the_patient(
    lines: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    lines.close()
    try:
        raise KeyError("DOE^JOHN")
    except KeyError:
        structlog.get_logger("dicom_node.x").error("sweep.failed")
    assert capfd.readouterr() == ("", "")

"""The receiving benchmark itself: it counts what is there, and refuses what it does not know."""

from __future__ import annotations

from typer.testing import CliRunner

from dicom_node.cli.main import app
from dicom_node.demo.receive_bench import measure_load


def test_every_instance_of_a_load_is_stored_once():
    report = measure_load("mr", 3, 4, tell=lambda _line: None)

    assert (report.stored, report.doubled, report.is_whole) == (12, 0, True)
    assert report.as_json()["answer_ms"]["99"] > 0
    assert report.runs.peak_mib > 10


def test_unknown_words_are_refused():
    for arguments in (["--kind", "pet"], ["--peers", "nobody"], ["--associations", "0"], ["--load", "5"]):
        assert CliRunner().invoke(app, ["bench", "receive", *arguments]).exit_code == 2

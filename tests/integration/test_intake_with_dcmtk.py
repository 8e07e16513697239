"""DCMTK as the scanner: what it sends is what is stored, and every refusal reaches it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from pynetdicom import build_context

from dicom_node.network.transport import RequestorEntity


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def storescu(dcmtk, scp, paths, *options):
    return dcmtk("storescu", "-aet", "SCANNER", "-aec", "ENHANCE", *options, *scp.address, *paths)


def test_echo_is_answered(start_node, dcmtk):
    answer = dcmtk("echoscu", "-aec", "ENHANCE", *start_node().address)

    assert answer.returncode == 0


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (("-aec", "OTHER"), "Called AE Title Not Recognized"),
        (("-aet", "OTHER"), "Calling AE Title Not Recognized"),
    ],
)
def test_unknown_titles_are_rejected_with_the_right_reason(start_node, dcmtk, option, reason):
    titles = {"-aet": "SCANNER", "-aec": "ENHANCE", **dict([option])}
    scp = start_node(accept_from=[{"ae_title": "SCANNER", "network": "127.0.0.0/8"}])

    answer = dcmtk("echoscu", *(part for pair in titles.items() for part in pair), *scp.address)

    assert answer.returncode != 0
    assert reason in answer.stdout + answer.stderr


def test_known_title_from_another_network_is_rejected(start_node, dcmtk):
    scp = start_node(accept_from=[{"ae_title": "SCANNER", "network": "10.0.0.0/8"}])

    answer = dcmtk("echoscu", "-aet", "SCANNER", "-aec", "ENHANCE", *scp.address)

    assert "Calling AE Title Not Recognized" in answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("syntax", "option"),
    [
        (ExplicitVRLittleEndian, "-xe"),
        (ImplicitVRLittleEndian, "-xi"),
        (ExplicitVRBigEndian, "-xb"),
        (DeflatedExplicitVRLittleEndian, "-xd"),
        (RLELossless, "-xr"),
        (JPEG2000Lossless, "-xv"),
    ],
)
def test_data_sets_are_kept_byte_for_byte_in_every_syntax(
    start_node, store, write_series, dcmtk, syntax, option
):
    paths = write_series(syntax=syntax)

    answer = storescu(dcmtk, start_node(), paths, option)

    (series,) = store.index.list_series()
    kept = {instance.sop_instance_uid: instance for instance in store.index.instances(series.id)}
    assert answer.returncode == 0, answer.stderr
    assert len(kept) == 12
    for path in paths:
        dataset = dcmread(path)
        instance = kept[dataset.SOPInstanceUID]
        assert instance.transfer_syntax_uid == syntax
        assert dcmread(instance.path) == dataset
        assert dcmread(instance.path).PixelData == dataset.PixelData


def test_released_association_leaves_a_closable_series(start_node, store, write_series, dcmtk):
    storescu(dcmtk, start_node(), write_series())

    assert wait_for(lambda: len(store.index.closable_series()) == 1)
    assert not store.index.list_series()[0].interrupted


def test_aborted_association_keeps_what_was_acknowledged_and_marks_the_series(
    start_node, store, write_series, dcmtk
):
    storescu(dcmtk, start_node(), write_series(), "--abort")

    assert wait_for(lambda: bool(store.index.closable_series()))
    (series,) = store.index.closable_series()
    assert series.interrupted
    assert series.instance_count == 12


def test_second_sending_changes_nothing(start_node, store, write_series, dcmtk):
    scp, paths = start_node(), write_series()
    storescu(dcmtk, scp, paths)
    before = store.index.list_series()[0]

    answer = storescu(dcmtk, scp, paths)

    after = store.index.list_series()[0]
    assert answer.returncode == 0
    assert (before.instance_count, before.generation) == (after.instance_count, after.generation) == (12, 1)


def test_association_limit_is_told_as_local_and_transient(start_node, store, dcmtk):
    scp = start_node(max_associations=1)

    contexts = [build_context("1.2.840.10008.1.1")]
    first = RequestorEntity(ae_title="SCANNER").associate(*scp.address, contexts=contexts, ae_title="ENHANCE")

    answer = dcmtk("echoscu", "-aec", "ENHANCE", *scp.address)
    first.release()

    assert "Local Limit Exceeded" in answer.stdout + answer.stderr


def test_nearly_full_disk_turns_associations_away_for_now(start_node, dcmtk):
    scp = start_node(watermarks={"soft": "0.00001 %", "hard": "0.00001 %"})

    answer = dcmtk("echoscu", "-aec", "ENHANCE", *scp.address)

    assert "Temporary Congestion" in answer.stdout + answer.stderr

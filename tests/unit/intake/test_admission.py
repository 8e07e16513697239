"""Who may call, and what an instance says it is."""

from __future__ import annotations

import struct
import zlib

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from config.sections import Caller
from dicom_node.errors import RefusedInstanceError
from dicom_node.intake.admission import Admission, identify
from dicom_node.network.received import AssociationRequest


def request(calling="SCANNER", host="10.0.0.7"):
    return AssociationRequest(calling, "ENHANCE", host)


def callers(*entries):
    return Admission(Caller.model_validate(entry) for entry in entries)


def test_empty_list_admits_every_calling_title():
    assert Admission(()).admits(request("ANYBODY"))


def test_listed_title_may_call_and_others_may_not():
    admission = callers("SCANNER")

    assert admission.admits(request("SCANNER"))
    assert not admission.admits(request("scanner"))
    assert not admission.admits(request("OTHER"))


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("10.0.0.7", True),
        ("10.0.1.7", False),
        ("::ffff:10.0.0.7", True),
        ("fe80::1", False),
        ("not an address", False),
    ],
)
def test_network_of_a_caller_is_checked(host, admitted):
    admission = callers({"ae_title": "SCANNER", "network": "10.0.0.0/24"})

    assert admission.admits(request(host=host)) is admitted


@pytest.mark.parametrize("title", ["", " X", "A\\B", "A\nB", "X" * 17, "\x1b[31m", "Ä"])
def test_malformed_title_never_may_call(title):
    assert not Admission(()).admits(request(title))


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_identity_is_read_in_every_encoding(make_dataset, encoded, make_received, syntax):
    nested = Dataset()
    nested.SOPInstanceUID, nested.StudyInstanceUID = "1.2.9.9", "1.2.9.8"
    dataset = make_dataset(
        ReferencedImageSequence=Sequence([nested]), RequestAttributesSequence=Sequence([nested])
    )

    identity = identify(make_received(encoded(dataset, syntax), syntax=syntax))

    assert (identity.study_instance_uid, identity.series_instance_uid) == ("1.2.826.0.2", "1.2.826.0.3")
    assert (identity.sop_instance_uid, identity.modality) == ("1.2.826.0.1.1", "CT")


def test_sequences_of_undefined_length_are_walked_over(make_dataset, encoded, make_received):
    inner, outer = Dataset(), Dataset()
    inner.SOPInstanceUID = "1.2.9.9"
    outer.ReferencedImageSequence = Sequence([inner])
    outer["ReferencedImageSequence"].is_undefined_length = True
    outer.ReferencedImageSequence[0].is_undefined_length_sequence_item = True
    dataset = make_dataset(SourceImageSequence=Sequence([outer]))
    dataset["SourceImageSequence"].is_undefined_length = True
    outer.is_undefined_length_sequence_item = True

    assert identify(make_received(encoded(dataset))).sop_instance_uid == "1.2.826.0.1.1"


def test_encapsulated_pixels_are_not_looked_into(make_dataset, encoded, make_received):
    dataset = make_dataset(PixelData=None)
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + b"anything at all"

    identity = identify(make_received(encoded(dataset) + pixels, syntax=JPEG2000Lossless))

    assert identity.series_instance_uid == "1.2.826.0.3"


@pytest.mark.parametrize(
    ("keyword", "tag"),
    [
        ("SOPClassUID", 0x00080016),
        ("SOPInstanceUID", 0x00080018),
        ("StudyInstanceUID", 0x0020000D),
        ("SeriesInstanceUID", 0x0020000E),
    ],
)
def test_missing_uid_is_refused_by_its_tag(make_dataset, encoded, make_received, keyword, tag):
    with pytest.raises(RefusedInstanceError) as caught:
        identify(make_received(encoded(make_dataset(**{keyword: None}))))

    assert (caught.value.status, caught.value.offending) == (0xA901, tag)


def with_series_uid(data, raw):
    raw += b"\x00" * (len(raw) % 2)
    old = struct.pack("<HH2sH", 0x0020, 0x000E, b"UI", 12) + b"1.2.826.0.3\x00"
    assert old in data
    return data.replace(old, struct.pack("<HH2sH", 0x0020, 0x000E, b"UI", len(raw)) + raw)


@pytest.mark.parametrize(
    "uid", ["", "1..2", ".1", "1.", "../../etc", "1.2.x", "1" * 65, "1.2\\1.3", "1.2 .3", "1\x002"]
)
def test_malformed_series_uid_is_refused(make_dataset, encoded, make_received, uid):
    data = with_series_uid(encoded(make_dataset()), uid.encode())

    with pytest.raises(RefusedInstanceError) as caught:
        identify(make_received(data))

    assert (caught.value.status, caught.value.offending) == (0xA901, 0x0020000E)


@pytest.mark.parametrize("uid", [b"1.2.826.0.1.10 ", b"1.2.826.0.1.010", b"1.2.826.0.1.1\x00\x00"])
def test_common_lenient_uids_are_taken(make_dataset, encoded, make_received, uid):
    data = with_series_uid(encoded(make_dataset()), uid)

    assert identify(make_received(data)).series_instance_uid == uid.decode().rstrip(" \x00")


@pytest.mark.parametrize(
    "announced", [{"sop_instance_uid": "1.2.3"}, {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}]
)
def test_other_instance_than_announced_is_refused(make_dataset, encoded, make_received, announced):
    with pytest.raises(RefusedInstanceError) as caught:
        identify(make_received(encoded(make_dataset()), **announced))

    assert caught.value.status == 0xA900


def test_modality_that_is_no_code_string_is_dropped(make_dataset, encoded, make_received):
    data = encoded(make_dataset(Modality="QQ")).replace(b"CS\x02\x00QQ", b"CS\x08\x00doe^jane")

    assert identify(make_received(data)).modality == ""


def cut(data):
    return data[:-1]


def long_length(data):
    return data[:-516] + struct.pack("<L", 0xFFFFFFF0) + data[-512:]


def twice(data):
    return data + struct.pack("<HH2sH", 0x0020, 0x000E, b"UI", 4) + b"1.2\x00"


def file_meta(data):
    return struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", 4) + b"1.2\x00" + data


def stray_item(data):
    return struct.pack("<HHL", 0xFFFE, 0xE000, 0) + data


def open_sequence(data):
    return struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + data


def bottomless(data):
    sequence = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    return (sequence + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 10_000 + data


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        long_length,
        twice,
        file_meta,
        stray_item,
        open_sequence,
        bottomless,
        lambda _data: b"\x00" * 40 + b"\xff" * 40,
    ],
)
def test_data_set_that_cannot_be_parsed_is_refused(make_dataset, encoded, make_received, spoil):
    with pytest.raises(RefusedInstanceError) as caught:
        identify(make_received(spoil(encoded(make_dataset()))))

    assert caught.value.status == 0xC000
    assert "CANARY" not in caught.value.message


def test_wrong_syntax_label_is_refused(make_dataset, encoded, make_received):
    data = encoded(make_dataset(), ImplicitVRLittleEndian)

    with pytest.raises(RefusedInstanceError) as caught:
        identify(make_received(data))

    assert caught.value.status == 0xC000


def test_empty_data_set_lacks_its_uids(make_received):
    with pytest.raises(RefusedInstanceError) as caught:
        identify(make_received(b""))

    assert caught.value.status == 0xA901


def deflate(data):
    stream = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def test_large_deflated_data_set_is_identified_by_its_head(make_dataset, encoded, make_received):
    data = deflate(encoded(make_dataset(PixelData=bytes(8 << 20))))

    identity = identify(make_received(data, syntax=DeflatedExplicitVRLittleEndian))

    assert identity.sop_instance_uid == "1.2.826.0.1.1"


def test_deflate_bomb_is_refused_for_want_of_resources(make_dataset, encoded, make_received):
    data = deflate(encoded(make_dataset()) + bytes(300 << 20))

    with pytest.raises(RefusedInstanceError) as caught:
        identify(make_received(data, syntax=DeflatedExplicitVRLittleEndian))

    assert len(data) < 1 << 20
    assert caught.value.status == 0xA700


@pytest.mark.parametrize("spoil", [cut, lambda _data: b"\xff\xff\xff\xff"])
def test_broken_deflate_stream_cannot_be_parsed(make_dataset, encoded, make_received, spoil):
    data = spoil(encoded(make_dataset(), DeflatedExplicitVRLittleEndian))

    with pytest.raises(RefusedInstanceError) as caught:
        identify(make_received(data[:-2], syntax=DeflatedExplicitVRLittleEndian))

    assert caught.value.status == 0xC000

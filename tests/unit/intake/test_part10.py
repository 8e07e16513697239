"""What is written in front of a data set."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.intake.part10 import part10_header
from dicom_node.network.presentation import IMPLEMENTATION_CLASS_UID


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_head_and_data_set_make_a_dicom_file(make_dataset, encoded, make_received, syntax):
    dataset = make_dataset()
    received = make_received(encoded(dataset, syntax), syntax=syntax)

    read = dcmread(BytesIO(part10_header(received) + received.data))

    assert read == dataset
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert read.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert read.file_meta.SourceApplicationEntityTitle == "SCANNER"


def test_group_length_counts_the_rest_of_the_group(make_dataset, encoded, make_received):
    head = part10_header(make_received(encoded(make_dataset())))

    assert len(head) == 144 + int.from_bytes(head[140:144], "little")
    assert len(head) % 2 == 0

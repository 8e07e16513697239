"""The tables of answers."""

from __future__ import annotations

import pytest

from dicom_node.network.status import Rejection, Status, describe_rejection


def test_statuses_are_those_of_the_standard():
    table = {status.name: f"{status:04X}" for status in Status}

    assert table == {
        "SUCCESS": "0000",
        "PROCESSING_FAILURE": "0110",
        "INVALID_INSTANCE": "0117",
        "UNRECOGNIZED_OPERATION": "0211",
        "SOP_CLASS_NOT_SUPPORTED": "0122",
        "NOT_AUTHORIZED": "0124",
        "OUT_OF_RESOURCES": "A700",
        "DATA_SET_MISMATCH": "A900",
        "REQUIRED_UID": "A901",
        "CANNOT_UNDERSTAND": "C000",
        "INTERNAL_ERROR": "C001",
    }


@pytest.mark.parametrize(
    ("triple", "text"),
    [
        (
            Rejection.CALLING_AE_UNKNOWN.value,
            "Rejected permanently: calling AE title not recognized (1/1/3).",
        ),
        (Rejection.LOCAL_LIMIT.value, "Rejected for now: local limit exceeded (2/3/2)."),
        ((2, 9, 9), "Rejected for now: reason not in the standard (2/9/9)."),
    ],
)
def test_rejection_is_told_in_words(triple, text):
    assert describe_rejection(*triple) == text

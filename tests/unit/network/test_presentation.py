"""Contexts: what is accepted in which order, what is proposed."""

from __future__ import annotations

import pytest
from pydicom.uid import CTImageStorage, JPEG2000Lossless, JPEGBaseline8Bit, MRImageStorage

from dicom_node.imaging import uids
from dicom_node.network.presentation import (
    EXPLICIT_LE,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_LE,
    accepted_contexts,
    proposed_contexts,
    storage_transfer_syntaxes,
)

DEFLATED = "1.2.840.10008.1.2.1.99"


def test_order_puts_explicit_first_lossless_before_implicit_and_lossy_last():
    order = storage_transfer_syntaxes()

    assert order[0] == EXPLICIT_LE
    assert order.index(JPEG2000Lossless) < order.index(IMPLICIT_LE) < order.index(DEFLATED)
    assert order.index(DEFLATED) < order.index(JPEGBaseline8Bit) == len(order) - 1


def test_every_syntax_that_can_be_decoded_here_is_accepted():
    assert len(storage_transfer_syntaxes()) == 16


def test_verification_ct_mr_and_secondary_capture_are_accepted_and_pet_is_not():
    classes = [context.sop_class_uid for context in accepted_contexts()]

    secondary_capture, pet = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.128"
    assert {"1.2.840.10008.1.1", CTImageStorage, MRImageStorage, secondary_capture} <= set(classes)
    assert pet not in classes


def test_explicit_is_proposed_with_implicit_and_only_for_classes_needed():
    contexts = proposed_contexts([(CTImageStorage, EXPLICIT_LE)] * 3)

    assert contexts == ((CTImageStorage, (EXPLICIT_LE,)), (CTImageStorage, (IMPLICIT_LE,)))


def test_other_syntaxes_get_a_context_of_their_own():
    contexts = proposed_contexts([(CTImageStorage, JPEG2000Lossless), (CTImageStorage, IMPLICIT_LE)])

    assert contexts == ((CTImageStorage, (JPEG2000Lossless,)), (CTImageStorage, (IMPLICIT_LE,)))


def test_more_contexts_than_there_are_ids_are_refused():
    with pytest.raises(ValueError, match="258"):
        proposed_contexts((f"1.2.{number}", EXPLICIT_LE) for number in range(129))


def test_implementation_names_fit_their_value_representations():
    assert len(IMPLEMENTATION_CLASS_UID) <= 64
    assert len(IMPLEMENTATION_VERSION_NAME) <= 16


def test_node_has_one_implementation_name_on_the_wire_and_in_its_objects():
    assert (uids.IMPLEMENTATION_CLASS_UID, uids.IMPLEMENTATION_VERSION_NAME) == (
        IMPLEMENTATION_CLASS_UID,
        IMPLEMENTATION_VERSION_NAME,
    )

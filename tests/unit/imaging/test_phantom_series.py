"""The scanner that does not exist makes valid objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.imaging.headers import read_header
from dicom_node.imaging.verify_tools import validator_messages

Write = Callable[..., list[Path]]


@pytest.mark.usefixtures("dciodvfy")
def test_a_phantom_ct_series_draws_no_message_of_the_validator(write_ct: Write) -> None:
    assert {message for path in write_ct()[::5] for message in validator_messages(path)} == set()


@pytest.mark.usefixtures("dciodvfy")
def test_a_phantom_mr_series_draws_no_message_of_the_validator(write_mr: Write) -> None:
    assert {message for path in write_mr()[::5] for message in validator_messages(path)} == set()


def test_the_same_volume_gives_the_same_bytes(write_ct: Write) -> None:
    first, again = write_ct("one"), write_ct("two")

    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]


def test_another_style_gives_other_uids_in_the_same_study(write_ct: Write) -> None:
    one, two = (read_header(write_ct(str(n), series_number=n)[0]) for n in (2, 3))

    assert one.study_instance_uid == two.study_instance_uid
    assert one.series_instance_uid != two.series_instance_uid
    assert one.sop_instance_uid != two.sop_instance_uid

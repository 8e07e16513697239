"""UIDs of derived objects."""

from __future__ import annotations

import pytest

from dicom_node.imaging.uids import IMPLEMENTATION_CLASS_UID, UidPlan, is_valid_uid


def test_one_job_always_plans_the_same_uids() -> None:
    first, again = UidPlan("job-1"), UidPlan("job-1")

    assert first.series_uid == again.series_uid
    assert first.instance_uid("1.2.3") == again.instance_uid("1.2.3")


def test_another_job_plans_other_uids() -> None:
    first, other = UidPlan("job-1"), UidPlan("job-2")

    assert first.series_uid != other.series_uid
    assert first.instance_uid("1.2.3") != other.instance_uid("1.2.3")


def test_every_source_gets_a_uid_of_its_own() -> None:
    plan = UidPlan("job-1")

    planned = {plan.instance_uid(f"1.2.{i}") for i in range(1000)} | {plan.series_uid}

    assert len(planned) == 1001


@pytest.mark.parametrize("root", [None, "1.2.3", "1.2.840.113619.999999.123456789012345"])
def test_planned_uids_are_valid_and_stand_under_the_root(root: str | None) -> None:
    plan = UidPlan("job-1", root)

    uid = plan.instance_uid("1.2.3")

    assert is_valid_uid(uid)
    assert uid.startswith("2.25." if root is None else f"{root}.")


@pytest.mark.parametrize("root", ["", "1", "1.02", "abc", "1.2.", "1." + "2" * 60])
def test_an_unusable_root_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match="root"):
        UidPlan("job-1", root)


@pytest.mark.parametrize("uid", ["", "1", "1..2", "1.02", "1.2 ", "1." + "3" * 63, "1.2a"])
def test_malformed_uids_are_recognised(uid: str) -> None:
    assert not is_valid_uid(uid)


def test_the_implementation_names_itself_with_a_valid_uid() -> None:
    assert is_valid_uid(IMPLEMENTATION_CLASS_UID)

"""The loop guard asks the database and the UID root, whatever an archive rewrote on the way."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace

import pytest

from dicom_node.imaging.uids import UidPlan
from dicom_node.intake.own_output import is_own_output

ROOT = "1.2.826.0.1.99"


class Made:
    """What the database would say that it made."""

    def __init__(self, series: str = "", instances: Collection[str] = ()) -> None:
        self._series, self._instances = series, set(instances)

    def derived_series_known(self, uid: str) -> bool:
        return uid == self._series

    def derived_instances_known(self, uids: Collection[str]) -> bool:
        return bool(self._instances & set(uids))


def asked(made, *, series="1.2.3", instances=("1.2.3.1", "1.2.3.2"), root=None):
    copies = [SimpleNamespace(sop_instance_uid=uid) for uid in instances]
    return is_own_output(made, SimpleNamespace(series_instance_uid=series), copies, uid_root=root)


@pytest.mark.parametrize(
    ("made", "ours"),
    [(Made(), False), (Made(series="1.2.3"), True), (Made(instances=["1.2.3.2"]), True)],
)
def test_a_series_or_one_instance_that_we_made_is_enough(made, ours):
    assert asked(made) is ours


def test_our_uids_below_our_root_are_known_without_the_database():
    plan = UidPlan("job", root=ROOT)

    assert asked(Made(), series=plan.series_uid, root=ROOT)
    assert asked(Made(), instances=[plan.instance_uid("1.2.3")], root=ROOT)


@pytest.mark.parametrize("uid", [f"{ROOT}.1.2.3", f"{ROOT}.20260102", f"{ROOT}1.{10**38}", "2.25.1"])
def test_other_uids_below_a_shared_root_are_not_ours(uid):
    assert not asked(Made(), series=uid, root=ROOT)

"""The loop guard: our own derived series, come back from an archive that sends on what it gets.

Three signs, each enough: our database made the series or an instance of it; the UIDs stand below the root
that only we hand out from; the objects name us as their equipment (`imaging.identity`, asked with the other
rules). Whatever an archive rewrites on the way, one of them is likely to be left.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from storage.index import Index
from storage.records import InstanceRecord, SeriesRecord

_OWN_NUMBER = re.compile(r"[1-9][0-9]{19,}")  # what `imaging.uids.UidPlan` puts below a root


def is_own_output(
    index: Index, series: SeriesRecord, instances: Collection[InstanceRecord], *, uid_root: str | None
) -> bool:
    """Whether a received series, or any instance of it, was made by this node."""
    uids = {copy.sop_instance_uid for copy in instances}
    if index.derived_series_known(series.series_instance_uid) or index.derived_instances_known(uids):
        return True
    return uid_root is not None and any(
        _is_below(uid, uid_root) for uid in (series.series_instance_uid, *uids)
    )


def _is_below(uid: str, root: str) -> bool:
    """Whether the UID is the root and one long number, which is how ours look."""
    return uid.startswith(f"{root}.") and _OWN_NUMBER.fullmatch(uid[len(root) + 1 :]) is not None

"""Storage commitment as a service of this node: whether a peer may ask it to keep what it sent (PS3.4 Annex J).

Left out, nothing is promised: a node that deletes what it has delivered is no archive. The list in a request
also says what the peer believes to have sent, which is the strongest proof that a series is complete.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from config.names import AETitle, Host, Port
from config.quantities import DurationBetween

_Patience = Annotated[timedelta, DurationBetween(at_least=timedelta(0), at_most=timedelta(hours=1))]
_Promise = Annotated[timedelta, DurationBetween(at_least=timedelta(hours=1), at_most=timedelta(days=36_500))]
_Longest = Annotated[timedelta, DurationBetween(at_least=timedelta(minutes=1), at_most=timedelta(days=30))]


class PeerSafekeeping(BaseModel):
    """What a peer may ask. Without `ae_title`, `host` and `port` the report goes where the peer is sent to.

    keep_for        how long retention leaves alone what was promised; for good when None
    wait_for        how long images that have not arrived are waited for before the report says so
    report_within   how long the report is tried
    most_instances  in one request; the largest message that is taken holds about so many
    most_open       requests that are not answered yet
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: AETitle | None = None
    host: Host | None = None
    port: Port | None = None
    keep_for: _Promise | None = None
    wait_for: _Patience = timedelta(seconds=30)
    report_within: _Longest = timedelta(days=1)
    most_instances: Annotated[int, Field(strict=True, ge=1, le=6000)] = 5000
    most_open: Annotated[int, Field(strict=True, ge=1, le=1000)] = 20

"""Storage commitment as the operator writes it: whether a peer is asked to keep what it has taken, and how patiently.

PS3.4 Annex J, Push Model, with this node as the requestor.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from config.names import AETitle, Host, Port
from config.quantities import DurationBetween

_Linger = Annotated[timedelta, DurationBetween(at_least=timedelta(0), at_most=timedelta(minutes=5))]
_Answer = Annotated[timedelta, DurationBetween(at_least=timedelta(seconds=1), at_most=timedelta(days=7))]


class PeerCommitment(BaseModel):
    """How one peer is asked. Without `ae_title`, `host` and `port` it is asked where it is sent to.

    answer_within  for the report; then it is asked again
    asks           in vain, before the delivery counts as not committed
    resends        of instances that the peer says it does not have
    linger         how long the association stays open for a report on it
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: AETitle | None = None
    host: Host | None = None
    port: Port | None = None
    answer_within: _Answer = timedelta(hours=1)
    asks: Annotated[int, Field(strict=True, ge=1, le=50)] = 3
    resends: Annotated[int, Field(strict=True, ge=0, le=10)] = 2
    linger: _Linger = timedelta(seconds=5)

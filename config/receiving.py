"""What the receiver puts up with from its senders, and how many processes it is spread over."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from config.quantities import DurationBetween, SizeBetween

_ZERO = timedelta(0)
Wait = Annotated[timedelta, DurationBetween(more_than=_ZERO, at_most=timedelta(hours=1))]
Lifetime = Annotated[timedelta, DurationBetween(more_than=_ZERO, at_most=timedelta(days=7))]
ObjectSize = Annotated[int, SizeBetween(at_least=1024, at_most=2**40)]
# Bytes in one second; below 1 kB a slice of a CT takes nine minutes.
Rate = Annotated[int, SizeBetween(at_least=1000, at_most=10**12)]


class ReceivingSection(BaseModel):
    """Limits for connections, associations and objects.

    first_pdu            from the connection to the end of the association request, TLS included
    pdu                  from the first to the last byte of one PDU
    message              for one object, or the time it takes at slowest_rate, whichever is longer
    longest_association  after which an association ends between two objects
    max_waiting          connections that have not asked for an association yet
    max_per_ae           associations of one calling AE title
    max_per_host         connections from one address
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    processes: Annotated[int, Field(strict=True, ge=1, le=64)] | Literal["auto"] = "auto"
    first_pdu: Wait = timedelta(seconds=10)
    pdu: Wait = timedelta(seconds=30)
    message: Wait = timedelta(seconds=60)
    slowest_rate: Rate = 64_000
    longest_association: Lifetime = timedelta(hours=4)
    max_waiting: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 25
    max_per_ae: Annotated[int, Field(strict=True, ge=1, le=1000)] = 10
    max_per_host: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 20
    largest_object: ObjectSize = 2**30

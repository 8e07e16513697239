"""The answers the node gives: C-STORE statuses and association rejections, as tables.

C-STORE (PS3.4 Table B.2-1, PS3.7 Annex C). A status says whether the node holds the object, never
whether it could be enhanced.

    condition                                       status
    stored durably, or an identical resend          0000
    no space, or not durable                        A700
    data set names another class or instance        A900
    a required UID is missing or malformed          A901 with Offending Element
    data set cannot be parsed                       C000
    internal error                                  C001
    command is not what PS3.7 9.3 asks for          0110
    SOP Instance UID of the command is malformed    0117
    SOP class is not that of the context            0122
    calling AE may not store                        0124
    no such operation here                          0211
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class Status(IntEnum):
    """C-STORE response statuses the Storage SCP uses."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    INVALID_INSTANCE = 0x0117
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    UNRECOGNIZED_OPERATION = 0x0211
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    REQUIRED_UID = 0xA901
    CANNOT_UNDERSTAND = 0xC000
    INTERNAL_ERROR = 0xC001


@dataclass(frozen=True)
class StoreResponse:
    """The answer to one C-STORE request.

    `offending` is the tag of the element at fault (0000,0901); `comment` goes out as Error Comment
    (0000,0902), so it holds a reason code and nothing from the data set.
    """

    status: int
    offending: int | None = None
    comment: str = ""


STORED = StoreResponse(Status.SUCCESS)


class Rejection(Enum):
    """Association rejections the SCP uses: (result, source, reason) of A-ASSOCIATE-RJ, PS3.8 Table 9-21."""

    APPLICATION_CONTEXT = (1, 1, 2)
    CALLING_AE_UNKNOWN = (1, 1, 3)
    CALLED_AE_UNKNOWN = (1, 1, 7)
    VERSION_NOT_SUPPORTED = (1, 2, 2)
    TEMPORARY_CONGESTION = (2, 3, 1)
    LOCAL_LIMIT = (2, 3, 2)


class Ending(Enum):
    """How an association ended; every one but RELEASED leaves its series marked as interrupted."""

    RELEASED = "released"
    ABORTED = "aborted"
    LOST = "lost"


_REJECTION_TEXTS: dict[tuple[int, int], str] = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


def describe_rejection(result: int, source: int, reason: int) -> str:
    """Sentence for an A-ASSOCIATE-RJ received from a peer (PS3.8 Table 9-21)."""
    kind = "permanently" if result == 1 else "for now"
    text = _REJECTION_TEXTS.get((source, reason), "reason not in the standard")
    return f"Rejected {kind}: {text} ({result}/{source}/{reason})."

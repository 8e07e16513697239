"""Who may call, and what an instance says it is: decided before a byte is kept.

Nothing here decodes a data set. The identity of an instance is five values taken from the encoded bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from pydicom.uid import UID

from config.sections import Caller
from dicom_node.errors import Reason, RefusedInstanceError
from dicom_node.intake.element_scan import Encoding, MalformedDataSetError, scan_elements
from dicom_node.intake.inflate import InflateError, TooLargeError, inflate_head
from dicom_node.network.received import AssociationRequest, ReceivedInstance
from dicom_node.network.status import Status

SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018
MODALITY: Final = 0x00080060
STUDY_INSTANCE_UID: Final = 0x0020000D
SERIES_INSTANCE_UID: Final = 0x0020000E
_WANTED: Final = frozenset(
    {SOP_CLASS_UID, SOP_INSTANCE_UID, MODALITY, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID}
)

# Components with a leading zero are against PS3.5 9.1 and common; they are taken as they come.
_UID: Final = re.compile(rb"[0-9]+(\.[0-9]+)*")
_MODALITY: Final = re.compile(rb"[A-Z0-9_]{1,16}")
_AE_TITLE: Final = re.compile(r"[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]{0,15}")


class Admission:
    """The list of callers. An empty list admits every calling AE (the configuration allows that on loopback only)."""

    def __init__(self, callers: Iterable[Caller]) -> None:
        self._callers = tuple(callers)

    def admits(self, request: AssociationRequest) -> bool:
        """Say whether this AE title may call from this address. A malformed title never may (PS3.5 6.2, AE)."""
        if not _AE_TITLE.fullmatch(request.calling_ae):
            return False
        if not self._callers:
            return True
        address = _address(request.peer_host)
        return any(
            caller.ae_title == request.calling_ae
            and (caller.network is None or (address is not None and address in caller.network))
            for caller in self._callers
        )


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The peer's address; IPv4 in its plain form even when the socket is IPv6."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@dataclass(frozen=True)
class Identity:
    """Where an instance belongs. UIDs without padding; `modality` is empty when missing or not a code string."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    modality: str


def identify(received: ReceivedInstance) -> Identity:
    """Read the identity of an instance from its encoded data set.

    Raises `RefusedInstanceError` with the status to answer (PS3.4 Table B.2-1): C000 when the data set
    cannot be parsed, A901 when a UID is missing or malformed, A900 when it is not the instance that the
    command announced, A700 when it inflates to more than is accepted.
    """
    values = _read(received)
    sop_class = _uid(values, SOP_CLASS_UID)
    sop_instance = _uid(values, SOP_INSTANCE_UID)
    _same(sop_class, received.sop_class_uid, SOP_CLASS_UID)
    _same(sop_instance, received.sop_instance_uid, SOP_INSTANCE_UID)
    modality = values.get(MODALITY, b"").strip(b" \x00")
    return Identity(
        study_instance_uid=_uid(values, STUDY_INSTANCE_UID),
        series_instance_uid=_uid(values, SERIES_INSTANCE_UID),
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        modality=modality.decode("ascii") if _MODALITY.fullmatch(modality) else "",
    )


def _read(received: ReceivedInstance) -> dict[int, bytes]:
    """The raw values, whatever the transfer syntax."""
    syntax = UID(received.transfer_syntax_uid)
    data, complete = received.data, True
    try:
        if syntax.is_deflated:
            head, complete = inflate_head(received.data)
            data = memoryview(head)
        encoding = Encoding(explicit=not syntax.is_implicit_VR, big_endian=not syntax.is_little_endian)
        return scan_elements(data, encoding, _WANTED, complete=complete)
    except (MalformedDataSetError, InflateError) as exc:
        raise RefusedInstanceError(Status.CANNOT_UNDERSTAND, Reason.CANNOT_UNDERSTAND, f"({exc})") from exc
    except TooLargeError as exc:
        raise RefusedInstanceError(Status.OUT_OF_RESOURCES, Reason.TOO_LARGE, f"(It {exc}.)") from exc


def _uid(values: dict[int, bytes], tag: int) -> str:
    """One required UID, or the refusal that names its tag."""
    value = values.get(tag, b"").rstrip(b" \x00")
    if len(value) > 64 or not _UID.fullmatch(value):
        kind = "malformed" if value else "missing"
        detail = f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is {kind}."
        raise RefusedInstanceError(Status.REQUIRED_UID, Reason.BAD_UID, detail, offending=tag)
    return value.decode("ascii")


def _same(found: str, announced: str, tag: int) -> None:
    """The data set has to be the instance that the command announced."""
    if found != announced.rstrip(" \x00"):
        raise RefusedInstanceError(Status.DATA_SET_MISMATCH, Reason.UID_MISMATCH, offending=tag)

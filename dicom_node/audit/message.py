"""One audit message and its XML, in the order and with the names of the schema in PS3.15 A.5.1."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from xml.etree.ElementTree import Element, SubElement, tostring

from dicom_node.audit.codes import Action, Code, LifeCycle, ObjectRole, ObjectType, Outcome

# RFC 5425 4.3.1 and PS3.15 A.6 ask receivers for at least this much; ours never grow so far.
LONGEST_MESSAGE = 32 * 1024
_APPLICATION_SERVER = "4"  # AuditSourceTypeCode: application server process tier


@dataclass(frozen=True)
class Participant:
    """Who took part: a person, or a process at one end of an association."""

    user_id: str
    requestor: bool
    role: Code | None = None
    alternative_id: str | None = None
    host: str | None = None
    media: Code | None = None


@dataclass(frozen=True)
class SubjectObject:
    """What it was about. `instances`: how many of each SOP class; `details`: facts by name."""

    object_id: str
    id_type: Code
    type: ObjectType = ObjectType.SYSTEM
    role: ObjectRole | None = None
    life_cycle: LifeCycle | None = None
    name: str | None = None
    instances: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Who reports: AuditSourceID and, if there are several sites, AuditEnterpriseSiteID."""

    source_id: str
    enterprise_site: str | None = None


@dataclass(frozen=True)
class AuditMessage:
    """One event as PS3.15 A.5 tells it."""

    event: Code
    action: Action
    at: datetime
    participants: tuple[Participant, ...]
    outcome: Outcome = Outcome.SUCCESS
    outcome_description: str | None = None
    event_type: Code | None = None
    objects: tuple[SubjectObject, ...] = ()


def to_xml(message: AuditMessage, source: Source) -> str:
    """The message as XML without a declaration (it travels inside of a syslog message in UTF-8)."""
    root = Element("AuditMessage")
    _add_event(root, message)
    for participant in message.participants:
        _add_participant(root, participant)
    _add_source(root, source)
    for subject in message.objects:
        _add_object(root, subject)
    return tostring(root, encoding="unicode")


def xml_text(value: str) -> str:
    """Text from outside with every character that XML 1.0 does not know replaced by a question mark."""
    return "".join(char if _allowed(char) else "?" for char in value)


def _allowed(char: str) -> bool:
    """XML 1.0 2.2, Char, without line breaks: one message is one line."""
    return " " <= char <= "\ud7ff" or "\ue000" <= char <= "\ufffd" or char >= "\U00010000"


def _add_event(root: Element, message: AuditMessage) -> None:
    at = message.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    identification = SubElement(
        root,
        "EventIdentification",
        {
            "EventActionCode": message.action,
            "EventDateTime": at,
            "EventOutcomeIndicator": str(int(message.outcome)),
        },
    )
    _add_code(identification, "EventID", message.event)
    if message.event_type is not None:
        _add_code(identification, "EventTypeCode", message.event_type)
    if message.outcome_description:
        SubElement(identification, "EventOutcomeDescription").text = xml_text(message.outcome_description)


def _add_participant(root: Element, participant: Participant) -> None:
    attributes = {
        "UserID": xml_text(participant.user_id),
        "UserIsRequestor": "true" if participant.requestor else "false",
    }
    if participant.alternative_id:
        attributes["AlternativeUserID"] = xml_text(participant.alternative_id)
    if participant.host:
        attributes["NetworkAccessPointID"] = xml_text(participant.host)
        attributes["NetworkAccessPointTypeCode"] = _access_point_type(participant.host)
    element = SubElement(root, "ActiveParticipant", attributes)
    if participant.role is not None:
        _add_code(element, "RoleIDCode", participant.role)
    if participant.media is not None:
        _add_code(SubElement(element, "MediaIdentifier"), "MediaType", participant.media)


def _access_point_type(host: str) -> str:
    """NetworkAccessPointTypeCode: 2 for an address, 1 for a name."""
    try:
        ip_address(host)
    except ValueError:
        return "1"
    return "2"


def _add_source(root: Element, source: Source) -> None:
    attributes = {"AuditSourceID": xml_text(source.source_id)}
    if source.enterprise_site:
        attributes["AuditEnterpriseSiteID"] = xml_text(source.enterprise_site)
    element = SubElement(root, "AuditSourceIdentification", attributes)
    SubElement(element, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})


def _add_object(root: Element, subject: SubjectObject) -> None:
    attributes = {
        "ParticipantObjectID": xml_text(subject.object_id),
        "ParticipantObjectTypeCode": str(subject.type),
    }
    if subject.role is not None:
        attributes["ParticipantObjectTypeCodeRole"] = str(subject.role)
    if subject.life_cycle is not None:
        attributes["ParticipantObjectDataLifeCycle"] = str(subject.life_cycle)
    element = SubElement(root, "ParticipantObjectIdentification", attributes)
    _add_code(element, "ParticipantObjectIDTypeCode", subject.id_type)
    SubElement(element, "ParticipantObjectName").text = xml_text(subject.name or subject.object_id)
    for kind, value in subject.details.items():
        encoded = base64.b64encode(value.encode()).decode("ascii")
        SubElement(element, "ParticipantObjectDetail", {"type": kind, "value": encoded})
    if subject.instances:
        description = SubElement(element, "ParticipantObjectDescription")
        for sop_class, count in sorted(subject.instances.items()):
            SubElement(description, "SOPClass", {"UID": sop_class, "NumberOfInstances": str(count)})


def _add_code(parent: Element, name: str, code: Code) -> None:
    SubElement(
        parent,
        name,
        {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning},
    )

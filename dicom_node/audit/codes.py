"""The coded terms of audit messages: PS3.16 CID 400 to 405, PS3.15 A.5.1.2 and A.5.3."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


@dataclass(frozen=True)
class Code:
    """A coded value; `scheme` DCM unless it is one of RFC 3881."""

    value: str
    meaning: str
    scheme: str = "DCM"


# Audit Event ID (CID 400).
APPLICATION_ACTIVITY = Code("110100", "Application Activity")
AUDIT_LOG_USED = Code("110101", "Audit Log Used")
BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
STUDY_DELETED = Code("110105", "DICOM Study Deleted")
EXPORT = Code("110106", "Export")
SECURITY_ALERT = Code("110113", "Security Alert")
USER_AUTHENTICATION = Code("110114", "User Authentication")

# Audit Event Type Code (CID 401).
APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
LOGIN = Code("110122", "Login")
LOGOUT = Code("110123", "Logout")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")
SOFTWARE_CONFIGURATION = Code("110131", "Software Configuration")
RESTRICTED_FUNCTION = Code("110132", "Use of Restricted Function")
USER_SECURITY_CHANGED = Code("110137", "User Security Attributes Changed")

# Audit Active Participant Role ID Code (CID 402).
APPLICATION = Code("110150", "Application")
APPLICATION_LAUNCHER = Code("110151", "Application Launcher")
DESTINATION_ROLE = Code("110152", "Destination Role ID")
SOURCE_ROLE = Code("110153", "Source Role ID")
DESTINATION_MEDIA = Code("110154", "Destination Media")

# Participant Object ID Type Code (CID 404 and RFC 3881 5.5.4).
STUDY_UID = Code("110180", "Study Instance UID")
NODE_ID = Code("110182", "Node ID")
URI = Code("12", "URI", "RFC-3881")


class Action(StrEnum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(IntEnum):
    """EventOutcomeIndicator."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


class ObjectType(StrEnum):
    """ParticipantObjectTypeCode."""

    PERSON = "1"
    SYSTEM = "2"


class ObjectRole(StrEnum):
    """ParticipantObjectTypeCodeRole, those in use."""

    REPORT = "3"
    SECURITY_RESOURCE = "13"


class LifeCycle(StrEnum):
    """ParticipantObjectDataLifeCycle, those in use."""

    IMPORT = "2"
    ACCESS = "6"
    DERIVATION = "8"
    EXPORT = "10"
    ERASURE = "15"

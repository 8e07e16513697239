"""Why the node did not do something: reason codes with a sentence each, and the errors that carry them.

NodeError
├── CannotListenError           the configured address and port cannot be bound
└── ReasonedError               a `Reason` and a detail that is safe to log (UIDs and numbers, no patient data)
    ├── RefusedInstanceError    an instance is not kept; carries the DIMSE status (PS3.4 B.2.3, PS3.7 C)
    ├── UnreadableInstanceError a stored instance cannot be parsed
    ├── SkipSeriesError         the series is left alone, and that is the right outcome
    ├── HoldSeriesError         a person has to look at the series
    ├── DeriveError             the derived series could not be written or failed its own check
    └── PeerError               the other side of an association
        ├── PeerUnreachableError        no TCP connection
        ├── AssociationRejectedError    rejected or aborted before the first instance (`permanent` or not)
        └── AssociationLostError        aborted, closed or silent in the middle
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Every outcome other than plain success, as the job log and `series show` name it."""

    sentence: str

    def __new__(cls, code: str, sentence: str) -> Reason:
        """Make a member from its code and its sentence."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member

    @classmethod
    def named(cls, code: str) -> Reason:
        """The member of that code; raises KeyError for an unknown one."""
        return cls.__members__[code]

    # --- routing
    NO_ROUTE = "NO_ROUTE", "No route matches this series."
    ROUTE_IGNORES = "ROUTE_IGNORES", "The first matching route says to ignore this series."
    # --- left alone
    LOCALIZER = "LOCALIZER", "A localizer (scout) is never enhanced."
    SECONDARY_CAPTURE = "SECONDARY_CAPTURE", "Secondary captures and colour images are not enhanced."
    NOT_SOURCE_IMAGE = (
        "NOT_SOURCE_IMAGE",
        "The images are computed from others (map, projection or reformat).",
    )
    ALREADY_PROCESSED = "ALREADY_PROCESSED", "The series was derived by an enhancement node already."
    MULTI_FRAME = "MULTI_FRAME", "This multi-frame object cannot be taken apart into frames."
    SEVERAL_VOLUMES = "SEVERAL_VOLUMES", "The series holds several volumes (echo, phase, b-value or time)."
    GANTRY_TILT = "GANTRY_TILT", "The gantry was tilted: the slices are sheared against each other."
    IRREGULAR_SPACING = "IRREGULAR_SPACING", "The distance between slices changes within the series."
    MIXED_GEOMETRY = "MIXED_GEOMETRY", "Matrix size, pixel spacing or orientation differ within the series."
    SHORT_RUN = "SHORT_RUN", "Too few slices at equal distance lie beside each other here."
    BLOCKS = "BLOCKS", "The series is several blocks of slices; each was taken as a volume of its own."
    GAP = "GAP", "Slices are missing; what lies on either side was taken as a volume of its own."
    ORIENTATION_JITTER = "ORIENTATION_JITTER", "The orientation of the slices differs in its last digits."
    NO_FRAME_OF_REFERENCE = (
        "NO_FRAME_OF_REFERENCE",
        "The source names no frame of reference; none was invented.",
    )
    TOO_FEW_SLICES = "TOO_FEW_SLICES", "The series has fewer slices than the enhancement needs."
    NO_GEOMETRY = "NO_GEOMETRY", "Position, orientation or pixel spacing is missing or not usable."
    UNSUPPORTED_SOP_CLASS = "UNSUPPORTED_SOP_CLASS", "Objects of this SOP class are kept but not enhanced."
    UNSUPPORTED_PIXELS = "UNSUPPORTED_PIXELS", "The pixel format is not 16-bit single-sample greyscale."
    UNVALIDATED_CONTRAST = "UNVALIDATED_CONTRAST", "This kind of contrast has not been validated."
    MOSAIC = "MOSAIC", "Siemens mosaic images are not enhanced."
    LOSSY_INPUT = "LOSSY_INPUT", "The images were compressed with loss, and the route does not allow that."
    BURNED_IN = "BURNED_IN", "The images carry burned-in annotation, which the enhancement would alter."
    BAD_RESCALE = "BAD_RESCALE", "Rescale slope or intercept is missing, zero or not a number."
    TOO_LARGE = "TOO_LARGE", "The series is larger than the configured limit."
    # --- said of what accompanies a derived series
    NO_UNCERTAINTY = "NO_UNCERTAINTY", "The enhancer estimates no uncertainty, so there is no map of it."
    COMPANION_FAILED = (
        "COMPANION_FAILED",
        "An accompanying object could not be made of this source; the derived series goes without it.",
    )
    # --- held for a person
    MISSING_SLICE = "MISSING_SLICE", "At least one slice is missing; nothing is sent until it arrives."
    LISTED_MISSING = (
        "LISTED_MISSING",
        "The sender has listed instances that have not arrived; nothing is sent until they do.",
    )
    DUPLICATE_POSITION = (
        "DUPLICATE_POSITION",
        "Two slices claim the same position and nothing tells them apart.",
    )
    UID_CONFLICT = "UID_CONFLICT", "One SOP Instance UID arrived with different contents; both were kept."
    PATIENT_MISMATCH = "PATIENT_MISMATCH", "The instances of the series name different patients."
    MIXED_IDENTITY = (
        "MIXED_IDENTITY",
        "The instances of the series disagree on study, device or frame of reference.",
    )
    INTERRUPTED = (
        "INTERRUPTED",
        "The sender broke off and has not come back, and nothing proves that the series is complete.",
    )
    LATE_INSTANCE = "LATE_INSTANCE", "An instance arrived after the series had been enhanced."
    UNPROVEN = "UNPROVEN", "The route asks for a stronger proof that the series is complete."
    OPEN_TOO_LONG = "OPEN_TOO_LONG", "The series stayed open longer than allowed."
    UNREADABLE = "UNREADABLE", "A stored instance cannot be parsed."
    # --- jobs
    DECODE_ERROR = "DECODE_ERROR", "The pixel data of a slice cannot be decoded."
    ENGINE_REFUSED = "ENGINE_REFUSED", "The enhancer cannot take this volume."
    OUT_OF_RANGE = "OUT_OF_RANGE", "The scan is outside the range the enhancement was made for."
    UNSAFE_OUTPUT = "UNSAFE_OUTPUT", "A guard refused the enhanced volume; nothing was sent."
    VERIFY_FAILED = "VERIFY_FAILED", "The derived series failed its own verification; nothing was sent."
    SOURCE_CHANGED = "SOURCE_CHANGED", "A stored instance no longer matches its digest."
    WORKER_DIED = "WORKER_DIED", "The enhancement process died."
    ABANDONED = "ABANDONED", "The worker that held the job disappeared."
    TIME_LIMIT = "TIME_LIMIT", "The enhancement took longer than its time limit."
    NO_SPACE = "NO_SPACE", "There is too little space in the storage directory."
    SUPERSEDED = "SUPERSEDED", "New instances arrived for the series; a newer job replaces this one."
    NODE_STOPPING = "NODE_STOPPING", "The node was stopped; the job goes on when it starts again."
    CANCELED_BY_OPERATOR = "CANCELED_BY_OPERATOR", "An operator canceled the job."
    INTERNAL_ERROR = "INTERNAL_ERROR", "The node made a mistake; the log names the place."
    # --- delivery
    PEER_UNREACHABLE = "PEER_UNREACHABLE", "The destination does not accept connections."
    ASSOCIATION_REJECTED = "ASSOCIATION_REJECTED", "The destination rejected the association."
    ASSOCIATION_LOST = "ASSOCIATION_LOST", "The association broke before every instance was answered."
    PEER_BUSY = "PEER_BUSY", "The destination answered that it is out of resources."
    REFUSED_BY_PEER = "REFUSED_BY_PEER", "The destination refused at least one instance for good."
    PARTLY_DELIVERED = (
        "PARTLY_DELIVERED",
        "Some instances were delivered; the destination does not have the others.",
    )
    COMMITMENT_REFUSED = "COMMITMENT_REFUSED", "The destination did not take the request for commitment."
    NOT_AUTHORIZED = "NOT_AUTHORIZED", "The destination does not allow this node to store."
    NO_CONTEXT = "NO_CONTEXT", "The destination accepts no presentation context for these objects."
    NO_RETURN_PEER = "NO_RETURN_PEER", "The sender is not among the configured peers."
    UNKNOWN_PEER = "UNKNOWN_PEER", "The destination is no longer configured."
    GAVE_UP = "GAVE_UP", "The delivery was tried for as long as the configuration allows."
    # --- refused at the door
    STORAGE_FULL = "STORAGE_FULL", "There is no space for the instance."
    STORAGE_FAILED = "STORAGE_FAILED", "The instance could not be made durable."
    UID_MISMATCH = "UID_MISMATCH", "The command names another SOP class or instance than the data set."
    BAD_UID = "BAD_UID", "A required UID is missing or malformed."
    CANNOT_UNDERSTAND = "CANNOT_UNDERSTAND", "The data set cannot be parsed."
    # --- files given to `dicom-node enhance`
    MODALITY_UNKNOWN = "MODALITY_UNKNOWN", "The file does not say what it shows."
    OTHER_MODALITY = "OTHER_MODALITY", "The series is of another modality than was asked for."
    INVALID_NIFTI = "INVALID_NIFTI", "The file is no NIfTI volume that can be enhanced."
    FILE_ERROR = "FILE_ERROR", "A file cannot be read or written."
    OUT_OF_MEMORY = "OUT_OF_MEMORY", "The memory of this machine does not suffice."


class NodeError(Exception):
    """Root of every error the node raises on purpose."""


class CannotListenError(NodeError):
    """The configured address and port cannot be bound; the message names them and the system's reason."""

    def __init__(self, host: str, port: int, cause: str) -> None:
        super().__init__(f"cannot listen on {host}:{port}: {cause}")


class ReasonedError(NodeError):
    """An outcome with a reason code; `detail` is safe to log: UIDs and numbers, no patient data."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {reason.sentence} {detail}".rstrip())
        self.reason = reason
        self.detail = detail

    @property
    def message(self) -> str:
        """The sentence for a person, with the detail where there is one."""
        return f"{self.reason.sentence} {self.detail}".rstrip()


class RefusedInstanceError(ReasonedError):
    """An instance is not kept. `status` is the DIMSE status to answer (PS3.4 B.2.3, PS3.7 C)."""

    def __init__(
        self, status: int, reason: Reason, detail: str = "", *, offending: int | None = None
    ) -> None:
        super().__init__(reason, detail)
        self.status = status
        self.offending = offending


class UnreadableInstanceError(ReasonedError):
    """A stored instance cannot be parsed."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.UNREADABLE, detail)


class _SeriesError(ReasonedError):
    """A series outcome with the evidence that led to it (JSON-ready)."""

    def __init__(self, reason: Reason, detail: str = "", evidence: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason, detail)
        self.evidence: Mapping[str, Any] = evidence or {}


class SkipSeriesError(_SeriesError):
    """The series is left alone, and that is the right outcome."""


class HoldSeriesError(_SeriesError):
    """A person has to look at the series before anything is made of it."""


class DeriveError(ReasonedError):
    """The derived series could not be written or failed its own check."""


class PeerError(ReasonedError):
    """The other side of an association did not do its part."""


class PeerUnreachableError(PeerError):
    """No TCP connection to the peer."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.PEER_UNREACHABLE, detail)


class AssociationRejectedError(PeerError):
    """The peer rejected the association; `permanent` repeats the result field of A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    def __init__(self, detail: str, *, permanent: bool, reason: Reason = Reason.ASSOCIATION_REJECTED) -> None:
        super().__init__(reason, detail)
        self.permanent = permanent


class AssociationLostError(PeerError):
    """The association was aborted, closed or fell silent before every instance was answered."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.ASSOCIATION_LOST, detail)

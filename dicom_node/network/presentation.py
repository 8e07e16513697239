"""Which presentation contexts the node accepts and proposes, and under which name it identifies itself.

Acceptor: the first syntax of our list that the peer offers wins, so the order matters: Explicit VR
before everything, lossless compression as it comes, Implicit VR (which loses private VRs) after that,
lossy last, so that nobody is pushed into it. Requestor: Explicit VR LE with Implicit VR LE, which every
SCP must know (PS3.5 10.1); other syntaxes go out as they are stored.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Final, NamedTuple

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

# The same two values as on the objects that `imaging` writes: one implementation, one name (PS3.7 D.3.3.2).
IMPLEMENTATION_CLASS_UID: Final = f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, 'dicom-enhancement-node').int}"
IMPLEMENTATION_VERSION_NAME: Final = "DCMENHANCE"

VERIFICATION: Final = "1.2.840.10008.1.1"
EXPLICIT_LE: Final = str(ExplicitVRLittleEndian)
IMPLICIT_LE: Final = str(ImplicitVRLittleEndian)

STORAGE_SOP_CLASSES: Final[tuple[str, ...]] = (
    CTImageStorage,
    MRImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    # Kept and passed over: a derived image would no longer be a conversion.
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    # Scanners put screenshots and dose sheets into a study; a refused context fails the whole transfer.
    SecondaryCaptureImageStorage,
)

_ORDER: Final[tuple[UID, ...]] = (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLosslessSV1,
    JPEGLossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    RLELossless,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000,
    HTJ2K,
    JPEGLSNearLossless,
    JPEGExtended12Bit,
    JPEGBaseline8Bit,
)
MAX_CONTEXTS: Final = 128  # odd ids of one byte, PS3.8 9.3.2.2


class ProposedContext(NamedTuple):
    """One presentation context: a SOP class with the syntaxes offered for it, preferred first."""

    sop_class_uid: str
    transfer_syntax_uids: tuple[str, ...]


def storage_transfer_syntaxes() -> tuple[str, ...]:
    """Every syntax accepted for storage, preferred first: those whose pixels can be decoded here."""
    return tuple(str(uid) for uid in _ORDER if not uid.is_compressed or _has_decoder(uid))


def _has_decoder(uid: UID) -> bool:
    """Whether an installed library decodes the pixel data of this syntax."""
    return uid == DeflatedExplicitVRLittleEndian or get_decoder(uid).is_available


def accepted_contexts() -> tuple[ProposedContext, ...]:
    """Contexts of the acceptor: Verification and the storage classes."""
    syntaxes = storage_transfer_syntaxes()
    verification = ProposedContext(VERIFICATION, (EXPLICIT_LE, IMPLICIT_LE))
    return (verification, *(ProposedContext(uid, syntaxes) for uid in STORAGE_SOP_CLASSES))


def proposed_contexts(instances: Iterable[tuple[str, str]]) -> tuple[ProposedContext, ...]:
    """Contexts a requestor needs for (SOP class, stored transfer syntax) pairs, in order of appearance.

    Every object is offered in the syntax it is stored in, in a context of its own, so that a peer that has
    it takes it as it is. Explicit VR LE is offered as Implicit VR LE too, the only conversion there is.
    Raises `ValueError` beyond 128 contexts.
    """
    contexts: dict[ProposedContext, None] = {}
    for sop_class, syntax in instances:
        contexts[ProposedContext(sop_class, (syntax,))] = None
        if syntax == EXPLICIT_LE:
            contexts[ProposedContext(sop_class, (IMPLICIT_LE,))] = None
    if len(contexts) > MAX_CONTEXTS:
        raise ValueError(f"{len(contexts)} presentation contexts needed, {MAX_CONTEXTS} are possible")
    return tuple(contexts)

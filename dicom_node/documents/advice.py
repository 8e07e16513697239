"""Where each reason code belongs and what an administrator does about it: a table, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from dicom_node.errors import Reason


class Group(StrEnum):
    """What kind of outcome a code stands for; in the order of the document."""

    ROUTING = "routing"
    LEFT_ALONE = "left alone"
    NOTED = "noted"
    HELD = "held"
    JOB = "job"
    DELIVERY = "delivery"
    REFUSED = "refused"
    FILES = "files"


_NOTHING: Final = "Nothing."
_RELEASE: Final = "Look at it, then `series release UID` to go on all the same, or `series discard UID`."

ADVICE: Final[Mapping[Reason, tuple[Group, str]]] = {
    Reason.NO_ROUTE: (
        Group.ROUTING,
        "If it should have matched: `dicom-node routes test DIR` names the clause.",
    ),
    Reason.ROUTE_IGNORES: (Group.ROUTING, "Nothing, or change the route."),
    Reason.LOCALIZER: (Group.LEFT_ALONE, _NOTHING),
    Reason.SECONDARY_CAPTURE: (Group.LEFT_ALONE, _NOTHING),
    Reason.NOT_SOURCE_IMAGE: (Group.LEFT_ALONE, "Send the series it was computed from."),
    Reason.ALREADY_PROCESSED: (Group.LEFT_ALONE, "If the archive keeps sending it back, exclude it there."),
    Reason.MULTI_FRAME: (Group.LEFT_ALONE, "Send the object as the scanner made it, in one piece."),
    Reason.SEVERAL_VOLUMES: (
        Group.NOTED,
        "Nothing; `assembly.several_volumes: refuse` leaves such series alone.",
    ),
    Reason.GANTRY_TILT: (Group.NOTED, "Nothing; `assembly.irregular: refuse` leaves such series alone."),
    Reason.BLOCKS: (Group.NOTED, "Nothing; `assembly.irregular: refuse` leaves such series alone."),
    Reason.GAP: (Group.NOTED, "Nothing: a person let the series pass although slices are missing."),
    Reason.ORIENTATION_JITTER: (Group.NOTED, _NOTHING),
    Reason.NO_FRAME_OF_REFERENCE: (Group.NOTED, "Viewers cannot overlay such series; look at the sender."),
    Reason.SHORT_RUN: (Group.NOTED, "Nothing: these slices stay as they are. `minimum_slices` sets how few."),
    Reason.IRREGULAR_SPACING: (Group.LEFT_ALONE, _NOTHING),
    Reason.MIXED_GEOMETRY: (Group.LEFT_ALONE, "Have the scanner send one series per orientation and matrix."),
    Reason.TOO_FEW_SLICES: (
        Group.LEFT_ALONE,
        "Lower `minimum_slices` of the route if such series are wanted.",
    ),
    Reason.NO_GEOMETRY: (Group.LEFT_ALONE, "Look at the sender: it removed or damaged the geometry."),
    Reason.UNSUPPORTED_SOP_CLASS: (Group.LEFT_ALONE, _NOTHING),
    Reason.UNSUPPORTED_PIXELS: (Group.LEFT_ALONE, "Have the sender deliver 16-bit greyscale."),
    Reason.UNVALIDATED_CONTRAST: (Group.LEFT_ALONE, "Nothing; `assembly` says which contrasts are taken."),
    Reason.MOSAIC: (Group.LEFT_ALONE, "Have the scanner store slices or Enhanced MR instead of mosaics."),
    Reason.LOSSY_INPUT: (Group.LEFT_ALONE, "Send the series before it is compressed, or set `allow_lossy`."),
    Reason.BURNED_IN: (Group.LEFT_ALONE, _NOTHING),
    Reason.BAD_RESCALE: (Group.LEFT_ALONE, "Look at the sender: its values have no unit."),
    Reason.TOO_LARGE: (Group.LEFT_ALONE, "Raise the limit if the machine has the memory."),
    Reason.NO_UNCERTAINTY: (Group.NOTED, "Take an enhancer that does, or switch the map off."),
    Reason.COMPANION_FAILED: (Group.NOTED, "Nothing; the job names the kind of object and of failure."),
    Reason.MISSING_SLICE: (Group.HELD, "Send the missing slices: the series goes on by itself. " + _RELEASE),
    Reason.LISTED_MISSING: (
        Group.HELD,
        "Have the sender send what its evidence names: the series goes on by itself. " + _RELEASE,
    ),
    Reason.DUPLICATE_POSITION: (Group.HELD, _RELEASE),
    Reason.UID_CONFLICT: (Group.HELD, "Find out who sent the second content. " + _RELEASE),
    Reason.PATIENT_MISMATCH: (Group.HELD, "Correct the patient at the sender and send the series anew."),
    Reason.MIXED_IDENTITY: (Group.HELD, "Correct the series at the sender and send it anew."),
    Reason.INTERRUPTED: (
        Group.HELD,
        "Have the sender send the series again: it goes on by itself. " + _RELEASE,
    ),
    Reason.LATE_INSTANCE: (Group.HELD, "The policy for late instances decides; " + _RELEASE),
    Reason.UNPROVEN: (Group.HELD, "Send what is missing, or lower the proof the route asks for. " + _RELEASE),
    Reason.OPEN_TOO_LONG: (Group.HELD, "Look for a sender that keeps its association open. " + _RELEASE),
    Reason.UNREADABLE: (Group.HELD, "Send the instance anew; if it is as damaged again, look at the sender."),
    Reason.DECODE_ERROR: (
        Group.JOB,
        "Open the original in a viewer; send it anew if it is damaged there too.",
    ),
    Reason.OUT_OF_RANGE: (Group.JOB, "Nothing: the original stands. The detail says what was out of range."),
    Reason.UNSAFE_OUTPUT: (
        Group.JOB,
        "Nothing: the original stands. Tell us which scanner and protocol it was.",
    ),
    Reason.VERIFY_FAILED: (Group.JOB, "Tell us the numbers of the assertions and the scanner."),
    Reason.SOURCE_CHANGED: (Group.JOB, "Check the disk; send the series anew, it goes on by itself then."),
    Reason.WORKER_DIED: (Group.JOB, "If it happens again: look for lack of memory, then `jobs resubmit ID`."),
    Reason.ABANDONED: (Group.JOB, _NOTHING),
    Reason.TIME_LIMIT: (Group.JOB, "Raise `enhancement.time_limit`, or take the enhancer `classical`."),
    Reason.NO_SPACE: (Group.JOB, "Make space in the storage directory; the job goes on by itself."),
    Reason.SUPERSEDED: (Group.JOB, "Nothing: the newer job takes the place."),
    Reason.NODE_STOPPING: (Group.JOB, _NOTHING),
    Reason.CANCELED_BY_OPERATOR: (Group.JOB, "`jobs resubmit ID` starts it again."),
    Reason.INTERNAL_ERROR: (Group.JOB, "Report the lines of the log; they hold no patient data."),
    Reason.PEER_UNREACHABLE: (Group.DELIVERY, "`dicom-node echo PEER`; check host, port and firewall."),
    Reason.ASSOCIATION_REJECTED: (Group.DELIVERY, "Enter our AE title and address at the destination."),
    Reason.ASSOCIATION_LOST: (Group.DELIVERY, "If it stays: look at the destination's log and the network."),
    Reason.PEER_BUSY: (Group.DELIVERY, "Look at the space of the destination."),
    Reason.PARTLY_DELIVERED: (Group.DELIVERY, "`deliveries list` shows the status of each instance."),
    Reason.COMMITMENT_REFUSED: (Group.DELIVERY, "Have the destination allow storage commitment."),
    Reason.NOT_AUTHORIZED: (Group.DELIVERY, "Have the destination allow our AE title to store."),
    Reason.REFUSED_BY_PEER: (Group.DELIVERY, "`deliveries list` shows the status of each instance."),
    Reason.NO_CONTEXT: (Group.DELIVERY, "Allow the SOP class at the destination."),
    Reason.NO_RETURN_PEER: (Group.DELIVERY, "Add the sender under `peers`, then `deliveries retry`."),
    Reason.UNKNOWN_PEER: (Group.DELIVERY, "Add the peer again, then `deliveries retry`."),
    Reason.GAVE_UP: (Group.DELIVERY, "Repair the destination, then `deliveries retry --destination PEER`."),
    Reason.STORAGE_FULL: (Group.REFUSED, "Make space on the file system of the storage directory."),
    Reason.STORAGE_FAILED: (Group.REFUSED, "Look at the disk and at the log; the sender tries again."),
    Reason.UID_MISMATCH: (Group.REFUSED, "Look at the sender: its command and its object disagree."),
    Reason.BAD_UID: (Group.REFUSED, "Look at the sender: the object has no usable identity."),
    Reason.CANNOT_UNDERSTAND: (Group.REFUSED, "Look at the sender: the object is damaged."),
    Reason.MODALITY_UNKNOWN: (Group.FILES, "Add `--modality CT` or `--modality MR`."),
    Reason.OTHER_MODALITY: (Group.FILES, "Leave `--modality` out, or name the other."),
    Reason.INVALID_NIFTI: (Group.FILES, "Open the file in another program; convert it anew."),
    Reason.ENGINE_REFUSED: (Group.JOB, "The message names what the enhancer could not take."),
    Reason.FILE_ERROR: (Group.FILES, "Check rights and space of the folder."),
    Reason.OUT_OF_MEMORY: (Group.FILES, "Take a smaller volume or a machine with more memory."),
}

ENGINE_DETAILS: Final[Mapping[str, str]] = {
    "NOISE_UNCERTAIN": "The noise could not be measured well enough to remove it: the estimators disagree.",
    "NO_NOISE": "There is no noise that could be removed: every value would stay as it is.",
    "NOISE_TOO_HIGH": "There is more noise than the model was trained on.",
    "shape": "The enhanced volume has another shape.",
    "geometry": "The enhanced volume lies elsewhere.",
    "finite": "The enhanced volume holds values that are no numbers.",
    "padding": "Voxels that were padding changed.",
    "range": "Values lie outside the range of the source.",
    "bias": "The mean of the volume moved.",
    "tissue_bias": "The mean of the tissue moved.",
    "low_frequency_bias": "The mean of a region moved: more than noise was taken away.",
    "residual_bound": "A voxel changed by more than the noise can explain.",
    "residual_structure": "What was taken away follows the edges: anatomy, not noise.",
}
"""What `engine` says: codes of scans out of range, and the names of the guards."""

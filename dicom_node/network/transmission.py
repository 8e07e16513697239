"""Stored files to a peer over one association, an answer for each: what the sinks and the commands call.

While the peer stores one instance, the next one is read and proven against its digest. Memory is one
buffer, however large the objects are: the bytes of an instance are the kernel's before the next is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom.association import Association
from pynetdicom.dsutils import encode

from config.sections import Peer
from dicom_node.errors import AssociationLostError, Reason, UnreadableInstanceError
from dicom_node.network.association import associate
from dicom_node.network.lending import lent_connection
from dicom_node.network.pace import Pace
from dicom_node.network.presentation import EXPLICIT_LE, IMPLICIT_LE, proposed_contexts
from dicom_node.network.store_channel import Request, StoreChannel
from dicom_node.network.stored_file import FileBuffer, Outgoing, SourceChangedError

_UNREADABLE: Final = (InvalidDicomError, AttributeError, OSError, ValueError, EOFError)
_MESSAGE_IDS: Final = 65535  # PS3.7 9.3.1: two bytes; 0 is legal and unusual

Trouble = UnreadableInstanceError | SourceChangedError


@dataclass(frozen=True)
class Answer:
    """What became of one instance of a transmission.

    `status` and `comment` are the peer's (PS3.4 B.2.3). A status of None means that nothing was sent:
    `reason` is NO_CONTEXT where the peer accepts the object in none of the syntaxes there are, else what
    is wrong with the stored file, with the error in `trouble`.
    """

    position: int
    item: Outgoing
    status: int | None
    comment: str
    reason: Reason | None = None
    trouble: Trouble | None = None


Heard = Callable[[Answer], bool | None]
"""Called once per instance, in order; False ends the transmission after it."""


@dataclass(frozen=True)
class _Loaded:
    """An instance ready to leave, or why it is not."""

    position: int
    item: Outgoing
    context_id: int = 0
    length: int = 0
    pieces: Iterable[memoryview] = ()
    reason: Reason | None = None
    trouble: Trouble | None = None


def transmit(
    peer: Peer,
    files: Sequence[Outgoing],
    heard: Heard,
    *,
    calling_ae_title: str | None = None,
    pace: Pace | None = None,
) -> Pace:
    """Send `files` in order; `heard` is called for each as soon as it is answered or set aside.

    Returns the pace of the peer with what was measured now. Raises `PeerUnreachableError`,
    `AssociationRejectedError` or `AssociationLostError`; what was heard before stands, an instance that
    was not heard of has to be sent again.
    """
    pace = pace or Pace()
    if not files:
        return pace
    contexts = proposed_contexts((item.sop_class_uid, item.transfer_syntax_uid) for item in files)
    with associate(peer, contexts, calling_ae_title) as assoc, lent_connection(assoc) as raw:
        if raw is None:
            raise AssociationLostError("The connection was closed before the first instance.")
        silence_s = peer.timeouts.network.total_seconds()
        channel = StoreChannel(raw, peer_max_length=_peer_limit(assoc), silence_s=silence_s)
        session = _Session(channel, _Loader(assoc, files), heard, peer.timeouts.dimse.total_seconds())
        return session.run(pace)


class _Session:
    """The instances of one association, one after the other."""

    def __init__(self, channel: StoreChannel, loader: _Loader, heard: Heard, dimse_s: float) -> None:
        self._channel = channel
        self._loader = loader
        self._heard = heard
        self._dimse_s = dimse_s

    def run(self, pace: Pace) -> Pace:
        """Send what the loader has until it is empty or the listener says stop."""
        waiting = iter(self._loader)
        current = next(waiting, None)
        try:
            while current is not None:
                if current.reason is not None:
                    answer = Answer(
                        current.position,
                        current.item,
                        None,
                        str(current.reason),
                        current.reason,
                        current.trouble,
                    )
                    following = None
                else:
                    answer, following, pace = self._exchange(current, waiting, pace)
                if self._heard(answer) is False:
                    break
                current = following or next(waiting, None)
        finally:
            self._loader.close()
        return pace

    def _exchange(
        self, current: _Loaded, waiting: Iterator[_Loaded], pace: Pace
    ) -> tuple[Answer, _Loaded | None, Pace]:
        """Send one instance, load the next while the peer works, and read the answer."""
        item = current.item
        request = Request(
            item.sop_class_uid,
            item.sop_instance_uid,
            current.position % _MESSAGE_IDS + 1,
            current.context_id,
            current.length,
            current.pieces,
        )
        begin = time.monotonic()
        try:
            self._channel.send(request, limit_s=pace.message_s(current.length, self._dimse_s))
        except UnreadableInstanceError as exc:
            # Half an object is on its way: only an abort keeps the peer from waiting for the rest.
            raise AssociationLostError("A stored file could not be read to its end.") from exc
        sent = time.monotonic()
        following = next(waiting, None)
        limit_s = pace.answer_limit_s(current.length, self._dimse_s)
        answer = self._channel.answer(request, limit_s=limit_s)
        pace = pace.after(current.length, sent - begin, time.monotonic() - sent)
        return Answer(current.position, item, answer.status, answer.comment), following, pace


class _Loader:
    """Reads the files of a transmission one by one; each takes the place of the one before."""

    def __init__(self, assoc: Association, files: Sequence[Outgoing]) -> None:
        self._files = files
        self._contexts = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0])): int(context.context_id or 0)
            for context in assoc.accepted_contexts
        }
        self._buffer = FileBuffer()

    def __iter__(self) -> Iterator[_Loaded]:
        for position, item in enumerate(self._files):
            yield self._load(position, item)

    def close(self) -> None:
        """Let go of the file that is open."""
        self._buffer.close()

    def _load(self, position: int, item: Outgoing) -> _Loaded:
        blank = _Loaded(position, item)
        context_id = self._contexts.get((item.sop_class_uid, item.transfer_syntax_uid))
        try:
            if context_id is not None:
                length = self._buffer.load(item)
                return replace(blank, context_id=context_id, length=length, pieces=self._buffer.chunks())
            context_id = self._contexts.get((item.sop_class_uid, IMPLICIT_LE))
            if item.transfer_syntax_uid == EXPLICIT_LE and context_id is not None:
                self._buffer.load(item)
                converted = _as_implicit(item)
                return replace(blank, context_id=context_id, length=len(converted), pieces=(converted,))
        except (UnreadableInstanceError, SourceChangedError) as exc:
            return replace(blank, reason=exc.reason, trouble=exc)
        return replace(blank, reason=Reason.NO_CONTEXT)


def _as_implicit(item: Outgoing) -> memoryview:
    """The data set in Implicit VR Little Endian, the syntax that every peer has (PS3.5 10.1)."""
    try:
        encoded = encode(dcmread(item.path), is_implicit_vr=True, is_little_endian=True)
    except _UNREADABLE as exc:
        raise UnreadableInstanceError(f"{type(exc).__name__} while reading it.") from exc
    if encoded is None:
        raise UnreadableInstanceError("It cannot be written in Implicit VR Little Endian.")
    return memoryview(encoded)


def _peer_limit(assoc: Association) -> int:
    """The longest PDU the peer wants, 0 when it sets no limit (PS3.8 D.1)."""
    return int(assoc.acceptor.maximum_length or 0)

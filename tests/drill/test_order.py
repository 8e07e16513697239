"""The order oracle: no success leaves before what it promises is on the disk, seen from below by strace."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from dicom_node.node import Role
from tests.drill.tracing import Call, Tracer, calls_of
from tests.drill.world import World

_CALLS = "openat,fsync,fdatasync,link,linkat,rename,renameat,renameat2,sendto,sendmsg,write,writev,pwrite64"
# PS3.7 E.1: Command Field (0000,0100) of a C-STORE-RSP and Status (0000,0900) of success, implicit little endian.
_STORE_RESPONSE = bytes.fromhex("00000001020000000180")
_SYNCS = ("fsync", "fdatasync")
_NAMINGS = ("link", "linkat", "rename", "renameat", "renameat2")
_SUCCESS = bytes.fromhex("00000009020000000000")


@pytest.fixture(autouse=True)
def _strace_is_here() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")


def bytes_of(call: Call) -> bytes:
    """What a call wrote, from the escapes that strace -xx prints."""
    return bytes.fromhex("".join(re.findall(r"\\x([0-9a-f]{2})", call.arguments)))


def descriptor_path(call: Call) -> str:
    """The file behind the first descriptor, as strace -y shows it."""
    found = re.match(r"\d+<([^>]*)>", call.arguments)
    return _plain(found[1]) if found else ""


def named_paths(call: Call) -> list[str]:
    """The paths that a link or a rename names, in order."""
    return [_plain(text) for text in re.findall(r'"([^"]*)"', call.arguments)]


def _plain(text: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), text)


class Trace:
    """The receiver's calls while it received a few instances."""

    def __init__(self, path: Path) -> None:
        self.calls = [call for call in calls_of(path) if call.succeeded]

    def responses(self) -> dict[str, int]:
        """When the success of each instance left: the position at which its sending began."""
        found: dict[str, int] = {}
        for call in self.calls:
            if call.name in ("sendto", "sendmsg", "write", "writev"):
                content = bytes_of(call)
                if _STORE_RESPONSE in content and _SUCCESS in content:
                    for uid in re.findall(rb"1\.[0-9.]{20,62}\d", content):
                        found.setdefault(uid.decode(), call.begun)
        return found

    def syncs(self, path: str, *, after: int = 0, before: int) -> list[int]:
        """When a sync of this file or folder was done, begun after and done before."""
        return [
            call.done
            for call in self.calls
            if call.name in _SYNCS
            and descriptor_path(call) == path
            and call.begun >= after
            and call.done < before
        ]

    def naming(self, path: str, *, before: int) -> Call | None:
        """The call that gave the file its name."""
        for call in self.calls:
            if call.name in _NAMINGS and call.done < before and named_paths(call)[-1:] == [path]:
                return call
        return None

    def data_syncs(self, path: str, named: Call | None, *, before: int) -> list[int]:
        """When the contents were synced: under the final name, the first name, or no name at all."""
        found = self.syncs(path, before=before)
        first_name = named_paths(named)[0] if named else path
        if nameless := re.fullmatch(r"/proc/self/fd/(\d+)", first_name):
            return found + self._descriptor_syncs(nameless[1], around=named.done, before=before)
        return found + self.syncs(first_name, before=before)

    def _descriptor_syncs(self, number: str, *, around: int, before: int) -> list[int]:
        """When the file that was open under this number at that moment was synced."""
        opened = [c.done for c in self.calls if c.name == "openat" and c.result.split("<")[0] == number]
        since = max((at for at in opened if at < around), default=0)
        until = min((at for at in opened if at > around), default=before)
        return [
            call.done
            for call in self.calls
            if call.name in _SYNCS
            and call.arguments.split("<")[0] == number
            and since < call.begun
            and call.done < min(until, before)
        ]

    def logged(self, uid: str) -> int | None:
        """When the database's log began to hold the instance."""
        for call in self.calls:
            if (
                call.name == "pwrite64"
                and descriptor_path(call).endswith("-wal")
                and uid.encode() in bytes_of(call)
            ):
                return call.begun
        return None


def broken_promises(trace: Trace, uid: str, path: Path, sent: int) -> list[str]:
    """What was not on the disk when the success of an instance left, or was there in the wrong order."""
    named = trace.naming(str(path), before=sent)
    name_at = named.done if named else 0
    data = trace.data_syncs(str(path), named, before=sent)
    name = trace.syncs(str(path.parent), after=name_at, before=sent)
    logged = trace.logged(uid)
    broken = [what for what, syncs in (("data", data), ("name", name)) if not syncs]
    if logged is None or logged >= sent:
        return [*broken, "row"]
    if not trace.syncs(str(path.parents[3] / "node.db-wal"), after=logged, before=sent):
        broken.append("log")
    # A row may be on the disk from the moment it is in the log: its file has to be there before.
    if data and name and max(min(data), min(name)) > logged:
        broken.append("row before its file")
    return broken


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, dict[str, Path]]:
    """The calls of a real receiver, and where it keeps each acknowledged instance."""
    folder = tmp_path_factory.mktemp("order")
    trace = folder / "receiver.trace"
    with World(folder, slices=8) as world:
        world.start(Role.RECEIVER)
        sent = world.new_series()
        options = ("-y", "-xx", "-s", "70000", "-e", f"trace={_CALLS}")
        tracer = Tracer(world.roles[Role.RECEIVER].pid, *options, output=trace)
        assert world.send(sent)
        tracer.stop()
        with world.store() as store:
            rows = store.index.instances(store.index.get_series(sent.uid).id)
        return Trace(trace), {row.sop_instance_uid: row.path for row in rows}


def test_every_success_leaves_after_file_name_and_row_are_on_the_disk(traced) -> None:
    trace, paths = traced
    responses = {uid: at for uid, at in trace.responses().items() if uid in paths}

    assert len(responses) == len(paths) == 8
    assert {
        uid: broken
        for uid, at in responses.items()
        if (broken := broken_promises(trace, uid, paths[uid], at))
    } == {}


def test_the_oracle_sees_a_success_that_leaves_too_early(traced) -> None:
    trace, paths = traced
    uid, path = next(iter(paths.items()))
    sent = trace.responses()[uid]
    last_sync = max(
        call.done for call in trace.calls if call.name in ("fsync", "fdatasync") and call.done < sent
    )

    assert broken_promises(trace, uid, path, sent) == []
    assert broken_promises(trace, uid, path, last_sync) == ["log"]
    assert broken_promises(trace, uid, path, 0) == ["data", "name", "row"]

"""The alarm of a disk that failed: raised at once, ended only by proof and a while of calm."""

from __future__ import annotations

import errno
import os

import pytest

from storage.alarms import AlarmCode
from storage.errors import SpoolError
from storage.health import DATABASE


def failing(*_args):
    raise OSError(errno.EIO, "Input/output error")


def unhealthy(store):
    return {alarm.subject: alarm.data for alarm in store.alarms.active(AlarmCode.STORE_UNHEALTHY)}


@pytest.mark.parametrize("call", ["fsync", "writev"])
def test_a_failed_write_or_sync_raises_the_alarm_until_the_disk_has_proved_itself(
    store, clock, monkeypatch, call
):
    arriving = store.spool.arrive(b"header")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(SpoolError):
            arriving.place()
        assert unhealthy(store) == {"storage directory": {"cause": "EIO"}}
        assert not store.health.examine()
    arriving.discard()
    assert not store.health.examine()  # it may be calm for a moment only

    clock.move(minutes=2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        assert not store.health.examine()
    assert unhealthy(store)
    assert store.health.examine()
    assert unhealthy(store) == {}


def test_a_full_disk_is_no_failing_disk(store, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    arriving = store.spool.arrive(b"header")
    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(SpoolError):
        arriving.place()
    arriving.discard()

    assert unhealthy(store) == {}
    assert store.health.examine()


def test_a_disk_that_failed_the_database_is_trusted_again_when_the_end_of_the_alarm_is_committed(
    store, clock
):
    store.health.doubt(DATABASE, "SQLITE_IOERR_FSYNC")
    assert unhealthy(store) == {"database": {"cause": "SQLITE_IOERR_FSYNC"}}

    clock.move(minutes=2)
    assert store.health.examine()
    assert unhealthy(store) == {}

"""Answers to writes, kept under the keys their callers chose, so that the same request has one effect."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, update

from storage.clock import Clock
from storage.database import Database
from storage.desk_tables import IdempotencyRow

_ABANDONED = timedelta(minutes=5)


@dataclass(frozen=True)
class KeptAnswer:
    """What is known under a key; `status` None while the first request is being answered."""

    request_hash: str
    status: int | None
    body: str | None


class Idempotency:
    """Reserve a key, keep its answer, or give it back."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def begin(self, owner: str, key: str, request_hash: str) -> KeptAnswer | None:
        """None: the key is ours now, answer the request. Else what another request has made of it.

        A reservation that was never answered, because its process died, is taken over after five minutes.
        """

        def work() -> KeptAnswer | None:
            with self._database.writing() as session:
                at = self._now()
                row = session.get(IdempotencyRow, (owner, key), with_for_update=True)
                if row is None:
                    session.add(
                        IdempotencyRow(owner=owner, key=key, request_hash=request_hash, created_at=at)
                    )
                    session.flush()
                    return None
                if row.status is None and at - row.created_at > _ABANDONED:
                    row.created_at, row.request_hash = at, request_hash
                    return None
                return KeptAnswer(row.request_hash, row.status, row.body)

        return self._database.retrying(work)

    def look(self, owner: str, key: str) -> KeptAnswer | None:
        """What is known under the key; None when it was given back."""
        with self._database.reading() as session:
            row = session.get(IdempotencyRow, (owner, key))
            return None if row is None else KeptAnswer(row.request_hash, row.status, row.body)

    def keep(self, owner: str, key: str, status: int, body: str) -> None:
        """Keep the answer."""
        with self._database.writing() as session:
            session.execute(
                update(IdempotencyRow)
                .where(IdempotencyRow.owner == owner, IdempotencyRow.key == key)
                .values(status=status, body=body)
            )

    def give_back(self, owner: str, key: str) -> None:
        """The request had no effect: the key may be used again."""
        with self._database.writing() as session:
            session.execute(
                delete(IdempotencyRow).where(IdempotencyRow.owner == owner, IdempotencyRow.key == key)
            )

    def drop_older(self, age: timedelta) -> None:
        """Forget answers nobody will ask for again."""
        with self._database.writing() as session:
            session.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < self._now() - age))

"""Statements for the hot path: compiled once for their database, run on the driver's own cursor.

SQLAlchemy writes the SQL and says how each value is stored; what is left out is the work it does at every
execution, which for one instance costs more than the database itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ClauseElement
from sqlalchemy.engine import Dialect

_Process = Callable[[Any], Any] | None


class Prepared:
    """One statement of Core with named parameters. Holds no connection; safe for several threads."""

    def __init__(
        self, statement: ClauseElement, dialect: Dialect, columns: Sequence[str] | None = None
    ) -> None:
        """`columns`: of an INSERT, those that are given."""
        compiled: Any = statement.compile(
            dialect=dialect, column_keys=None if columns is None else list(columns)
        )
        self._sql = str(compiled)
        self._positions: list[str] | None = list(compiled.positiontup) if compiled.positional else None
        self._processes: dict[str, _Process] = {
            name: bind.type.dialect_impl(dialect).bind_processor(dialect)
            for name, bind in compiled.binds.items()
        }
        self._fixed: dict[str, Any] = {
            name: bind.value for name, bind in compiled.binds.items() if not bind.required
        }

    def run(self, cursor: Any, values: Mapping[str, Any]) -> Any:
        """Run it; the cursor has the result."""
        cursor.execute(self._sql, self._bound(values))
        return cursor

    def run_many(self, cursor: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it for each of the rows."""
        cursor.executemany(self._sql, [self._bound(row) for row in rows])

    def _bound(self, values: Mapping[str, Any]) -> Any:
        """The parameters as the driver takes them."""
        bound = {**self._fixed, **values}
        processed = {
            name: bound[name] if process is None else process(bound[name])
            for name, process in self._processes.items()
        }
        return processed if self._positions is None else [processed[name] for name in self._positions]

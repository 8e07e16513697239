"""The database: reachable, of a schema this version knows, and durable."""

from __future__ import annotations

from dicom_node.doctor.findings import Area, Finding
from storage.errors import DatabaseUnavailableError
from storage.probe import DatabaseFacts, probe_database, sqlite_file


def check_database(database_url: str) -> tuple[list[Finding], DatabaseFacts | None]:
    """Examine the database without changing it; the facts are None when it cannot be reached."""
    name = "SQLite" if sqlite_file(database_url) is not None else "PostgreSQL"
    area = Area("database", name)
    try:
        facts = probe_database(database_url)
    except DatabaseUnavailableError as exc:
        return [_unreachable(area, exc)], None
    findings = [_schema(area, facts)]
    if not facts.durable:
        findings.append(
            area.problem(
                "A commit does not wait for the disk (fsync or synchronous_commit is off).",
                meaning="An acknowledged image may be forgotten when the database machine loses power.",
                fix="Set fsync = on and synchronous_commit = on in postgresql.conf, or for the node's role.",
            )
        )
    return findings, facts


def _unreachable(area: Area, exc: DatabaseUnavailableError) -> Finding:
    fix = (
        "Restore the file from a backup of the storage directory, or move it away to start empty."
        if area.subject == "SQLite"
        else "Check that the server runs and that host, user, database and pg_hba.conf let the node in; "
        "with the driver missing: pip install 'dicom-enhancement-node[postgresql]'."
    )
    return area.problem(
        f"It does not answer: {exc}.",
        meaning="The node does not start, and refuses images if it runs.",
        fix=fix,
    )


def _schema(area: Area, facts: DatabaseFacts) -> Finding:
    if not facts.known:
        return area.problem(
            f"Its schema is {facts.revision}; this version knows up to {facts.head}.",
            meaning="A newer version has used it; this one leaves it alone and does not start.",
            fix="Run the newer version, or restore the backup that was made before the upgrade.",
        )
    if facts.revision is None:
        return area.ok(f"It is empty; the first start makes schema {facts.head}.")
    if facts.revision != facts.head:
        return area.warning(
            f"Its schema is {facts.revision}; this version works with {facts.head}.",
            meaning="The next start upgrades it, and older versions then refuse it.",
            fix="Make a backup, then run `dicom-node db upgrade`, or simply start the node.",
        )
    return area.ok(f"It answers, and its schema {facts.revision} is current.")

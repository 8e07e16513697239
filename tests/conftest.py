"""What tests of several rooms share: a certificate authority of the openssl program, a PostgreSQL server of our own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest


@dataclass(frozen=True)
class Certificate:
    """Where a certificate and its key lie."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of its own; `ca` is what believers load."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        root = self._make("ca", "-x509", "-days", "30", "-addext", "basicConstraints=critical,CA:TRUE")
        self.ca = root.certificate
        self._root = root

    def issue(
        self, name: str, *, days: int = 30, names: str = "IP:127.0.0.1,DNS:localhost", key: str = "rsa:2048"
    ) -> Certificate:
        """Issue a certificate for `names`; a negative number of days makes one that has ended."""
        made = self._make(name, key=key)
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        self._openssl(
            *(
                "x509",
                "-req",
                "-in",
                made.certificate,
                "-CA",
                self._root.certificate,
                "-CAkey",
                self._root.key,
            ),
            *("-days", days, "-extfile", extensions, "-out", made.certificate),
        )
        return made

    def _make(self, name: str, *options: str, key: str = "rsa:2048") -> Certificate:
        made = Certificate(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        extra = ("-pkeyopt", "ec_paramgen_curve:P-256") if key == "ec" else ()
        self._openssl(
            *("req", "-newkey", key, *extra, "-nodes", "-subj", f"/CN={name}", *options),
            *("-keyout", made.key, "-out", made.certificate),
        )
        made.key.chmod(0o600)
        return made

    def _openssl(self, *arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path: Path) -> Callable[[str], Authority]:
    """Make an authority of that name; the test is skipped where openssl is not installed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return lambda name="hospital": Authority(tmp_path / "pki", name)


class PostgresServer:
    """A private PostgreSQL cluster on a free port of the loopback address; trusts whoever asks."""

    def __init__(self, home: Path, user: str | None, programs: dict[str, str]) -> None:
        """Make the cluster; it survives its own death, not that of the machine (no fsync: the tests are many)."""
        self._home, self._user, self._programs = home, user, programs
        self._data = str(home / "data")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run(
            "initdb", "-D", self._data, "-N", "-A", "trust", "-U", "node", "-E", "UTF8", "--locale", "C"
        )

    def start(self) -> None:
        options = f"-F -p {self.port} -k {self._home} -h 127.0.0.1"
        self._run("pg_ctl", "-D", self._data, "-o", options, "-l", str(self._home / "log"), "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", self._data, "-m", mode, "-w", "stop")

    def url(self, name: str) -> str:
        """Where the node finds a database."""
        return f"postgresql+psycopg://node@127.0.0.1:{self.port}/{name}"

    def create(self, template: str = "template1") -> str:
        """A new database, its URL."""
        name = f"t{uuid4().hex}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database: a thousand of them would fill a disk."""
        self.sql(f"DROP DATABASE {url.rsplit('/', 1)[1]} WITH (FORCE)")

    def sql(self, statement: str) -> None:
        """Run one statement as the owner of everything."""
        psycopg = pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed")
        address = f"postgresql://node@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs[program], *arguments],
            user=self._user,
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )


def _postgres_program(name: str) -> str:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(installed[-1]) if installed else None)
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is not installed")
    return found


@pytest.fixture(scope="session")
def make_postgres() -> Iterator[Callable[[], PostgresServer]]:
    """Start servers as the unprivileged user PostgreSQL insists on; skipped with a reason where none can be had."""
    pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed")
    running: list[PostgresServer] = []
    homes: list[Path] = []

    def make() -> PostgresServer:
        programs = {name: _postgres_program(name) for name in ("initdb", "pg_ctl")}
        user = None
        if os.getuid() == 0:
            try:
                user = pwd.getpwnam("postgres").pw_name
            except KeyError:
                pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        home = Path(tempfile.mkdtemp(prefix="pg-"))
        homes.append(home)
        if user:
            shutil.chown(home, user)
        server = PostgresServer(home, user, programs)
        server.start()
        running.append(server)
        return server

    yield make
    for server in running:
        try:
            server.stop()
        except subprocess.CalledProcessError:  # a test left it stopped
            continue
    for home in homes:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(make_postgres: Callable[[], PostgresServer]) -> PostgresServer:
    """The server that the tests of one process share; a test that stops its server makes one of its own."""
    return make_postgres()

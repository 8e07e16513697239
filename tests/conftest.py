"""What tests of several rooms share: a certificate authority, a PostgreSQL server of our own, a log server."""

from __future__ import annotations

import logging
import os
import pwd
import re
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import structlog

from storage.store import upgrade


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A test that sets up the log, perhaps on a stream that ends with it, does so for itself alone."""
    root, strict, structured = logging.getLogger(), logging.raiseExceptions, structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], logging.raiseExceptions = handlers, strict
    root.setLevel(level)
    structlog.configure(**structured)


@pytest.fixture(scope="session")
def make_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Put an SQLite database with the schema and nothing in it at a path; its URL. Migrating once is enough."""
    template = tmp_path_factory.mktemp("empty") / "node.db"
    upgrade(f"sqlite:///{template}")

    def make(path: Path) -> str:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(template, path)
        return f"sqlite:///{path}"

    return make


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


# Each database made is written to the log once; nobody replays that, so that little of it is kept.
_SMALL_LOG = "-c full_page_writes=off -c max_wal_size=64MB -c min_wal_size=32MB"
_MEMORY, _ENOUGH_MEMORY = Path("/dev/shm"), 2 << 30


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
        options = f"-F -p {self.port} -k {self._home} -h 127.0.0.1 {_SMALL_LOG}"
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


def _place_for_databases() -> Path | None:
    """In memory where there is room: hundreds of databases are made and dropped. None: where temporary files go."""
    roomy = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH_MEMORY
    return _MEMORY if roomy else None


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
        home = Path(tempfile.mkdtemp(prefix="pg-", dir=_place_for_databases()))
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


@dataclass(frozen=True)
class Received:
    """One syslog message as the log server understood it."""

    priority: int
    sequence: int
    digest: str
    message: str
    octets: int


_SYSLOG = re.compile(
    rb"<(?P<pri>\d{1,3})>1 (?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z) (?P<host>[!-~]{1,255}) "
    rb"(?P<app>[!-~]{1,48}) (?P<proc>[!-~]{1,128}) (?P<id>[!-~]{1,32}) "
    rb'\[meta sequenceId="(?P<seq>\d+)"\]\[chain@32473 seq="\d+" digest="(?P<digest>[0-9a-f]{64})" '
    rb'previous="[0-9a-f]{64}"\] '
    rb"\xef\xbb\xbf(?P<msg>.*)",
    re.DOTALL,
)


def understand(message: bytes) -> Received:
    """Parse one syslog message strictly (RFC 5424 6)."""
    match = _SYSLOG.fullmatch(message)
    assert match is not None, message[:300]
    assert match["id"] == b"DICOM+RFC3881"
    return Received(
        int(match["pri"]),
        int(match["seq"]),
        match["digest"].decode(),
        match["msg"].decode("utf-8"),
        len(message),
    )


class LogServer:
    """A syslog receiver over TLS (RFC 5425) on a free port; `manners` say how a connection ends.

    polite   answers close_notify with its own, as the RFC asks
    abrupt   reads everything and just closes the connection
    reset    reads `reads` bytes and resets the connection
    silent   reads nothing and stays
    """

    def __init__(self, context: ssl.SSLContext, *, port: int = 0) -> None:
        self.manners, self.reads = "polite", 0
        self.received: list[Received] = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def sequence(self) -> list[int]:
        return [message.sequence for message in self.received]

    def close(self) -> None:
        self._listener.close()
        for connection in self._held:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with suppress(OSError):
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        secured = self._context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=True)
        if self.manners == "silent":
            self._held.append(secured)
            return
        if self.manners == "reset":
            if self.reads:
                secured.recv(self.reads)
            raw = socket.socket(fileno=secured.detach())
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
            return
        data = b""
        while chunk := secured.recv(65536):
            data += chunk
        self.received += [understand(message) for message in unframe(data)]
        if self.manners == "polite":
            with suppress(OSError):
                secured.unwrap()
        secured.close()


def unframe(data: bytes) -> Iterator[bytes]:
    """Cut by octet counts (RFC 5425 4.3)."""
    while data:
        count, _, rest = data.partition(b" ")
        length = int(count)
        assert len(rest) >= length
        yield rest[:length]
        data = rest[length:]


@pytest.fixture
def log_server(authority) -> Iterator[Callable[..., LogServer]]:
    """Start a log server that asks for a certificate of the hospital's authority."""
    servers: list[LogServer] = []
    pki = authority("hospital")
    issued = pki.issue("logs", key="ec")

    def start(**how) -> LogServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        context.load_verify_locations(pki.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        server = LogServer(context, **how)
        servers.append(server)
        return server

    start.pki = pki
    yield start
    for server in servers:
        server.close()

"""DICOM TLS with DCMTK on the other side, certificates made by openssl."""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from config.sections import NodeSection, Peer
from config.tls import ListenerTls
from dicom_node.errors import AssociationRejectedError, PeerUnreachableError
from dicom_node.intake.admission import Admission
from dicom_node.intake.associations import AssociationLedger
from dicom_node.intake.receiver import Receiver
from dicom_node.network import tls
from dicom_node.network.received import buffered
from dicom_node.network.scp import ScpSettings, StorageScp
from dicom_node.network.scu import echo, outgoing, send


@pytest.fixture
def pki(authority, tmp_path):
    """The hospital's authority, our certificate where the configuration says, and a scanner's."""
    hospital = authority("hospital")
    install(hospital.issue("node"), tmp_path)
    return hospital


def install(issued, folder: Path) -> None:
    """Put a pair in place the way certbot and friends do: written beside, then renamed."""
    for source, name in ((issued.certificate, "node.crt"), (issued.key, "node.key")):
        shutil.copy(source, folder / f"{name}.new")
        (folder / f"{name}.new").rename(folder / name)


@pytest.fixture
def listen(start_node, pki, tmp_path):
    def start(**changes):
        section = {"certificate": str(tmp_path / "node.crt"), "key": str(tmp_path / "node.key")}
        return start_node(tls={**section, "ca": str(pki.ca), **changes})

    return start


@pytest.fixture
def storescu(dcmtk):
    def run(scp, issued, ca, *paths, options=()):
        secure = ("+tls", issued.key, issued.certificate, "+cf", ca) if issued else ()
        where = ("127.0.0.1", scp.address[1])
        return dcmtk("storescu", *secure, *options, "-aec", "ENHANCE", "-to", "3", "-ta", "3", *where, *paths)

    return run


def stored(store) -> int:
    return sum(1 for path in (store.spool.directory / "incoming").rglob("*") if path.is_file())


@pytest.mark.parametrize("key", ["rsa:2048", "ec"])
def test_a_sender_with_a_certificate_of_the_hospital_is_accepted(
    listen, storescu, pki, write_series, store, key
):
    scp, paths = listen(), write_series()

    done = storescu(scp, pki.issue("scanner", key=key), pki.ca, *paths)

    assert done.returncode == 0, done.stderr
    assert stored(store) == len(paths)


def test_a_sender_with_a_foreign_certificate_is_refused(
    listen, storescu, pki, authority, write_series, store
):
    scp = listen()

    done = storescu(scp, authority("elsewhere").issue("scanner"), pki.ca, *write_series())

    assert done.returncode != 0
    assert stored(store) == 0
    assert scp.open_associations == 0


def test_a_sender_without_a_certificate_is_refused(listen, pki, dcmtk, write_series, store):
    scp = listen()
    address = ("127.0.0.1", scp.address[1])

    done = dcmtk("storescu", "+tla", "+cf", pki.ca, "-aec", "ENHANCE", *address, *write_series())

    assert done.returncode != 0
    assert stored(store) == 0


def test_without_mutual_a_sender_needs_no_certificate(listen, pki, dcmtk):
    scp = listen(mutual=False)

    done = dcmtk("echoscu", "+tla", "+cf", pki.ca, "-aec", "ENHANCE", "127.0.0.1", scp.address[1])

    assert done.returncode == 0, done.stderr


def test_an_expired_client_certificate_is_refused(listen, storescu, pki, write_series, store):
    scp = listen()

    done = storescu(scp, pki.issue("scanner", days=-1), pki.ca, *write_series())

    assert done.returncode != 0
    assert stored(store) == 0


def test_a_sender_in_the_clear_is_dropped_at_once(listen, storescu, pki, write_series, store):
    scp, begin = listen(), time.monotonic()

    done = storescu(scp, None, None, *write_series())

    assert done.returncode != 0
    assert time.monotonic() - begin < 5
    assert stored(store) == 0


def test_silent_and_dripping_connections_end_in_time_and_keep_nobody_out(pki, tmp_path, store):
    section = {"certificate": str(tmp_path / "node.crt"), "key": str(tmp_path / "node.key")}
    node = NodeSection.model_validate({"port": 0, "tls": {**section, "ca": str(pki.ca)}})
    ledger = AssociationLedger(store, Admission(()), run_id="run")
    scp = StorageScp(
        replace(ScpSettings.of(node), tls_handshake_s=2.0), buffered(Receiver(store).receive), ledger
    )
    scp.start()
    try:
        silent = [socket.create_connection(scp.address) for _ in range(20)]
        dripping = socket.create_connection(scp.address)
        begin = time.monotonic()
        assert echo(peer_of(scp.address[1], pki, pki.issue("scanner"))).status == 0
        assert time.monotonic() - begin < 5
        assert closes_within(5, dripping, drip=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50))
        assert all(closes_within(5, connection) for connection in silent)
    finally:
        scp.stop()


def closes_within(seconds: float, connection: socket.socket, drip: bytes = b"") -> bool:
    """Whether the other side hangs up in time, though one byte comes now and then."""
    deadline = time.monotonic() + seconds
    connection.settimeout(0.3)
    with connection:
        while time.monotonic() < deadline:
            try:
                connection.sendall(drip[:1])
                drip = drip[1:]
                if connection.recv(4096) == b"":
                    return True
            except TimeoutError:
                continue
            except OSError:
                return True
    return False


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_are_spoken(listen, pki, version):
    assert negotiated(listen(), pki, version)[1] == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]


def test_tls_1_1_and_suites_outside_of_the_profile_are_refused(listen, pki):
    scp = listen()

    with (
        pytest.warns(DeprecationWarning, match="TLSv1_1"),
        pytest.raises(OSError, match=r"(?i)version|alert|protocol|reset"),
    ):
        negotiated(scp, pki, ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0")
    for suites in ("AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"):
        with pytest.raises(OSError, match=r"(?i)handshake|alert|reset"):
            negotiated(scp, pki, ssl.TLSVersion.TLSv1_2, suites)


def test_the_non_downgrading_profile_takes_diffie_hellman_too(listen, pki):
    scp = listen(profile="bcp195-non-downgrading")

    suite, version = negotiated(scp, pki, ssl.TLSVersion.TLSv1_2, "DHE-RSA-AES128-GCM-SHA256")

    assert (suite, version) == ("DHE-RSA-AES128-GCM-SHA256", "TLSv1.2")


def negotiated(scp, pki, version, suites: str | None = None) -> tuple[str, str]:
    """Shake hands as a client that offers this version and these suites only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    if suites is not None:
        context.set_ciphers(suites)
    issued = pki.issue("client")
    context.load_cert_chain(issued.certificate, issued.key)
    context.load_verify_locations(pki.ca)
    with (
        socket.create_connection(scp.address, timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as secured,
    ):
        suite = secured.cipher()
        assert suite is not None
        return suite[0], suite[1]


# --- renewal


def test_renewed_files_serve_the_next_association_while_the_running_one_goes_on(
    listen, pki, authority, tmp_path, write_series, store
):
    scp, paths = listen(), write_series()
    peer = peer_of(scp.address[1], pki, pki.issue("scanner"))
    before = serial(scp, pki)
    replaced = []

    def replace_after_the_first(_uid: str, status: int, _comment: str) -> None:
        assert status == 0
        if not replaced:
            install(pki.issue("node"), tmp_path)
            replaced.append(serial(scp, pki))

    send(peer, [outgoing(path) for path in paths], replace_after_the_first)

    assert stored(store) == len(paths)
    assert replaced[0] != before


def test_half_a_renewal_keeps_the_last_good_pair(pki, tmp_path):
    section = ListenerTls(certificate=tmp_path / "node.crt", key=tmp_path / "node.key", ca=pki.ca)
    renewed = tls.RenewedContext(section)
    first = renewed.current()

    with structlog.testing.capture_logs() as logs:
        shutil.copy(pki.issue("next").certificate, tmp_path / "node.crt")  # the key is still the old one
        assert renewed.current() is first
        assert renewed.current() is first
    assert [line["event"] for line in logs] == ["tls.not_renewed"]

    install(pki.issue("next"), tmp_path)
    assert renewed.current() is not first


def serial(scp, pki) -> str:
    """The serial number of the certificate the node shows right now."""
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    with socket.create_connection(scp.address, timeout=5) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as secured:
                return str(secured.getpeercert()["serialNumber"])
        except ssl.SSLError as exc:  # pragma: no cover - the handshake itself succeeds before we are refused
            pytest.fail(str(exc))


# --- sending


def peer_of(port, pki, issued, **changes) -> Peer:
    section = {"ca": pki.ca, **changes}
    if issued is not None:
        section |= {"certificate": issued.certificate, "key": issued.key}
    return Peer.model_validate(
        {
            "name": "archive",
            "ae_title": "ENHANCE",
            "host": "127.0.0.1",
            "port": port,
            "calling_ae_title": "SCANNER",
            "timeouts": {"association": "5 s", "dimse": "5 s", "network": "5 s"},
            "tls": section,
        }
    )


@pytest.fixture
def archive(start_storescp, pki):
    """DCMTK's storescp with TLS, asking for our certificate."""

    def start(issued=None, *options):
        issued = issued or pki.issue("archive")
        return start_storescp("+tls", issued.key, issued.certificate, "+cf", pki.ca, *options)

    return start


def test_a_tls_archive_gets_every_instance(archive, pki, write_series):
    (port, folder), paths = archive(), write_series()

    report = send(peer_of(port, pki, pki.issue("us")), [outgoing(p) for p in paths], lambda *_: None)

    assert report.succeeded == len(paths) == len(list(folder.iterdir()))


def test_an_archive_whose_certificate_names_another_host_is_not_called(archive, pki):
    port, _ = archive(pki.issue("archive", names="DNS:pacs.example"))

    with pytest.raises(PeerUnreachableError, match=r"(?i)TLS.*mismatch"):
        echo(peer_of(port, pki, pki.issue("us")))
    assert echo(peer_of(port, pki, pki.issue("us"), server_name="pacs.example")).status == 0
    assert echo(peer_of(port, pki, pki.issue("us"), check_name=False)).status == 0


def test_an_archive_of_another_authority_is_not_called(archive, authority, pki):
    port, _ = archive()
    foreign = authority("elsewhere")

    with pytest.raises(PeerUnreachableError, match=r"(?i)TLS.*(self.signed|issuer)"):
        echo(peer_of(port, foreign, foreign.issue("us")))


def test_an_archive_that_does_not_believe_us_says_so(archive, authority, pki):
    port, _ = archive()
    foreign = authority("elsewhere").issue("us")

    with pytest.raises((PeerUnreachableError, AssociationRejectedError), match=r"TLS|certificate"):
        echo(peer_of(port, pki, foreign))


def test_an_archive_in_the_clear_is_not_called_with_tls(start_storescp, pki):
    port, _ = start_storescp()

    with pytest.raises(PeerUnreachableError, match="TLS"):
        echo(peer_of(port, pki, pki.issue("us")))


def test_files_that_vanished_make_the_peer_unreachable_for_now(archive, pki):
    port, _ = archive()
    us = pki.issue("us")
    peer = peer_of(port, pki, us)
    us.key.unlink()

    with pytest.raises(PeerUnreachableError, match="TLS files"):
        echo(peer)

"""TLS in the configuration: complete or refused, and the files proven before the node starts."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.errors import ConfigError
from config.settings import load_for_start, load_settings
from config.tls import ListenerTls, PeerTls
from config.tls_files import expiry, find_tls_faults


@pytest.fixture
def files(authority, tmp_path):
    """Good files under the names that the configurations below use."""
    hospital = authority("hospital")
    ours = hospital.issue("node")
    for path, name in ((ours.certificate, "node.crt"), (ours.key, "node.key"), (hospital.ca, "ca.crt")):
        shutil.copy(path, tmp_path / name)
    return tmp_path


CONFIG = """\
node:
  tls:
    certificate: node.crt
    key: node.key
    ca: ca.crt
peers:
  - name: pacs
    ae_title: PACS
    host: pacs.example
    port: 2762
    tls: {certificate: node.crt, key: node.key, ca: ca.crt}
routes: [{name: all, send_to: [pacs]}]
"""


def start(folder: Path, text: str = CONFIG):
    (folder / "node.yaml").write_text(text)
    return load_for_start(folder / "node.yaml")


def problems(folder: Path, text: str = CONFIG) -> dict[str, tuple[int | None, str]]:
    with pytest.raises(ConfigError) as refused:
        start(folder, text)
    return {problem.key_path: (problem.line, problem.message) for problem in refused.value.problems}


def test_paths_start_from_the_folder_of_the_file(files):
    settings = start(files)

    assert settings.node.tls.certificate == files / "node.crt"
    assert settings.peers[0].tls.ca == files / "ca.crt"
    assert settings.node.tls.mutual
    assert settings.node.tls.profile == "bcp195"
    assert (expiry(settings.node.tls) - datetime.now(UTC)).days in (29, 30)


@pytest.mark.parametrize(
    ("section", "missing"),
    [
        ("tls: {certificate: a, key: b}", "ca missing"),
        ("tls: {ca: c, mutual: false}", "certificate and key missing"),
        ("tls: {certificate: a, mutual: false}", "key missing"),
    ],
)
def test_an_incomplete_listener_section_says_what_is_missing(refuse, section, missing):
    assert missing in refuse(f"node:\n  {section}\n")["node.tls"].message


def test_a_peer_needs_its_authority_and_with_mutual_our_certificate(refuse):
    peer = "peers: [{{name: a, ae_title: A, host: h, port: 1, tls: {tls}}}]"

    assert "ca missing" in refuse(peer.format(tls="{mutual: false}"))["peers[0].tls"].message
    assert "certificate and key" in refuse(peer.format(tls="{ca: c}"))["peers[0].tls"].message


def test_profiles_below_tls_1_2_do_not_exist(refuse):
    assert "profile" in str(refuse("node: {tls: {certificate: a, key: b, ca: c, profile: tls1}}"))


def test_a_missing_file_is_named_with_key_and_line(files):
    (files / "node.crt").unlink()

    found = problems(files)

    assert found["node.tls.certificate"][0] == 3
    assert "does not exist" in found["node.tls.certificate"][1]
    assert "peers[0].tls.certificate" in found


def test_a_key_that_others_can_read_does_not_start(files):
    (files / "node.key").chmod(0o644)

    found = problems(files)

    assert found["node.tls.key"][0] == 4
    assert "0644" in found["node.tls.key"][1]


def test_an_expired_certificate_does_not_start_but_the_jobs_can_be_listed(files, authority):
    old = authority("old").issue("node", days=-1)
    shutil.copy(old.certificate, files / "node.crt")
    shutil.copy(old.key, files / "node.key")

    assert "expired" in problems(files)["node.tls.certificate"][1]
    assert load_settings(files / "node.yaml").node.tls is not None


def test_a_foreign_key_is_told_from_a_broken_one(files, authority):
    other = authority("other").issue("node")
    shutil.copy(other.key, files / "node.key")
    assert "is not the key of" in problems(files)["node.tls.key"][1]

    (files / "node.key").write_text("no key")
    assert "no PEM private key" in problems(files)["node.tls.key"][1]


def test_a_key_with_a_passphrase_is_refused_without_asking(files, encrypt):
    encrypt(files / "node.key")
    assert "passphrase" in problems(files)["node.tls.key"][1]


@pytest.fixture
def encrypt():
    """Put a passphrase on a key."""

    def run(path: Path) -> None:
        command = ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", str(path), "-out", str(path)]
        subprocess.run(command, check=True, capture_output=True)

    return run


def test_an_authority_that_may_not_sign_is_refused(files, authority):
    leaf = authority("leaf").issue("leaf")
    shutil.copy(leaf.certificate, files / "ca.crt")
    assert "may sign others" in problems(files)["node.tls.ca"][1]

    (files / "ca.crt").write_text("nothing")
    assert "no PEM certificate" in problems(files)["node.tls.ca"][1]


def test_a_client_certificate_cannot_serve(authority, tmp_path):
    hospital = authority("hospital")
    scanner = hospital.issue("scanner", names="DNS:scanner\nextendedKeyUsage=clientAuth")
    section = {"certificate": scanner.certificate, "key": scanner.key, "ca": hospital.ca}

    (fault,) = find_tls_faults(ListenerTls(**section))
    assert "purpose" in fault.message
    assert find_tls_faults(PeerTls(**section)) == []


def test_a_password_in_a_file_that_everyone_reads_does_not_start(tmp_path):
    text = 'storage: {database_url: "postgresql://node:secret@db/node"}\n'
    path = tmp_path / "node.yaml"
    path.write_text(text)
    path.chmod(0o644)

    found = problems(tmp_path, text)

    assert found["storage.database_url"][0] == 1
    assert "secret" not in found["storage.database_url"][1]
    path.chmod(0o640)
    assert load_for_start(path).storage.database_url is not None

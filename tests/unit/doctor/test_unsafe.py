"""What is unsafe is told, and the worst of it keeps the node from starting."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.settings import load_settings
from dicom_node.doctor.entries import entries
from dicom_node.doctor.findings import Level
from dicom_node.doctor.unsafe import UnsafeError, check_safety, refuse_unsafe
from tests.nursery import dicom_node


@pytest.fixture
def write(tmp_path):
    def to_file(text: str, mode: int = 0o600) -> Path:
        path = tmp_path / "node.yaml"
        path.write_text(text)
        path.chmod(mode)
        return path

    return to_file


def found(path: Path, **options) -> dict[str, Level]:
    return {finding.subject: finding.level for finding in check_safety(load_settings(path), path, **options)}


def test_an_open_port_in_the_clear_with_callers_from_anywhere_is_told(write):
    path = write("node: {host: 0.0.0.0, accept_from: [CT1, {ae_title: CT2, network: 192.0.2.7}]}\n")
    told = found(path)
    assert told["node.host"] is told["node.accept_from"] is Level.WARNING


def test_an_open_port_without_a_list_of_callers_does_not_even_load(write):
    done = run("doctor", "--json", "-c", write("node: {host: 0.0.0.0}\n"))
    (finding,) = json.loads(done.stdout)["findings"]
    assert done.returncode == 1
    assert finding["level"] == "problem"
    assert "accept_from" in finding["seen"]


def test_a_peer_in_the_clear_is_told_unless_it_is_this_machine(write):
    peers = "peers: [{name: a, ae_title: A, host: h, port: 1}, {name: b, ae_title: B, host: 127.0.0.1, port: 1}]\n"
    told = found(write(peers))
    assert told["peers[0]"] is Level.WARNING
    assert "peers[1]" not in told


@pytest.fixture
def tls(write, authority):
    """A configuration with TLS both ways, all of it good."""
    hospital = authority("hospital")
    ours = hospital.issue("node", days=60)
    section = f"{{certificate: {ours.certificate}, key: {ours.key}, ca: {hospital.ca}, CHECK}}"
    text = (
        "node:\n"
        f"  {{host: 0.0.0.0, accept_from: [CT], tls: {section.replace(', CHECK', '')}}}\n"
        "peers:\n"
        f"  - {{name: a, ae_title: A, host: h, port: 1, tls: {section.replace('CHECK', 'check_name: false')}}}\n"
    )
    return write(text), ours


def test_mutual_tls_answers_for_open_port_and_open_list(tls):
    path, _ = tls
    told = found(path)
    assert "node.host" not in told
    assert "node.accept_from" not in told
    assert told["peers[0].tls.check_name"] is Level.WARNING


def test_a_certificate_that_ends_soon_is_a_warning(tls):
    path, _ = tls
    now = datetime.now(UTC)
    assert "node.tls.certificate" not in found(path, now=now)
    assert found(path, now=now + timedelta(days=40))["node.tls.certificate"] is Level.WARNING


def test_a_readable_key_and_a_missing_file_are_problems(tls):
    path, ours = tls
    ours.key.chmod(0o604)
    assert found(path)["node.tls.key"] is Level.PROBLEM
    ours.key.unlink()
    assert found(path)["node.tls.key"] is Level.PROBLEM
    assert found(path)["peers[0].tls.key"] is Level.PROBLEM


def test_root_and_core_dumps_are_warnings(write):
    told = found(write("node: {}\n"))
    assert ("user" in told) == (os.geteuid() == 0)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, resource.RLIM_INFINITY));"
        "from dicom_node.doctor.unsafe import check_safety; from config.settings import Settings;"
        "from pathlib import Path; print([f.subject for f in check_safety(Settings(), Path('x'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "ValueError" in done.stderr:
        pytest.skip("the limit cannot be raised here")
    assert "core dumps" in done.stdout


def test_a_store_that_everyone_may_write_to_does_not_start(write, tmp_path):
    path = write("storage: {directory: open}\n")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)

    with pytest.raises(UnsafeError, match="0777"):
        refuse_unsafe(load_settings(path))
    done = run("serve", "-c", path)
    assert done.returncode == 2
    assert "does not start" in done.stderr
    assert "chmod 700" in done.stderr


def test_an_expired_certificate_does_not_start(tls, authority):
    path, ours = tls
    old = authority("old").issue("node", days=-1)
    for source, target in ((old.certificate, ours.certificate), (old.key, ours.key)):
        shutil.copy(source, target)

    done = run("serve", "-c", path)

    assert done.returncode == 2
    assert "expired" in done.stderr
    assert "line 2" in done.stderr


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return dicom_node(*arguments, timeout=120)


# --- what to enter on the other side


def test_the_lines_for_the_administrator_hold_what_he_has_to_type(tls):
    path, _ = tls
    destination, caller = entries(load_settings(path))
    lines = dict(destination.lines)
    assert (lines["AE title"], lines["Port"]) == ("ENHANCE", "11112")
    assert "client certificate" in lines["TLS"]
    assert "CT Image Storage (1.2.840.10008.5.1.4.1.1.2)" in lines["SOP classes"]
    assert lines["Callers admitted"] == "CT"
    assert dict(caller.lines)["Calling AE title"] == "ENHANCE"


def test_a_loopback_address_is_not_given_out_as_if_others_could_reach_it(write):
    (destination,) = entries(load_settings(write("node: {}\n")))
    assert "this machine only" in dict(destination.lines)["Host"]

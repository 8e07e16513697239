"""Port, processor, memory, model: each with something broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from config.sections import NodeSection
from config.settings import Settings
from dicom_node.doctor.device import check_device
from dicom_node.doctor.findings import Area, Level
from dicom_node.doctor.model import (
    EnhancerInUse,
    check_bundle,
    check_enhancer,
    enhancers_in_use,
    judge_self_test,
    shipped_bundles,
)
from dicom_node.doctor.ports import check_port
from engine.enhancer import EnhanceOptions
from engine.identity import IdentityEnhancer
from engine.phantom import head_phantom, noisy_ct

LISTEN = (
    "import socket, sys; s = socket.create_server(('127.0.0.1', 0));"
    "print(s.getsockname()[1], flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder():
    """Another process that listens; its name decides whether it looks like a node."""
    running = []

    def start(name: str) -> int:
        command = [sys.executable, "-c", LISTEN, name]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)
        return int(process.stdout.readline())

    yield start
    for process in running:
        process.communicate(input="")


def test_a_free_port_is_fine():
    (finding,) = check_port(NodeSection(port=0))
    assert finding.level is Level.OK


def test_a_port_held_by_the_node_itself_is_fine(holder):
    (finding,) = check_port(NodeSection(port=holder("dicom_node")))
    assert finding.level is Level.OK
    assert "dicom-node is listening" in finding.seen


def test_a_port_held_by_another_program_names_it(holder):
    (finding,) = check_port(NodeSection(port=holder("--token=secret")))
    assert finding.level is Level.PROBLEM
    assert "python" in finding.seen
    assert "secret" not in finding.seen


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_a_problem(host):
    (finding,) = check_port(NodeSection(host=host, port=0))
    assert finding.level is Level.PROBLEM
    assert "node.host" in finding.fix


def machine(folder: Path, *, flags: str = "avx2", available_kib: int = 2**24, gpu: bool = False) -> Path:
    folder.mkdir()
    (folder / "cpuinfo").write_text(f"processor: 0\nflags: fpu {flags}\n")
    (folder / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {available_kib} kB\n")
    if gpu:
        (folder / "driver" / "nvidia" / "gpus" / "0000").mkdir(parents=True)
    return folder


def levels(findings) -> dict[str, Level]:
    return {finding.subject: finding.level for finding in findings}


def test_a_plain_machine_is_fine(tmp_path):
    found = levels(check_device([], workers=1, proc=machine(tmp_path / "proc")))
    assert found == {"processor": Level.OK, "memory": Level.OK, "CUDA": Level.OK}


def test_an_old_processor_little_memory_and_an_idle_gpu_are_warnings(tmp_path):
    proc = machine(tmp_path / "proc", flags="sse2", available_kib=2**20, gpu=True)
    found = levels(check_device([], workers=2, proc=proc))
    assert found["processor"] is found["memory"] is Level.WARNING
    import torch

    assert found["CUDA"] is (Level.OK if torch.cuda.is_available() else Level.WARNING)


def test_a_device_that_does_not_exist_is_a_problem(tmp_path):
    use = EnhancerInUse("ddpm3d-ctmr-1", {"device": "quantum"})
    found = levels(check_device([use], workers=1, proc=machine(tmp_path / "proc")))
    assert found["ddpm3d-ctmr-1"] is Level.PROBLEM


def test_the_classical_enhancer_passes_its_self_test():
    (finding,) = check_enhancer(EnhancerInUse("classical", {}), strength=0.9)
    assert finding.level is Level.OK
    assert "HU" in finding.seen


@pytest.mark.parametrize("use", [EnhancerInUse("clasical", {}), EnhancerInUse("classical", {"depth": 3})])
def test_an_unknown_enhancer_or_option_is_a_problem(use):
    (finding,) = check_enhancer(use, strength=0.9)
    assert finding.level is Level.PROBLEM


def test_a_result_that_is_no_better_or_no_number_is_a_problem():
    clean = head_phantom((16, 64, 64), (3.0, 3.6, 3.6))
    noisy, area = noisy_ct(clean, 20.0, seed=1), Area("model", "test")
    result = IdentityEnhancer().enhance(noisy, options=EnhanceOptions())
    assert judge_self_test(area, clean, noisy, result, changes=True).level is Level.PROBLEM
    assert judge_self_test(area, clean, noisy, result, changes=False).level is Level.OK
    moved = replace(result, volume=replace(noisy, affine=np.eye(4)))
    assert judge_self_test(area, clean, noisy, moved, changes=False).level is Level.PROBLEM


def test_a_damaged_bundle_is_a_problem(tmp_path):
    (shipped,) = shipped_bundles()
    copy = tmp_path / shipped.name
    shutil.copytree(shipped, copy)
    assert [finding.level for finding in check_bundle(copy)] == [Level.OK]

    weights = bytearray((copy / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(weights)
    (finding,) = check_bundle(copy)
    assert finding.level is Level.PROBLEM
    assert "digest" in finding.seen


def test_every_enhancer_that_a_route_names_is_examined():
    route = {"name": "a", "send_to": ["p"], "enhancement": {"enhancer": "identity"}}
    settings = Settings.model_validate(
        {
            "peers": [{"name": "p", "ae_title": "P", "host": "h", "port": 1}],
            "routes": [route, {**route, "name": "b"}, {"name": "c", "send_to": ["p"]}],
        }
    )
    assert [use.name for use in enhancers_in_use(settings)] == ["ddpm3d-ctmr-1", "identity"]

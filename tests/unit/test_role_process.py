"""What a forked role is promised; how the node lives with its roles is shown in tests/system."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dicom_node.node import Role
from dicom_node.role_process import RoleProcess

_START = """
import signal, sys
from pathlib import Path
from dicom_node.node import Role
from dicom_node.observability.logs import configure
from dicom_node.role_process import RoleProcess

configure(fmt="json")
signal.signal(signal.SIGTERM, lambda *_: None)
process = RoleProcess(Role.SENDER, Path(sys.argv[1]))
if sys.argv[2] == "terminate":
    process.terminate()  # at once: the handler above is not the role's
ended = process.ends_within(60)
process.close()
print(ended, process.poll())
"""


def start(config: Path, act: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _START, str(config), act], capture_output=True, text=True, check=True
    )


def test_a_process_with_several_threads_is_not_forked(tmp_path: Path) -> None:
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        with pytest.raises(RuntimeError, match="several threads"):
            RoleProcess(Role.SENDER, tmp_path / "node.yaml")
    finally:
        stop.set()
        other.join()


def test_a_signal_right_after_the_start_is_not_swallowed(tmp_path: Path) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(f"storage: {{directory: {tmp_path / 'data'}}}\n")
    assert start(config, "terminate").stdout.strip() in ("True -15", "True 0")


def test_a_configuration_that_went_bad_is_named_in_the_log_and_ends_the_role(tmp_path: Path) -> None:
    config = tmp_path / "node.yaml"
    config.write_text("node: {port: none}\n")
    done = start(config, "wait")
    assert done.stdout.strip() == "True 2"
    assert '"event": "process.failed"' in done.stderr
    assert "Traceback" not in done.stderr

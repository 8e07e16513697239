"""Two things only a real PACS shows: its own storage commitment, and our output sent straight back to us."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_node.demo.bench import RunningNode, free_port
from dicom_node.imaging.phantom_series import write_ct_series
from dicom_node.network import scu
from engine.phantom import head_phantom, noisy_ct
from storage.states import SeriesState

pytestmark = pytest.mark.skipif(
    "ORTHANC_URL" in os.environ, reason="needs an Orthanc with a script of its own"
)

LIMIT = timedelta(seconds=240)
REFLECT = """\
function OnStoredInstance(instanceId, tags, metadata, origin)
  if origin["RequestOrigin"] == "DicomProtocol" then
    SendToModality(instanceId, "enhance")
  end
end
"""
CONFIG = """\
node: {{ae_titles: [ENHANCE], host: 127.0.0.1, port: {port}}}
storage: {{directory: node-data, watermarks: {{soft: 99 %, hard: 100 %, reserve: 1 MB}}}}
completion: {{quiet_period: 1 s, quiet_period_by_modality: {{CT: 1 s}}, interrupted_factor: 1}}
enhancement: {{enhancer: classical}}
delivery: {{backoff_first: 1 s, backoff_longest: 2 s}}
peers:
  - name: pacs
    ae_title: ORTHANC
    host: 127.0.0.1
    port: {pacs}
    commitment: {{answer_within: 2 min, linger: 0 s}}
routes:
  - {{name: all, when: always, action: enhance, send_to: [pacs]}}
logging: {{format: json}}
"""


@pytest.fixture
def pair(tmp_path: Path, start_orthanc: Callable[..., Any]) -> Iterator[tuple[Any, RunningNode]]:
    """An Orthanc that sends everything it gets to the node, and the node that sends its output to it."""
    port, script = free_port(), tmp_path / "reflect.lua"
    script.write_text(REFLECT)
    modality = {"AET": "ENHANCE", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
    pacs = start_orthanc(LuaScripts=[str(script)], DicomModalities={"enhance": modality})
    config = tmp_path / "node.yaml"
    config.write_text(CONFIG.format(port=port, pacs=pacs.port))
    node = RunningNode(config)
    node.start()
    yield pacs, node
    node.stop()


def test_our_output_that_comes_back_is_committed_recognised_and_enhanced_no_second_time(
    pair: tuple[Any, RunningNode], tmp_path: Path
) -> None:
    pacs, node = pair
    volume = noisy_ct(head_phantom(shape=(16, 128, 128), spacing_mm=(3.0, 1.8, 1.8)), 20.0, seed=3)
    paths = write_ct_series(volume, tmp_path / "scan")

    scu.send(node.peer, [scu.outgoing(path) for path in paths], lambda *_: None)

    def reflected() -> Any:
        """The derived series, once it has come back and been looked at."""
        with node.operations() as operations:
            found = operations.series(state=SeriesState.SKIPPED)
            return found[0] if found and found[0].instance_count == len(paths) else None

    back = node.wait_for(reflected, LIMIT, "our own output to come back")
    assert back.reason == "ALREADY_PROCESSED"

    def committed() -> bool:
        with node.operations() as operations:
            rows = operations.deliveries()
            return len(rows) == len(paths) and {row.commitment for row in rows} == {"COMMITTED"}

    node.wait_for(committed, LIMIT, "the PACS to commit")
    with node.operations() as operations:
        assert len(operations.series()) == 2
        assert [job.kind for job in operations.jobs()] == ["DELIVER", "ENHANCE"]
    assert len(pacs.find("Series")) == 1

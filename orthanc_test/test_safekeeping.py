"""Orthanc as a sender that asks the node to keep what it sent, and whose list is the proof of completeness."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_node.demo.bench import RunningNode, free_port
from dicom_node.imaging.phantom_series import write_ct_series
from engine.phantom import head_phantom, noisy_ct
from storage.states import SeriesState

pytestmark = pytest.mark.skipif("ORTHANC_URL" in os.environ, reason="needs an Orthanc of its own")

LIMIT = timedelta(seconds=120)
CONFIG = """\
node: {{ae_titles: [ENHANCE], host: 127.0.0.1, port: {port}}}
api: {{enabled: false}}
storage: {{directory: node-data, watermarks: {{soft: 99 %, hard: 100 %, reserve: 1 MB}}}}
completion: {{quiet_period: 1 s, quiet_period_by_modality: {{CT: 1 s}}, count_patience: 1 min}}
enhancement: {{enhancer: classical}}
peers:
  - name: pacs
    ae_title: ORTHANC
    host: 127.0.0.1
    port: {pacs}
    safekeeping: {{wait_for: 1 s}}
routes:
  - {{name: proven, when: always, send_to: [pacs], completeness: commitment}}
logging: {{format: json}}
"""


@pytest.fixture
def pair(tmp_path: Path, start_orthanc: Callable[..., Any]) -> Iterator[tuple[Any, RunningNode]]:
    """An Orthanc that may ask, and a node that enhances only what a list of its sender proves."""
    port = free_port()
    modality = {"AET": "ENHANCE", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
    pacs = start_orthanc(DicomModalities={"enhance": modality})
    config = tmp_path / "node.yaml"
    config.write_text(CONFIG.format(port=port, pacs=pacs.port))
    node = RunningNode(config)
    node.start()
    yield pacs, node
    node.kill()


def test_orthanc_is_promised_what_it_sent_and_its_list_closes_the_series(
    pair: tuple[Any, RunningNode], tmp_path: Path
) -> None:
    pacs, node = pair
    volume = noisy_ct(head_phantom(shape=(16, 96, 96), spacing_mm=(3.0, 2.4, 2.4)), 20.0, seed=3)
    pacs.upload(write_ct_series(volume, tmp_path / "scan"))
    (series,) = pacs.find("Series")
    instances = pacs.get(f"/series/{series}")["Instances"]

    def ask() -> Any:
        """Have Orthanc ask for all of the series; its answer once the report has come."""
        body = json.dumps({"Resources": [series]}).encode()
        asked = json.loads(pacs.raw("POST", "/modalities/enhance/storage-commitment", body))

        def report() -> Any:
            told = pacs.get(asked["Path"])
            return None if told["Status"] == "Pending" else told

        return node.wait_for(report, LIMIT, "the report")

    pacs.post("/modalities/enhance/store", {"Resources": instances[:14], "Synchronous": True})
    lacking = ask()
    assert lacking["Status"] == "Failure"
    assert (len(lacking["Success"]), [one["FailureReason"] for one in lacking["Failures"]]) == (
        14,
        [0x0112] * 2,
    )

    pacs.post("/modalities/enhance/store", {"Resources": instances[14:], "Synchronous": True})
    assert ask()["Status"] == "Success"

    def closed() -> Any:
        with node.operations() as operations:
            (found,) = operations.series()
            return found if found.state is SeriesState.STABLE else None

    assert node.wait_for(closed, LIMIT, "the series to close").completeness == "commitment"

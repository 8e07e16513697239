"""An Enhanced object, what is derived from it by the default model, and its companions: one study in the PACS.

python -m pytest orthanc_test/test_companions.py -m drill
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.demo.bench import RunningNode, free_port
from dicom_node.imaging.derivation import DerivationPolicy
from dicom_node.imaging.phantom_enhanced import write_enhanced
from dicom_node.imaging.series import verify_source
from dicom_node.imaging.verify_tools import validator_messages
from dicom_node.network import scu
from engine.phantom import head_phantom, noisy_ct
from storage.states import JobState

CONFIG = """\
node: {{ae_titles: [ENHANCE], host: 127.0.0.1, port: {port}}}
api: {{enabled: false}}
storage: {{directory: node-data, watermarks: {{soft: 99 %, hard: 100 %, reserve: 1 MB}}}}
completion: {{quiet_period: 2 s, quiet_period_by_modality: {{CT: 2 s, MR: 2 s}}}}
peers:
  - {{name: pacs, ae_title: "{pacs_ae}", host: {pacs_host}, port: {pacs_port}}}
routes:
  - name: all
    when: {{modality: [CT, MR]}}
    action: enhance
    companions: {{uncertainty_map: true, quality_report: true}}
    send_to: [pacs]
logging: {{format: json}}
"""
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
FRAMES = 16


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_an_enhanced_object_its_derived_one_and_their_companions_are_one_study(
    orthanc: Any, tmp_path: Path
) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(
        CONFIG.format(
            port=free_port(), pacs_ae=orthanc.ae_title, pacs_host=orthanc.host, pacs_port=orthanc.port
        )
    )
    source = tmp_path / "source" / "1.dcm"
    write_enhanced([noisy_ct(head_phantom((FRAMES, 96, 96), (3.0, 2.4, 2.4), 3), 20.0, 5)], source)
    before = dcmread(source)
    orthanc.upload([source])
    node = RunningNode(config)
    node.start()
    try:
        scu.send(node.peer, [scu.outgoing(source)], lambda *_: True)
        story = node.await_end(str(before.SeriesInstanceUID), timedelta(minutes=15))
    finally:
        node.stop()
    assert {job.state for job in story.jobs} == {JobState.SUCCEEDED}, story.verdict

    (study,) = orthanc.find("Study", StudyInstanceUID=str(before.StudyInstanceUID))
    objects = {}
    for series in orthanc.get(f"/studies/{study}")["Series"]:
        (path,) = orthanc.download_series(series, tmp_path / "pacs" / series)
        found = dcmread(path)
        objects[str(found.SOPClassUID), str(found.SeriesInstanceUID) == str(before.SeriesInstanceUID)] = (
            path,
            found,
        )
    patients = {(o.PatientID, str(o.PatientName), o.StudyInstanceUID) for _, o in objects.values()}
    assert len(patients) == 1
    assert sorted(o.Modality for _, o in objects.values()) == ["CT", "CT", "OT", "SR"]

    derived_path, derived = objects[str(before.SOPClassUID), False]
    assert derived.NumberOfFrames == before.NumberOfFrames == FRAMES
    assert verify_source([source], [derived_path], policy=DerivationPolicy()).failed_numbers == ()
    _, deviations = objects[PARAMETRIC_MAP, False]
    values = np.frombuffer(deviations.FloatPixelData, "<f4")
    assert deviations.NumberOfFrames == FRAMES
    assert np.isfinite(values).all()
    assert 0 < np.median(values[values > 0]) < 40
    if shutil.which("dciodvfy"):
        known = validator_messages(source)
        errors = {
            line
            for path, _ in objects.values()
            for line in validator_messages(path) - known
            if line.startswith("Error")
        }
        assert errors == set()

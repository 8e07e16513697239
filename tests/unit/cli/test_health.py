"""`dicom-node health` against a port that answers, one that refuses, and one where nobody is."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import free_port
from tests.nursery import dicom_node


def exit_status(tmp_path: Path, port: int, extra: str = "") -> int:
    config = tmp_path / "node.yaml"
    config.write_text(f"node: {{ae_titles: [ENHANCE], port: {port}{extra}}}\n")
    return dicom_node("health", "--config", config).returncode


@pytest.mark.parametrize("title", ["ENHANCE", "ANOTHER"], ids=["answered", "rejected"])
def test_a_node_that_answers_or_rejects_is_healthy(tmp_path: Path, title: str) -> None:
    with Archive(tmp_path / "store", ae_title=title) as running:
        assert exit_status(tmp_path, running.port) == 0


def test_a_port_where_nobody_listens_is_not_healthy(tmp_path: Path) -> None:
    assert exit_status(tmp_path, free_port()) == 1


def test_a_tls_port_is_healthy_when_it_shakes_hands_and_not_when_nobody_is_there(
    tmp_path: Path, authority
) -> None:
    issued = authority("hospital").issue("node")
    tls = f", tls: {{certificate: {issued.certificate}, key: {issued.key}, mutual: false}}"

    with Archive(tmp_path / "store") as plain:  # an answer, though not in TLS
        assert exit_status(tmp_path, plain.port, tls) == 0
    assert exit_status(tmp_path, free_port(), tls) == 1

"""The dashboard and the alert rules speak of metrics that the node exports, with the labels that it gives them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from dicom_node.desk.metrics import Metrics

FOLDER = Path(__file__).parents[3] / "docker" / "monitoring"
# What Prometheus itself adds to each sample, and the one metric of its own that is asked for.
OF_PROMETHEUS = {"instance", "job"}
UP = "up"
PLACEHOLDER = re.compile(r"\$\{?\w+\}?")


@pytest.fixture
def exported(desk, line, tmp_path, monkeypatch) -> dict[str, set[str]]:
    """The labels of each metric of a node in which something is of every kind."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, 37, 1024, 81920'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    line.derived()
    desk.store.index.close_association(
        desk.store.index.open_association("A", "ENHANCE", "192.0.2.1", "run"), "released"
    )
    desk.store.destinations.failed("pacs", "no", wait=lambda _: desk.now() - desk.now(), opens_at=3)
    found = {}
    for family in Metrics(desk).families():
        assert family.samples, family.name
        found[family.name] = {name for labels, _ in family.samples for name in labels}
    return found


def panels() -> list[dict]:
    return json.loads((FOLDER / "dashboard.json").read_text())["panels"]


def rules() -> list[dict]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return group["rules"]


def asked_of(expression: str) -> list[tuple[str, set[str]]]:
    """Every metric in a PromQL expression with the labels it is selected by."""
    return [
        (name, set(re.findall(r"(\w+)\s*=~?", selector or "")))
        for name, selector in re.findall(r"\b(dicom_node_\w+|up)\b(?:\{([^}]*)\})?", expression)
    ]


def grouped_by(expression: str) -> set[str]:
    return {
        label.strip()
        for part in re.findall(r"(?:by|ignoring)\s*\(([^)]*)\)", expression)
        for label in part.split(",")
    }


def check(expression: str, exported: dict[str, set[str]]) -> set[str]:
    """Fail for an unknown metric or label; the names that are asked for."""
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")
    asked = asked_of(expression)
    assert asked, expression
    for name, labels in asked:
        known = set() if name == UP else exported[name]
        assert labels <= known | OF_PROMETHEUS, (name, labels - known)
        assert grouped_by(expression) <= known | OF_PROMETHEUS, expression
    return {name for name, _ in asked}


def test_every_panel_shows_metrics_that_exist_and_every_metric_has_a_panel(exported):
    shown = set()
    for panel in panels():
        for target in panel["targets"]:
            shown |= check(PLACEHOLDER.sub("x", target["expr"]), exported)
            names = {name for name, _ in asked_of(target["expr"])}
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert legend <= set().union(*(exported[name] for name in names)), panel["title"]

    assert shown == set(exported)


def test_panels_stand_side_by_side_and_have_names_of_their_own():
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert (
        len({panel["title"] for panel in panels()})
        == len({panel["id"] for panel in panels()})
        == len(panels())
    )


def test_every_alert_rule_asks_for_metrics_that_exist_and_says_what_to_do(exported):
    for rule in rules():
        names = check(rule["expr"], exported)
        known = set().union(OF_PROMETHEUS, *(exported.get(name, set()) for name in names))
        assert set(rule["annotations"]) == {"summary", "description"}
        words = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", words)) <= known, rule["alert"]
        assert rule["labels"]["severity"] in {"warning", "critical"}
    assert len({rule["alert"] for rule in rules()}) == len(rules())


def test_a_rule_about_a_metric_that_is_not_there_would_be_noticed(exported):
    with pytest.raises(KeyError):
        check("dicom_node_nothing > 0", exported)
    with pytest.raises(AssertionError):
        check('dicom_node_load{colour="red"} > 0', exported)
    with pytest.raises(AssertionError):
        check("sum by (colour) (dicom_node_load)", exported)


def test_prometheus_asks_where_the_metrics_are(people):
    (scrape,) = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]

    assert people.nobody().get(scrape["metrics_path"]).status_code == 401
    assert scrape["job_name"] == "dicom-node"
    assert {rule["expr"] for rule in rules() if "up{" in rule["expr"]} == {'up{job="dicom-node"} == 0'}

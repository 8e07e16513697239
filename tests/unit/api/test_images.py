"""Slices, windows, differences, figures; and reviews of what was seen."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from highdicom import PlanePositionSequence, VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.sr.coding import CodedConcept
from PIL import Image
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_node.desk.images import Images, Layer
from dicom_node.desk.quality import radial_spectrum
from dicom_node.desk.rendering import Window, to_grey


def pixels(answer) -> np.ndarray:
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_a_viewer_learns_what_there_is_before_the_first_slice(viewer, scans):
    job = scans.enhanced(slices=8)

    seen = viewer.get(f"/api/v1/jobs/{job}/images").json()

    assert seen["layers"] == ["source", "derived", "difference"]
    assert (seen["slices"], seen["rows"], seen["columns"], seen["unit"]) == (8, 32, 32, "HU")
    assert {"lung", "bone", "brain"} <= {window["name"] for window in seen["windows"]}
    assert seen["difference"]["centre"] == 0


def test_slices_come_in_the_order_of_the_stack_and_in_one_window(viewer, scans):
    job = scans.enhanced(slices=8)
    path, window = f"/api/v1/jobs/{job}/images", {"centre": 0, "width": 400}

    source = [pixels(viewer.get(f"{path}/source/{n}.png", params=window)) for n in range(8)]
    derived = pixels(viewer.get(f"{path}/derived/3.png", params=window))
    difference = pixels(viewer.get(f"{path}/difference/3.png", params={"width": 200}))

    expected = scans.volume(slices=8).array
    for place in range(8):
        wanted = to_grey(np.round(expected[place]), Window(0, 400))
        assert np.abs(wanted.astype(int) - source[place]).max() <= 1
    ramp = to_grey(np.broadcast_to(np.linspace(-200, 200, 32, dtype=np.float32), (32, 32)), Window(0, 400))
    assert np.abs(derived.astype(int) - ramp).std() < np.abs(source[3].astype(int) - ramp).std()
    assert abs(float(difference.mean()) - 127) < 10


def uncertainty_map(files: list[Path], *, frames: int | None = None) -> Path:
    """A map of 10 HU in the first slice of the stack, 20 in the second and so on, its frames in reverse order."""
    images = sorted((dcmread(path) for path in files), key=lambda ds: -ds.ImagePositionPatient[2])[:frames]
    steps = np.arange(len(images), 0, -1, dtype=np.float32)
    values = np.ones((len(images), images[0].Rows, images[0].Columns), np.float32) * steps[:, None, None] * 10
    hu = CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit")
    mapping = RealWorldValueMapping("UNCERTAINTY", "Uncertainty", hu, (0.0, 100.0), slope=1.0, intercept=0.0)
    made = ParametricMap(
        images, values, generate_uid(), 9, generate_uid(), 1, "Maker", "Model", "1", "0",
        contains_recognizable_visual_features=True, real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation(window_center=50, window_width=100)],
        plane_positions=[PlanePositionSequence("PATIENT", ds.ImagePositionPatient) for ds in images],
    )  # fmt: skip
    path = files[0].with_name("map.dcm")
    made.save_as(path)
    return path


def test_an_uncertainty_that_was_computed_is_a_layer_slice_by_slice(viewer, scans):
    job = scans.enhanced(slices=4, accompany=uncertainty_map)
    path = f"/api/v1/jobs/{job}/images"

    seen = viewer.get(path).json()

    assert seen["layers"] == ["source", "derived", "difference", "uncertainty"]
    assert seen["slices"] == 4
    assert seen["uncertainty"] == {"name": "uncertainty", "centre": 15.0, "width": 30.0}  # of the third slice
    window = {"centre": 50, "width": 100}
    greys = [pixels(viewer.get(f"{path}/uncertainty/{n}.png", params=window)) for n in range(4)]
    assert [int(grey.mean()) for grey in greys] == [25, 51, 76, 102]
    assert viewer.get(f"{path}/uncertainty/4.png").status_code == 404
    assert viewer.get(f"/api/v1/jobs/{job}/quality").status_code == 200


def test_a_map_that_does_not_fit_the_images_is_no_layer(viewer, scans):
    job = scans.enhanced(slices=4, accompany=lambda files: uncertainty_map(files, frames=3))

    assert viewer.get(f"/api/v1/jobs/{job}/images").json()["layers"] == ["source", "derived", "difference"]
    assert viewer.get(f"/api/v1/jobs/{job}/images/uncertainty/0.png").status_code in (404, 422)


def test_a_received_series_is_shown_without_a_job(viewer, scans):
    series = scans.series(slices=4)

    assert viewer.get(f"/api/v1/series/{series}/images").json()["layers"] == ["source"]
    assert pixels(viewer.get(f"/api/v1/series/{series}/images/0.png")).shape == (32, 32)
    assert viewer.get(f"/api/v1/series/{series}/images/4.png").status_code == 404


def test_only_what_was_asked_for_is_decoded_and_the_memory_is_bounded(store, scans):
    job = scans.enhanced(slices=8, side=32)
    images = Images(store, limit=3 * 32 * 32 * 4)

    shown = images.of_job(job)
    images.layer_slice(shown, Layer.SOURCE, 2)
    assert images.kept_bytes == 32 * 32 * 4
    for place in range(8):
        images.layer_slice(shown, Layer.DIFFERENCE, place)
    assert images.kept_bytes <= 3 * 32 * 32 * 4


def test_the_first_images_are_decoded_while_the_page_is_loaded(viewer, scans, desk):
    job = scans.enhanced(slices=8, side=32)

    assert viewer.get(f"/jobs/{job}/view").status_code == 200

    assert desk.images.kept_bytes == 2 * 32 * 32 * 4  # the middle of source and derived


def test_a_look_at_a_series_is_told_once(viewer, scans, store):
    series = scans.series(slices=4)

    for _ in range(3):
        viewer.get(f"/api/v1/series/{series}/images")

    looks = [event for event in store.trail.for_series(series) if event.name == "instances.viewed"]
    assert [event.data["actor"] for event in looks] == ["user:viewer-1"]


def test_quality_figures_show_less_noise_after(viewer, scans):
    job = scans.enhanced(slices=8, side=64)

    seen = viewer.get(f"/api/v1/jobs/{job}/quality").json()

    assert (seen["noise_before"], seen["noise_after"]) == (20.0, 4.0)
    assert 10 < seen["std_difference"] < 30
    upper = slice(16, 31)
    assert np.mean(seen["spectrum_derived"][upper]) < 0.5 * np.mean(seen["spectrum_source"][upper])


def test_the_spectrum_of_white_noise_is_flat_at_its_deviation():
    noise = np.random.default_rng(1).normal(0, 7, (256, 256)).astype(np.float32)

    assert radial_spectrum(noise) == pytest.approx(np.full(32, 7.0), rel=0.25)


def test_a_reader_reviews_and_the_rates_follow(operator, people, scans):
    from dicom_node.desk.roles import Role

    job = scans.enhanced()
    path = f"/api/v1/jobs/{job}/reviews/mine"

    operator.put(path, json={"verdict": "reject"})
    operator.put(path, json={"verdict": "approve", "blinded": True, "comment": "fine"})
    people.sign_in(Role.OPERATOR, "ann").put(path, json={"verdict": "no-difference"})

    (rate,) = operator.get("/api/v1/reviews/rates").json()
    assert rate == {
        "model": "classical 1",
        "modality": "CT",
        "site": "SCANNER",
        "approved": 1,
        "rejected": 0,
        "no_difference": 1,
        "approval": 0.5,
    }
    side = operator.get(f"/api/v1/jobs/{job}/reviews/side").json()["derived_side"]
    assert [r["derived_side"] for r in operator.get(f"/api/v1/jobs/{job}/reviews").json()] == [side, None]


def test_what_is_not_finished_cannot_be_reviewed(operator, line):
    answer = operator.put(f"/api/v1/jobs/{line.job()}/reviews/mine", json={"verdict": "approve"})

    assert answer.status_code == 422


@pytest.mark.parametrize("comment", ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "\t=1", " =1"])
def test_no_cell_of_the_export_is_a_formula(operator, scans, comment):
    job = scans.enhanced()
    operator.put(f"/api/v1/jobs/{job}/reviews/mine", json={"verdict": "approve", "comment": comment})

    rows = list(csv.DictReader(io.StringIO(operator.get("/api/v1/reviews.csv").text)))

    assert rows[0]["comment"] == f"'{comment}"

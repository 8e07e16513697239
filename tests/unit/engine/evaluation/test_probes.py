"""Probes against denoisers whose answers are known: none, a blur, and one that takes away too much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, special

from engine.evaluation import probes
from engine.evaluation.cases import Truth, noisy_case, parse_levels
from engine.evaluation.lesions import LesionSite, coverage, lesion_sites, lesion_table, seen_table
from engine.evaluation.metrics import Array
from engine.evaluation.probing import smaller
from engine.volume import Volume

CT, MR = parse_levels("ct20w,mr7")


def untouched(volume: Volume) -> Array:
    """Remove nothing."""
    return volume.array


def blurred(volume: Volume) -> Array:
    """Smooth in-plane, one pixel wide."""
    return ndimage.gaussian_filter(volume.array, (0, 1.0, 1.0))


def faded(volume: Volume) -> Array:
    """Take a fifth of every deviation from soft tissue away."""
    return np.asarray(60 + np.float32(0.8) * (volume.array - 60), np.float32)


@pytest.fixture(scope="module")
def crop() -> Truth:
    return probes.uniform_truth(CT, (16, 96, 96))


def test_a_rod_that_nobody_touched_is_as_sharp_as_before() -> None:
    (row,) = probes.rod_sharpness(untouched, CT, (400.0,))
    assert row["f50 out / truth"] == pytest.approx(1.0, abs=0.05)
    assert row["f50 out / truth"] == row["f50 in / truth"]


def test_f50_of_a_gaussian_edge_is_that_of_its_transfer_function() -> None:
    distance = probes.rod_distance(probes.soft_tissue_phantom((4, 64, 64)))
    for width in (1.0, 1.5):
        edge = special.erfc((distance - 10) / (width * np.sqrt(2))).astype(np.float32)
        expected = np.sqrt(np.log(2) / (2 * np.pi**2)) / width
        assert probes.f50(edge, distance) == pytest.approx(expected, rel=0.12)


def test_a_uniform_body_that_nobody_touched_keeps_its_texture() -> None:
    row = probes.texture(untouched, MR)
    assert (row["SD out / in"], row["NPS peak out / in"], row["NPS mean out / in"]) == (1.0, 1.0, 1.0)
    assert row["blobs in"] == row["blobs out"] > 0


def test_a_blur_lowers_the_frequency_of_the_noise() -> None:
    row = probes.texture(blurred, CT)
    assert row["NPS mean out / in"] < 0.6
    assert row["SD out / in"] == pytest.approx(1 / (2 * np.sqrt(np.pi)), rel=0.05)


def test_a_blob_that_was_drawn_is_counted() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (16, 48, 48)).astype(np.float32)
    blob = np.zeros_like(noise)
    blob[8, 24, 24] = 2000.0
    inside = np.ones(noise.shape, bool)
    assert probes.count_blobs(noise, ndimage.gaussian_filter(blob, 2.0), inside)[1] >= 1
    assert probes.count_blobs(noise, np.zeros_like(noise), inside)[1] == 0


def test_nothing_done_harms_nothing(crop: Truth) -> None:
    row = probes.do_no_harm(untouched, noisy_case(crop, CT))
    found = [row[k] for k in ("D(y) - y, sigma", "D(D(y)) - D(y), sigma", "flips, sigma", "constant, R")]
    assert found == pytest.approx([0, 0, 0, 0], abs=1e-5)


def test_hundreds_of_evaluations_run_where_there_is_tissue() -> None:
    truth = probes.uniform_truth(CT, (16, 128, 128))
    array = np.full_like(truth.volume.array, -1000.0)
    array[:, 70:118, 70:118] = 60.0
    lung = replace(truth, volume=truth.volume.with_array(array), body=array > 0)

    part = smaller(lung)

    assert part.volume.array.shape == (16, 48, 48)
    assert part.body.mean() > 0.7


def test_a_denoiser_that_prefers_a_side_is_caught_by_the_flips(crop: Truth) -> None:
    def one_sided(volume: Volume) -> Array:
        return np.asarray((volume.array + np.roll(volume.array, 1, axis=2)) / 2, np.float32)

    assert probes.do_no_harm(one_sided, noisy_case(crop, CT))["flips, sigma"] > 0.3


def test_near_clean_change_counts_in_deviations() -> None:
    assert probes.near_clean_change(untouched, CT)["change, sigma"] == 0
    assert probes.near_clean_change(lambda v: v.array + np.float32(10), CT)["change, sigma"] == pytest.approx(
        0.5
    )


def test_a_sphere_has_its_volume(crop: Truth) -> None:
    _, cover = coverage(crop, (8.0, 48.0, 48.0), 12.0)
    voxel_mm3 = 2.5 * 0.7 * 0.7
    assert float(cover.sum()) * voxel_mm3 == pytest.approx(np.pi / 6 * 12**3, rel=0.03)


def test_untouched_lesions_are_recovered_exactly_and_faded_ones_in_part(crop: Truth) -> None:
    kept = list(lesion_sites(untouched, crop, CT))
    assert {s.diameter_mm for s in kept} == {3.0, 5.0, 8.0, 12.0}
    assert [s.recovery for s in kept] == pytest.approx([1.0] * len(kept), abs=1e-3)
    assert [s.recovery for s in lesion_sites(faded, crop, CT)] == pytest.approx([0.8] * len(kept), abs=1e-3)


def test_lesions_are_told_apart_by_voxel_cnr() -> None:
    sites = [
        LesionSite("x", "a", 5.0, 40.0, cnr, cnr / 4, 1.0, 1.0, 0.1 * i, 0.1 * i)
        for i, cnr in enumerate([1.0, 1.0, 3.0, 5.0])
    ]
    seen, unseen = seen_table(sites)
    assert (seen["lesions"], seen["recovery"], seen["n"]) == ("CNR >= 3", 1.0, 2)
    assert (unseen["recovery"], unseen["n"]) == (0.25, 2)
    assert [row["voxel CNR"] for row in lesion_table(sites)] == [1.0, 3.0, 5.0]

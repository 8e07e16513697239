"""`dicom-node enhance` on real files: what it writes, what it refuses, and that a refusal leaves nothing."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.cli.main import main
from dicom_node.imaging.derivation import DerivationPolicy
from dicom_node.imaging.phantom_series import CT_STYLE, write_ct_series, write_mr_series
from dicom_node.imaging.verify import verify_series
from engine.enhancer import EnhancementResult, Enhancer
from engine.identity import IdentityEnhancer
from engine.phantom import head_phantom, noisy_ct, noisy_mr
from engine.volume import IntensityUnit, Volume

CT = ("--modality", "CT")
CLASSICAL = (*CT, "--model", "classical")
NOISE_HU = 20.0


@pytest.fixture(scope="module")
def ct() -> Volume:
    return noisy_ct(head_phantom((16, 96, 96), (3.0, 2.4, 2.4)), NOISE_HU, seed=1)


@pytest.fixture(scope="module")
def mr(ct: Volume) -> Volume:
    clean = replace(ct, array=np.maximum(ct.array + 1000, 0), unit=IntensityUnit.ARBITRARY)
    return noisy_mr(clean, 30.0, seed=2)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


Answer = tuple[int, str, str]


@pytest.fixture
def enhance(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., Answer]:
    """Run the command in this process; exit status, standard output and standard error."""

    def run(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["dicom-node", "enhance", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr()
        return int(caught.value.code or 0), told.out, told.err

    return run


def save_nifti(volume: Volume, path: Path, dtype: str = "<i2") -> Path:
    """The volume as converters write it: columns first, RAS."""
    ras = np.diag([-1, -1, 1, 1]) @ volume.affine[:, [2, 1, 0, 3]]
    array = volume.array.transpose(2, 1, 0)
    image = nib.Nifti1Image((np.rint(array) if dtype[1] in "iu" else array).astype(dtype), ras)
    image.header["descrip"] = b"keep me"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def entries(folder: Path) -> set[str]:
    """Everything below, hidden things included."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_refused(answer: Answer, *words: str) -> None:
    """Exit status 2 and one line that says why."""
    status, _, line = answer
    assert status == 2, answer
    assert line.count("\n") == 1, line
    for word in words:
        assert word in line


# --- NIfTI


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", "<i4", "<f4", "<f8"])
def test_the_identity_enhancer_returns_the_file_byte_for_byte(
    site: Path, mr: Volume, enhance: Callable[..., Answer], dtype: str
) -> None:
    source = save_nifti(mr, site / "in" / "a.nii", dtype)
    status, _, error = enhance(source, "-o", site / "b.nii", "--model", "identity", "--modality", "MR")
    assert (status, error) == (0, "")
    assert (site / "b.nii").read_bytes() == source.read_bytes()


def test_the_name_of_the_output_says_whether_it_is_compressed(
    site: Path, mr: Volume, enhance: Callable[..., Answer]
) -> None:
    source = save_nifti(mr, site / "in" / "a.nii.gz")
    assert enhance(source, "-o", site / "b.nii", "--model", "identity", "--modality", "MR")[0] == 0
    assert (site / "b.nii").read_bytes() == gzip.decompress(source.read_bytes())


def test_a_nifti_ct_gets_less_noise_and_keeps_all_else(
    site: Path, ct: Volume, enhance: Callable[..., Answer]
) -> None:
    source = save_nifti(ct, site / "in" / "a.nii.gz")
    status, said, error = enhance(source, "-o", site / "b.nii.gz", *CT, "--report", site / "r.json")
    assert (status, error) == (0, "")
    assert said.count("\n") == 1
    assert entries(site) == {"in", "in/a.nii.gz", "b.nii.gz", "r.json"}
    before, after = gzip.decompress(source.read_bytes()), gzip.decompress((site / "b.nii.gz").read_bytes())
    assert before[:352] == after[:352]
    assert before != after
    report = json.loads((site / "r.json").read_text())
    assert report["enhancer"]["name"] == "ddpm3d-ctmr-1"
    assert report["request"]["strength"] == 1.0
    (facts,) = report["volumes"]
    assert facts["result"] == "ENHANCED"
    assert facts["noise_before"] == pytest.approx(NOISE_HU, rel=0.25)
    assert facts["noise_after"] < 0.5 * facts["noise_before"]
    assert facts["metrics"]["snr_change_percent"] > 100
    assert abs(facts["metrics"]["bias"]) < 1.0
    assert set(facts["seconds"]) == {"READ", "ENHANCE", "GUARD", "WRITE", "VERIFY", "TOTAL"}
    assert facts["memory"]["peak_bytes"] > 1 << 20
    assert all(check["passed"] for check in facts["guards"]["checks"])
    assert facts["verification"]["passed"]
    assert 0.86 <= facts["parameters"]["strength"] < 0.92  # of CT with 20 HU some grain is kept


def test_a_nifti_without_modality_is_refused_unless_a_file_beside_states_it(
    site: Path, ct: Volume, enhance: Callable[..., Answer]
) -> None:
    source = save_nifti(ct, site / "in" / "a.nii")
    assert_refused(enhance(source, "-o", site / "b.nii"), "--modality CT")
    assert entries(site) == {"in", "in/a.nii"}
    (site / "in" / "a.json").write_text('{"Modality": "CT"}')
    assert enhance(source, "-o", site / "b.nii")[0] == 0


# --- DICOM


def test_a_dicom_series_becomes_a_derived_series_that_verifies(
    site: Path, ct: Volume, enhance: Callable[..., Answer]
) -> None:
    paths = write_ct_series(ct, site / "in")
    status, _, error = enhance(site / "in", "-o", site / "out", "--report", site / "r.json")
    assert (status, error) == (0, "")
    derived = sorted((site / "out").iterdir())
    assert [path.name for path in derived] == [f"{number:05d}.dcm" for number in range(1, 17)]
    assert verify_series(paths, derived, policy=DerivationPolicy()).passed
    assert "strength=1 " in dcmread(derived[0]).DerivationDescription
    (facts,) = json.loads((site / "r.json").read_text())["volumes"]
    assert facts["derived_series_instance_uid"] == dcmread(derived[0]).SeriesInstanceUID
    assert facts["metrics"]["snr_change_percent"] > 100
    assert facts["verification"]["passed"]


def test_two_runs_never_share_a_uid(site: Path, ct: Volume, enhance: Callable[..., Answer]) -> None:
    write_ct_series(ct, site / "in")
    for name in ("one", "two"):
        assert enhance(site / "in", "-o", site / name, "--model", "identity")[0] == 0
    uids = {dcmread(site / name / "00001.dcm").SOPInstanceUID for name in ("one", "two")}
    assert len(uids) == 2


def test_an_ineligible_series_is_refused_with_its_reason(
    site: Path, ct: Volume, enhance: Callable[..., Answer]
) -> None:
    style = replace(CT_STYLE, attributes={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})
    write_ct_series(ct, site / "in", style=style)
    before = entries(site)
    assert_refused(enhance(site / "in", "-o", site / "out", "--report", site / "r.json"), "localizer")
    assert entries(site) == before


def test_an_instance_that_cannot_be_parsed_holds_its_series(
    site: Path, ct: Volume, enhance: Callable[..., Answer]
) -> None:
    write_ct_series(ct, site / "in")[3].write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    before = entries(site)
    status, said, error = enhance(site / "in", "-o", site / "out")
    assert (status, error.count("\n")) == (2, 1)
    assert "cannot be parsed" in " ".join(said.split())
    assert entries(site) == before


@pytest.mark.parametrize("start", [128, None], ids=["DICM without preamble", "bare data set"])
def test_a_file_without_preamble_is_no_slice_that_may_be_missed(
    site: Path, ct: Volume, enhance: Callable[..., Answer], start: int | None
) -> None:
    path = write_ct_series(ct, site / "in")[0]
    content = path.read_bytes()
    path.write_bytes(content[start or 144 + int.from_bytes(content[140:144], "little") :])
    (site / "in" / "notes.txt").write_text("08 are the slices")
    before = entries(site)
    status, said, _ = enhance(site / "in", "-o", site / "out")
    assert status == 2
    assert "lacks its preamble" in " ".join(said.split())
    assert entries(site) == before


def test_a_missing_slice_is_refused(site: Path, ct: Volume, enhance: Callable[..., Answer]) -> None:
    write_ct_series(ct, site / "in")[7].unlink()
    before = entries(site)
    assert_refused(enhance(site / "in", "-o", site / "out"), "missing")
    assert entries(site) == before


# --- batches


def test_a_folder_of_everything_is_a_batch(
    site: Path, ct: Volume, mr: Volume, enhance: Callable[..., Answer]
) -> None:
    write_ct_series(ct, site / "in" / "x")
    write_mr_series(mr, site / "in" / "y", style=replace(CT_STYLE, slopes=(), intercept=0.0, series_number=3))
    save_nifti(ct, site / "in" / "deep" / "a.nii.gz")
    (site / "in" / "deep" / "a.json").write_text('{"Modality": "CT"}')
    (site / "in" / "broken.nii").write_bytes(b"not a volume")
    (site / "in" / "broken.json").write_text('{"Modality": "MR"}')
    (site / "in" / "._a.nii").write_bytes(b"hidden")
    (site / "in" / "notes.txt").write_text("notes")
    status, said, error = enhance(
        site / "in", "-o", site / "out", "--model", "identity", "--report", site / "r.json"
    )
    assert (status, error) == (1, "")
    top = {path.name for path in (site / "out").iterdir()}
    assert {"deep"} < top
    assert {name[:7] for name in top - {"deep"}} == {"CT-0002", "MR-0003"}
    assert (site / "out" / "deep" / "a.nii.gz").is_file()
    assert "FAILED" in said
    assert not any(".partial" in name for name in entries(site))
    volumes = json.loads((site / "r.json").read_text())["volumes"]
    assert sorted(entry["result"] for entry in volumes) == ["ENHANCED"] * 3 + ["FAILED"]
    assert [e["reason"] for e in volumes if e["result"] == "FAILED"] == ["INVALID_NIFTI"]


def test_series_left_alone_for_good_reason_are_no_failure(
    site: Path, ct: Volume, mr: Volume, enhance: Callable[..., Answer]
) -> None:
    write_ct_series(ct, site / "in" / "x")
    write_mr_series(mr, site / "in" / "y", style=replace(CT_STYLE, slopes=(), intercept=0.0))
    status, said, _ = enhance(site / "in", "-o", site / "out", "--model", "identity", *CT)
    assert status == 0
    assert "LEFT_ALONE" in said
    assert len(list((site / "out").iterdir())) == 1


def test_a_batch_of_nothing_good_writes_nothing(site: Path, enhance: Callable[..., Answer]) -> None:
    for name in ("a.nii", "b.nii"):
        (site / "in" / name).write_bytes(b"no volume")
    before = entries(site)
    assert_refused(enhance(site / "in", "-o", site / "out", *CT, "--report", site / "r.json"), "2 inputs")
    assert entries(site) == before


def test_output_below_input_is_not_input_of_the_next_run(
    site: Path, ct: Volume, enhance: Callable[..., Answer]
) -> None:
    save_nifti(ct, site / "in" / "a.nii")
    command = (site / "in", "-o", site / "in" / "out", "--model", "identity", *CT)
    assert enhance(*command)[0] == 0
    assert_refused(enhance(*command), "--force")
    assert enhance(*command, "--force")[0] == 0
    assert entries(site / "in") == {"a.nii", "out", "out/a.nii"}


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("nowhere.nii", "-o", "b.nii"), "does not exist"),
        (("x" * 300, "-o", "out"), "too long"),
        (("a.nii", "-o", "x" * 300 + ".nii", *CT), "too long"),
        (("in", "-o", "out"), "neither"),
        (("a.nii", "-o", "b.nii", "--model", "magic"), "no enhancer"),
        (("a.nii", "-o", "b.nii", *CLASSICAL, "--mode", "mean"), "'mode'"),
        (("a.nii", "-o", "b.nii", *CLASSICAL, "--steps", "3"), "'steps'"),
        (("a.nii", "-o", "b.nii", *CLASSICAL, "--device", "cpu"), "'device'"),
        (("a.nii", "-o", "b.nii", *CT, "--strength", "1.5"), "between 0 and 1"),
        (("a.nii", "-o", "b.nii", *CT, "--strength", "nan"), "between 0 and 1"),
        (("a.nii", "-o", "out", *CT), ".nii or .nii.gz"),
        (("a.nii", "-o", "a.nii", *CT, "--force"), "replace the input"),
        (("a.nii", "-o", "b.nii", *CT, "--report", "a.nii", "--force"), "replace the input"),
        (("a.nii", "-o", "nowhere/b.nii", *CT), "does not exist"),
        (("a.nii", "-o", "taken.nii", *CT), "--force"),
        (("a.nii", "-o", "b.nii", *CT, "--report", "taken.nii"), "--force"),
        (("a.nii", "-o", "b.nii", *CLASSICAL, "--uncertainty", "u.nii"), "no uncertainty"),
        (("a.nii", "-o", "b.nii", *CT, "--uncertainty", "u.txt"), ".nii or .nii.gz"),
        (("taken.nii", "-o", "b.nii", *CT), "not a NIfTI"),
        (("notes.txt", "-o", "b.nii"), "no .nii"),
        (("one.dcm", "-o", "out"), "folder of its series"),
    ],
)
def test_a_refusal_is_one_line_exit_status_two_and_leaves_nothing(
    site: Path,
    ct: Volume,
    enhance: Callable[..., Answer],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    word: str,
) -> None:
    save_nifti(ct, site / "a.nii")
    (site / "taken.nii").write_bytes(b"here first")
    (site / "notes.txt").write_text("notes")
    (site / "one.dcm").write_bytes(bytes(128) + b"DICM")
    before = {name: (site / name).read_bytes() for name in entries(site) if (site / name).is_file()}
    monkeypatch.chdir(site)
    assert_refused(enhance(*arguments), word)
    assert {name: (site / name).read_bytes() for name in entries(site) if (site / name).is_file()} == before


def test_several_volumes_in_one_file_are_refused(site: Path, enhance: Callable[..., Answer]) -> None:
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9, 3), np.int16), np.eye(4)), site / "a.nii")
    assert_refused(enhance(site / "a.nii", "-o", site / "b.nii", *CT), "several volumes")
    assert entries(site) == {"in", "a.nii"}


# --- enhancers of other kinds


class Doubtful(IdentityEnhancer):
    """Changes nothing and doubts every voxel by 2."""

    def enhance(self, volume: Volume, **more: Any) -> EnhancementResult:
        result = super().enhance(volume, **more)
        return replace(result, uncertainty=np.full_like(volume.array, 2.0))


class Careless(IdentityEnhancer):
    """Adds five units everywhere, which the guards refuse."""

    def enhance(self, volume: Volume, **more: Any) -> EnhancementResult:
        result = super().enhance(volume, **more)
        return replace(result, volume=volume.with_array(volume.array + np.float32(5)))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Enhancer], None]:
    """Let the command find this enhancer, whatever it is asked for."""

    def install(enhancer: Enhancer) -> None:
        monkeypatch.setattr("dicom_node.offline.batch.build_enhancer", lambda *_: enhancer)

    return install


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_the_uncertainty_lies_on_the_grid_of_the_volume(
    site: Path, ct: Volume, enhance: Callable[..., Answer], use: Callable[[Enhancer], None], kind: str
) -> None:
    use(Doubtful())
    reference = save_nifti(ct, site / "a.nii.gz")
    source, output = (reference, "b.nii.gz") if kind == "nifti" else (site / "in", "out")
    write_ct_series(ct, site / "in")
    command = (source, "-o", site / output, "--uncertainty", site / "u.nii.gz")
    assert enhance(*command, *CT)[0] == 0
    found = nib.load(site / "u.nii.gz")
    assert found.shape == (96, 96, 16)
    np.testing.assert_allclose(found.affine, nib.load(reference).affine, atol=1e-4)
    assert np.unique(np.asarray(found.dataobj)).tolist() == [2.0]


def test_one_map_is_not_for_two_volumes(
    site: Path, ct: Volume, enhance: Callable[..., Answer], use: Callable[[Enhancer], None]
) -> None:
    use(Doubtful())
    save_nifti(ct, site / "in" / "a.nii")
    save_nifti(ct, site / "in" / "b.nii")
    assert_refused(
        enhance(site / "in", "-o", site / "out", *CT, "--uncertainty", site / "u.nii"), "one volume"
    )
    assert entries(site) == {"in", "in/a.nii", "in/b.nii"}


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_what_a_guard_refuses_is_not_written(
    site: Path, ct: Volume, enhance: Callable[..., Answer], use: Callable[[Enhancer], None], kind: str
) -> None:
    use(Careless())
    write_ct_series(ct, site / "in")
    source, output = (save_nifti(ct, site / "a.nii"), "b.nii") if kind == "nifti" else (site / "in", "out")
    before = entries(site)
    assert_refused(enhance(source, "-o", site / output, *CT), "guard")
    assert entries(site) == before


# --- as a process of its own


def test_terminated_half_way_it_leaves_nothing(site: Path, ct: Volume) -> None:
    big = replace(ct, array=np.ascontiguousarray(np.tile(ct.array, (6, 3, 3))))
    save_nifti(big, site / "in" / "a.nii")
    command = [sys.executable, "-m", "dicom_node", "enhance", "in", "-o", "out", *CT, "--report", "r.json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(command, cwd=site, env=environment)
    deadline = time.monotonic() + 60
    while not any(name.endswith(".partial") for name in entries(site)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert entries(site) == {"in", "in/a.nii"}


def test_help_says_that_this_is_for_research_only(enhance: Callable[..., Answer]) -> None:
    assert "Research use only" in enhance("--help")[1]

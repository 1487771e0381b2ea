"""The command on what fMRIPrep --level minimal leaves: outputs, report, methods, and one line for what is wrong."""

import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from minimal import FIELD_ID, Minimal, edit_image, edit_sidecar

COEFFICIENTS = f"sub-01_fmapid-{FIELD_ID}_desc-coeff_fieldmap.nii.gz"
HMC = "from-orig_to-boldref_mode-image_desc-hmc_xfm.txt"


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, narrow):
    """A run with everything, encoded by the command."""
    from neurostorm_bids.command.main import main

    folder = tmp_path_factory.mktemp("minimal")
    case = Minimal(folder, slice_times=list(np.linspace(0, 1.9, 42)), n_volumes=14)
    out = folder / "out"
    with pytest.raises(SystemExit) as stop:
        main(
            [
                *map(
                    str,
                    (
                        case.derivatives,
                        out,
                        "participant",
                        "-d",
                        f"raw={case.raw}",
                        "--model",
                        narrow,
                        "--fd-threshold",
                        "0.5",
                    ),
                )
            ]
        )
    assert not stop.value.code
    return case, out


def sidecar(out):
    return json.loads(next(out.rglob("func/*_embeddings.json")).read_text())


def test_what_was_done_is_in_the_sidecar(encoded):
    _, out = encoded
    steps = sidecar(out)["Preprocessing"]
    assert steps["InputSpace"] == "raw"
    raw = steps["RawSeries"]
    assert raw["DistortionCorrection"]["Fieldmap"] == FIELD_ID
    assert raw["DistortionCorrection"]["PhaseEncodingDirection"] == "j"
    assert raw["DistortionCorrection"]["Jacobian"] is False
    assert raw["SliceTiming"]["Moment"] == 0.95
    assert (steps["StartTime"], steps["SliceTimingCorrected"]) == (0.95, True)
    assert any(source.startswith("bids:raw:sub-01/func/") for source in sidecar(out)["Sources"])


def test_head_motion_comes_from_the_transforms(encoded):
    _, out = encoded
    assert sidecar(out)["FramewiseDisplacement"]["Mean"] > 0.5
    table = pd.read_csv(next(out.rglob("func/*_embeddings.tsv")), sep="\t")
    assert (table["mean_framewise_displacement"] > 0.5).all()


def test_the_report_shows_what_the_fieldmap_changes(encoded):
    _, out = encoded
    page = (out / "sub-01.html").read_text()
    assert "Correction of distortion" in page
    assert f"fieldmap {FIELD_ID}, phase encoding j" in page
    assert "slices shifted to 0.95 s" in page
    picture = next(out.rglob("figures/*_desc-fieldmap_bold.png"))
    assert picture.stat().st_size > 20_000


def test_the_methods_text_says_it(encoded):
    _, out = encoded
    text = re.sub(r"\s+", " ", (out / "logs" / "CITATION.md").read_text())
    assert "the raw series were sampled, by the transforms" in text
    assert "3dTshift" in text
    assert "susceptibility distortion (the B-spline fieldmap" in text
    assert "Framewise displacement was computed from the head motion of fMRIPrep's transforms" in text


def test_a_second_call_finds_it_finished(encoded, neurostorm, narrow):
    case, out = encoded
    call = (case.derivatives, out, "participant", "-d", f"raw={case.raw}", "--model", narrow, "--fd-threshold", "0.5")
    status, _, said = neurostorm(*call)
    assert status == 0
    assert "resampling" not in said


def cut_transforms(case):
    path = case.named(HMC)
    path.write_text("\n".join(path.read_text().splitlines()[:-8]))


def without_orientation(case):
    path = case.derivatives / "sub-01" / "fmap" / COEFFICIENTS
    image = nib.load(path)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, path)


def not_fetched(case):
    path = case.raw / "sub-01" / "func" / f"{case.run}_bold.nii.gz"
    path.unlink()
    path.symlink_to("../../../.git/annex/objects/MD5E-s1--0.nii.gz")


def raw_json(case):
    return case.raw / "sub-01" / "func" / f"{case.run}_bold.json"


BAD = [
    (cut_transforms, r"hmc_xfm.txt has transforms of 3 volumes, the raw series 5 volumes"),
    (lambda case: edit_image(case.named("desc-hmc_boldref.nii.gz"), lambda d: d[1:]), "transforms are of another run"),
    (without_orientation, r"desc-coeff_fieldmap.nii.gz: the header sets neither qform nor sform"),
    (lambda case: edit_sidecar(raw_json(case), PhaseEncodingDirection=None), "has no PhaseEncodingDirection"),
    (lambda case: edit_sidecar(raw_json(case), TotalReadoutTime=None), "--fallback-total-readout-time"),
    (not_fetched, "not fetched: .*_bold.nii.gz is a link"),
    (lambda case: case.named(HMC).write_text("nothing"), "hmc_xfm.txt cannot be read as ITK transforms"),
    (
        lambda case: case.named("desc-hmc_boldref.nii.gz").unlink(),
        "file not found: .*desc-hmc_boldref.nii.gz, the BOLD reference.*fetch it",
    ),
    (
        lambda case: (case.derivatives / "sub-01" / "fmap" / COEFFICIENTS).write_bytes(b"x"),
        "coeff_fieldmap.nii.gz cannot be read",
    ),
    (lambda case: edit_sidecar(raw_json(case), SliceTiming=[0, 1]), "--slice-timing off"),
    (lambda case: (case.raw / "task-rest_bold.json").write_text("{,}"), "task-rest_bold.json is not readable JSON"),
]


@pytest.mark.parametrize(("damage", "message"), BAD)
def test_what_is_wrong_is_one_line(tmp_path, neurostorm, narrow, damage, message):
    case = Minimal(tmp_path)
    damage(case)
    call = (case.derivatives, tmp_path / "out", "participant", "-d", f"raw={case.raw}", "--model", narrow)
    status, _, said = neurostorm(*call, "--target-tr", "0.5")
    assert status == 1
    lines = [line for line in said.splitlines() if re.search(message, line)]
    assert len(lines) >= 1, said
    assert "Traceback" not in said
    assert "bug" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--slice-timing", "on"), "has no SliceTiming"),
        (("--slice-timing", "on", "--dummy-scans", "2"), "fewer than 5 volumes"),
        (("--fallback-total-readout-time", "0"), "above 0 s"),
        (("--denoise", "compcor"), "--denoise motion"),
        (("--denoise", "motion"), "5 volumes to fit 2[4-9] confounds; too few"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, neurostorm, narrow, options, message):
    case = Minimal(tmp_path)
    call = (case.derivatives, tmp_path / "out", "participant", "-d", f"raw={case.raw}", "--model", narrow)
    status, _, said = neurostorm(*call, "--target-tr", "0.5", *options)
    assert status == 1
    assert re.search(message, said), said


def test_slice_timing_that_is_not_used_need_not_be_right(tmp_path, neurostorm, narrow):
    case = Minimal(tmp_path, sidecar={"SliceTiming": [0, 1]})
    log = case.derivatives / "sub-01" / "log" / "20260101-1"
    log.mkdir(parents=True)
    (log / "fmriprep.toml").write_text('[workflow]\nignore = ["slicetiming"]\n')
    call = (case.derivatives, tmp_path / "out", "participant", "-d", f"raw={case.raw}", "--model", narrow)
    status, _, said = neurostorm(*call, "--target-tr", "0.5")
    assert status == 0, said
    steps = sidecar(tmp_path / "out")["Preprocessing"]["RawSeries"]
    assert steps["SliceTiming"] == "none: fMRIPrep left it out"
    status, *_ = neurostorm(*call, "--target-tr", "0.5", "--boilerplate-only")
    assert status == 0
    assert "3dTshift" not in (tmp_path / "out" / "logs" / "CITATION.md").read_text()


def test_a_run_without_a_fieldmap_says_so_everywhere(tmp_path, neurostorm, narrow):
    case, out = Minimal(tmp_path, has_field=False), tmp_path / "out"
    call = (case.derivatives, out, "participant", "-d", f"raw={case.raw}", "--model", narrow, "--target-tr", "0.5")
    status, _, said = neurostorm(*call)
    assert status == 0, said
    assert "distortion" in said
    assert sidecar(out)["Preprocessing"]["RawSeries"]["DistortionCorrection"].startswith("none")
    page = " ".join((out / "sub-01.html").read_text().split())
    assert re.search(r"[Dd]istortion[^<]*</dt> ?<dd>[^<]*n(one|ot)", page)
    text = " ".join((out / "logs" / "CITATION.md").read_text().split())
    assert "Susceptibility distortion was not corrected" in text


def test_head_motion_alone_can_be_regressed_out(tmp_path, neurostorm, narrow):
    case = Minimal(tmp_path, n_volumes=32, has_field=False)
    call = (case.derivatives, tmp_path / "out", "participant", "-d", f"raw={case.raw}", "--model", narrow)
    status, _, said = neurostorm(*call, "--denoise", "motion")
    assert status == 0, said
    done = sidecar(tmp_path / "out")["Preprocessing"]["Denoising"]
    assert len([name for name in done["Confounds"] if not name.startswith("cosine")]) == 24


def test_the_raw_data_set_is_never_written_to(tmp_path, neurostorm, narrow):
    case = Minimal(tmp_path)
    before = sorted(case.raw.rglob("*"))
    for out, more in ((case.raw, ()), (tmp_path / "out", ("--work-dir", case.raw / "w"))):
        status, _, said = neurostorm(
            case.derivatives, out, "participant", "-d", f"raw={case.raw}", "--model", narrow, *more
        )
        assert status == 1
        assert "is inside the input, which is never written to" in said
    assert sorted(case.raw.rglob("*")) == before


def test_a_resampled_series_is_not_shifted_again(tree, tmp_path, neurostorm, narrow):
    tree.run()
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, "--slice-timing", "on")
    assert status == 1
    assert "was preprocessed already" in said
    assert "give --input-space raw" in said

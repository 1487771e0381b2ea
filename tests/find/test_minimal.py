"""Raw series, and fMRIPrep's transforms that lead to them, are found under all their names."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import GOLDEN, RUN, Tree, save, signal
from minimal import FIELD_ID, Minimal, edit_sidecar, write_transforms
from nibabel.affines import apply_affine, from_matvec
from scipy.spatial.transform import Rotation

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.acquisition import phase_encoding, slice_timing
from neurostorm_bids.find.dataset import find_dataset
from neurostorm_bids.find.motion import framewise_displacement, parameters_of, read_rigid_transforms
from neurostorm_bids.find.participants import read_phenotype
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.find.source import choose_source
from neurostorm_bids.hpc.container import call_of
from neurostorm_bids.settings import Settings
from neurostorm_bids.settings.participant import Resampling, Selection

SPACE = "MNI152NLin6Asym"


@pytest.fixture
def copied(tmp_path):
    """The golden run, raw/ and fmriprep/, to be changed."""
    for name in ("raw", "fmriprep"):
        shutil.copytree(GOLDEN / "minimal" / name, tmp_path / name)
    return tmp_path


def runs_of(derivatives, raw=None, of_all=False):
    dataset = find_dataset(derivatives, {"raw": raw} if raw else {})
    return dataset, *find_runs(dataset, Selection(), raw=of_all)


def source_of(derivatives, raw=None, **options):
    dataset, runs, problems = runs_of(derivatives, raw, of_all=options.get("input_space") == "raw")
    assert not problems
    return choose_source(runs[0], dataset, SPACE, Resampling(mask="template", **options))


def names(paths):
    return [path.name.removeprefix("sub-01_").removeprefix("task-rest_") for path in paths]


@pytest.mark.parametrize(
    "where", ["given", "around", "inside", "link", "source", "sources of a sidecar"]
)  # fmt: skip
def test_the_raw_data_set_is_found(copied, tmp_path, where):
    derivatives, raw = copied / "fmriprep", copied / "raw"
    if where == "around":
        derivatives = shutil.move(derivatives, raw / "derivatives" / "fmriprep")
    if where == "inside":
        raw = shutil.move(raw, derivatives / "sourcedata" / "raw")
    if where == "link":
        edit_sidecar(derivatives / "dataset_description.json", DatasetLinks={"raw": "../raw"})
    if where == "source":
        edit_sidecar(derivatives / "dataset_description.json", SourceDatasets=[{"URL": raw.as_uri()}])
    if where == "sources of a sidecar":  # names differ, and the path is another machine's
        for path in (raw / "sub-01" / "func").iterdir():
            path.rename(path.with_name(path.name.replace("task-rest", "task-rest_acq-old")))
        hmc = next((derivatives / "sub-01" / "func").glob("*hmc_xfm.txt"))
        sources = {"RawSources": ["/scratch/x/sub-01/func/sub-01_task-rest_acq-old_bold.nii.gz"]}
        hmc.with_suffix(".json").write_text(json.dumps(sources))
    given = raw if where in ("given", "sources of a sidecar") else None
    source = source_of(derivatives, given)
    assert source.file.path.name.endswith("_bold.nii.gz")
    assert source.file.path.is_relative_to(raw)
    dataset = runs_of(derivatives, given)[0]
    assert dataset.uri(source.file.path).startswith("bids:raw:sub-01/func/")


def test_without_the_raw_data_set_it_is_asked_for(copied):
    runs, problems = runs_of(copied / "fmriprep")[1:]
    assert not runs
    assert re.search(r"sub-01_task-rest.*transforms.*give the raw data set with -d raw=PATH", str(problems[0]))


def test_every_step_is_there_in_its_order(copied):
    source = source_of(copied / "fmriprep", copied / "raw")
    assert names(source.transforms) == [
        "from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5",
        "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt",
    ]
    inputs = names(source.inputs)
    for name in ("from-orig_to-boldref_mode-image_desc-hmc_xfm.txt", f"fmapid-{FIELD_ID}_desc-coeff_fieldmap.nii.gz"):
        assert name in inputs


@pytest.mark.parametrize("level", ["session", "subject"])
def test_sessions_and_subjects_have_a_coregistration_of_their_own(tmp_path, level):
    case = Minimal(tmp_path, version="26.0.0", n_volumes=2)
    func = case.derivatives / "sub-01" / "func"
    case.named("from-run_to-T1w_mode-image_desc-coreg_xfm.txt").rename(
        func / f"sub-01_from-{level}_to-T1w_mode-image_desc-coreg_xfm.txt"
    )
    write_transforms(case.named(f"from-run_to-{level}_mode-image_desc-coreg_xfm.txt"), [case.coreg])
    assert names(source_of(case.derivatives, case.raw).transforms)[1:] == [
        f"from-{level}_to-T1w_mode-image_desc-coreg_xfm.txt",
        f"from-run_to-{level}_mode-image_desc-coreg_xfm.txt",
    ]


def test_what_fmriprep_resampled_is_taken_before_the_raw_series(copied):
    tree = Tree(copied / "fmriprep")
    tree.run(RUN)
    assert source_of(tree.path, copied / "raw").file.space_name == SPACE
    chosen = source_of(tree.path, copied / "raw", input_space="raw")
    assert chosen.file.path.is_relative_to(copied / "raw")
    assert chosen.run.motion.layout == "fmriprep"  # its table of confounds is there


def test_where_raw_series_are_asked_for_a_run_without_one_is_named(copied):
    tree = Tree(copied / "fmriprep")
    tree.run(RUN)
    next((copied / "raw" / "sub-01" / "func").glob("*.nii.gz")).unlink()
    assert [run.name for run in runs_of(tree.path, copied / "raw")[1]] == [RUN]
    _, runs, problems = runs_of(tree.path, copied / "raw", of_all=True)
    assert not runs
    assert "not its raw series" in problems[0].text


@pytest.mark.parametrize("version", ["23.2.0", "24.1.1", "25.2.5", "26.0.0"])
def test_the_fieldmap_is_found_by_whichever_name(tmp_path, version):
    case = Minimal(tmp_path, version=version, n_volumes=2)
    parts = source_of(case.derivatives, case.raw).file.raw
    assert parts.fieldmap.identifier == FIELD_ID
    assert parts.jacobian_of_all == (version < "25")


@pytest.mark.parametrize(
    ("reference", "sources", "expected"),
    [
        ("epi", [], True),
        ("magnitude", [], None),
        ("magnitude", ["sub-01/fmap/sub-01_phasediff.nii.gz"], False),
        ("magnitude", [f"bids:raw:sub-01/fmap/sub-01_dir-{d}_epi.nii.gz" for d in ("AP", "PA")], True),
        ("magnitude", ["bids:raw:sub-01/func/sub-01_task-rest_bold.nii.gz"], False),  # SyN
        (None, [], None),
    ],
)
def test_the_kind_of_fieldmap_is_told(copied, reference, sources, expected):
    fmap = copied / "fmriprep" / "sub-01" / "fmap"
    image = next(fmap.glob("*magnitude*"))
    if reference is None:
        image.unlink()
    else:
        image.rename(image.with_name(image.name.replace("magnitude", reference)))
    (fmap / f"sub-01_fmapid-{FIELD_ID}_desc-preproc_fieldmap.json").write_text(json.dumps({"RawSources": sources}))
    assert source_of(copied / "fmriprep", copied / "raw").file.raw.fieldmap.is_pepolar is expected


def test_a_transform_to_a_fieldmap_that_is_not_there_is_no_run_without_one(copied):
    next((copied / "fmriprep" / "sub-01" / "fmap").glob("*coeff*")).unlink()
    problem = runs_of(copied / "fmriprep", copied / "raw")[2][0]
    assert "no fmap/*_fmapid-auto00000_desc-coeff_fieldmap.nii.gz" in problem.text


def test_of_several_fieldmaps_the_raw_series_says_which(copied):
    func = copied / "fmriprep" / "sub-01" / "func"
    shutil.copy(
        next(func.glob("*desc-fmap_xfm.txt")),
        func / "sub-01_task-rest_from-boldref_to-other_mode-image_desc-fmap_xfm.txt",
    )
    assert "name one of them in B0FieldSource" in runs_of(copied / "fmriprep", copied / "raw")[2][0].text
    edit_sidecar(copied / "raw" / "sub-01" / "func" / "sub-01_task-rest_bold.json", B0FieldSource="auto_00000")
    assert source_of(copied / "fmriprep", copied / "raw").file.raw.fieldmap.identifier == FIELD_ID


@pytest.mark.parametrize("place", ["derivatives", "raw"])
def test_of_several_fieldmaps_the_one_that_is_intended_for_the_run_is_taken(copied, place):
    func = copied / "fmriprep" / "sub-01" / "func"
    to_other = "sub-01_task-rest_from-boldref_to-other_mode-image_desc-fmap_xfm.txt"
    shutil.copy(next(func.glob("*desc-fmap_xfm.txt")), func / to_other)
    intended = {"IntendedFor": ["bids::sub-01/func/sub-01_task-rest_bold.nii.gz"]}
    made_of = {"RawSources": ["bids:raw:sub-01/fmap/sub-01_phasediff.nii.gz"]}
    image = copied / "raw" / "sub-01" / "fmap" / "sub-01_phasediff.json"
    image.parent.mkdir(exist_ok=True)
    image.write_text(json.dumps(intended if place == "raw" else {}))
    about = copied / "fmriprep" / "sub-01" / "fmap" / f"sub-01_fmapid-{FIELD_ID}_desc-preproc_fieldmap.json"
    about.write_text(json.dumps(made_of | (intended if place == "derivatives" else {})))
    assert source_of(copied / "fmriprep", copied / "raw").file.raw.fieldmap.identifier == FIELD_ID


def test_several_echoes_are_for_fmriprep_to_combine(copied):
    func = copied / "raw" / "sub-01" / "func"
    bold = func / "sub-01_task-rest_bold.nii.gz"
    for echo in (1, 2):
        shutil.copy(bold, func / f"sub-01_task-rest_echo-{echo}_bold.nii.gz")
    bold.unlink()
    assert "2 echoes" in runs_of(copied / "fmriprep", copied / "raw")[2][0].text


def test_a_phase_image_is_no_series(copied):
    func = copied / "raw" / "sub-01" / "func"
    bold = func / "sub-01_task-rest_bold.nii.gz"
    shutil.copy(bold, func / "sub-01_task-rest_part-phase_bold.nii.gz")
    bold.rename(func / "sub-01_task-rest_part-mag_bold.nii.gz")
    assert "part-mag" in source_of(copied / "fmriprep", copied / "raw").file.path.name


def test_fmriprep_s_configuration_says_what_it_left_out(copied):
    log = copied / "fmriprep" / "sub-01" / "log" / "20260101-1"
    log.mkdir(parents=True)
    (log / "fmriprep.toml").write_text('[workflow]\nignore = ["slicetiming"]\nslice_time_ref = 0.25\n')
    parts = source_of(copied / "fmriprep", copied / "raw").file.raw
    assert (parts.slice_timing, parts.slice_time_ref) == (False, 0.25)


METHODS = (
    "BOLD runs were slice-time corrected to {} (0.{} of slice acquisition range\n0s-2.19s) using `3dTshift` from AFNI."
)


REPORTLET = "<li>Slice timing correction: {}</li>"


@pytest.mark.parametrize(
    ("files", "decisive", "expected"),
    [
        ({"figures/sub-01_task-rest_desc-summary_bold.html": REPORTLET.format("Not applied")}, 1, (False, None)),
        ({"figures/sub-01_task-rest_desc-summary_bold.html": REPORTLET.format("Applied")}, 1, (True, None)),
        ({"figures/sub-01_task-nback_desc-summary_bold.html": REPORTLET.format("Not applied")}, 0, (True, None)),
        ({"../logs/CITATION.md": METHODS.format("0.547s", 25)}, 1, (True, 0.25)),
        ({"../logs/CITATION.html": METHODS.format("1e-05s", 0)}, 1, (True, 0.0)),
        (
            {"../sub-01.html": METHODS.format("2s", 75), "../logs/CITATION.md": METHODS.format("1s", 25)},
            1,
            (True, 0.75),
        ),
        ({"../logs/CITATION.md": "BOLD runs were slice-time corrected using `3dTshift` from AFNI."}, 0, (True, None)),
        (
            {
                "log/1/fmriprep.toml": "[workflow]\nslice_time_ref = 0.5\n",
                "../logs/CITATION.md": METHODS.format("1s", 25),
            },
            1,
            (True, 0.5),
        ),
    ],
)
def test_what_fmriprep_did_about_slices_is_read_from_what_it_wrote(copied, files, decisive, expected):
    subject = copied / "fmriprep" / "sub-01"
    paths = [(subject / name).resolve() for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    parts = source_of(copied / "fmriprep", copied / "raw").file.raw
    assert (parts.slice_timing, parts.slice_time_ref) == expected
    assert [path for path in paths if path in parts.evidence] == paths[:decisive]


def test_a_configuration_that_is_not_fetched_or_differs_from_the_last_one_is_named(copied, caplog):
    logs = copied / "fmriprep" / "sub-01" / "log"
    for name, text in (
        ("20260101-1", '[workflow]\nignore = ["slicetiming"]\n'),
        ("20260102-1", "[workflow]\nignore = []\n"),
    ):
        (logs / name).mkdir(parents=True)
        (logs / name / "fmriprep.toml").write_text(text)
    assert source_of(copied / "fmriprep", copied / "raw").file.raw.slice_timing
    assert "differ in what they left out" in caplog.text
    (logs / "20260103-1").mkdir()
    (logs / "20260103-1" / "fmriprep.toml").symlink_to("/annex/of/another/machine")
    (logs / "20260104-1").mkdir()
    (logs / "20260104-1" / "fmriprep.toml").write_text("[workflow\n")
    caplog.clear()
    source_of(copied / "fmriprep", copied / "raw")
    assert "20260103-1/fmriprep.toml: not fetched" in caplog.text
    assert "what fMRIPrep was told is not known of one call" in caplog.text


def test_what_nibabies_was_told_counts(copied):
    log = copied / "fmriprep" / "sub-01" / "ses-1" / "log" / "20260101-1"
    log.mkdir(parents=True)
    (log / "nibabies.toml").write_text('[workflow]\nignore = ["slicetiming"]\n')
    assert not source_of(copied / "fmriprep", copied / "raw").file.raw.slice_timing


def test_coefficients_of_two_versions_are_refused(copied):
    fmap = copied / "fmriprep" / "sub-01" / "fmap"
    one = next(fmap.glob("*coeff*"))
    shutil.copy(one, one.with_name(one.name.replace("coeff", "coeff0")))
    assert "coefficients of several versions" in runs_of(copied / "fmriprep", copied / "raw")[2][0].text


def test_of_two_names_of_a_transform_the_newer_one_counts(copied):
    func = copied / "fmriprep" / "sub-01" / "func"
    newer = next(func.glob("*desc-fmap_xfm.txt"))
    shutil.copy(newer, newer.with_name(newer.name.replace("_desc-fmap", "")))
    hmc = func / "sub-01_task-rest_from-orig_to-run_mode-image_desc-hmc_xfm.txt"
    shutil.copy(next(func.glob("*desc-hmc_xfm.txt")), hmc)
    source = source_of(copied / "fmriprep", copied / "raw")
    assert source.file.raw.fieldmap.transform == newer
    assert source.file.raw.head_motion == hmc
    assert len(source.run.files) == 1


def test_a_run_that_fmriprep_did_not_finish_is_left_out(copied, caplog):
    derivatives = shutil.move(copied / "fmriprep", copied / "raw" / "derivatives" / "fmriprep")
    Tree(derivatives).run("sub-01_task-nback")
    runs, problems = runs_of(derivatives)[1:]
    assert [run.name for run in runs] == ["sub-01_task-nback"]
    assert not problems
    assert "-d raw=PATH takes them from the raw series" in caplog.text
    assert len(runs_of(derivatives, copied / "raw")[1]) == 2


def test_what_the_user_named_comes_before_a_raw_data_set_that_was_found(copied):
    derivatives = shutil.move(copied / "fmriprep", copied / "raw" / "derivatives" / "fmriprep")
    (derivatives / "participants.tsv").write_text("participant_id\tsex\nsub-01\tF\n")
    (copied / "raw" / "participants.tsv").write_text("participant_id\tage\nsub-01\t20\n")
    found = find_dataset(derivatives)
    assert found.raw == (copied / "raw").resolve()
    assert list(read_phenotype(found, None).table) == ["participant_id", "sex"]
    assert list(read_phenotype(find_dataset(copied / "raw"), None).table) == ["participant_id", "age"]


def test_a_filter_that_names_series_finds_raw_ones(copied, tmp_path):
    filters = tmp_path / "filter.json"
    filters.write_text('{"bold": {"datatype": "func", "suffix": "bold", "task": "rest"}}')
    dataset = find_dataset(copied / "fmriprep", {"raw": copied / "raw"})
    runs, problems = find_runs(dataset, Selection(bids_filter_file=filters))
    assert [run.name for run in runs] == [RUN]
    assert not problems


def test_derivatives_are_no_raw_data_set_of_their_own(copied):
    edit_sidecar(copied / "fmriprep" / "dataset_description.json", DatasetLinks={"raw": "../raw"})
    found = find_dataset(copied / "fmriprep", {"fmriprep": copied / "fmriprep"})
    assert found.raw == (copied / "raw").resolve()


@pytest.mark.parametrize("place", ["http://[x", "a\0b", "../nowhere"])
def test_a_link_that_leads_nowhere_is_passed_over(copied, place):
    edit_sidecar(copied / "fmriprep" / "dataset_description.json", DatasetLinks={"raw": place})
    assert find_dataset(copied / "fmriprep").raw is None


def test_another_study_at_the_linked_path_is_not_believed(copied):
    edit_sidecar(copied / "fmriprep" / "dataset_description.json", DatasetLinks={"raw": "../raw"})
    (copied / "raw" / "sub-01").rename(copied / "raw" / "sub-99")
    assert find_dataset(copied / "fmriprep").raw is None


def test_a_raw_data_set_that_was_found_is_bound_in_containers(copied, tmp_path):
    edit_sidecar(copied / "fmriprep" / "dataset_description.json", DatasetLinks={"raw": "../raw"})
    settings = Settings.of(copied / "fmriprep", tmp_path / "out")
    words = call_of(settings, tmp_path / "x.sif", gpu=False)
    assert f"{(copied / 'raw').resolve()}:{(copied / 'raw').resolve()}:ro" in words


def test_what_fmriprep_was_told_of_the_jacobian_counts(copied):
    log = copied / "fmriprep" / "sub-01" / "log" / "20260101-1"
    log.mkdir(parents=True)
    (log / "fmriprep.toml").write_text('[workflow]\nforce = ["fmap-jacobian"]\n')
    source = source_of(copied / "fmriprep", copied / "raw")
    assert source.file.raw.scales_intensities("auto")
    assert not source.file.raw.scales_intensities("off")
    assert log / "fmriprep.toml" in source.inputs


def test_a_version_that_is_not_known_is_not_old(copied):
    description = copied / "fmriprep" / "dataset_description.json"
    edit_sidecar(description, GeneratedBy=[{"Name": "fMRIPrep", "Version": "0+untagged.1"}])
    assert not source_of(copied / "fmriprep", copied / "raw").file.raw.jacobian_of_all


def test_a_task_that_is_not_there_is_named_beside_those_that_are(copied):
    dataset = find_dataset(copied / "fmriprep", {"raw": copied / "raw"})
    with pytest.raises(NeurostormError, match=r"there are: task-rest; did you mean task-rest\?"):
        find_runs(dataset, Selection(task_id=("Rest",)))


def test_two_files_of_a_run_are_no_echoes(copied):
    bold = copied / "raw" / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz"
    bold.with_name("sub-01_task-rest_bold.nii").write_bytes(b"x")
    assert "it is not clear which one is the run" in runs_of(copied / "fmriprep", copied / "raw")[2][0].text


READOUT = [
    ({"TotalReadoutTime": 0.05}, None, 0.05),
    ({"EffectiveEchoSpacing": 0.0005}, None, 0.0005 * 35),
    ({"EchoSpacing": 0.001, "ParallelReductionFactorInPlane": 2}, None, 0.001 * 17),
    ({"EchoSpacing": 0.001}, None, 0.001 * 35),
    ({"WaterFatShift": 10.0, "EPIFactor": 35, "ImagingFrequency": 127.7}, None, 10 / (3.39941 * 127.7 * 36) * 35),
    ({"WaterFatShift": 10.0, "EPIFactor": 35, "MagneticFieldStrength": 3}, None, 10 / (144.7383333 * 3 * 36) * 35),
    ({}, "0.04", 0.04),
    ({"EstimatedTotalReadoutTime": 0.03}, "estimated", 0.03),
    ({"EstimatedEffectiveEchoSpacing": 0.001}, "estimated", 0.035),
    ({"EstimatedTotalReadoutTime": 0.03}, "0.04", 0.04),
]


@pytest.mark.parametrize(("said", "fallback", "expected"), READOUT, ids=lambda value: str(value))
def test_the_readout_time_is_the_first_that_is_known(tmp_path, said, fallback, expected):
    path = tmp_path / "sub-01_task-rest_bold.json"
    path.write_text(json.dumps({"PhaseEncodingDirection": "j-", **said}))
    encoding = phase_encoding([path], (40, 36, 30), fallback)
    assert encoding.readout_time == pytest.approx(-expected, rel=1e-6)
    assert encoding.axis == 1
    assert not encoding.notes


BAD = [
    ({"TotalReadoutTime": 0.05}, "has no PhaseEncodingDirection"),
    ({"PhaseEncodingDirection": "y"}, "not i, j or k"),
    ({"PhaseEncodingDirection": "j"}, "has no TotalReadoutTime .* --fallback-total-readout-time"),
    ({"PhaseEncodingDirection": "j", "TotalReadoutTime": 0}, "TotalReadoutTime is 0, not a number above 0"),
    ({"PhaseEncodingDirection": "j", "EstimatedTotalReadoutTime": 0.05}, "has no TotalReadoutTime"),
]


@pytest.mark.parametrize(("said", "message"), BAD)
def test_what_is_missing_of_the_phase_encoding_is_named(tmp_path, said, message):
    path = tmp_path / "sub-01_task-rest_bold.json"
    path.write_text(json.dumps(said))
    with pytest.raises(NeurostormError, match=message) as problem:
        phase_encoding([path], (40, 36, 30))
    assert str(path) in str(problem.value)


def test_what_is_not_used_of_the_readout_need_not_be_right(tmp_path):
    path = tmp_path / "bold.json"
    path.write_text(
        json.dumps({"PhaseEncodingDirection": "i", "TotalReadoutTime": 0.05, "WaterFatShift": 0, "EPIFactor": "x"})
    )
    assert phase_encoding([path], (40, 36, 30)).readout_time == 0.05


def test_readout_times_that_contradict_each_other_are_told(tmp_path):
    path = tmp_path / "bold.json"
    path.write_text(
        json.dumps({"PhaseEncodingDirection": "i", "TotalReadoutTime": 0.05, "EffectiveEchoSpacing": 0.0005})
    )
    encoding = phase_encoding([path], (40, 36, 30))
    assert encoding.readout_time == 0.05
    assert re.search(r"TotalReadoutTime gives .* 0.05 s, EffectiveEchoSpacing 0.0195 s", encoding.notes[0])


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0, 0.5], "2 times, the series 3 slices"),
        ([0, 500, 1000], "is it in ms"),
        (["a", 1, 2], "not a list of numbers"),
    ],
)
def test_slice_timing_that_does_not_fit_is_refused(tmp_path, times, message):
    path = tmp_path / "bold.json"
    path.write_text(json.dumps({"SliceTiming": times}))
    with pytest.raises(NeurostormError, match=f"{message}.*--slice-timing off"):
        slice_timing([path], (9, 9, 3), 2.0)


def test_motion_is_that_of_rigid_maps(tmp_path):
    # about the centre of mass, turning moves nothing: translations are those of the centre
    case = Minimal(tmp_path, has_field=False, n_volumes=4, kind="LAS")
    maps = read_rigid_transforms(case.named("from-orig_to-boldref_mode-image_desc-hmc_xfm.txt"), 4)
    millimetres, radians = parameters_of(maps, case.named("desc-hmc_boldref.nii.gz"))
    displacement = framewise_displacement(millimetres, radians)
    assert displacement[0] != displacement[0]
    assert (displacement[1:] > 0.1).all()
    still = Minimal(tmp_path / "still", has_field=False, n_volumes=3, moves=0.0)
    maps = read_rigid_transforms(still.named("from-orig_to-boldref_mode-image_desc-hmc_xfm.txt"), 3)
    assert framewise_displacement(*parameters_of(maps, still.named("desc-hmc_boldref.nii.gz")))[1:] == pytest.approx(
        0, abs=1e-6
    )


REAL = Path(__file__).parents[3] / "shared" / "real" / "B3_hmc_ds005" / "sub-01_task-mixedgamblestask_run-01_"


@pytest.mark.skipif(not REAL.parent.is_dir(), reason="fMRIPrep's own files are not here")
def test_motion_is_that_of_fmriprep_from_the_same_transforms():
    theirs = pd.read_csv(f"{REAL}desc-motion_timeseries.tsv", sep="\t")
    maps = read_rigid_transforms(Path(f"{REAL}from-orig_to-boldref_mode-image_desc-hmc_xfm.txt"), len(theirs))
    millimetres, radians = parameters_of(maps, Path(f"{REAL}desc-hmc_boldref.nii.gz"))
    np.testing.assert_allclose(millimetres, theirs[["trans_x", "trans_y", "trans_z"]], atol=2e-4)
    np.testing.assert_allclose(radians, theirs[["rot_x", "rot_y", "rot_z"]], atol=1e-6)
    np.testing.assert_allclose(
        framewise_displacement(millimetres, radians)[1:], theirs["framewise_displacement"][1:], atol=5e-4
    )


@pytest.mark.parametrize("x", [-2.5, 2.5])  # stored LAS, RAS
def test_motion_about_the_centre_is_what_was_put_in(tmp_path, x):
    """Turns about one world axis through the centre of mass, and shifts: framewise displacement by its definition, by hand."""
    affine = from_matvec(np.diag([x, 3.0, 3.5]), [-x * 20, -50, -40])
    values = np.zeros((40, 36, 30), np.float32)
    values[8:35, 6:28, 4:25] = 100  # its centre is not that of the image
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "boldref.nii.gz")
    centre = apply_affine(affine, [21, 16.5, 14])
    shifts = np.array([[0, 0, 0], [0.3, -0.1, 0.2], [0.3, 0.4, 0.2], [-0.2, 0.4, 0.9]])
    for axis in range(3):
        angles = np.array([0, 0.004, -0.006, 0.003])
        turns = Rotation.from_rotvec(angles[:, None] * np.eye(3)[axis]).as_matrix()
        maps = [from_matvec(turn, centre - turn @ centre + shift) for turn, shift in zip(turns, shifts, strict=True)]
        write_transforms(tmp_path / "hmc.txt", np.array(maps))
        read = read_rigid_transforms(tmp_path / "hmc.txt", 4)
        displacement = framewise_displacement(*parameters_of(read, tmp_path / "boldref.nii.gz"))
        expected = np.abs(np.diff(shifts, axis=0)).sum(axis=1) + 50 * np.abs(np.diff(angles))
        assert displacement[1:] == pytest.approx(expected, abs=0.02)  # shifts are turned by up to 0.006


def test_the_own_space_of_newer_versions_is_read(tmp_path):
    case = Minimal(tmp_path, version="26.0.0", n_volumes=2)
    save(case.named("desc-preproc_bold.nii.gz"), signal(), repetition_time=2.0)
    source = source_of(case.derivatives, case.raw)
    assert source.file.space is None
    assert names(source.transforms)[1:] == ["from-run_to-T1w_mode-image_desc-coreg_xfm.txt"]

"""Trees as labs have them: which runs are found, from which files, and what is said where there is none."""

import json
import re

import pytest

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import COHORTS, find_dataset
from neurostorm_bids.find.motion import read_motion
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.find.source import choose_source
from neurostorm_bids.settings.participant import Resampling, Selection

C, F = "MNI152NLin2009cAsym", "MNI152NLin6Asym"
WARP = f"tpl-{F}_from-{C}_mode-image_xfm.h5"
FIELD = "reg/example_func2standard_warp.nii.gz"


def tree(folder, names, generator="fMRIPrep"):
    """Write a tree of empty files, with a description unless there is no generator."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if generator:
        about = {"Name": "x", "BIDSVersion": "1.4.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": generator}]}
        (folder / "dataset_description.json").write_text(json.dumps(about))
    return folder


def run_of(version, run="sub-01_task-mg_run-1", spaces=(f"space-{C}_res-2",), mask=True, sub="sub-01"):
    """Return the files of one run as a version of fMRIPrep names them."""
    older = version < (23, 2)
    coreg = (
        "from-scanner_to-T1w_mode-image_xfm.txt" if older
        else "from-boldref_to-T1w_mode-image_xfm.txt" if version < (25, 2)
        else "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt"
    )  # fmt: skip
    func = f"{sub}/func/{run}"
    names = [f"{func}_{coreg}", f"{func}_desc-confounds_timeseries.tsv"]
    for space in ("", *spaces):
        stem = f"{func}_{space}_" if space else f"{func}_"
        names += [f"{stem}desc-preproc_bold.nii.gz", f"{stem}desc-preproc_bold.json"]
        names += [f"{stem}desc-brain_mask.nii.gz"] if mask else []
    return names


def anatomy(spaces=(C,), sub="sub-01", masks=()):
    """Return a subject's transforms and brain masks."""
    anat = f"{sub}/anat/{sub}"
    names = [f"{anat}_desc-brain_mask.nii.gz", *(f"{anat}_space-{space}_desc-brain_mask.nii.gz" for space in masks)]
    return names + [f"{anat}_from-T1w_to-{space}_mode-image_xfm.h5" for space in spaces]


def hcp(folder, *runs, mask="brainmask_fs.2.nii.gz", more=("Movement_Regressors.txt",)):
    results = [f"{folder}/MNINonLinear/Results/{run}" for run in runs]
    return [
        f"{each}/{name}" for each, run in zip(results, runs, strict=True) for name in (f"{run}.nii.gz", mask, *more)
    ]


def ukb(visit, kind="rfMRI.ica", series="filtered_func_data_clean.nii.gz"):
    rest = "rfMRI" if kind == "rfMRI.ica" else "tfMRI"
    names = (series, "mask.nii.gz", FIELD, "mc/prefiltered_func_data_mcf.par")
    return [*(f"{visit}/fMRI/{kind}/{name}" for name in names), f"{visit}/fMRI/{rest}.json"]


# What is there, and, for each run: its name; the series, brain mask, head motion and transforms that it is read with
VERSIONS = [(20, 2), (21, 0), (22, 1), (23, 0), (23, 2), (24, 1), (25, 0), (25, 2)]
LAYOUTS = {
    **{
        f"fMRIPrep {major}.{minor}": (
            run_of((major, minor)) + anatomy((F, C)),
            {
                "sub-01_task-mg_run-1": (
                    f"sub-01_task-mg_run-1_space-{C}_res-2_desc-preproc_bold.nii.gz",
                    f"sub-01_task-mg_run-1_space-{C}_res-2_desc-brain_mask.nii.gz",
                    "sub-01_task-mg_run-1_desc-confounds_timeseries.tsv",
                    [WARP],
                )
            },
        )
        for major, minor in VERSIONS
    },
    "trimmed for sharing: no mask beside the BOLD": (
        run_of((20, 2), spaces=(f"space-{F}_res-2",), mask=False) + anatomy(masks=(F,)),
        {
            "sub-01_task-mg_run-1": (
                f"sub-01_task-mg_run-1_space-{F}_res-2_desc-preproc_bold.nii.gz",
                f"sub-01_space-{F}_desc-brain_mask.nii.gz",
                "sub-01_task-mg_run-1_desc-confounds_timeseries.tsv",
                [],
            )
        },
    ),
    "trimmed further: the T1w mask alone": (
        run_of((20, 2), spaces=(f"space-{F}_res-2",), mask=False) + anatomy((F,)),
        {
            "sub-01_task-mg_run-1": (
                f"sub-01_task-mg_run-1_space-{F}_res-2_desc-preproc_bold.nii.gz",
                "sub-01_desc-brain_mask.nii.gz",
                "sub-01_task-mg_run-1_desc-confounds_timeseries.tsv",
                [],
            )
        },
    ),
    "rec- and part-": (
        run_of((25, 0), "sub-01_task-mg_rec-magnitude_part-mag", (f"space-{F}_res-2",)),
        {
            "sub-01_task-mg_rec-magnitude_part-mag": (
                f"sub-01_task-mg_rec-magnitude_part-mag_space-{F}_res-2_desc-preproc_bold.nii.gz",
                f"sub-01_task-mg_rec-magnitude_part-mag_space-{F}_res-2_desc-brain_mask.nii.gz",
                "sub-01_task-mg_rec-magnitude_part-mag_desc-confounds_timeseries.tsv",
                [],
            )
        },
    ),
    "multi-echo: the combined series": (
        [f"sub-01/func/sub-01_task-mg_echo-{i}_desc-preproc_bold.nii.gz" for i in (1, 2, 3)]
        + run_of((25, 2), "sub-01_task-mg", (f"space-{F}_res-2",)),
        {
            "sub-01_task-mg": (
                f"sub-01_task-mg_space-{F}_res-2_desc-preproc_bold.nii.gz",
                f"sub-01_task-mg_space-{F}_res-2_desc-brain_mask.nii.gz",
                "sub-01_task-mg_desc-confounds_timeseries.tsv",
                [],
            )
        },
    ),
    "legacy: confounds_regressors": (
        [
            f"sub-01/func/sub-01_task-a_space-{F}_desc-preproc_bold.nii.gz",
            f"sub-01/func/sub-01_task-a_space-{F}_desc-brain_mask.nii.gz",
            "sub-01/func/sub-01_task-a_desc-confounds_regressors.tsv",
        ],
        {
            "sub-01_task-a": (
                f"sub-01_task-a_space-{F}_desc-preproc_bold.nii.gz",
                f"sub-01_task-a_space-{F}_desc-brain_mask.nii.gz",
                "sub-01_task-a_desc-confounds_regressors.tsv",
                [],
            )
        },
    ),
    "NiBabies: infants with a transform to an adult template, by the T2w image": (
        [
            "sub-01/func/sub-01_task-rest_space-MNIInfant_cohort-2_res-2_desc-preproc_bold.nii.gz",
            "sub-01/func/sub-01_task-rest_space-T2w_desc-preproc_bold.nii.gz",
            "sub-01/func/sub-01_task-rest_space-T2w_desc-brain_mask.nii.gz",
            f"sub-01/anat/sub-01_from-T2w_to-{F}_mode-image_xfm.h5",
        ],
        {
            "sub-01_task-rest": (
                "sub-01_task-rest_space-T2w_desc-preproc_bold.nii.gz",
                "sub-01_task-rest_space-T2w_desc-brain_mask.nii.gz",
                None,
                [f"sub-01_from-T2w_to-{F}_mode-image_xfm.h5"],
            )
        },
    ),
    "HCP Young Adult": (
        hcp("100307", "rfMRI_REST1_LR", "tfMRI_WM_RL", mask="brainmask_fs.2.nii.gz"),
        {
            "sub-100307_task-WM_dir-RL": ("tfMRI_WM_RL.nii.gz", "brainmask_fs.2.nii.gz", "Movement_Regressors.txt", []),
            "sub-100307_task-rest_dir-LR_run-1": (
                "rfMRI_REST1_LR.nii.gz",
                "brainmask_fs.2.nii.gz",
                "Movement_Regressors.txt",
                [],
            ),
        },
    ),
    "HCP Young Adult, 7T": (
        hcp("100610", "tfMRI_MOVIE1_7T_AP", mask="brainmask_fs.1.60.nii.gz", more=()),
        {
            "sub-100610_task-MOVIE_acq-7T_dir-AP_run-1": (
                "tfMRI_MOVIE1_7T_AP.nii.gz",
                "brainmask_fs.1.60.nii.gz",
                None,
                [],
            )
        },
    ),
    "HCP Aging": (
        hcp("HCA6002236_V1_MR", "rfMRI_REST1_AP", "tfMRI_CARIT_PA", mask="brainmask_fs.2.0.nii.gz"),
        {
            "sub-HCA6002236_ses-V1_task-CARIT_dir-PA": (
                "tfMRI_CARIT_PA.nii.gz",
                "brainmask_fs.2.0.nii.gz",
                "Movement_Regressors.txt",
                [],
            ),
            "sub-HCA6002236_ses-V1_task-rest_dir-AP_run-1": (
                "rfMRI_REST1_AP.nii.gz",
                "brainmask_fs.2.0.nii.gz",
                "Movement_Regressors.txt",
                [],
            ),
        },
    ),
    "HCP pipelines on a BIDS data set": (
        hcp("sub-01", "ses-1_task-nback_run-02_bold", "My_Own Scan"),
        {
            "sub-01_ses-1_task-nback_run-02": (
                "ses-1_task-nback_run-02_bold.nii.gz",
                "brainmask_fs.2.nii.gz",
                "Movement_Regressors.txt",
                [],
            ),
            "sub-01_task-MyOwnScan": ("My_Own Scan.nii.gz", "brainmask_fs.2.nii.gz", "Movement_Regressors.txt", []),
        },
    ),
    "UK Biobank": (
        ukb("1000001_20227_2_0") + ukb("1000001_3_0", "tfMRI.feat", "filtered_func_data.nii.gz") + ukb("1000002"),
        {
            "sub-1000001_ses-2_task-rest": (
                "filtered_func_data_clean.nii.gz",
                "mask.nii.gz",
                "prefiltered_func_data_mcf.par",
                ["example_func2standard_warp.nii.gz"],
            ),
            "sub-1000001_ses-3_task-hariri": (
                "filtered_func_data.nii.gz",
                "mask.nii.gz",
                "prefiltered_func_data_mcf.par",
                ["example_func2standard_warp.nii.gz"],
            ),
            "sub-1000002_task-rest": (
                "filtered_func_data_clean.nii.gz",
                "mask.nii.gz",
                "prefiltered_func_data_mcf.par",
                ["example_func2standard_warp.nii.gz"],
            ),
        },
    ),
}


def generator_of(kind):
    return None if kind.startswith(("HCP", "UK")) else kind.split(":")[0].split()[0] if "NiB" in kind else "fMRIPrep"


@pytest.mark.parametrize("kind", LAYOUTS)
def test_what_is_found(tmp_path, monkeypatch, kind):
    warp = tmp_path / f"tpl-{F}" / WARP
    warp.parent.mkdir()
    warp.write_text("a warp")
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    names, expected = LAYOUTS[kind]
    data = find_dataset(tree(tmp_path / "d", names, generator_of(kind)))
    runs, problems = find_runs(data, Selection())
    assert problems == []
    found = {}
    for run in runs:
        source = choose_source(run, data, F, Resampling(template_warp="require"))
        motion = run.motion.path.name if run.motion else None
        found[run.name] = (source.file.path.name, source.mask.path.name, motion, [p.name for p in source.transforms])
    assert found == expected


def nested(folder):
    tree(folder / "derivatives" / "fmriprep" / "fmriprep", run_of((25, 2)), None)


def two_versions(folder):
    for version in ("24.1", "25.2"):
        tree(folder / "derivatives" / f"fmriprep-{version}", run_of((25, 2)))


def one_of_others(folder):
    tree(folder / "derivatives" / "mriqc", ["sub-01/anat/x.txt"], "MRIQC")
    tree(folder / "derivatives" / "fmriprep-24.1", run_of((24, 1)))


def one_subject_of_hcp(folder):
    tree(folder, hcp("100307", "rfMRI_REST1_LR"), None)
    return folder / "100307"


def unzipped_in_place(folder):
    tree(folder / "1000001_20227_2_0", [name.split("/", 1)[1] for name in ukb("x")], None)
    return folder / "1000001_20227_2_0"


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (nested, {}, "holds no subject, but fmriprep in it does; give --derivatives fmriprep=.*fmriprep/fmriprep"),
        (two_versions, {}, r"several fMRIPrep outputs \(fmriprep-24.1, fmriprep-25.2\); say which"),
        (one_subject_of_hcp, {}, "is the folder of one subject; give its parent .* and --participant-label 100307"),
        (unzipped_in_place, {}, "is the folder of one subject; give its parent .* and --participant-label 1000001"),
        (lambda f: tree(f, ["a/b.txt"], None), {"input_type": "hcp"}, "holds no subject of the HCP pipelines .*MNINonLinear"),
        (lambda f: tree(f, ["a/b.txt"], None), {"input_type": "ukb"}, "holds no subject of the UK Biobank pipeline"),
    ],
)  # fmt: skip
def test_folders_that_hold_no_data_name_the_one_that_does(tmp_path, make, options, message):
    folder = make(tmp_path) or tmp_path
    with pytest.raises(NeurostormError, match=message):
        find_dataset(folder, **options)


def test_one_version_beside_other_programs_is_the_one(tmp_path):
    one_of_others(tmp_path)
    assert find_dataset(tmp_path).path.name == "fmriprep-24.1"


def hcp_problems(folder, names, **selection):
    """Return what is said of HCP folders, and the names of the runs that are found."""
    runs, problems = find_runs(find_dataset(tree(folder, names, None), input_type="hcp"), Selection(**selection))
    return [run.name for run in runs], " ".join(map(str, problems))


GOOD = hcp("100307", "rfMRI_REST1_LR")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (hcp("P_1", "rfMRI_REST1_LR") + hcp("P1", "tfMRI_WM_RL"), "P_1 and .*P1 would both be sub-P1; only the latter"),
        (hcp("200", "rfMRI_REST1_LR")[1:], "sub-200_task-rest_dir-LR_run-1: there is no volume series"),
        (["200/MNINonLinear/T1w.nii.gz"], "200/MNINonLinear/Results is not there or cannot be read"),
        ([n.replace("_LR.nii.gz", "_LR_hp2000_clean.nii.gz") for n in hcp("200", "rfMRI_REST1_LR")], "take the series that is there with --series clean"),
    ],
)  # fmt: skip
def test_what_an_hcp_subject_lacks_is_said_and_the_others_are_found(tmp_path, names, said):
    runs, problems = hcp_problems(tmp_path, GOOD + names)
    assert "sub-100307_task-rest_dir-LR_run-1" in runs
    assert re.search(said, problems), problems


def test_analyses_and_runs_put_together_are_no_runs(tmp_path):
    more = [
        "100307/MNINonLinear/Results/tfMRI_WM/tfMRI_WM_hp200_s2_level2.feat/x.nii.gz",
        *hcp("100307", "fMRI_CONCAT_ALL"),
    ]
    assert hcp_problems(tmp_path, GOOD + more) == (["sub-100307_task-rest_dir-LR_run-1"], "")


def test_denoised_series_alone_are_enough_for_those_who_ask_for_them(tmp_path):
    names = [n.replace("_LR.nii.gz", "_LR_hp2000_clean.nii.gz") for n in GOOD]
    assert hcp_problems(tmp_path, names, series="clean") == (["sub-100307_task-rest_dir-LR_run-1"], "")


def test_a_folder_s_name_is_a_label_too(tmp_path):
    names = hcp("HCA1_V1_MR", "rfMRI_REST1_LR") + hcp("HCA1_V1_MR.long.T1", "rfMRI_REST1_LR") + GOOD
    runs, problems = hcp_problems(tmp_path, names, participant_label=("HCA1_V1_MR",))
    assert runs == ["sub-HCA1_ses-V1_task-rest_dir-LR_run-1", "sub-HCA1_ses-V1long_task-rest_dir-LR_run-1"]
    assert problems == ""


def test_a_subject_s_folder_without_data_is_named(tmp_path):
    (tmp_path / "200").mkdir()
    with pytest.raises(NeurostormError, match=r"200 holds no data of the HCP pipelines .*; fetch or unpack them"):
        hcp_problems(tmp_path, GOOD, participant_label=("200",))


def test_files_that_were_not_fetched_are_taken_for_what_they_are(tmp_path):
    folder = tree(tmp_path, GOOD, None)
    motion = next(folder.rglob("Movement_Regressors.txt"))
    motion.unlink()
    motion.symlink_to("../.git/annex/nowhere")
    (run,), _ = find_runs(find_dataset(folder), Selection())
    with pytest.raises(NeurostormError, match="not fetched"):
        read_motion(run.motion, 12)


def test_a_cohort_given_as_derivatives_is_that_cohort(tmp_path):
    tree(tmp_path / "elsewhere", GOOD, None)
    (tmp_path / "raw").mkdir()
    found = find_dataset(tmp_path / "raw", {"hcp": tmp_path / "elsewhere"})
    assert (found.input_type, found.subjects()) == ("hcp", ["100307"])
    with pytest.raises(NeurostormError, match="--input-type ukb with --derivatives fmriprep: give one of them"):
        find_dataset(tmp_path / "raw", {"fmriprep": tmp_path}, "ukb")


def test_zipped_bulk_files_are_to_be_unpacked(tmp_path):
    (tmp_path / "1000001_20227_2_0.zip").touch()
    with pytest.raises(NeurostormError, match="looks like UK Biobank's: unpack it"):
        find_dataset(tmp_path)


@pytest.mark.parametrize("kind", ["hcp", "ukb"])
def test_a_series_that_is_not_there_is_named_with_the_one_that_is(tmp_path, kind):
    names = hcp("100307", "rfMRI_REST1_LR") if kind == "hcp" else ukb("1000001_2_0")
    data = find_dataset(tree(tmp_path / "d", names, None))
    other = "clean" if kind == "hcp" else "preproc"
    with pytest.raises(NeurostormError, match=f"there is no .*; take the series that is there with --series {'preproc' if kind == 'hcp' else 'clean'}"):  # fmt: skip
        find_runs(data, Selection(series=other))


def test_infants_without_a_transform_to_an_adult_template_are_refused(tmp_path):
    names = ["sub-01/func/sub-01_task-rest_space-MNIInfant_cohort-2_res-2_desc-preproc_bold.nii.gz"]
    data = find_dataset(tree(tmp_path / "d", names, "NiBabies"))
    assert data.input_type == "nibabies"
    (run,), _ = find_runs(data, Selection())
    with pytest.raises(NeurostormError, match=r"MNIInfant\+2 is a template of an age cohort"):
        choose_source(run, data, F, Resampling())


def test_infants_with_one_are_warned_of(tmp_path):
    names, _ = LAYOUTS["NiBabies: infants with a transform to an adult template, by the T2w image"]
    data = find_dataset(tree(tmp_path / "d", names, "NiBabies"))
    (run,), _ = find_runs(data, Selection())
    assert any("infants" in note for note in choose_source(run, data, F, Resampling()).notes)


def test_a_label_that_is_nearly_there_is_named(tmp_path):
    data = find_dataset(tree(tmp_path / "d", [n.replace("sub-01/func/sub-01", "sub-01/ses-1/func/sub-01_ses-1") for n in run_of((25, 2))]))  # fmt: skip
    with pytest.raises(NeurostormError, match=r"there are: ses-1_task-mg_run-1; did you mean ses-1\?"):
        find_runs(data, Selection(session_label=("01",)))
    with pytest.raises(NeurostormError, match="did you mean sub-01"):
        find_runs(data, Selection(participant_label=("1",)))


@pytest.mark.parametrize("kind", ["hcp", "ukb"])
def test_the_folders_of_other_subjects_are_not_looked_into(tmp_path, monkeypatch, kind):
    for i in range(100):
        tree(tmp_path, hcp(str(1000001 + i), "rfMRI_REST1_LR") if kind == "hcp" else ukb(f"{1000001 + i}_2_0"), None)
    data = find_dataset(tmp_path, input_type=kind)
    looked_into = []
    real = COHORTS[kind].is_subject
    monkeypatch.setattr(COHORTS[kind], "is_subject", lambda folder: looked_into.append(folder) or real(folder))
    (run,), problems = find_runs(data, Selection(participant_label=("1000042",)))
    assert run.subject == "1000042"
    assert problems == []
    assert [folder.name.split("_")[0] for folder in looked_into] == ["1000042"]

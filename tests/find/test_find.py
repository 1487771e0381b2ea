"""The right files are found in what every fMRIPrep version writes, and nothing else is looked into."""

import json
import os
from pathlib import Path

import pytest
from bids.layout import BIDSLayout

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.confounds import read_confounds
from neurostorm_bids.find.dataset import find_dataset
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.find.selection import read_filter_file
from neurostorm_bids.find.transforms import find_chains
from neurostorm_bids.settings.participant import Selection

C, F = "MNI152NLin2009cAsym", "MNI152NLin6Asym"
DERIVATIVE = {"Name": "x", "BIDSVersion": "1.4.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}


def dataset(folder: Path, names, description=DERIVATIVE) -> Path:
    """Write a tree of empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    if description is not None:
        (folder / "dataset_description.json").write_text(json.dumps(description))
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def bold(subject="01", session=None, middle="task-rest", space=f"space-{F}_res-2", suffix="desc-preproc_bold.nii.gz"):
    """Path of one file of a tree."""
    parts = [f"sub-{subject}", f"ses-{session}" if session else "", middle, space, suffix]
    return f"sub-{subject}/{f'ses-{session}/' if session else ''}func/{'_'.join(p for p in parts if p)}"


def names(folder, **wanted):
    """Names of the runs found."""
    runs, _ = find_runs(find_dataset(folder), Selection(**wanted))
    return [run.name for run in runs]


@pytest.mark.parametrize(
    ("files", "run", "chosen"),
    [
        # 20.2: no boldref, run-1 unpadded, native voxel size
        ([bold(middle="task-mg_run-1", space=f"space-{C}")], "sub-01_task-mg_run-1", f"space-{C}"),
        # 21.0: several spaces, res-2
        ([bold(space=""), bold(space="space-T1w"), bold(space=f"space-{C}_res-2")], "sub-01_task-rest", f"space-{C}_res-2"),
        # 24.1: both templates, res-02
        ([bold(space=f"space-{C}"), bold(space=f"space-{F}_res-02")], "sub-01_task-rest", f"space-{F}_res-02"),
        # several resolutions of one template
        ([bold(space=f"space-{F}_res-1"), bold(space=f"space-{F}_res-2"), bold(space=f"space-{F}")], "sub-01_task-rest", f"space-{F}_res-2"),
        # 25.2 multi-echo: single echoes in BOLD space beside the combination
        (
            [bold(middle=f"task-rest_echo-{i}", space="") for i in (1, 2, 3)] + [bold(space=f"space-{C}")],
            "sub-01_task-rest",
            f"space-{C}",
        ),
        # sessions and acquisition entities, uncompressed
        (
            [bold(session="pre", middle="task-rest_acq-mb_dir-AP_run-02", suffix="desc-preproc_bold.nii")],
            "sub-01_ses-pre_task-rest_acq-mb_dir-AP_run-02",
            f"space-{F}_res-2",
        ),
        # other programs' files in the same folder
        (
            [bold(), bold(suffix="desc-smoothAROMAnonaggr_bold.nii.gz"), bold(suffix="boldref.nii.gz"), bold(space="hemi-L_space-fsaverage5", suffix="bold.func.gii")],
            "sub-01_task-rest",
            f"space-{F}_res-2",
        ),
    ],
)  # fmt: skip
def test_namings_of_fmriprep_versions(tmp_path, files, run, chosen):
    folder = dataset(tmp_path / "d", files)
    (found,), problems = find_runs(find_dataset(folder), Selection())
    assert problems == []
    assert found.name == run
    assert str(find_chains(found, find_dataset(folder), F)[0]) == chosen


def test_one_echo_alone_is_a_run_and_several_are_not(tmp_path):
    folder = dataset(
        tmp_path / "d", [bold(middle="task-a_echo-1"), bold(middle="task-b_echo-1"), bold(middle="task-b_echo-2")]
    )
    (run,), (problem,) = find_runs(find_dataset(folder), Selection())
    assert run.name == "sub-01_task-a_echo-1"
    assert str(problem).startswith("sub-01_task-b: only single echoes")


def test_a_run_that_nothing_leads_to_says_what_is_missing(tmp_path):
    folder = dataset(tmp_path / "d", [bold(space=""), bold(space="space-T1w"), bold(space="space-MNIInfant_cohort-2")])
    (run,), _ = find_runs(find_dataset(folder), Selection())
    assert {str(file) for file in run.files} == {"space-bold", "space-T1w", "space-MNIInfant+2"}
    with pytest.raises(NeurostormError) as error:
        find_chains(run, find_dataset(folder), F)
    for part in (
        "space-bold: sub-01_task-rest_from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt is not there",
        "space-T1w: sub-01_from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5 is not there",
        "space-MNIInfant+2: MNIInfant+2 is a template of an age cohort",
        "--output-spaces MNI152NLin6Asym:res-2",
    ):
        assert part in str(error.value)


def anat(name, session=None):
    """Path of an anatomical file."""
    return f"sub-01/{f'ses-{session}/' if session else ''}anat/{name}"


TO_F, TO_C = f"from-T1w_to-{F}_mode-image_xfm.h5", f"from-T1w_to-{C}_mode-image_xfm.h5"
COREG, OLD, OLDEST = (
    f"from-{x}_mode-image{y}_xfm.txt"
    for x, y in (("boldref_to-T1w", "_desc-coreg"), ("boldref_to-T1w", ""), ("scanner_to-T1w", ""))
)
WARP = f"tpl-{F}_from-{C}_mode-image_xfm.h5"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([bold(), bold(space=f"space-{C}")], [(f"space-{F}_res-2", []), (f"space-{C}", [WARP])]),
        ([bold(space="space-T1w"), anat(f"sub-01_{TO_F}")], [("space-T1w", [f"sub-01_{TO_F}"])]),
        ([bold(space="space-T1w"), anat(f"sub-01_{TO_C}")], [("space-T1w", [WARP, f"sub-01_{TO_C}"])]),
        # the subject's own transform before the warp between templates
        (
            [bold(space="space-T1w"), anat(f"sub-01_{TO_F}"), bold(space=f"space-{C}_res-2"), anat(f"sub-01_{TO_C}")],
            [("space-T1w", [f"sub-01_{TO_F}"]), (f"space-{C}_res-2", [WARP]), ("space-T1w", [WARP, f"sub-01_{TO_C}"])],
        ),
        *(
            (
                [bold(space=""), bold(space="", suffix=name), anat(f"sub-01_{TO_F}")],
                [("space-bold", [f"sub-01_{TO_F}", f"sub-01_task-rest_{name}"])],
            )
            for name in (COREG, OLD, OLDEST)
        ),
        # sessions: the anatomical is shared, the session's own, or another session's
        *(
            ([bold(session="b", space="space-T1w"), path], [("space-T1w", [Path(path).name])])
            for path in (anat(f"sub-01_{TO_F}"), anat(f"sub-01_ses-b_{TO_F}", "b"), anat(f"sub-01_ses-a_acq-x_run-1_{TO_F}", "a"))
        ),
    ],
)  # fmt: skip
def test_chains_of_transforms(tmp_path, files, expected):
    found = find_dataset(dataset(tmp_path / "d", files))
    (run,), _ = find_runs(found, Selection())
    assert [(str(chain), [step.name for step in chain.steps]) for chain in find_chains(run, found, F)] == expected


def test_two_anatomicals_cannot_be_told_apart(tmp_path):
    files = [bold(session="c", space="space-T1w"), *(anat(f"sub-01_ses-{s}_{TO_F}", s) for s in "ab")]
    found = find_dataset(dataset(tmp_path / "d", files))
    (run,), _ = find_runs(found, Selection())
    with pytest.raises(NeurostormError, match=r"several files .*not clear which"):
        find_chains(run, found, F)


def test_input_space_is_obeyed(tmp_path):
    found = find_dataset(dataset(tmp_path / "d", [bold(), bold(space=f"space-{C}")]))
    (run,), _ = find_runs(found, Selection())
    assert [str(chain) for chain in find_chains(run, found, F, C)] == [f"space-{C}"]
    with pytest.raises(NeurostormError, match=f"no file in --input-space T1w; there are: {C}, {F}"):
        find_chains(run, found, F, "T1w")


@pytest.mark.parametrize("old", [True, False])
def test_confounds_of_both_names(tmp_path, old):
    suffix = "desc-confounds_regressors.tsv" if old else "desc-confounds_timeseries.tsv"
    folder = dataset(tmp_path / "d", [bold(), bold(space="", suffix=suffix)])
    (run,), _ = find_runs(find_dataset(folder), Selection())
    assert run.motion.path.name == f"sub-01_task-rest_{suffix}"


MANY = [
    bold(s, ses, f"task-{t}_run-{r}")
    for s in ("01", "02")
    for ses in ("a", "b")
    for t in ("rest", "nback")
    for r in (1, 2)
]


@pytest.mark.parametrize(
    ("wanted", "n"),
    [
        ({}, 16),
        ({"participant_label": ("02",)}, 8),
        ({"session_label": ("a",)}, 8),
        ({"task_id": ("rest", "nback")}, 16),
        ({"run_label": ("02",)}, 8),
        ({"participant_label": ("01",), "session_label": ("b",), "task_id": ("rest",), "run_label": ("1",)}, 1),
    ],
)
def test_selection(tmp_path, wanted, n):
    assert len(names(dataset(tmp_path / "d", MANY), **wanted)) == n


def test_labels_that_are_not_there_are_reported(tmp_path):
    folder = find_dataset(dataset(tmp_path / "d", MANY))
    _, problems = find_runs(
        folder, Selection(participant_label=("01", "99"), session_label=("a", "z"), task_id=("rest", "gamble"))
    )
    assert len(problems) == 3
    assert problems[0].text == "sub-99 was asked for but not found; there are: 01, 02"
    with pytest.raises(NeurostormError, match="sub-99 was asked for"):
        find_runs(folder, Selection(participant_label=("99",)))


def test_filter_file(tmp_path):
    folder = dataset(tmp_path / "d", [bold(), bold("01", "a"), bold("02", "b", "task-rest_acq-x")])
    file = tmp_path / "filter.json"

    def found(content):
        file.write_text(json.dumps(content))
        return names(folder, bids_filter_file=file)

    assert found({"bold": {"session": None}, "t1w": {"acq": "x"}}) == ["sub-01_task-rest"]
    assert found({"bold": {"session": "*"}}) == ["sub-01_ses-a_task-rest", "sub-02_ses-b_task-rest_acq-x"]
    assert found({"bold": {"acquisition": "x"}}) == ["sub-02_ses-b_task-rest_acq-x"]
    assert found({"bold": {"session": ["a", "b"], "task": ["rest"]}})[0] == "sub-01_ses-a_task-rest"
    assert len(found({"something": 1})) == 3
    with pytest.raises(NeurostormError, match=r"--bids-filter-file.*colour"):
        found({"bold": {"colour": "red"}})


@pytest.mark.parametrize("content", ["{", "[1]", '{"bold": 3}'])
def test_unreadable_filter_file(tmp_path, content):
    file = tmp_path / "filter.json"
    file.write_text(content)
    with pytest.raises(NeurostormError, match=r"filter\.json"):
        read_filter_file(file)


RAW = {"Name": "raw", "BIDSVersion": "1.8.0"}


@pytest.mark.parametrize(
    "below", ["derivatives/fmriprep", "derivatives/fmriprep-25.2.0", "fmriprep", "derivatives/prep"]
)
def test_the_folder_is_found_from_the_raw_data_set(tmp_path, below):
    raw = dataset(tmp_path / "raw", ["sub-01/func/sub-01_task-rest_bold.nii.gz", "derivatives/mriqc/x"], RAW)
    dataset(raw / below, [bold()])
    found = find_dataset(raw)
    assert (found.path, found.raw) == (raw / below, raw)


def test_the_folder_itself_with_or_without_a_description(tmp_path):
    assert find_dataset(dataset(tmp_path / "a", [bold()])).path == tmp_path / "a"
    assert find_dataset(dataset(tmp_path / "b", [bold()], None)).path == tmp_path / "b"


def test_derivatives_given_by_name(tmp_path):
    raw = dataset(tmp_path / "raw", [], RAW)
    elsewhere = dataset(tmp_path / "else", [bold()])
    assert find_dataset(raw, {"xcpd": raw, "fmriprep": elsewhere}).path == elsewhere
    with pytest.raises(NeurostormError, match="no such folder"):
        find_dataset(raw, {"fmriprep": tmp_path / "nowhere"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nowhere", "there is no folder"),
        (lambda p: dataset(p / "d", [], None), "it is empty"),
        (lambda p: dataset(p / "d", ["a.txt"], None), r"found a\.txt"),
        (lambda p: dataset(p / "d", ["sub-01/anat/x"], RAW), "1 subject.* no derivatives"),
        (lambda p: dataset(p / "d", ["sub-01/x", "derivatives/mriqc/y"], RAW), "derivatives of mriqc.*--derivatives fmriprep=PATH"),
        (lambda p: dataset(p / "d", [bold()]) / "sub-01", "folder of one subject.*--participant-label 01"),
        (lambda p: [dataset(p / f"d/derivatives/fmriprep-{v}", [bold()]) for v in "ab"][-1].parents[1], "several.*--derivatives fmriprep="),
    ],
)  # fmt: skip
def test_unsuitable_folders_say_what_was_found(tmp_path, make, message):
    with pytest.raises(NeurostormError, match=message):
        find_dataset(make(tmp_path))


def test_minimal_level_is_reported(tmp_path):
    folder = dataset(tmp_path / "d", [bold(space="", suffix="desc-coreg_boldref.nii.gz")])
    with pytest.raises(NeurostormError, match="--level full"):
        find_runs(find_dataset(folder), Selection())


def test_only_the_wanted_subject_s_folders_are_read(tmp_path, monkeypatch):
    folder = dataset(tmp_path / "d", [bold(f"{i:03d}") for i in range(30)] + [bold("0011"), bold("011x")])
    looked_into = []
    scandir, listdir, walk = os.scandir, os.listdir, os.walk

    def noting(function):
        def noted(path=".", *args, **kwargs):
            looked_into.append(str(path))
            return function(path, *args, **kwargs)

        return noted

    for name, function in (("scandir", scandir), ("listdir", listdir), ("walk", walk)):
        monkeypatch.setattr(os, name, noting(function))
    assert names(folder, participant_label=("011",)) == ["sub-011_task-rest"]
    others = {path for path in looked_into if "/sub-" in path and "/sub-011/" not in path + "/"}
    assert others == set()


def test_database_is_kept_and_serves_other_subjects(tmp_path):
    folder = find_dataset(dataset(tmp_path / "d", MANY))
    database = tmp_path / "index"
    for subject in ("01", "02"):
        runs, _ = find_runs(folder, Selection(participant_label=(subject,)), database)
        assert len(runs) == 8
    assert BIDSLayout.load(database) is not None


@pytest.mark.parametrize(
    ("columns", "n_dummies"),
    [("", 0), ("\tnon_steady_state_outlier00", 1), ("\tnon_steady_state_outlier00\tnon_steady_state_outlier01", 2)],
)
def test_dummy_scans_are_counted_from_the_confounds(tmp_path, columns, n_dummies):
    table = tmp_path / "x.tsv"
    rows = ["framewise_displacement" + columns]
    for i in range(4):
        rows.append("\t".join([str(0.1 * i) if i else "n/a", *(str(int(i == j)) for j in range(n_dummies))]))
    table.write_text("\n".join(rows) + "\n")
    confounds = read_confounds(table, 4)
    assert confounds.non_steady_state == n_dummies
    assert confounds.framewise_displacement[1:].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_confounds_of_another_run_are_refused(tmp_path):
    (tmp_path / "x.tsv").write_text("framewise_displacement\n0.1\n")
    with pytest.raises(NeurostormError, match=r"x\.tsv has 1 rows, the run 12 volumes"):
        read_confounds(tmp_path / "x.tsv", 12)


def test_raw_data_written_by_a_converter_is_raw(tmp_path):
    made = {**RAW, "DatasetType": "raw", "GeneratedBy": [{"Name": "HeuDiConv"}]}
    raw = dataset(tmp_path / "raw", ["sub-01/func/sub-01_task-rest_bold.nii.gz"], made)
    dataset(raw / "derivatives" / "fmriprep", [bold()])
    assert find_dataset(raw).path == raw / "derivatives" / "fmriprep"


def test_a_subject_without_bold_that_was_asked_for_is_reported(tmp_path):
    found = find_dataset(dataset(tmp_path / "d", [bold("01"), "sub-02/anat/sub-02_desc-preproc_T1w.nii.gz"]))
    _, problems = find_runs(found, Selection(participant_label=("01", "02")))
    assert len(problems) == 1
    assert "for sub-02 in" in problems[0].text
    assert find_runs(found, Selection())[1] == []


def test_confounds_of_a_single_echo_are_those_of_the_run(tmp_path):
    files = [bold(middle="task-a_echo-1"), "sub-01/func/sub-01_task-a_desc-confounds_timeseries.tsv"]
    (run,), _ = find_runs(find_dataset(dataset(tmp_path / "d", files)), Selection())
    assert run.motion.path.name == "sub-01_task-a_desc-confounds_timeseries.tsv"


def test_confounds_that_were_not_fetched_are_reported(tmp_path):
    folder = dataset(tmp_path / "d", [bold()])
    link = folder / "sub-01/func/sub-01_task-rest_desc-confounds_timeseries.tsv"
    link.symlink_to("/nowhere/annex")
    (run,), _ = find_runs(find_dataset(folder), Selection())
    with pytest.raises(NeurostormError, match=r"not fetched: .*confounds_timeseries\.tsv.*datalad get"):
        read_confounds(run.motion.path, 12)


def test_command_line_and_filter_file_do_not_contradict(tmp_path):
    found = find_dataset(dataset(tmp_path / "d", MANY))
    (tmp_path / "filter.json").write_text('{"bold": {"task": "nback"}}')
    with pytest.raises(NeurostormError, match="both choose the task"):
        find_runs(found, Selection(task_id=("rest",), bids_filter_file=tmp_path / "filter.json"))


def test_an_index_of_other_or_older_data_is_reported(tmp_path):
    one, two = (find_dataset(dataset(tmp_path / name, [bold()])) for name in ("one", "two"))
    find_runs(one, Selection(), tmp_path / "index")
    with pytest.raises(NeurostormError, match=r"is of .*one, not of .*two; remove --bids-database-dir"):
        find_runs(two, Selection(), tmp_path / "index")
    dataset(tmp_path / "one", [bold("02")])
    with pytest.raises(NeurostormError, match=r"older than sub-02"):
        find_runs(one, Selection(), tmp_path / "index")

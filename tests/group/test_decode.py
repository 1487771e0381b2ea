"""Decoding states from windows, on tables as the participant level writes them, and identification over sessions."""

import json

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import find_dataset
from neurostorm_bids.find.participants import join, read_phenotype
from neurostorm_bids.group.cohort import read_cohort
from neurostorm_bids.group.tasks.decode import LAG, WINDOWS, decode, samples_of

CHANNELS, WINDOW = 6, 16.0
BLOCKS = [("left", 0.0), ("right", 32.0), ("left", 64.0), ("right", 96.0)]  # 32 s each


class Study:
    """A raw data set with derivatives, and the embeddings of its runs in OUT_DIR."""

    def __init__(self, folder, seed=0):
        self.raw, self.out, self.rng = folder / "raw", folder / "out", np.random.default_rng(seed)
        self.patterns = {name: self.rng.standard_normal(CHANNELS) for name in ("rest", "motor", "left", "right")}
        derivatives = self.raw / "derivatives" / "fmriprep"
        derivatives.mkdir(parents=True)
        for path, kind in ((self.raw, "raw"), (derivatives, "derivative")):
            about = {"Name": "t", "BIDSVersion": "1.8.0", "DatasetType": kind, "GeneratedBy": [{"Name": "fMRIPrep"}]}
            (path / "dataset_description.json").write_text(json.dumps(about))

    def add(self, subject, task, strength=1.0, events=True):
        """A run of eight windows."""
        name = f"{subject}_task-{task}"
        (self.raw / "derivatives" / "fmriprep" / subject / "func").mkdir(parents=True, exist_ok=True)
        onsets = WINDOW * np.arange(8)
        table = pd.DataFrame(
            self.rng.standard_normal((8, CHANNELS)), columns=[f"channel{i:03d}" for i in range(CHANNELS)]
        )
        for i, onset in enumerate(onsets):
            shown = [kind for kind, start in BLOCKS if start <= onset < start + 32]
            table.iloc[i] += (
                strength * 2 * (self.patterns[task] + (self.patterns[shown[0]] if task == "motor" and shown else 0))
            )
        fd = self.rng.random((2, 8))
        table.insert(0, "onset", onsets + LAG)
        table.insert(1, "duration", WINDOW)
        table.insert(2, "mean_framewise_displacement", fd[0])
        table.insert(3, "max_framewise_displacement", fd.max(axis=0))
        folder = self.out / subject / "func"
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / f"{name}_space-MNI152NLin6Asym_desc-base_embeddings"
        table.to_csv(f"{stem}.tsv", sep="\t", index=False)
        stem.with_suffix(".json").write_text(json.dumps({"SettingsHash": "x"}))
        if events and task == "motor":
            path = self.raw / subject / "func"
            path.mkdir(parents=True, exist_ok=True)
            rows = "\n".join(f"{start}\t32\t{kind}" for kind, start in BLOCKS)
            (path / f"{name}_events.tsv").write_text(f"onset\tduration\ttrial_type\n{rows}\n")

    def states(self, **options):
        dataset = find_dataset(self.raw, {})
        cohort = read_cohort(self.out, "base")
        table, _ = join(cohort.runs, read_phenotype(dataset, None).table)
        return samples_of(cohort, table, dataset, options.pop("target", None), **options)


@pytest.fixture
def study(tmp_path):
    study = Study(tmp_path)
    for i in range(10):
        for task in ("rest", "motor"):
            study.add(f"sub-{i:02d}", task)
    return study


def test_tasks_are_told_from_windows_of_subjects_not_seen(study):
    states = study.states()
    assert states.classes == ["motor", "rest"]
    assert len(states.y) == 160
    found = decode(states)
    assert found[WINDOWS].metrics["balanced_accuracy"][0] > 0.8
    for subject in states.groups:
        assert len(np.unique(found[WINDOWS].folds[states.groups == subject])) == 1
    runs = found["mean over a run's windows"]
    assert len(runs.folds) == 20
    assert runs.metrics["balanced_accuracy"][0] > 0.9
    assert found["head motion of a window"].metrics["AUROC"][0] < 0.65


def test_events_are_told_within_runs_after_the_lag(study):
    states = study.states(target="trial_type")
    assert states.classes == ["left", "right"]
    assert len(states.y) == 80  # windows of the task with events
    assert states.y[:8].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert states.notes == ["80 windows are left out: no event fills 50% of it"]
    assert decode(states)[WINDOWS].metrics["balanced_accuracy"][0] > 0.8


def test_noise_is_not_decoded(tmp_path):
    """Over ten data sets of noise there is no accuracy beyond chance."""
    accuracies = []
    for seed in range(10):
        study = Study(tmp_path / str(seed), seed)
        for i in range(10):
            for task in ("rest", "motor"):
                study.add(f"sub-{i:02d}", task, strength=0, events=False)
        accuracies.append(decode(study.states(), seed)[WINDOWS].metrics["balanced_accuracy"][0])
    # held out of a balanced design, a subject's classes are the rarer ones: a little below chance is to be expected
    assert 0.42 < np.mean(accuracies) < 0.53  # standard error of the mean: about 0.0125


def test_decode_from_the_command_line(study, neurostorm):
    status, printed, said = neurostorm(study.raw, study.out, "group", "--group-task", "decode")
    assert status == 0, said
    assert "The task of a window is decoded with a balanced accuracy of" in printed
    table = pd.read_csv(study.out / "group_desc-base_target-task_decode_predictions.tsv", sep="\t")
    assert len(table) == 160
    np.testing.assert_allclose(table["probability_motor"] + table["probability_rest"], 1, rtol=1e-9)
    for name in ("decode", "decode_timecourse"):
        assert (study.out / "group" / "figures" / f"group_desc-base_target-task_{name}.png").stat().st_size > 10_000


def test_decode_without_states_says_what_is_lacking(tmp_path, neurostorm):
    study = Study(tmp_path)
    for i in range(5):
        study.add(f"sub-{i:02d}", "rest")
    status, _, said = neurostorm(study.raw, study.out, "group", "--group-task", "decode")
    assert status == 1
    assert "one task only, and no events.tsv in a raw data set" in said


def test_a_state_of_one_subject_is_refused(study):
    for path in study.out.glob("sub-0[1-9]/func/*task-rest*"):
        path.unlink()
    with pytest.raises(NeurostormError, match="state 'rest' is in the data of one subject only"):
        study.states()

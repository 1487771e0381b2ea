"""Decoding states from windows, on tables as the participant level writes them."""

import numpy as np
import pandas as pd
import pytest
from helpers import Results

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import find_dataset
from neurostorm_bids.find.participants import join, read_phenotype
from neurostorm_bids.group.cohort import read_cohort
from neurostorm_bids.group.tasks.decode import LAG, WINDOWS, decode, samples_of

BLOCKS = [("left", 0.0), ("right", 32.0), ("left", 64.0), ("right", 96.0)]  # 32 s each


class Tasks(Results):
    """Runs of tasks with patterns of their own; in motor, left and right have patterns too."""

    def __init__(self, folder, seed=0):
        super().__init__(folder, seed)
        self.patterns = {name: self.rng.standard_normal(self.CHANNELS) for name in ("rest", "motor", "left", "right")}

    def add_run(self, subject, task, strength=1.0, events=True):
        """Add eight windows, which lag behind their events."""
        name = f"{subject}_task-{task}"
        embeddings = self.rng.standard_normal((8, self.CHANNELS))
        for i, onset in enumerate(self.WINDOW * np.arange(8)):
            shown = [kind for kind, start in BLOCKS if start <= onset < start + 32]
            pattern = self.patterns[task] + (self.patterns[shown[0]] if task == "motor" and shown else 0)
            embeddings[i] += strength * 2 * pattern
        self.add(name, embeddings, onset=LAG)
        if events and task == "motor":
            path = self.raw / subject / "func"
            path.mkdir(parents=True, exist_ok=True)
            rows = "\n".join(f"{start}\t32\t{kind}" for kind, start in BLOCKS)
            (path / f"{name}_events.tsv").write_text(f"onset\tduration\ttrial_type\n{rows}\n")

    def states(self, **options):
        """Read the windows and their states."""
        dataset = find_dataset(self.raw, {})
        cohort = read_cohort(self.out, "base")
        table, _ = join(cohort.runs, read_phenotype(dataset, None).table)
        return samples_of(cohort, table, dataset, options.pop("target", None), **options)


@pytest.fixture
def study(tmp_path):
    study = Tasks(tmp_path)
    for i in range(10):
        for task in ("rest", "motor"):
            study.add_run(f"sub-{i:02d}", task)
    return study


def test_tasks_are_decoded_from_windows_of_unseen_subjects(study):
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


def test_events_are_decoded_within_runs_after_the_lag(study):
    states = study.states(target="trial_type")
    assert states.classes == ["left", "right"]
    assert len(states.y) == 80  # windows of the task with events
    assert states.y[:8].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert states.notes == ["80 windows are left out: no event fills 50% of it"]
    assert decode(states)[WINDOWS].metrics["balanced_accuracy"][0] > 0.8


def test_noise_is_not_decoded(tmp_path):
    """Over five data sets of noise there is no accuracy beyond chance."""
    accuracies = []
    for seed in range(5):
        study = Tasks(tmp_path / str(seed), seed)
        for i in range(10):
            for task in ("rest", "motor"):
                study.add_run(f"sub-{i:02d}", task, strength=0, events=False)
        accuracies.append(decode(study.states(), seed)[WINDOWS].metrics["balanced_accuracy"][0])
    # held out of a balanced design, a subject's classes are the rarer ones: a little below chance is to be expected
    assert 0.4 < np.mean(accuracies) < 0.54  # standard error of the mean: about 0.018


def test_decode_from_the_command_line(study, neurostorm):
    status, printed, said = neurostorm(study.raw, study.out, "group", "--group-task", "decode")
    assert status == 0, said
    assert "The task of a window is decoded with a balanced accuracy of" in printed
    table = pd.read_csv(study.out / "group_desc-base_target-task_decode_predictions.tsv", sep="\t")
    assert len(table) == 160
    np.testing.assert_allclose(table["probability_motor"] + table["probability_rest"], 1, rtol=1e-9)
    for name in ("decode", "decode_timecourse"):
        assert (study.out / "group" / "figures" / f"group_desc-base_target-task_{name}.png").stat().st_size > 4_000


def test_decode_without_states_says_what_is_lacking(tmp_path, neurostorm):
    study = Tasks(tmp_path)
    for i in range(5):
        study.add_run(f"sub-{i:02d}", "rest")
    status, _, said = neurostorm(study.raw, study.out, "group", "--group-task", "decode")
    assert status == 1
    assert "no events.tsv was found that tells states within runs" in said


def test_a_state_of_one_subject_is_refused(study):
    for path in study.out.glob("sub-0[1-9]/func/*task-rest*"):
        path.unlink()
    with pytest.raises(NeurostormError, match="state 'rest' is in the data of one subject only"):
        study.states()

"""Decode what a subject did, window by window; subjects are held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.tables import censored_in, channels_of, read_table, read_windows
from neurostorm_bids.encode.conditions import LEAST, TRIAL_TYPE, conditions_of
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.events import find_events, read_events
from neurostorm_bids.find.participants import SUBJECT, column
from neurostorm_bids.group.answers import METRICS_COLUMNS, Evaluations, metrics_table
from neurostorm_bids.group.cohort import Cohort
from neurostorm_bids.group.evaluation import Design, evaluate, judge
from neurostorm_bids.group.figures import time_course_figure
from neurostorm_bids.group.folds import join_groups, make_folds
from neurostorm_bids.group.prediction_figures import windows_figure
from neurostorm_bids.group.study import LOG, Study, word
from neurostorm_bids.group.task import GroupResult, Section

LAG = 5.0  # s, from an event to the peak of the BOLD response, about
NO_EVENTS = pd.DataFrame({name: [] for name in ("onset", "duration", TRIAL_TYPE)})
MIN_SUBJECTS = 4
IN_SECONDS = "are onset and duration in s?"
WINDOWS, RUNS, MOTION = "embedding of a window", "mean over a run's windows", "head motion of a window"
FD_COLUMNS = ["mean_framewise_displacement", "max_framewise_displacement"]


def run(study: Study) -> list[GroupResult]:
    """Decode the state of every window."""
    options = study.settings.group
    samples = samples_of(study.cohort, study.table, study.dataset, study.target(), options.group_by)
    for note in samples.notes:
        LOG.warning(note)
    evaluations = decode(samples, study.settings.conduct.random_seed)
    answer, metrics = _answer(samples, evaluations), metrics_table(evaluations, study.cohort.label)
    name = f"group_desc-{study.cohort.label}_target-{word(samples.target)}_decode"
    n_folds = len(np.unique(evaluations[WINDOWS].folds))
    method = (
        f"least-squares classification with ridge penalty, calibrated, {n_folds}-fold cross-validation, "
        "penalty chosen inside the training folds"
    )
    title = f"Decoding: {samples.target}"
    result = GroupResult(
        name=name,
        title=title,
        answer=answer,
        sections=[
            Section(
                title,
                words=[answer],
                facts=[
                    ("Model", study.cohort.label),
                    ("Windows", ", ".join(f"{n} {name}" for name, n in samples.counts().items())),
                    ("Method", method),
                    ("Files", f"{name}_metrics.tsv, {name}_predictions.tsv"),
                ],
                table=metrics,
                figures=[("", "How well each predicts, in the same folds; at the right single windows.")],
                notes=samples.notes,
            ),
            _over_time(samples),
        ],
        about={
            "Description": f"{samples.target} of every window, decoded from its NeuroSTORM embedding, out of fold",
            "Method": method,
            "KeptTogether": options.group_by or SUBJECT,
            "Classes": samples.classes,
            "Lag": {"Value": LAG, "Units": "s", "Description": "Added to the onsets of events"},
            "Verdict": answer,
            "Notes": samples.notes,
            "Sources": study.sources(),
        },
        page=name,
        tables={"_metrics": metrics, "_predictions": predictions_table(samples, evaluations)},
        columns={"_metrics": METRICS_COLUMNS, "_predictions": _columns(samples)},
        figures={
            "": windows_figure(samples.y, samples.classes, evaluations),
            "_timecourse": time_course_figure(
                samples.windows, samples.y, samples.classes, _probabilities(evaluations), samples.events
            ),
        },
    )
    return [result]


@dataclass(frozen=True)
class DecodingSamples:
    """Windows, and what was done in them.

    Attributes
    ----------
    target : str
        An entity such as task, or trial_type.
    windows : DataFrame
        participant_id, run_name, onset and duration (s), a row per window.
    embeddings : (windows, channels) float32 array
    motion : (windows, 2) array
        Mean and largest framewise displacement, mm; NaN where unknown.
    y : (windows,) int array
    classes : list of str
    groups : (windows,) array
        Windows of one group are never on both sides of a fold.
    events : dict
        Name of a run -> its events, where the raw data set has them.
    notes : list of str
    """

    target: str
    windows: pd.DataFrame
    embeddings: np.ndarray
    motion: np.ndarray
    y: np.ndarray
    classes: list[str]
    groups: np.ndarray
    events: dict[str, pd.DataFrame]
    notes: list[str]

    def counts(self) -> dict[str, int]:
        """Return how many windows each class has."""
        return dict(zip(self.classes, np.bincount(self.y).tolist(), strict=True))


def samples_of(
    cohort: Cohort, table: pd.DataFrame, dataset: Dataset, target: str | None, group_by: str | None = None
) -> DecodingSamples:
    """Read every window, and name what was done in it.

    Parameters
    ----------
    table : DataFrame
        The cohort's runs, joined with the phenotype.
    target : str, optional
        A column of the table, for states that last a run; or trial_type, for those of events.tsv. By default task, if
        there are several.

    Raises
    ------
    NeurostormError
        If there are not two states, or too few subjects.
    """
    several_tasks = "task" in table and table["task"].nunique() > 1
    target = target or ("task" if several_tasks else TRIAL_TYPE)
    events, notes = _events_of(table["run_name"], dataset)
    if target == TRIAL_TYPE and not events and not any(map(is_named, cohort.files)):
        raise NeurostormError(
            "no events.tsv was found that tells states within runs (and there is one task only); give the raw data set that "
            "has them as BIDS_DIR, or a column of the phenotype as --target"
        )
    states = None if target == TRIAL_TYPE else column(table, target)
    parts, embeddings, n_unnamed = [], [], 0
    for i, path in enumerate(cohort.files):
        names, values = read_windows(path)
        windows = pd.DataFrame(values, columns=list(names))
        kept = ~censored_in(windows)
        windows = windows[kept]
        name = table["run_name"].iloc[i]
        if states is None:
            onsets, durations = windows["onset"].to_numpy(float), windows["duration"].to_numpy(float)
            named = (
                _named_in(path, kept)
                if is_named(path)
                else conditions_of(onsets, durations, events.get(name, NO_EVENTS), LAG)
            )
            if name in events and pd.isna(named).all():
                notes.append(f"{name}: no event fills {LEAST:.0%} of any of its windows; {IN_SECONDS}")
        else:
            named = np.full(len(windows), states.iloc[i], dtype=object)
        if name in events and _go_beyond(events[name], windows):
            notes.append(f"{name}: its events go far beyond its end; {IN_SECONDS}")
        known = ~pd.isna(named)
        n_unnamed += int((~known).sum())
        part = windows.loc[known, ["onset", "duration", *FD_COLUMNS]]
        parts.append(
            part.assign(**{SUBJECT: table[SUBJECT].iloc[i], "run_name": name, "row": i, "state": named[known]})
        )
        embeddings.append(channels_of(windows[known]).astype(np.float32))
    if n_unnamed:
        why = f"no event fills {LEAST:.0%} of it" if states is None else f"its run has no '{target}'"
        notes.append(f"{n_unnamed} windows are left out: {why}")
    windows = pd.concat(parts, ignore_index=True)
    classes, y = _as_classes(windows.pop("state"), target)
    groups = windows[SUBJECT].to_numpy(str)
    if group_by is not None:
        groups = join_groups(groups, column(table, group_by).iloc[windows["row"]].tolist())
    _check_groups(y, classes, groups, group_by)
    motion = windows[FD_COLUMNS].to_numpy(float)
    windows = windows[[SUBJECT, "run_name", "onset", "duration"]]
    return DecodingSamples(target, windows, np.concatenate(embeddings), motion, y, classes, groups, events, notes)


def decode(samples: DecodingSamples, seed: int = 0) -> Evaluations:
    """Classify windows by ridge regression on the classes' indicators; beside it the mean over a run's windows, and head motion alone."""
    # no permutation test: it would have to keep what windows of a run share
    folds = make_folds(samples.y, samples.groups, True, seed)
    design = Design(samples.y, samples.groups, folds, True, seed)
    ours = evaluate(samples.embeddings, design)
    found = {WINDOWS: ours}
    runs, index = np.unique(samples.windows["run_name"], return_inverse=True)
    first = np.array([np.flatnonzero(index == k)[0] for k in range(len(runs))])
    one_state_each = np.array_equal(samples.y[first][index], samples.y)
    if one_state_each:
        assert ours.probabilities is not None
        means = np.stack([ours.probabilities[index == k].mean(axis=0) for k in range(len(runs))])
        of_runs = Design(samples.y[first], samples.groups[first], folds[first], True, seed)
        found[RUNS] = judge(means.argmax(axis=1), means, of_runs)
    if not np.isnan(samples.motion).any() and np.std(samples.motion, axis=0).all():
        found[MOTION] = evaluate(samples.motion, design)
    return found


def predictions_table(samples: DecodingSamples, evaluations: Evaluations) -> pd.DataFrame:
    """Return the out-of-fold predictions, a row per window."""
    ours, names, probabilities = evaluations[WINDOWS], np.array(samples.classes), _probabilities(evaluations)
    return samples.windows.assign(
        target=names[samples.y],
        predicted=names[ours.predicted],
        fold=ours.folds + 1,
        **{f"probability_{name}": probabilities[:, k] for k, name in enumerate(samples.classes)},
    )


def _columns(samples: DecodingSamples) -> dict[str, dict[str, Any]]:
    """Return what the columns of `predictions_table` are."""
    return {
        "onset": {"Description": "Start of the window after the start of the acquisition", "Units": "s"},
        "duration": {"Description": "Length of the window", "Units": "s"},
        "target": {"Description": f"{samples.target} of the window"},
        "predicted": {"Description": "The most probable one, by a model that has not seen the person"},
        "fold": {"Description": "Number of the fold that it was tested in"},
        **{f"probability_{name}": {"Description": f"Probability of {name}, out of fold"} for name in samples.classes},
    }


def _answer(samples: DecodingSamples, evaluations: Evaluations) -> str:
    value, low, high = evaluations[WINDOWS].metrics["balanced_accuracy"]
    n_subjects = samples.windows[SUBJECT].nunique()
    return (
        f"The {samples.target} of a window is decoded with a balanced accuracy of {value:.0%} (95 % interval {low:.0%} to "
        f"{high:.0%}; guessing: {1 / len(samples.classes):.0%}), in {len(samples.y)} windows of {n_subjects} subjects."
    )


def _over_time(samples: DecodingSamples) -> Section:
    about = (
        f"Events are drawn when they happened; a window is named by events {LAG:g} s before it, for the lag of the BOLD "
        "response."
        if samples.events
        else "No events.tsv was found."
    )
    words = f"Probabilities of every state, from models that did not see the subject. {about}"
    return Section("Over time", words=[words], figures=[("_timecourse", "Some runs; events above.")])


def _probabilities(evaluations: Evaluations) -> np.ndarray:
    found = evaluations[WINDOWS].probabilities
    assert found is not None
    return found


def _events_of(runs: pd.Series, dataset: Dataset) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return the events of the runs that have some, and notes on those that cannot be read."""
    events, notes = {}, []
    for name in runs:
        if (path := find_events(dataset, name)) is not None:
            try:
                events[name] = read_events(path)
            except NeurostormError as error:
                notes.append(f"{error}; its events are left out")
    return events, notes


def is_named(path: Path) -> bool:
    """Whether --conditions named the windows of a table."""
    with open(path, encoding="utf-8") as file:
        return TRIAL_TYPE in file.readline().rstrip("\n").split("\t")


def _named_in(path: Path, kept: np.ndarray) -> np.ndarray:
    return read_table(path)[TRIAL_TYPE].to_numpy(object)[kept]


def _go_beyond(events: pd.DataFrame, windows: pd.DataFrame) -> bool:
    """Whether events are so late that their times cannot be in s."""
    end = windows["onset"].max() + 10 * windows["duration"].max()
    return bool((events["onset"] + events["duration"]).max() > end)


def _as_classes(states: pd.Series, target: str) -> tuple[list[str], np.ndarray]:
    """Return the names of states, and every window's as a number.

    Raises
    ------
    NeurostormError
        If there are not two.
    """
    names = states.astype(str)
    classes = sorted(names.unique())
    if len(classes) < 2:
        raise NeurostormError(f"all windows are of one state of '{target}' ({', '.join(classes) or 'none'})")
    return classes, np.array([classes.index(name) for name in names])


def _check_groups(y: np.ndarray, classes: Sequence[str], groups: np.ndarray, group_by: str | None) -> None:
    """Refuse states that only one subject has, and too few subjects."""
    for k, name in enumerate(classes):
        if len(np.unique(groups[y == k])) < 2:
            raise NeurostormError(
                f"state '{name}' is in the data of one {group_by or 'subject'} only ({(y == k).sum()} windows); decode is "
                "for what several subjects did, probe for what differs between them"
            )
    if (n := len(np.unique(groups))) < MIN_SUBJECTS:
        raise NeurostormError(f"{n} {group_by or 'subject'}s are too few to decode; at least {MIN_SUBJECTS} are needed")

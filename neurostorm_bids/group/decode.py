"""Decode what a subject did: windows are the samples, and subjects are held out."""

from dataclasses import dataclass
from typing import Optional

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.tables import censored_in, channels_of, read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.events import find_events, read_events
from neurostorm_bids.find.participants import SUBJECT, column
from neurostorm_bids.group.cohort import Cohort
from neurostorm_bids.group.evaluation import Evaluation, evaluate, judge, make_folds
from neurostorm_bids.group.labels import kept_together

TRIAL_TYPE = "trial_type"
LAG = 5.0  # s, from an event to the peak of the BOLD response, about
COVERED = 0.5  # share of a window that one kind of event must cover to name it
FEWEST_SUBJECTS = 4
WINDOWS, RUNS, MOTION = "embedding of a window", "mean over a run's windows", "head motion of a window"


@dataclass(frozen=True)
class States:
    """Windows and what was done in them.

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
        Run's name -> its events, where the raw data set has them.
    notes : list of str
    """

    target: str
    windows: pd.DataFrame
    embeddings: np.ndarray
    motion: np.ndarray
    y: np.ndarray
    classes: list
    groups: np.ndarray
    events: dict
    notes: list


def states_of(
    cohort: Cohort, table: pd.DataFrame, dataset: Dataset, target: Optional[str], group_by: Optional[str] = None
) -> States:
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
    events, notes = {}, []
    for run in table["run_name"]:
        if (path := find_events(dataset, run)) is not None:
            try:
                events[run] = read_events(path)
            except NeurostormError as error:
                notes.append(f"{error}; its events are left out")
    if target == TRIAL_TYPE and not events:
        raise NeurostormError(
            "there is one task only, and no events.tsv in a raw data set to tell states within runs; give the raw data "
            "set as BIDS_DIR, or --target COLUMN"
        )
    names = None if target == TRIAL_TYPE else column(table, target)
    parts, embeddings, labels, n_unnamed = [], [], [], 0
    for i, path in enumerate(cohort.files):
        windows = read_table(path)
        windows = windows[~censored_in(windows)]
        run = table["run_name"].iloc[i]
        said = _named(windows, events.get(run)) if names is None else np.full(len(windows), names.iloc[i], dtype=object)
        named = ~pd.isna(said)
        if names is None and run in events and not named.any():
            notes.append(f"{run}: no event fills {COVERED:.0%} of any of its windows; are onset and duration in s?")
        end = windows["onset"].max() + 10 * windows["duration"].max()
        if run in events and (events[run]["onset"] + events[run]["duration"]).max() > end:
            notes.append(f"{run}: its events go far beyond its end; are onset and duration in s?")
        n_unnamed += int((~named).sum())
        windows = windows[named]
        about = windows[["onset", "duration", "mean_framewise_displacement", "max_framewise_displacement"]]
        parts.append(about.assign(**{SUBJECT: table[SUBJECT].iloc[i], "run_name": run, "row": i}))
        embeddings.append(channels_of(windows).astype(np.float32))
        labels += [str(one) for one in said[named]]
    windows = pd.concat(parts, ignore_index=True)
    if n_unnamed:
        why = f"no event fills {COVERED:.0%} of it" if names is None else f"its run has no '{target}'"
        notes.append(f"{n_unnamed} windows are left out: {why}")
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise NeurostormError(f"all windows are of one state of '{target}' ({', '.join(classes) or 'none'})")
    y = np.array([classes.index(one) for one in labels])
    groups = windows[SUBJECT].to_numpy(str)
    if group_by is not None:
        given = column(table, group_by).iloc[windows["row"]].reset_index(drop=True)
        groups = kept_together(groups, given)
    for name, count in zip(classes, np.bincount(y), strict=True):
        n_groups = len(np.unique(groups[y == classes.index(name)]))
        if n_groups < 2:
            raise NeurostormError(
                f"state '{name}' is in the data of one {group_by or 'subject'} only ({count} windows); decode is for what "
                "several subjects did, probe for what differs between them"
            )
    if len(np.unique(groups)) < FEWEST_SUBJECTS:
        raise NeurostormError(f"{len(np.unique(groups))} subjects are too few to decode; at least {FEWEST_SUBJECTS}")
    motion = windows[["mean_framewise_displacement", "max_framewise_displacement"]].to_numpy(float)
    windows = windows[[SUBJECT, "run_name", "onset", "duration"]]
    return States(target, windows, np.concatenate(embeddings), motion, y, classes, groups, events, notes)


def decode(states: States, seed: int = 0) -> "dict[str, Evaluation]":
    """Weighted logistic regression on windows; beside it the mean over a run's windows, and head motion alone."""
    # groups are spread over folds by their numbers of windows; a permutation test would need what runs share kept
    folds = make_folds(states.y, states.groups, True, seed)
    known = (states.y, states.groups, folds, True)
    ours = evaluate(states.embeddings, *known, seed=seed)
    found = {WINDOWS: ours}
    runs, index = np.unique(states.windows["run_name"], return_inverse=True)
    first = np.array([np.flatnonzero(index == k)[0] for k in range(len(runs))])
    one_state_each = np.array_equal(states.y[first][index], states.y)
    if one_state_each:
        means = np.stack([ours.probabilities[index == k].mean(axis=0) for k in range(len(runs))])
        found[RUNS] = judge(states.y[first], means.argmax(axis=1), means, states.groups[first], folds[first], seed)
    if not np.isnan(states.motion).any() and np.std(states.motion, axis=0).all():
        found[MOTION] = evaluate(states.motion, *known, seed=seed)
    return found


def _named(windows: pd.DataFrame, events: Optional[pd.DataFrame]) -> np.ndarray:
    """The kind of event that fills most of each window, `None` where none fills enough of it, (windows,)."""
    names = np.full(len(windows), None, dtype=object)
    if events is None or events.empty:
        return names
    for i, (onset, duration) in enumerate(windows[["onset", "duration"]].to_numpy(float)):
        starts = events["onset"].to_numpy(float) + LAG
        overlap = np.minimum(starts + events["duration"].to_numpy(float), onset + duration) - np.maximum(starts, onset)
        of_kind = pd.Series(np.clip(overlap, 0, None)).groupby(events["trial_type"].to_numpy()).sum()
        if of_kind.max() >= COVERED * duration:
            names[i] = of_kind.idxmax()
    return names

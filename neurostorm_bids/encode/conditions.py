"""Windows of a run by what the person did: those that lie in a condition, or one for each trial."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.encode.windows import window_starts
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.settings.participant import Conditions

TRIAL_TYPE, TRIAL = "trial_type", "trial"
LEAST = 0.5  # share of a window that events of one condition must fill to name it


@dataclass(frozen=True)
class ChosenWindows:
    """Windows of some conditions.

    Attributes
    ----------
    starts : (windows,) int array
        First frames, ascending.
    trial_type : tuple of str
        The condition of each.
    trial : (windows,) int array, or None
        Number of the event in the table of events, from 1, where there is a window for each.
    """

    starts: np.ndarray
    trial_type: tuple[str, ...]
    trial: np.ndarray | None


def choose_windows(
    onsets: np.ndarray, repetition_time: float, events: pd.DataFrame, length: int, stride: int, options: Conditions
) -> ChosenWindows:
    """Choose windows by events.

    Parameters
    ----------
    onsets : (T,) array
        Of the frames, s after the start of the acquisition.
    events : DataFrame
        onset and duration (s), trial_type.
    length, stride : int
        Frames of a window, and from one window to the next where there is none for each trial.

    Raises
    ------
    NeurostormError
        If there are no such events, or no window lies in one.
    """
    wanted = events[events[TRIAL_TYPE].isin(options.conditions)]
    if missing := [name for name in options.conditions if name not in set(events[TRIAL_TYPE])]:
        there = ", ".join(sorted(map(str, events[TRIAL_TYPE].unique())))
        raise NeurostormError(
            f"--conditions {missing[0]}: its events have no such trial_type; there are: {there or 'none'}"
        )
    if options.window_per_trial:
        found = _of_trials(onsets, repetition_time, wanted, length, options.lag)
    else:
        found = _that_lie_in(onsets, repetition_time, events, length, stride, options)
    if not len(found.starts) and options.window_per_trial:
        raise NeurostormError(
            f"--conditions {' '.join(options.conditions)}: the windows of {length * repetition_time:g} s around its {len(wanted)} events all go "
            f"beyond the run of {len(onsets) * repetition_time:g} s; leave out --window-per-trial, or give another --lag"
        )
    if not len(found.starts):
        raise NeurostormError(
            f"--conditions {' '.join(options.conditions)}: no window of {length * repetition_time:g} s lies in one of its "
            f"{len(wanted)} events; --window-per-trial takes a window around each"
        )
    return found


def _of_trials(
    onsets: np.ndarray, repetition_time: float, events: pd.DataFrame, length: int, lag: float
) -> ChosenWindows:
    """Return the window whose middle is nearest to the middle of each event, the lag later; those that go beyond the run are left out."""
    middles = events["onset"].to_numpy(float) + events["duration"].to_numpy(float) / 2 + lag
    starts = np.round((middles - onsets[0]) / repetition_time - length / 2).astype(int)
    inside = (starts >= 0) & (starts + length <= len(onsets))
    order = np.argsort(starts[inside], kind="stable")
    names, numbers = events[TRIAL_TYPE].to_numpy(str)[inside][order], events.index.to_numpy()[inside][order] + 1
    return ChosenWindows(starts[inside][order], tuple(names.tolist()), numbers)


def _that_lie_in(
    onsets: np.ndarray, repetition_time: float, events: pd.DataFrame, length: int, stride: int, options: Conditions
) -> ChosenWindows:
    """Return the windows of which events of one condition, the lag later, fill at least half, and more than any other's."""
    starts = window_starts(len(onsets), length, stride)
    names = conditions_of(onsets[starts], np.full(len(starts), length * repetition_time), events, options.lag)
    named = [i for i, name in enumerate(names) if name in options.conditions]
    return ChosenWindows(starts[named], tuple(names[named].tolist()), None)


def conditions_of(onsets: np.ndarray, durations: np.ndarray, events: pd.DataFrame, lag: float) -> np.ndarray:
    """Return the trial type that fills most of each window, the lag later; `None` where none fills half of it, or two as much.

    Parameters
    ----------
    onsets, durations : (windows,) arrays
        Of windows, s.
    events : DataFrame
        onset and duration (s), trial_type.
    lag : float
        s.
    """
    names = np.full(len(onsets), None, dtype=object)
    merged = _merged(events)
    starts, ends = merged["onset"].to_numpy() + lag, merged["end"].to_numpy() + lag
    for i, (onset, duration) in enumerate(zip(onsets, durations, strict=True) if len(events) else ()):
        overlap = np.minimum(ends, onset + duration) - np.maximum(starts, onset)
        of_type = pd.Series(np.clip(overlap, 0, None)).groupby(merged[TRIAL_TYPE].to_numpy()).sum()
        most = of_type.nlargest(2).to_numpy()
        if most[0] >= LEAST * duration and (len(most) == 1 or most[0] > most[1] + 1e-9):
            names[i] = of_type.idxmax()
    return names


def _merged(events: pd.DataFrame) -> pd.DataFrame:
    """Return onset and end (s) of the times that events of each type fill: those that overlap are one."""
    rows: list[list[Any]] = []
    for name, of_type in events.groupby(TRIAL_TYPE):
        for onset, duration in of_type[["onset", "duration"]].sort_values("onset").itertuples(index=False):
            if rows and rows[-1][0] == name and onset <= rows[-1][2]:
                rows[-1][2] = max(rows[-1][2], onset + duration)
            else:
                rows.append([name, float(onset), float(onset + duration)])
    return pd.DataFrame(rows, columns=[TRIAL_TYPE, "onset", "end"])

"""The tables that are written, with what each column means."""

import contextlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from neurostorm_bids.encode.conditions import TRIAL, TRIAL_TYPE
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.atomic import replacing

if TYPE_CHECKING:
    from neurostorm_bids.encode.encoded import EncodedRun

CHANNEL = "channel"
CENSORED = "censored"
WEIGHTS = "weights"
TEXT = (WEIGHTS, TRIAL_TYPE)  # columns of text in a table of windows

Columns = dict[str, dict[str, Any]]  # name of a column -> its description, for the sidecar


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a TSV atomically; floats are written with enough digits to be restored exactly."""
    with replacing(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a")


def read_table(path: Path) -> pd.DataFrame:
    """Read a TSV that we wrote; the Python engine reads floats exactly in every version of pandas.

    Raises
    ------
    NeurostormError
        If it is damaged.
    """
    try:
        return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False, engine="python")
    except (OSError, ValueError) as error:
        raise NeurostormError(f"{path} cannot be read ({error}); remove it and run again") from None


def read_windows(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Read the numbers of a table of windows that we wrote, exactly, and many times quicker than `read_table`.

    Returns
    -------
    names : tuple of str
        Of the columns; those of text are left out.
    values : (windows, columns) float64 array
        NaN where there is none.

    Raises
    ------
    NeurostormError
        If it is damaged.
    """
    try:
        header, _, rows = path.read_text(encoding="utf-8").partition("\n")
        return _plain_numbers(header, rows) or _any_numbers(path)
    except (OSError, ValueError) as error:
        raise NeurostormError(
            f"{path} cannot be read ({error}); remove it and run the participant level again"
        ) from None


def _plain_numbers(header: str, rows: str) -> tuple[tuple[str, ...], np.ndarray] | None:
    """Read a table as `write_table` writes it; `None` if it is another, or damaged."""
    names, places, width = _columns_of(header)
    if not rows.strip() or '"' in header:
        return None
    lines = rows.removesuffix("\n").replace("n/a", "nan").split("\n")
    with contextlib.suppress(ValueError):
        if places is None:
            values = np.loadtxt(lines, delimiter="\t", comments=None, ndmin=2)
            return (names, values) if values.shape[1] == width else None
        if all(line.count("\t") == width - 1 for line in lines):
            return names, np.loadtxt(lines, delimiter="\t", comments=None, quotechar='"', usecols=places, ndmin=2)
    return None


def _any_numbers(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Read a table as pandas does, which takes more and says well what is wrong."""
    table = pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False)
    channels = channel_names(table)
    names = [str(name) for name in table if name in channels or pd.api.types.is_numeric_dtype(table[name])]
    return tuple(names), table[names].to_numpy(np.float64)


@lru_cache(maxsize=16)
def _columns_of(header: str) -> tuple[tuple[str, ...], tuple[int, ...] | None, int]:
    """Return the names and places (`None`: everywhere) of the columns of numbers, and how many columns there are."""
    columns = header.split("\t")
    places = tuple(i for i, name in enumerate(columns) if name not in TEXT)
    return tuple(columns[i] for i in places), None if len(places) == len(columns) else places, len(columns)


def embeddings_table(run: "EncodedRun") -> tuple[pd.DataFrame, Columns]:
    """Return a table with one row per window, and its columns."""
    motion = run.motion
    values = {
        "window": np.arange(1, len(run.onsets) + 1),
        "onset": np.round(run.onsets, 6),
        "duration": round(run.duration, 6),
        **({TRIAL_TYPE: run.windows.trial_type} if run.windows.trial_type else {}),
        **({TRIAL: run.windows.trial} if run.windows.trial is not None else {}),
        "mean_framewise_displacement": motion.mean,
        "max_framewise_displacement": motion.largest,
    }
    columns: Columns = {
        "window": {"Description": "Number of the window in the run, from 1"},
        "onset": {
            "Description": "Start of the window after the start of the acquisition: of the interval that its first "
            "frame stands for",
            "Units": "s",
        },
        "duration": {"Description": "Length of the window", "Units": "s"},
        **({TRIAL_TYPE: {"Description": "Condition that the window lies in"}} if run.windows.trial_type else {}),
        **(
            {TRIAL: {"Description": "Number of the window's event in events.tsv, from 1"}}
            if run.windows.trial is not None
            else {}
        ),
        "mean_framewise_displacement": {
            "Description": "Mean framewise displacement over the volumes that the window is made from, from the "
            "confounds of fMRIPrep",
            "Units": "mm",
        },
        "max_framewise_displacement": {
            "Description": "Largest framewise displacement over those volumes",
            "Units": "mm",
        },
    }
    if motion.above is not None:
        values |= {"high_motion_fraction": motion.above, CENSORED: run.censored.astype(int)}
        columns["high_motion_fraction"] = {"Description": "Share of those volumes above --fd-threshold"}
        columns[CENSORED] = {
            "Description": "1: left out of the run's mean for head motion",
            "Levels": {"0": "used", "1": "left out"},
        }
    channels, about = _channels(run.windows.embeddings)
    return _stamped(pd.concat([pd.DataFrame(values), channels], axis=1), columns | about, run.model.warning)


def predictions_table(run: "EncodedRun", seen: bool | None = None) -> tuple[pd.DataFrame, Columns]:
    """Return a table of one row, the run's prediction, and its columns.

    Parameters
    ----------
    seen : bool, optional
        Whether the model was trained on this person; `None` where that is not known.
    """
    prediction = run.prediction
    assert prediction is not None
    assert run.model.task is not None
    is_ensemble = run.model.task.members > 1
    row = {
        "target": prediction.target,
        "value": prediction.value,
        "unit": prediction.unit,
        **{f"probability_{name}": p for name, p in prediction.probabilities.items()},
        **{f"output{i}": value for i, value in enumerate(prediction.outputs)},
        "spread": prediction.spread,
        **({"spread_of_models": prediction.spread_of_models} if is_ensemble else {}),
        "windows": int((~run.censored).sum()),
    }
    of_what = "the predicted class's probability" if prediction.probabilities else "the value, in its unit"
    columns: Columns = {
        "target": {"Description": "What is predicted"},
        "value": {
            "Description": "The prediction: the mean over windows, or the class whose probability is largest, of models "
            "that know the shares of classes in training relative to its share"
        },
        "unit": {"Description": "Unit of the value"},
        **{
            f"probability_{name}": {"Description": f"Probability of {name}, from the mean output over windows"}
            for name in prediction.probabilities
        },
        **{
            f"output{i}": {"Description": f"Raw output {i} of the head, mean over windows"}
            for i in range(len(prediction.outputs))
        },
        "spread": {"Description": f"Standard deviation over windows of {of_what}"},
        **(
            {"spread_of_models": {"Description": f"Standard deviation over the models of the ensemble of {of_what}"}}
            if is_ensemble
            else {}
        ),
        "windows": {"Description": "Number of windows averaged"},
    }
    if seen is not None:
        row["seen_in_training"] = int(seen)
        columns["seen_in_training"] = {
            "Description": "Whether the model was trained on this person: then the prediction is no test of it",
            "Levels": {"0": "not seen", "1": "seen"},
        }
    return _stamped(pd.DataFrame([row]), columns, run.model.warning)


def subject_table(runs: dict[str, pd.DataFrame], warning: str | None) -> tuple[pd.DataFrame, Columns]:
    """Return a table with one row per run and their mean, weighted by windows, without censored windows; and its columns.

    Parameters
    ----------
    runs : dict
        Name of a run -> its table of windows.
    warning : str or None
        On the weights of the model.
    """
    used = [channels_of(table)[~censored_in(table)] for table in runs.values()]
    counts = np.array([len(windows) for windows in used])
    n_channels = used[0].shape[1]
    unknown = np.full(n_channels, np.nan)  # of a run without a window that may be used
    means = [windows.mean(axis=0) if len(windows) else unknown for windows in used]
    mean = np.concatenate(used).mean(axis=0) if counts.sum() else unknown
    embeddings = np.vstack([*means, mean])
    table = pd.DataFrame({"run": [*runs, "mean"], "windows": [*counts, counts.sum()]})
    columns: Columns = {
        "run": {"Description": "The run, by its entities; 'mean' is the mean over runs, weighted by windows"},
        "windows": {"Description": "Number of windows averaged"},
    }
    channels, about = _channels(embeddings)
    return _stamped(pd.concat([table, channels], axis=1), columns | about, warning)


def censored_in(table: pd.DataFrame) -> np.ndarray:
    """Return which rows of a table of windows are censored, (windows,) bool."""
    return table[CENSORED].to_numpy() == 1 if CENSORED in table else np.zeros(len(table), dtype=bool)


def channels_of(table: pd.DataFrame) -> np.ndarray:
    """Return the embedding columns of a table, float64, (rows, channels)."""
    return table[channel_names(table)].to_numpy(np.float64)


def channel_names(table: pd.DataFrame) -> list[str]:
    """Return the names of a table's embedding columns."""
    return [name for name in table.columns if is_channel(name)]


def is_channel(name: str) -> bool:
    """Whether a column of this name is one of the embedding."""
    return name.startswith(CHANNEL) and name[len(CHANNEL) :].isdigit()


def _stamped(table: pd.DataFrame, columns: Columns, warning: str | None) -> tuple[pd.DataFrame, Columns]:
    """Put a model's warning into a column of its own, so that no copy of the table loses it."""
    if warning is None:
        return table, columns
    about = {WEIGHTS: {"Description": "A warning on the weights of the model that wrote this row"}}
    return table.assign(**{WEIGHTS: warning}), columns | about


def channels_named(n: int) -> list[str]:
    """Return the names of the columns that hold an embedding."""
    return [f"{CHANNEL}{i:03d}" for i in range(n)]


def _channels(embeddings: np.ndarray) -> tuple[pd.DataFrame, Columns]:
    names = channels_named(embeddings.shape[1])
    about = {name: {"Description": f"Channel {i} of the embedding"} for i, name in enumerate(names)}
    return pd.DataFrame(embeddings, columns=names), about


def kept_embeddings(path: Path) -> np.ndarray:
    """Read the embeddings of the windows that are not left out for head motion, (windows, channels); of all if all are."""
    table = read_table(path)
    censored = censored_in(table)
    return channels_of(table if censored.all() else table[~censored])

"""How good the runs of a cohort are, the worst first."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.names import data_fit_beside, figure_folder
from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.cohort import Cohort
from neurostorm_bids.resample.normalisation import SD_OF_MAD
from neurostorm_bids.runtime.json_files import read_json

WORSE: dict[str, int] = {  # which direction is the worse one; 0: both
    "mean_fd": 1, "max_fd": 1, "censored": 1, "brain_in_template": -1, "brain_outside_grid": 1, "brain_covered": -1,
    "least_covered": -1, "tsnr": -1, "outlyingness": 1, "windows": -1, "repetition_time": 0,
}  # fmt: skip
LEAST = {"mean_fd": 0.02, "max_fd": 0.1, "censored": 0.05, "brain_in_template": 0.01, "brain_outside_grid": 0.01, "brain_covered": 0.01, "least_covered": 0.05, "tsnr": 1.0, "outlyingness": 0.5, "windows": 1.0, "repetition_time": 0.05}  # of a robust standard deviation  # fmt: skip
FLAG = 3.0  # robust standard deviations that one of the reference figures' questions counts for
COLUMNS: dict[str, dict[str, Any]] = {
    "run_name": {"Description": "The run, by its entities"},
    "badness": {
        "Description": "The largest number of robust standard deviations by which one of the measures is on its worse side of the cohort's "
        f"median; at least {FLAG:g} where the data fit asks something"
    },
    "because": {"Description": "Which measure that is"},
    "windows": {"Description": "Windows averaged"},
    "censored": {"Description": "Share of windows left out for head motion"},
    "mean_fd": {"Description": "Mean framewise displacement", "Units": "mm"},
    "max_fd": {"Description": "Largest framewise displacement", "Units": "mm"},
    "repetition_time": {"Description": "Of the acquisition", "Units": "s"},
    "brain_in_template": {"Description": "Share of the run's brain that lies in the template's"},
    "brain_outside_grid": {"Description": "Share of the run's brain that lies outside the grid"},
    "brain_covered": {"Description": "Share of the template's brain that the run covers"},
    "least_covered": {"Description": "Least share of a block of 24 mm that is covered"},
    "tsnr": {
        "Description": "Mean above the smallest value of the brain, over the standard deviation over time, median over voxels"
    },
    "outlyingness": {
        "Description": "Distance of the embedding from the middle of the cohort's, in robust standard deviations"
    },
    "questions": {"Description": "What the data fit asks about the run"},
}
OF_FIT = ("repetition_time", "brain_covered", "least_covered", "tsnr")


def quality_of(cohort: Cohort, outlyingness: np.ndarray) -> pd.DataFrame:
    """Return a row per run, the worst first, with the columns of `COLUMNS`.

    Parameters
    ----------
    outlyingness : (runs,) array
        Of the embeddings.
    """
    runs = cohort.runs
    fits = [_fit_of(path) for path in cohort.files]
    total = runs["windows"] + runs["censored_windows"]
    table = pd.DataFrame(
        {
            "run_name": runs["run_name"],
            "windows": runs["windows"],
            "censored": runs["censored_windows"] / total,
            **{name: runs[name] for name in ("mean_fd", "max_fd", "brain_in_template", "brain_outside_grid")},
            **{name: [values.get(name, np.nan) for values, _ in fits] for name in OF_FIT},
            "outlyingness": outlyingness,
            "questions": ["; ".join(questions) for _, questions in fits],
        }
    )
    badness, because = _badness(table)
    table = table.assign(badness=badness, because=because)[list(COLUMNS)]
    return table.sort_values("badness", ascending=False, kind="stable", ignore_index=True)


def thumbnails(cohort: Cohort) -> dict[str, str]:
    """Return where the picture of each run's alignment is, relative to the output folder: name of the run -> path."""
    found = {}
    for name, subject in zip(cohort.runs["run_name"], cohort.runs[SUBJECT], strict=True):
        figure = (
            figure_folder(str(subject).removeprefix("sub-")) / f"{name}_space-{cohort.template}_desc-alignment_bold.png"
        )
        found[str(name)] = figure.as_posix()
    return found


def _badness(table: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Return by how many robust standard deviations each run is worse than the cohort, and by which measure."""
    z = np.full((len(table), len(WORSE)), -np.inf)
    for k, (name, sign) in enumerate(WORSE.items()):
        values = table[name].to_numpy(float)
        known = np.isfinite(values)
        if known.any():
            middle = np.median(values[known])
            spread = max(SD_OF_MAD * float(np.median(np.abs(values[known] - middle))), LEAST[name])
            off = (values[known] - middle) / spread
            z[known, k] = sign * off if sign else np.abs(off)
    z = np.hstack([z, np.where(table["questions"] != "", FLAG, -np.inf)[:, None]])
    names = [*WORSE, "data fit"]
    largest = np.maximum(z.max(axis=1), 0)
    return largest, [names[k] if value > 0 else "" for k, value in zip(z.argmax(axis=1), largest, strict=True)]


def _fit_of(embeddings: Path) -> tuple[dict[str, float], list[str]]:
    """Return what was measured of a run's data, and what is asked about it; nothing if that is not there."""
    about = read_json(data_fit_beside(embeddings))
    try:
        entries = about["Measures"]
        values = {name: float(each["Value"]) for name, each in entries.items() if each["Value"] is not None}
        return values, [str(each["Flag"]) for each in entries.values() if each["Flag"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}, []

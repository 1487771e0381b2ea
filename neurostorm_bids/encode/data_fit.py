"""What of a run decides whether a model can make sense of it: its times, its brain, its signal, in numbers.

Results at the level of chance have often had a plain cause: another scaling, filter, repetition time or orientation than those
of the data that the model was trained on.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from nibabel.affines import apply_affine

from neurostorm_bids.resample.gridded import GriddedRun
from neurostorm_bids.resample.parcels import blocks
from neurostorm_bids.resample.template import template_brain
from neurostorm_bids.runtime.json_files import plain_number, unknown_as_nan

MOST_VOXELS = 3000  # whose series are looked at, evenly spaced
FRAMES = 64  # at a time
CELL = 12.0  # mm, edge of the cells of the mean image; the midline is between two of them
CELLS = (16, 20, 16)  # along x, y and z
BANDS = np.arange(0, 0.626, 0.025)  # Hz, edges; 0.625 is half of the rate of frames of 0.8 s
SLOW, FAST = 0.01, 0.1  # Hz: drifts are below, what is not haemodynamic mostly above


@dataclass(frozen=True)
class Measures:
    """What was measured of one run.

    Attributes
    ----------
    values : dict
        Name, of `reference.QUESTIONS` -> number; NaN where it is not known.
    image : (cells,) float32 array
        Mean image in cells of 12 mm of the template's space, z-scores; NaN outside the brain.
    coverage : (blocks,) array
        Share of each block of 24 mm of the template's brain that the run covers; empty if an earlier version measured the run.
    spectrum : (bands,) array
        Share of the variance over time in each band of `BANDS`, median over voxels; NaN in bands without a frequency.
    """

    values: dict[str, float]
    image: np.ndarray
    coverage: np.ndarray = field(default_factory=lambda: np.empty(0))
    spectrum: np.ndarray = field(default_factory=lambda: np.empty(0))


def measure(run: GriddedRun) -> Measures:
    """Measure a run; a pass over its frames."""
    series, mean = _series_and_mean(run)
    zero = run.background
    spread = series.std(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (series.mean(axis=0) - zero) / spread
    slow, fast, spectrum = _shares(series, run.repetition_time)
    steps, brain = run.steps, template_brain(run.grid)
    inside = np.zeros(len(brain), bool)
    inside[run.brain] = True
    parcels = blocks(run.grid)
    covered = parcels.sums(inside.astype(float)) / parcels.sums(np.ones(len(inside)))
    known = run.displacement[~np.isnan(run.displacement)] if run.displacement is not None else np.empty(0)
    values = {
        "repetition_time": float(steps.get("SourceRepetitionTime") or np.nan),
        "duration": run.shape[3] * run.repetition_time,
        "voxel_volume": float(np.prod(steps.get("SourceVoxelSizeInMM") or np.nan)),
        "brain_covered": float(inside[brain].mean()),
        "least_covered": float(covered.min()),
        "brightness": -zero,
        "contrast": float(np.std(mean)),
        "fluctuation": float(np.median(spread)),
        "tsnr": float(np.median(ratio[np.isfinite(ratio)])) if np.isfinite(ratio).any() else np.nan,
        "slow_share": slow,
        "fast_share": fast,
        "mean_fd": float(known.mean()) if len(known) else np.nan,
    }
    return Measures(values, _cells(run, mean), covered, spectrum)


def mirrored(image: np.ndarray) -> np.ndarray:
    """Return a mean image with left and right exchanged."""
    return image.reshape(CELLS)[::-1].ravel()


def _series_and_mean(run: GriddedRun) -> tuple[np.ndarray, np.ndarray]:
    """Return the series of some brain voxels, (T, voxels), and the mean of all, (n,)."""
    n_frames, n = run.shape[3], len(run.brain)
    some = np.unique(np.linspace(0, n - 1, min(n, MOST_VOXELS)).astype(int))
    series, total = np.empty((n_frames, len(some))), np.zeros(n)
    for start in range(0, n_frames, FRAMES):
        signal = run.signal(start, min(start + FRAMES, n_frames))
        series[start : start + len(signal)] = signal[:, some]
        total += signal.sum(axis=0)
    return series, total / n_frames


def _shares(series: np.ndarray, repetition_time: float) -> tuple[float, float, np.ndarray]:
    """Return how much of the variance over time is drift, how much is fast, and how much in each band: medians over voxels."""
    centred = series - series.mean(axis=0)
    power = np.abs(np.fft.rfft(centred * np.hanning(len(series))[:, None], axis=0)) ** 2
    frequency = np.fft.rfftfreq(len(series), repetition_time)
    total = power.sum(axis=0)
    varies = total > 0
    if not varies.any():
        return np.nan, np.nan, np.full(len(BANDS) - 1, np.nan)
    bands = [(frequency >= low) & (frequency < high) for low, high in pairwise(BANDS)]
    bands[-1] |= np.isclose(frequency, BANDS[-1])
    slow, fast, *spectrum = (
        float(np.median(power[which][:, varies].sum(axis=0) / total[varies])) if which.any() else np.nan
        for which in (frequency < SLOW, frequency > FAST, *bands)
    )
    return slow, fast, np.array(spectrum)


def _cells(run: GriddedRun, mean: np.ndarray) -> np.ndarray:
    """Average the mean image over cells of the template's space."""
    world = apply_affine(run.grid.matrix, np.stack(np.unravel_index(run.brain, run.grid.shape), axis=1))
    index = np.floor(world / CELL).astype(int) + np.array(CELLS) // 2
    within = ((index >= 0) & (index < CELLS)).all(axis=1)
    numbers = np.ravel_multi_index(tuple(index[within].T), CELLS)
    size = int(np.prod(CELLS))
    counts, sums = np.bincount(numbers, minlength=size), np.bincount(numbers, weights=mean[within], minlength=size)
    few = counts < (CELL / 2) ** 3 / 4  # a quarter of a cell
    return np.where(few, np.nan, sums / np.maximum(counts, 1)).astype(np.float32)


def as_plain(measures: Measures) -> dict[str, Any]:
    """Return measures as JSON has them, which knows no NaN."""
    values = {name: plain_number(value) for name, value in measures.values.items()}
    image = [None if np.isnan(value) else round(float(value), 3) for value in measures.image]
    coverage, spectrum = (
        [None if np.isnan(value) else round(float(value), 4) for value in each]
        for each in (measures.coverage, measures.spectrum)
    )
    return {"Values": values, "MeanImage": image, "BlockCoverage": coverage, "PowerSpectrum": spectrum}


def from_plain(plain: Any) -> Measures:
    """Undo `as_plain`.

    Raises
    ------
    ValueError
        If it is something else.
    """
    try:
        values = {str(name): unknown_as_nan(value) for name, value in plain["Values"].items()}
        image = np.array(list(map(unknown_as_nan, plain["MeanImage"])), np.float32)
        more = [np.array(list(map(unknown_as_nan, plain.get(key) or []))) for key in ("BlockCoverage", "PowerSpectrum")]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"these are no measures of a run ({type(error).__name__})") from None
    return Measures(values, image, *more)

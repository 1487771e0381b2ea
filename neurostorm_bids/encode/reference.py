"""What a model's data are like: bands for what `data_fit` measures, a mean image, and where embeddings lie. Knows no files."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from neurostorm_bids.encode.data_fit import Measures, mirrored
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.json_files import plain_number, unknown_as_nan

FEWEST = 5  # runs of which a reference is made
MOST_SCORES = 200  # runs whose places among the embeddings are kept
MOST_AXES = 8  # along which embeddings are looked at
LEVEL = 0.001  # of runs like the reference's, how many lie outside one band
LEAST_SPREAD = 0.05  # of a band's middle: what never varied in the reference may vary a little
STEPS = 100  # of the mean image, in one unit of z

# name -> unit, what it is, what may be wrong if it is too small, and if it is too large
QUESTIONS: dict[str, tuple[str, str, str, str]] = {
    "repetition_time": ("s", "Repetition time of the acquisition",
        "was acquired faster than what the model saw", "was acquired more slowly than what the model saw; quick changes are not in it"),
    "duration": ("s", "Length of the run",
        "is shorter than what the model saw: was it cut?", "is longer than what the model saw: were runs joined?"),
    "voxel_volume": ("mm3", "Voxel before resampling",
        "has smaller voxels than what the model saw: noisier, and finer", "has larger voxels than what the model saw: blurred"),
    "brain_covered": ("", "Share of the template's brain that the run covers",
        "covers less of the brain than what the model saw: was the field of view cropped, or the mask too small?",
        "covers more of the template than what the model saw: is the mask too large?"),
    "least_covered": ("", "Least share of a block of 24 mm that is covered",
        "lacks a part of the brain that the model saw: was the field of view cropped?", "lacks less than what the model saw"),
    "brightness": ("", "Mean above the smallest value of the brain, in standard deviations over voxels and frames",
        "is mostly as dark as its darkest voxels: are there very bright ones in the mask (eyes, vessels)?",
        "is brighter above its darkest voxels than what the model saw: is the mask tight, or are there voids in it?"),
    "contrast": ("", "Standard deviation over voxels of the mean image, z-scores",
        "hardly has an anatomy in its mean image: was the mean taken out, or was each voxel scaled?",
        "has more contrast in its mean image than what the model saw"),
    "fluctuation": ("", "Standard deviation over time, z-scores, median over voxels",
        "changes less over time than what the model saw: was it smoothed, filtered, denoised or scaled?",
        "changes more over time than what the model saw: head motion, or was the mean taken out or each voxel scaled?"),
    "tsnr": ("", "Mean above the smallest value of the brain, over the standard deviation over time, median over voxels",
        "has a lower signal-to-noise ratio than what the model saw: noise, head motion, or was the mean taken out?",
        "has a higher signal-to-noise ratio than what the model saw: was it smoothed, filtered or denoised?"),
    "slow_share": ("", "Share of the variance over time below 0.01 Hz",
        "has less drift than what the model saw: was it high-pass filtered?",
        "drifts more than what the model saw: were drifts left in, or was it low-pass filtered?"),
    "fast_share": ("", "Share of the variance over time above 0.1 Hz",
        "has less fast signal than what the model saw: was it low-pass or band-pass filtered, or is the repetition time long?",
        "has more fast signal than what the model saw: noise, or was it high-pass filtered?"),
    "spectrum": ("", "Share of the variance over time that lies in other bands of frequency than the reference's",
        "has the power spectrum of what the model saw", "has another power spectrum than what the model saw: was it filtered, or acquired at another rate?"),
    "mean_fd": ("mm", "Mean framewise displacement",
        "moves less than what the model saw", "moves more than what the model saw"),
    "likeness": ("r", "Correlation of the mean image with the reference's",
        "does not look like what the model saw: is it upside down, mirrored, of another contrast, or badly aligned?",
        "looks more like the reference than its own runs"),
    "asymmetry": ("r", "The same, of what differs between left and right",
        "differs between left and right otherwise than what the model saw: are left and right swapped?",
        "differs between left and right more as the reference does than its own runs"),
    "distance": ("", "Mahalanobis distance of the embedding from the reference's",
        "lies nearer to the middle of the reference than its own runs", "is embedded far from what the model saw"),
    "nearest": ("", "Distance of the embedding from the nearest one of the reference",
        "lies nearer to a run of the reference than these to each other: is it one of them?",
        "is embedded far from every run that the model saw"),
    "window_distance": ("", "Mahalanobis distance of the embeddings of windows from the reference's, median over windows",
        "has windows nearer to the middle of the reference than those of its own runs", "has windows that are embedded far from what the model saw"),
}  # fmt: skip
SCALES = ("repetition_time", "duration", "voxel_volume", "brightness", "contrast", "fluctuation", "tsnr", "mean_fd", "distance", "nearest", "window_distance", "spectrum")  # fmt: skip
HARMLESS = {  # which side of a band is nothing to ask about
    "least_covered": "high", "likeness": "high", "asymmetry": "high", "distance": "low", "nearest": "low",
    "mean_fd": "low", "duration": "high", "window_distance": "low", "spectrum": "low",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One measure of a run beside the reference's.

    Attributes
    ----------
    name, unit, about : str
    value : float
    low, middle, high : float
        The band in which a run like the reference's lies but for one in a thousand; NaN without a reference.
    words : str
        What is asked where the value lies outside; else empty.
    """

    name: str
    unit: str
    about: str
    value: float
    low: float
    middle: float
    high: float
    words: str


@dataclass(frozen=True)
class Reference:
    """What a model's data are like.

    Attributes
    ----------
    n : int
        Runs.
    bands : dict
        Name of a measure -> low, middle and high.
    image : (cells,) array
        Mean of their mean images; NaN outside the brain.
    spectrum : (bands,) array
        Mean of their power spectra; empty if they have none.
    centre : (channels,) array
        Mean embedding.
    axes : (axes, channels) array
        Directions in which embeddings vary most, each divided by the standard deviation along it.
    scores : (runs, axes) array
        Where runs of the reference lie.
    """

    n: int
    bands: dict[str, tuple[float, float, float]]
    image: np.ndarray
    spectrum: np.ndarray
    centre: np.ndarray
    axes: np.ndarray
    scores: np.ndarray


def make_reference(measures: Sequence[Measures], embeddings: Sequence[np.ndarray]) -> Reference:
    """Make a reference of runs.

    Parameters
    ----------
    measures : sequence of Measures
    embeddings : sequence of (windows, channels) arrays
        Of the runs.

    Raises
    ------
    NeurostormError
        If there are too few.
    """
    n = len(measures)
    if n < FEWEST:
        raise NeurostormError(f"{n} runs are no reference; {FEWEST} or more are needed")
    images = np.stack([each.image for each in measures])
    whole = _mean_image(images)
    spectra = (
        np.stack([each.spectrum for each in measures])
        if len({each.spectrum.size for each in measures}) == 1
        else np.empty((n, 0))
    )
    X = np.stack([np.asarray(each, float).mean(axis=0) for each in embeddings])
    n_axes = min(MOST_AXES, (n - 1) // 2)
    placed = [_places(np.delete(X, i, axis=0), n_axes) for i in range(n)] if n <= MOST_SCORES else []
    centre, axes, scores = _places(X, n_axes)
    rows = []
    for i, each in enumerate(measures):
        others = _mean_image(np.delete(images, i, axis=0)) if n <= MOST_SCORES else whole
        of_embedding = placed[i] if placed else (centre, axes, np.delete(scores, i, axis=0))
        about = {"spectrum": _elsewhere(spectra[i], _mean_spectrum(np.delete(spectra, i, axis=0)))}
        rows.append(
            {**each.values, **_against(each.image, others), **about, **_distances(embeddings[i], *of_embedding)}
        )
    bands = {name: _band(np.array([row[name] for row in rows]), name) for name in QUESTIONS}
    kept = np.unique(np.linspace(0, n - 1, min(n, MOST_SCORES)).astype(int))
    return Reference(n, bands, whole, _mean_spectrum(spectra), centre, axes, scores[kept])


def compare(measures: Measures, embeddings: np.ndarray, reference: Reference | None) -> list[Finding]:
    """Compare a run with a reference; without one its values stand alone.

    Parameters
    ----------
    embeddings : (windows, channels) array
        Of the run.
    """
    values = dict(measures.values)
    if reference is not None:
        values |= _against(measures.image, reference.image)
        values["spectrum"] = _elsewhere(measures.spectrum, reference.spectrum)
        values |= _distances(embeddings, reference.centre, reference.axes, reference.scores)
    found = []
    for name, value in values.items():
        unit, about, if_low, if_high = QUESTIONS[name]
        low, middle, high = reference.bands[name] if reference else (np.nan,) * 3
        words = if_low if value < low else if_high if value > high else ""
        if words and HARMLESS.get(name) == ("low" if value < low else "high"):
            words = ""
        if words:
            words += f" ({_how_far(name, value, middle)} the middle of what it saw)"
        found.append(Finding(name, unit, about, float(value), float(low), float(middle), float(high), words))
    return found


def _how_far(name: str, value: float, middle: float) -> str:
    """Return how a value lies to the middle of the band: as a ratio where it has a unit or a scale of its own."""
    return f"{value / middle:.2g} times" if name in SCALES and middle else f"{value:.2g}; {middle:.2g} is"


def _band(values: np.ndarray, name: str) -> tuple[float, float, float]:
    """Return where a further value lies but for one in a thousand, if values (or their logarithms) are normal."""
    known = values[np.isfinite(values)]
    is_scale = name in SCALES
    if is_scale:
        known = np.log(known[known > 0])
    if len(known) < FEWEST:
        return np.nan, np.nan, np.nan
    middle, n = float(known.mean()), len(known)
    least = LEAST_SPREAD if is_scale else LEAST_SPREAD * abs(middle)
    spread = float(np.hypot(known.std(ddof=1), least / 3))
    reach = float(student.ppf(1 - LEVEL / 2, n - 1)) * spread * (1 + 1 / n) ** 0.5
    ends = middle - reach, middle, middle + reach
    low, mid, high = np.exp(ends) if is_scale else ends
    return float(low), float(mid), float(high)


def _mean_image(images: np.ndarray) -> np.ndarray:
    """Return the mean of images, (runs, cells), where at least half of them have brain."""
    known = np.isfinite(images)
    enough = known.sum(axis=0) >= len(images) / 2
    total = np.where(known, images, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(enough, total, np.nan)


def _against(image: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Return how alike two mean images are, as a whole and in what differs between left and right."""
    return {"likeness": _r(image, other), "asymmetry": _r(image - mirrored(image), other - mirrored(other))}


def _r(one: np.ndarray, other: np.ndarray) -> float:
    both = np.isfinite(one) & np.isfinite(other)
    if both.sum() < FEWEST or not one[both].std() or not other[both].std():
        return float("nan")
    return float(np.corrcoef(one[both], other[both])[0, 1])


def _places(X: np.ndarray, n_axes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean, the axes and the scores of embeddings, (runs, channels)."""
    centre = X.mean(axis=0)
    _, s, axes = np.linalg.svd(X - centre, full_matrices=False)
    spread = s[:n_axes] / np.sqrt(len(X) - 1)
    varies = spread > 1e-9 * max(1.0, float(np.abs(centre).max()))
    scaled = axes[:n_axes][varies] / spread[varies, None]
    return centre, scaled, (X - centre) @ scaled.T


def _distances(embeddings: np.ndarray, centre: np.ndarray, axes: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return how far a run lies from the middle of runs and from the nearest one, and its windows from the middle."""
    if not len(axes) or embeddings.shape[1:] != centre.shape or not np.isfinite(embeddings).all():
        return {"distance": float("nan"), "nearest": float("nan"), "window_distance": float("nan")}
    places = (embeddings - centre) @ axes.T  # (windows, axes)
    place = places.mean(axis=0)
    return {
        "distance": float(np.linalg.norm(place)),
        "nearest": float(np.linalg.norm(scores - place, axis=1).min()),
        "window_distance": float(np.median(np.linalg.norm(places, axis=1))),
    }


def _mean_spectrum(spectra: np.ndarray) -> np.ndarray:
    """Return the mean of power spectra, (runs, bands), in the bands that all have."""
    known = np.isfinite(spectra).all(axis=0)
    return np.where(known, np.where(known, spectra, 0).sum(axis=0) / max(1, len(spectra)), np.nan)


def _elsewhere(one: np.ndarray, other: np.ndarray) -> float:
    """Return which share of the variance lies in other bands; NaN if nothing is known of one."""
    if one.shape != other.shape or not (known := np.isfinite(one) & np.isfinite(other)).any():
        return float("nan")
    return float(np.abs(one[known] - other[known]).sum() / 2)


def to_plain(reference: Reference) -> dict[str, Any]:
    """Return a reference as plain values, a few KB."""
    image = np.where(np.isfinite(reference.image), np.round(STEPS * reference.image), np.iinfo(np.int16).min)
    return {
        "runs": reference.n,
        "bands": {  # JSON knows no NaN, which stands for what no run knew
            name: list(map(plain_number, band)) for name, band in reference.bands.items()
        },
        "image": _text(np.clip(image, -(2**15), 2**15 - 1).astype("<i2")),
        "spectrum": [plain_number(round(float(share), 4)) for share in reference.spectrum],
        "centre": _text(reference.centre.astype("<f4")),
        "axes": [len(reference.axes), _text(reference.axes.astype("<f2"))],
        "scores": _text(reference.scores.astype("<f2")),
    }


def from_plain(plain: Any) -> Reference:
    """Return the reference that plain values stand for.

    Raises
    ------
    NeurostormError
        If they stand for none.
    """
    try:
        image = _numbers(plain["image"], "<i2")
        n_axes, axes = plain["axes"]
        centre = _numbers(plain["centre"], "<f4")
        unknown = (None, None, None)  # of what an earlier version did not measure
        bands = {name: tuple(map(unknown_as_nan, plain["bands"].get(name, unknown))) for name in QUESTIONS}
        if any(len(band) != 3 for band in bands.values()):
            raise ValueError("bands of three")
        return Reference(
            int(plain["runs"]),
            bands,  # type: ignore[arg-type]
            np.where(image == np.iinfo(np.int16).min, np.nan, image / STEPS),
            np.array(list(map(unknown_as_nan, plain.get("spectrum") or []))),
            centre,
            _numbers(axes, "<f2").reshape(int(n_axes), len(centre)),
            _numbers(plain["scores"], "<f2").reshape(-1, int(n_axes)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NeurostormError(
            f"the reference figures of the model are damaged ({type(error).__name__}: {error})"
        ) from None


def _text(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _numbers(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind).astype(np.float64)

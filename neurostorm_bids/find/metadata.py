"""What the JSON sidecar of a run says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.files import check_fetched

IRREGULAR = 0.01  # share of the interval between volumes by which intervals may differ
SHOWN = 80  # characters of a value that a message shows


@dataclass(frozen=True)
class AcquisitionTimes:
    """What sidecars say about time.

    Attributes
    ----------
    repetition_time : float or None
        Time from one volume to the next, s.
    start_time : float
        BIDS ``StartTime``: time after the start of the acquisition that the first volume belongs to, s.
    slice_timing_corrected : bool
        Whether every value of a volume stands for one moment.
    notes : tuple of str
        What a user should know about them.
    """

    repetition_time: float | None = None
    start_time: float = 0.0
    slice_timing_corrected: bool = False
    notes: tuple[str, ...] = ()


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read a JSON sidecar; empty if there is none.

    Raises
    ------
    NeurostormError
        If it is there but cannot be read.
    """
    check_fetched(path)
    if not path.exists():
        return {}
    if not path.is_file():
        raise NeurostormError(f"{path} is not a regular file; replace it by fMRIPrep's JSON file")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise NeurostormError(f"{path} is not readable JSON ({error}); fetch it again or repair it") from None
    if not isinstance(content, dict):
        raise NeurostormError(f"{path} is not a JSON object; fetch it again or repair it")
    return content


def acquisition_times(sidecars: Sequence[Path], repetition_time: float | None = None) -> AcquisitionTimes:
    """Read what the sidecars of a run say about time.

    Parameters
    ----------
    sidecars : sequence of Path
        What an earlier one says is right; the others give what it lacks.
    repetition_time : float, optional
        The user's, s: what the sidecars say of it is not looked at.

    Raises
    ------
    NeurostormError
        If a sidecar is unusable, or the volumes were not acquired at regular intervals.
    """
    first_onset, notes = 0.0, []
    if repetition_time is None:
        value, path = look_up("RepetitionTime", sidecars)
        if path and _is_number_as_text(value):
            notes = [f"{path}: RepetitionTime is text, {_short(value)}; it is taken for {float(value):g} s"]
            value = float(value)
        repetition_time = _number("RepetitionTime", value, path)
        if not repetition_time:
            repetition_time, first_onset = _from_volume_timing(*look_up("VolumeTiming", sidecars))
    start_time = _number("StartTime", *look_up("StartTime", sidecars))
    corrected, _ = look_up("SliceTimingCorrected", sidecars)
    return AcquisitionTimes(
        repetition_time, first_onset if start_time is None else start_time, corrected is True, tuple(notes)
    )


def look_up(key: str, sidecars: Sequence[Path]) -> tuple[Any, Path | None]:
    """Return the first value of a key in a run's sidecars, and the one that holds it."""
    for path in sidecars:
        try:
            value = read_sidecar(path).get(key)
        except NeurostormError:
            # The repetition time is what a run cannot do without, and its own sidecar what vouches for the rest.
            if key == "RepetitionTime" or path == sidecars[0]:
                raise
            continue
        if value is not None and not (key == "RepetitionTime" and is_number(value) and value == 0):
            return value, path
    return None, None


def _number(key: str, value: Any, path: Path | None) -> float | None:
    """Return a number of a sidecar; `None` if it is absent.

    Raises
    ------
    NeurostormError
        If it is there and not a number.
    """
    if value is None:
        return None
    if not is_number(value):
        remedy = ", or give --repetition-time" if key == "RepetitionTime" else ""
        raise NeurostormError(f"{path}: {key} is {_short(value)}, not a number; correct it{remedy}")
    return float(value)


def _from_volume_timing(onsets: Any, path: Path | None) -> tuple[float | None, float]:
    """Return the interval of BIDS ``VolumeTiming`` (onsets of all volumes, s), if it is given, and the first onset."""
    if onsets is None:
        return None, 0.0
    if not isinstance(onsets, list) or len(onsets) < 2 or not all(map(is_number, onsets)):
        raise NeurostormError(f"{path}: VolumeTiming is {_short(onsets)}, not a list of onsets in s; correct it")
    steps = [after - before for before, after in pairwise(onsets)]
    middle = sorted(steps)[len(steps) // 2]
    if any(abs(step - middle) > IRREGULAR * abs(middle) for step in steps):
        raise NeurostormError(
            f"{path}: VolumeTiming is irregular ({min(steps):g} to {max(steps):g} s between volumes): sparse acquisitions "
            "cannot be resampled in time; give --repetition-time to treat the run as a regular one"
        )
    return float(middle), float(onsets[0])


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9  # NaN is not


def _is_number_as_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.isascii() and is_number(float(value))
    except ValueError:
        return False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < SHOWN else f"{text[: SHOWN - 4]}..."

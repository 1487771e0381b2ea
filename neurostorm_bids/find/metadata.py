"""What the JSON sidecar of a run says."""

import json
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
    """What a sidecar says about time.

    Attributes
    ----------
    repetition_time : float or None
        Time from one volume to the next, s.
    start_time : float
        BIDS ``StartTime``: time after the start of the acquisition that the first volume belongs to, s.
    slice_timing_corrected : bool
        Whether every value of a volume stands for one moment.
    """

    repetition_time: float | None = None
    start_time: float = 0.0
    slice_timing_corrected: bool = False


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


def acquisition_times(path: Path, repetition_time: float | None = None) -> AcquisitionTimes:
    """Read what a sidecar says about time.

    Parameters
    ----------
    repetition_time : float, optional
        The user's, s: what the sidecar says of it is not looked at.

    Raises
    ------
    NeurostormError
        If the sidecar is unusable, or the volumes were not acquired at regular intervals.
    """
    sidecar = read_sidecar(path)
    start_time, first_onset = number_in(sidecar, "StartTime", path), 0.0
    if repetition_time is None:
        repetition_time = number_in(sidecar, "RepetitionTime", path)
        if not repetition_time:
            repetition_time, first_onset = _from_volume_timing(sidecar, path)
    start_time = first_onset if start_time is None else start_time
    return AcquisitionTimes(repetition_time, start_time, sidecar.get("SliceTimingCorrected") is True)


def number_in(sidecar: dict[str, Any], key: str, path: Path) -> float | None:
    """Return a number of a sidecar; `None` if it is absent.

    Raises
    ------
    NeurostormError
        If it is there and not a number.
    """
    value = sidecar.get(key)
    if value is None:
        return None
    if not _is_number(value):
        remedy = ", or give --repetition-time" if key == "RepetitionTime" else ""
        raise NeurostormError(f"{path}: {key} is {_short(value)}, not a number; correct it{remedy}")
    return float(value)


def _from_volume_timing(sidecar: dict[str, Any], path: Path) -> tuple[float | None, float]:
    """Return the interval of BIDS ``VolumeTiming`` (onsets of all volumes, s), if it is given, and the first onset."""
    onsets = sidecar.get("VolumeTiming")
    if onsets is None:
        return None, 0.0
    if not isinstance(onsets, list) or len(onsets) < 2 or not all(map(_is_number, onsets)):
        raise NeurostormError(f"{path}: VolumeTiming is {_short(onsets)}, not a list of onsets in s; correct it")
    steps = [after - before for before, after in pairwise(onsets)]
    middle = sorted(steps)[len(steps) // 2]
    if any(abs(step - middle) > IRREGULAR * abs(middle) for step in steps):
        raise NeurostormError(
            f"{path}: VolumeTiming is irregular ({min(steps):g} to {max(steps):g} s between volumes): sparse acquisitions "
            "cannot be resampled in time; give --repetition-time to treat the run as a regular one"
        )
    return float(middle), float(onsets[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9  # NaN is not


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < SHOWN else f"{text[: SHOWN - 4]}..."

"""How a raw series was acquired, as its sidecars say: phase encoding, readout time, slice timing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.metadata import is_number, look_up

AXES = "ijk"
DIFFERENT = 0.1  # share by which two statements of the readout time differ that contradict each other
WATER_FAT_SHIFT = 3.39941  # ppm between water and fat: Hz for each MHz of the imaging frequency
MHZ_OF_TESLA = 42.57747892  # imaging frequency of protons
ESTIMATED = "estimated"


@dataclass(frozen=True)
class PhaseEncoding:
    """Along which axis of the array images are distorted, and how much.

    Attributes
    ----------
    axis : {0, 1, 2}
        Of the array as it is stored.
    readout_time : float
        Voxels along the axis by which 1 Hz moves the signal (BIDS ``TotalReadoutTime``, s); below 0 for a direction such
        as ``j-``.
    direction : str
        As in BIDS.
    source : str
        What the readout time was taken from.
    notes : tuple of str
    """

    axis: int
    readout_time: float
    direction: str
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SliceTiming:
    """When the slices of a volume were acquired.

    Attributes
    ----------
    times : tuple of float
        After the start of the volume, s, by index along the axis.
    axis : {0, 1, 2}
    """

    times: tuple[float, ...]
    axis: int

    def moment(self, fraction: float) -> float:
        """Return the time between the first (0) and the last (1) slice, s, rounded as fMRIPrep does."""
        first, last = min(self.times), max(self.times)
        return round(first + fraction * (last - first), 3)


def phase_encoding(sidecars: Sequence[Path], shape: Sequence[int], fallback: str | None = None) -> PhaseEncoding:
    """Read the phase encoding of a series, and its readout time by the first of fMRIPrep's rules that applies.

    ``TotalReadoutTime``; ``EffectiveEchoSpacing``; ``EchoSpacing``; ``WaterFatShift`` (Philips); the fallback.

    Parameters
    ----------
    shape : sequence of int
        Of the array.
    fallback : str, optional
        s, or ``estimated``: sidecars' estimates of the first two are taken as well.

    Raises
    ------
    NeurostormError
        If they do not say it.
    """
    direction, path = look_up("PhaseEncodingDirection", sidecars)
    if direction is None:
        raise NeurostormError(
            f"{sidecars[0]} has no PhaseEncodingDirection (i, j or k, with - if reversed), without which the fieldmap cannot be "
            "applied; add it, or remove the transform to the fieldmap to go without distortion correction"
        )
    if not isinstance(direction, str) or direction.removesuffix("-") not in tuple(AXES):
        raise NeurostormError(
            f"{path}: PhaseEncodingDirection is {direction!r}, not i, j or k, with - if reversed; correct it"
        )
    axis = AXES.index(direction[0])
    stated = list(_readout_times(sidecars, shape[axis], fallback))
    if not stated:
        raise NeurostormError(
            f"{sidecars[0]} has no TotalReadoutTime (s), nor EffectiveEchoSpacing, EchoSpacing or WaterFatShift, without which the "
            "fieldmap cannot be applied; add it, or give --fallback-total-readout-time"
        )
    seconds, source = stated[0]
    notes = tuple(
        f"{source} gives a readout time of {seconds:.4g} s, {other} {value:.4g} s; the former is used, as by fMRIPrep: check which is "
        "right"
        for value, other in stated[1:]
        if not other.startswith("--") and abs(value - seconds) > DIFFERENT * seconds
    )
    return PhaseEncoding(axis, -seconds if direction.endswith("-") else seconds, direction, source, notes)


def _readout_times(sidecars: Sequence[Path], n: int, fallback: str | None) -> list[tuple[float, str]]:
    """Return every statement of the readout time, s, and its source, in the order in which fMRIPrep looks.

    What is stated first has to be a number; of what comes after it, which only serves to notice contradictions, what is none is
    passed over.
    """
    said, found = _Numbers(sidecars), list[tuple[float, str]]()

    def state(value: float | None, source: str) -> None:
        if value is not None:
            found.append((value, source))
            said.is_strict = False

    prefixes = ("", "Estimated") if fallback == ESTIMATED else ("",)
    for name in (f"{prefix}TotalReadoutTime" for prefix in prefixes):
        state(said[name], name)
    for name in (f"{prefix}EffectiveEchoSpacing" for prefix in prefixes):
        state(_times(said[name], n - 1), name)
    if spacing := said["EchoSpacing"]:
        state(spacing * (int(n / (said["ParallelReductionFactorInPlane"] or 1.0)) - 1), "EchoSpacing")
    if (shift := said["WaterFatShift"]) and (factor := said["EPIFactor"]):
        megahertz = said["ImagingFrequency"] or _times(said["MagneticFieldStrength"], MHZ_OF_TESLA)
        if megahertz:
            state(shift / (WATER_FAT_SHIFT * megahertz * (factor + 1)) * (n - 1), "WaterFatShift")
    if fallback and fallback != ESTIMATED:
        if not float(fallback) > 0:
            raise NeurostormError(f"--fallback-total-readout-time {fallback}: it has to be above 0 s")
        state(float(fallback), "--fallback-total-readout-time")
    return found


class _Numbers:
    """Numbers above 0 of sidecars, by key; `None` where there is none."""

    def __init__(self, sidecars: Sequence[Path]):
        self.sidecars, self.is_strict = sidecars, True

    def __getitem__(self, key: str) -> float | None:
        value, path = look_up(key, self.sidecars)
        if value is None:
            return None
        if is_number(value) and value > 0:
            return float(value)
        if self.is_strict:
            raise NeurostormError(f"{path}: {key} is {value!r}, not a number above 0; correct it")
        return None


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def slice_timing(sidecars: Sequence[Path], shape: Sequence[int], repetition_time: float) -> SliceTiming | None:
    """Read when the slices of a series were acquired; `None` if its sidecars do not say.

    Raises
    ------
    NeurostormError
        If what they say does not fit the series.
    """
    times, path = look_up("SliceTiming", sidecars)
    if times is None or times == []:
        return None
    remedy = "correct it, or give --slice-timing off"
    if not isinstance(times, list) or not all(map(is_number, times)):
        raise NeurostormError(f"{path}: SliceTiming is not a list of numbers; {remedy}")
    direction: Any = look_up("SliceEncodingDirection", sidecars)[0] or "k"
    if not isinstance(direction, str) or direction.removesuffix("-") not in tuple(AXES):
        raise NeurostormError(
            f"{path}: SliceEncodingDirection is {direction!r}, not i, j or k, with - if reversed; {remedy}"
        )
    axis = AXES.index(direction[0])
    if len(times) != shape[axis]:
        raise NeurostormError(
            f"{path}: SliceTiming has {len(times)} times, the series {shape[axis]} slices along {AXES[axis]}; {remedy}"
        )
    if min(times) < 0 or max(times) >= repetition_time:
        raise NeurostormError(
            f"{path}: SliceTiming goes from {min(times):g} to {max(times):g}, the repetition time is {repetition_time:g} s; is it in ms? "
            f"{remedy}"
        )
    return SliceTiming(tuple(float(each) for each in (times[::-1] if direction.endswith("-") else times)), axis)

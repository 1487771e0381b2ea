"""From a raw series to the brain voxels of the grid in one interpolation: slice timing, head motion and distortion.

For a point of the grid, the maps of `transforms` give a point b of the BOLD reference. In volume v its signal lies at

    voxel = affine^-1 head_motion_v(b)   +   field(b) * readout time, along the phase-encoding axis

Head motion is that of the file that fMRIPrep wrote. The field is the same for all volumes; it is added after the motion, as by
fMRIPrep: distortion belongs to the scanner, not to the head. Slices are shifted in time before.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.acquisition import SliceTiming, phase_encoding, slice_timing
from neurostorm_bids.find.metadata import read_sidecar
from neurostorm_bids.find.motion import read_rigid_transforms
from neurostorm_bids.find.run import BoldFile, RawParts
from neurostorm_bids.resample.brain import Brain
from neurostorm_bids.resample.fieldmap import Corrected, Distortion, read_field
from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.gather import Points, gather, prepared
from neurostorm_bids.resample.interpolation import Advance, without_undefined
from neurostorm_bids.resample.nifti import VOLUMES, Bold, open_image
from neurostorm_bids.resample.slice_timing import FEWEST, ShiftedSlices
from neurostorm_bids.settings.participant import Resampling

MARGIN = {"linear": 1, "cubic": 12}  # voxels around those that are needed, from which they are interpolated
DRAWN = 4  # volumes, at most, whose mean is drawn with and without distortion
MIDDLE = 0.5  # of the acquisition of a volume
MAX_APART = 1.0  # voxels by which the corners of the BOLD reference may lie elsewhere than those of the series


@dataclass(frozen=True)
class RawRun:
    """How the volumes of a raw series lie in space and time.

    Attributes
    ----------
    head_motion : (volumes, 4, 4) array
        Maps of points (RAS, mm) of the BOLD reference to each volume.
    distortion : Distortion or None
    scales : bool
        Whether intensities are scaled by how far the field stretches them.
    slices : SliceTiming or None
        `None`: slices are not shifted.
    moment : float
        After the start of a volume, that its slices are shifted to, s.
    repetition_time : float
        s.
    dummy_scans : int
        Volumes to drop at the start.
    steps : dict
        What is done, for sidecars.
    notes : list of str
    """

    head_motion: np.ndarray
    distortion: Distortion | None
    scales: bool
    slices: SliceTiming | None
    moment: float
    repetition_time: float
    dummy_scans: int
    steps: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def read_raw_run(
    file: BoldFile, bold: Bold, repetition_time: float, dummy_scans: int, resampling: Resampling
) -> RawRun:
    """Read what leads to a raw series, and decide what is done.

    Raises
    ------
    NeurostormError
        If something is missing, damaged, or of another run.
    """
    parts = file.raw
    assert parts is not None
    _check_reference(parts, bold)
    for sidecar in file.sidecars:  # what cannot be read may hold what is needed
        read_sidecar(sidecar)
    notes: list[str] = []
    steps: dict[str, Any] = {"HeadMotion": parts.head_motion.name}
    motion = read_rigid_transforms(parts.head_motion, bold.n_volumes)
    distortion, scales = _distortion(file, bold, resampling, steps, notes)
    slices, moment = _slices(file, bold, repetition_time, bold.n_volumes - dummy_scans, resampling, steps)
    return RawRun(motion, distortion, scales, slices, moment, repetition_time, dummy_scans, steps, notes)


def _check_reference(parts: RawParts, bold: Bold) -> None:
    """Check that the BOLD reference lies where the series lies, if it is there."""
    if not parts.reference.exists():
        return
    image, name = open_image(parts.reference)
    shape = tuple(image.shape[:3])
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(bold.shape) - 1)
    voxels = np.c_[corners, np.ones(8)] @ (np.linalg.inv(bold.affine) @ image.affine).T
    if shape != bold.shape or np.abs(voxels[:, :3] - corners).max() > MAX_APART:
        raise NeurostormError(
            f"{name} ({' x '.join(map(str, shape))} voxels) does not lie where {bold.name} "
            f"({' x '.join(map(str, bold.shape))}) lies: the transforms are of another run, or the raw series has changed since"
        )


def _distortion(
    file: BoldFile, bold: Bold, resampling: Resampling, steps: dict[str, Any], notes: list[str]
) -> tuple[Distortion | None, bool]:
    """Return how the series is distorted, and whether intensities are scaled."""
    parts = file.raw
    assert parts is not None
    files = parts.fieldmap
    if files is None:
        steps["DistortionCorrection"] = f"none: {parts.fieldmap_missing}"
        return None, False
    encoding = phase_encoding(file.sidecars, bold.shape, resampling.fallback_total_readout_time)
    notes += encoding.notes
    distortion = Distortion(read_field(files), encoding, bold.affine)
    scales = parts.scales_intensities(resampling.jacobian)
    if resampling.jacobian == "auto" and files.is_pepolar is None and not scales:
        notes.append(
            f"nothing says from what kind of images fieldmap {files.identifier} was made: intensities are not scaled by how far it "
            "stretches them (--jacobian on if the images were of opposite phase encoding)"
        )
    if files.reference is None:
        notes.append(f"fieldmap {files.identifier} has no magnitude or epi image: it is taken as far as its splines go")
    steps["DistortionCorrection"] = {
        "Fieldmap": files.identifier,
        "Transform": files.transform.name,
        "Coefficients": [path.name for path in files.coefficients],
        "PhaseEncodingDirection": encoding.direction,
        "TotalReadoutTime": abs(encoding.readout_time),
        "TotalReadoutTimeFrom": encoding.source,
        "Jacobian": scales,
    }
    return distortion, scales


def _slices(
    file: BoldFile, bold: Bold, repetition_time: float, n_kept: int, resampling: Resampling, steps: dict[str, Any]
) -> tuple[SliceTiming | None, float]:
    """Return when slices were acquired if they are to be shifted, and the moment they are shifted to."""
    parts = file.raw
    assert parts is not None
    asked, why_not = resampling.slice_timing, ""
    if asked == "off":
        why_not = "--slice-timing off"
    elif asked == "auto" and not parts.slice_timing:
        why_not = "fMRIPrep left it out"
    elif n_kept < FEWEST:
        why_not = f"fewer than {FEWEST} volumes"
    timing = None if why_not else slice_timing(file.sidecars, bold.shape, repetition_time)
    if timing is None:
        if asked == "on":
            missing = (
                f"{bold.name} has {why_not}" if why_not else f"{file.sidecars[0]} has no SliceTiming (s, one a slice)"
            )
            raise NeurostormError(f"--slice-timing on: {missing}; leave the option out")
        steps["SliceTiming"] = f"none: {why_not or 'the sidecar has no SliceTiming'}"
        return None, 0.0
    fraction = next(each for each in (resampling.slice_time_ref, parts.slice_time_ref, MIDDLE) if each is not None)
    moment = timing.moment(float(fraction))
    steps["SliceTiming"] = {"Method": "Fourier, linear trend apart", "SliceTimeRef": float(fraction), "Moment": moment}
    return timing, moment


def interpolate_raw(
    bold: Bold,
    raw: RawRun,
    brain: Brain,
    interpolation: str,
    work_dir: Path | None,
    advance: Advance | None,
) -> tuple[FrameStore, Corrected | None]:
    """Interpolate each volume of a raw series at the brain voxels of the grid.

    Parameters
    ----------
    interpolation : {"linear", "cubic"}
        With zeros outside the volume, as fMRIPrep since 25.2.
    work_dir : Path or None
        As of `FrameStore`.
    advance : callable or None
        Called with (volumes done, volumes in all).

    Returns
    -------
    frames : FrameStore
        (volumes, brain voxels).
    corrected : Corrected or None
        `None` without a field.

    Raises
    ------
    NeurostormError
        If the file is damaged, no volume is left, or brain voxels are undefined.
    """
    n_dummies = raw.dummy_scans
    if not 0 <= n_dummies < bold.n_volumes:
        raise NeurostormError(f"{bold.name}: cannot drop {n_dummies} dummy scans of {bold.n_volumes} volumes")
    moved = np.linalg.inv(bold.affine) @ raw.head_motion[n_dummies:] @ bold.affine
    points = _points(brain, raw)
    box = _box([points, *_around(brain, raw)], moved, bold.shape, MARGIN[interpolation])
    first = np.array([each.start for each in box])
    moved[:, :3, 3] -= first
    blocks = _blocks(bold, brain, n_dummies, box)
    if raw.slices is not None:
        of_box = range(*box[raw.slices.axis].indices(bold.shape[raw.slices.axis]))
        later = {k: (raw.moment - raw.slices.times[k]) / raw.repetition_time for k in of_box}
        blocks = ShiftedSlices(blocks, later, raw.slices.axis, work_dir).blocks(VOLUMES)
    frames, corrected = FrameStore(len(brain.indices), work_dir), None
    with ThreadPoolExecutor(_threads()) as pool:
        for block in blocks:
            volumes = prepared(block, interpolation)
            of_block = moved[len(frames) : len(frames) + len(block)]
            values = np.stack(list(pool.map(gather, volumes, repeat(points), of_block, repeat(interpolation))))
            if brain.distorted is not None and raw.scales:
                values *= brain.distorted.stretch
            if corrected is None:
                corrected = _corrected(volumes[:DRAWN], of_block, brain, raw, interpolation)
            frames.append(values)
            if advance:
                advance(len(frames), len(moved))
    return frames, corrected


def _corrected(
    volumes: np.ndarray, moved: np.ndarray, brain: Brain, raw: RawRun, interpolation: str
) -> Corrected | None:
    """Return what the field changes in some volumes; `None` without a field."""
    distorted, distortion = brain.distorted, raw.distortion
    if distorted is None or distortion is None:
        return None
    before, after = (
        np.mean([gather(v, points, m, interpolation) for v, m in zip(volumes, moved, strict=False)], axis=0)
        for points in _around(brain, raw)
    )
    return Corrected(distorted.around, distorted.around_shift * distortion.voxel_size, before, after)


def _around(brain: Brain, raw: RawRun) -> list[Points]:
    """Return where brain and what is around it are drawn from: without the field, and with it; nothing without a field."""
    distorted, distortion = brain.distorted, raw.distortion
    if distorted is None or distortion is None:
        return []
    voxels = np.ascontiguousarray(distorted.around_voxels, dtype=np.float32)
    shift = np.ascontiguousarray(distorted.around_shift, dtype=np.float32)
    return [Points(voxels), Points(voxels, shift, distortion.encoding.axis)]


def _points(brain: Brain, raw: RawRun) -> Points:
    """Return where the brain is in the undistorted reference, and by how much it is shifted."""
    voxels = np.array(brain.voxels)
    if raw.distortion is None or brain.distorted is None:
        return Points(np.ascontiguousarray(voxels, dtype=np.float32))
    axis, shift = raw.distortion.encoding.axis, brain.distorted.shift
    voxels[:, axis] -= shift
    return Points(np.ascontiguousarray(voxels, dtype=np.float32), np.ascontiguousarray(shift, dtype=np.float32), axis)


def _box(asked: Sequence[Points], moved: np.ndarray, shape: tuple[int, ...], margin: int) -> list[slice]:
    """Return the part of the volumes that any point may be interpolated from in any of them, as slices of x, y, z."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for points in (each for each in asked if len(each.voxels)):
        ends = np.stack([points.voxels.min(axis=0), points.voxels.max(axis=0)])
        corners = np.array([[ends[i, 0], ends[j, 1], ends[k, 2], 1.0] for i, j, k in np.ndindex(2, 2, 2)])
        there = corners @ np.swapaxes(moved[:, :3], 1, 2)  # (volumes, 8, 3)
        least, most = there.min(axis=(0, 1)), there.max(axis=(0, 1))
        if points.shift is not None:
            least[points.axis] += min(0.0, float(points.shift.min()))
            most[points.axis] += max(0.0, float(points.shift.max()))
        low, high = np.minimum(low, least), np.maximum(high, most)
    start = np.clip(np.floor(low).astype(int) - margin, 0, np.array(shape) - 1)
    stop = np.clip(np.ceil(high).astype(int) + margin + 1, start + 1, shape)
    return [slice(int(a), int(b)) for a, b in zip(start, stop, strict=True)]


def _blocks(bold: Bold, brain: Brain, n_dummies: int, box: list[slice]) -> Iterator[np.ndarray]:
    """Yield (n, Z, Y, X) arrays of some volumes, as far as they are needed."""
    nx, ny, nz = bold.shape
    x, y, z = box
    for block in bold.blocks(n_dummies, VOLUMES):
        checked = without_undefined(block, bold, brain)
        yield np.ascontiguousarray(checked.T.reshape(-1, nz, ny, nx)[:, z, y, x])


def _threads() -> int:
    import torch  # which knows how many threads this process may use

    return max(1, int(torch.get_num_threads()))

"""From a BOLD file and its brain mask to a run in the model's grid."""

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Optional

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.place.grid import Grid, get_grid
from neurostorm_bids.place.image import Bold, read_mask
from neurostorm_bids.place.placed import PlacedRun
from neurostorm_bids.place.sample import apply_affine, inside, linear_sampler, nearest
from neurostorm_bids.place.time import PUBLISHED_TARGET, TimeMap, choose_repetition_time, time_map

HALFWAY = 1e-4  # mm, beyond the rounding of affines in headers
IN_MEMORY = 512 * 2**20  # bytes of placed frames that are kept in memory where there is a work folder


def to_model_grid(
    bold,
    mask,
    *,
    repetition_time: Optional[float] = None,
    grid: "Grid | str | None" = None,
    target_repetition_time: Optional[float] = PUBLISHED_TARGET,
    dummy_scans: int = 0,
    progress: Optional[Callable[[int, int], None]] = None,
) -> PlacedRun:
    """Place a BOLD run in a model's grid and normalise it as NeuroSTORM was trained.

    World coordinates decide where a voxel goes, never the array's shape or order; ``bold`` must be in the grid's
    template space. Order of the steps: linear interpolation at the brain voxels of the grid, dummy scans dropped,
    linear resampling in time, negative values to 0, one z-score over all brain voxels and frames, and the brain's
    smallest value everywhere else.

    Parameters
    ----------
    bold : path or nibabel image
        4-D run.
    mask : path or nibabel image
        Brain mask on the run's own voxels.
    repetition_time : float, optional
        s; by default from the header.
    grid : Grid or str, optional
        Such as ``model.grid``, or "fsl" (the default) or "as-fmriprep".
    target_repetition_time : float or None
        s; 0.8 as published; `None` keeps the run's own.
    dummy_scans : int
        Volumes to leave out at the start.
    progress : callable, optional
        Called with (volumes read, volumes in all).

    Returns
    -------
    PlacedRun
        Array-like (X, Y, Z, T) with ``affine`` and ``frame_times`` (s).

    Raises
    ------
    NeurostormError
        If a file is missing, damaged or does not fit; the message names it.
    """
    grid = get_grid(grid)
    bold = Bold(bold)
    seconds, source, warnings = choose_repetition_time(
        bold.name, asked=repetition_time, header=bold.header_repetition_time
    )
    return place(bold, mask, grid, seconds, source, target_repetition_time, dummy_scans, progress, warnings)


def place(
    bold: Bold,
    mask,
    grid: Grid,
    repetition_time: float,
    repetition_time_source: str,
    target_repetition_time: Optional[float],
    dummy_scans: int,
    progress: Optional[Callable[[int, int], None]] = None,
    warnings: "list | tuple" = (),
    work_dir: Optional[Path] = None,
) -> PlacedRun:
    """`to_model_grid` for an opened run whose repetition time is decided; a long run is kept in ``work_dir``."""
    if not 0 <= dummy_scans < bold.n_frames:
        raise NeurostormError(f"{bold.name}: cannot drop {dummy_scans} dummy scans of {bold.n_frames} volumes")
    brain, voxels, voxels_of_mask = brain_of_grid(bold, mask, grid)
    sampler = linear_sampler(voxels, bold.shape)
    frames = new_frames((bold.n_frames - dummy_scans, len(brain)), work_dir)
    done = 0
    for block in bold.blocks(first=dummy_scans):
        placed = sampler(block)
        frames[done : done + len(placed)] = placed
        done += len(placed)
        if progress:
            progress(done, len(frames))
    finite = np.isfinite(frames.sum(axis=0, dtype=np.float64))
    if not finite.all():
        raise NeurostormError(
            f"{bold.name}: {(~finite).sum()} brain voxels hold NaN or infinity; "
            "find out which step wrote them, or take them out of the brain mask"
        )
    times = time_map(len(frames), repetition_time, target_repetition_time)
    mean, std, minimum = brain_statistics(frames, times)
    if not std > 1e-6 * abs(mean):  # rounding alone makes a constant run differ by less
        raise NeurostormError(
            f"{bold.name}: the signal is the same everywhere in the brain; there is nothing to encode"
        )
    steps = {
        "Interpolation": "none (voxels coincide)" if sampler.weights is None else "linear",
        "SourceRepetitionTime": repetition_time,
        "SourceRepetitionTimeFrom": repetition_time_source,
        "SourceVolumes": bold.n_frames,
        "DummyScansDropped": dummy_scans,
        "TargetRepetitionTime": target_repetition_time if target_repetition_time is not None else "native",
        "RepetitionTime": times.repetition_time,
        "Frames": len(times),
        "Negatives": "set to 0",
        "Normalisation": {"Method": "z-score over brain voxels and frames", "Mean": mean, "StandardDeviation": std},
        "Background": "smallest value in the brain",
        "BrainVoxels": len(brain),
        "BrainOutsideGrid": brain_outside(grid, voxels_of_mask),
    }
    return PlacedRun(
        grid=grid,
        brain=brain,
        frames=frames,
        time_map=times,
        first_frame_time=dummy_scans * repetition_time,
        source_repetition_time=repetition_time,
        mean=mean,
        std=std,
        minimum=minimum,
        steps=steps,
        notes=[*bold.notes, *warnings],
    )


def new_frames(shape: tuple, work_dir: Optional[Path]) -> np.ndarray:
    """Room for (frames, voxels) float32: in memory, or beyond `IN_MEMORY` bytes in a nameless file of ``work_dir``."""
    size = 4 * math.prod(shape)
    if work_dir is None or size <= IN_MEMORY:
        return np.empty(shape, dtype=np.float32)
    try:
        file = tempfile.TemporaryFile(dir=work_dir)  # noqa: SIM115 (lives as long as the array)
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, and a crash once it is mapped
    except OSError as error:
        raise NeurostormError(f"--work-dir {work_dir}: no room for {size / 2**20:.0f} MiB ({error.strerror})") from None
    return np.memmap(file, dtype=np.float32, mode="r+", shape=shape)


def brain_of_grid(bold: Bold, mask, grid: Grid) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Find the grid's brain voxels and where they are in the run.

    Returns
    -------
    brain : (n,) int array
        Indices into the flattened (C order) grid.
    voxels : (n, 3) array
        Their coordinates in the run, in voxels.
    world : (m, 3) array
        World coordinates of all brain voxels of the mask, mm.
    """
    in_mask, mask_affine, mask_name = read_mask(mask)
    if in_mask.shape != bold.shape:
        raise NeurostormError(
            f"{mask_name} has {_by(in_mask.shape)} voxels, {bold.name} {_by(bold.shape)}; the mask of another space or "
            "resolution? Give the brain mask that fMRIPrep wrote beside this run"
        )
    ijk = np.indices(grid.shape).reshape(3, -1).T
    world = apply_affine(grid.matrix, ijk)
    voxels = apply_affine(np.linalg.inv(bold.affine), world)
    # A point halfway between two voxels goes to the one on its right, front or top: the same one however stored.
    of_mask = apply_affine(np.linalg.inv(mask_affine), world + HALFWAY)
    is_brain = nearest(in_mask, of_mask) & inside(voxels, bold.shape)
    if not is_brain.any():
        raise NeurostormError(
            f"{mask_name}: none of its brain lies in the grid '{grid.name}' ({grid.template}); "
            "the header's affine does not put this run in that template"
        )
    brain = np.flatnonzero(is_brain)
    return brain, voxels[brain], apply_affine(mask_affine, np.argwhere(in_mask))


def brain_outside(grid: Grid, world: np.ndarray) -> float:
    """Share of the brain's voxels, given in world coordinates, that the grid does not cover."""
    return float(1 - inside(apply_affine(np.linalg.inv(grid.matrix), world), grid.shape).mean())


def brain_statistics(frames: np.ndarray, times: TimeMap, block: int = 16) -> "tuple[float, float, float]":
    """Mean, standard deviation and minimum over all voxels and resampled frames, negatives as 0."""
    total, squares, smallest = 0.0, 0.0, np.inf
    # deviations from a nearby value, not from 0, so that the squares keep their digits
    near = float(np.maximum(frames[0], 0).mean(dtype=np.float64))
    for start in range(0, len(times), block):
        signal = np.maximum(times(frames, start, start + block), 0)
        smallest = min(smallest, float(signal.min()))
        signal -= np.float32(near)
        total += float(signal.sum(dtype=np.float64))
        squares += float(np.einsum("ij,ij->", signal, signal, dtype=np.float64))
    n = len(times) * frames.shape[1]
    mean = total / n
    return near + mean, float(np.sqrt(max(squares / n - mean**2, 0.0))), smallest


def _by(shape: tuple) -> str:
    return "x".join(map(str, shape))

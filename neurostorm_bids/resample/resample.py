"""From a BOLD file and its brain mask to a run in the model's grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Optional

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.grid import Grid, get_grid, sides_beyond
from neurostorm_bids.resample.gridded import PlacedRun
from neurostorm_bids.resample.nifti import Bold, read_mask
from neurostorm_bids.resample.sampler import apply_affine, inside, make_sampler, nearest
from neurostorm_bids.resample.timing import PUBLISHED_TARGET, TimeMap, choose_repetition_time, time_map
from neurostorm_bids.resample.transforms import map_points, read_transform

HALFWAY = 1e-4  # mm, beyond the rounding of affines in headers
BLOCK = 16  # volumes read and placed at a time
PLAUSIBLE_OVERLAP = 0.8  # share of the placed brain that lies in the template's; fMRIPrep's own masks reach 0.98
GOOD_OVERLAP = 0.9
MUCH_OUTSIDE = 0.1
PARTIAL = 0.5  # of the template's brain
FEWEST_VOXELS = 1000  # 8 cm3
FAR = 24  # voxels beyond the grid that are looked at for brain


@dataclass(frozen=True)
class Timing:
    """When the volumes of a run were acquired, and what becomes of them.

    Attributes
    ----------
    repetition_time : float
        s.
    source : str
        What said so: sidecar, header, ...
    target : float or None
        Repetition time to resample to, s; `None` keeps the run's.
    dummy_scans : int
        Volumes to leave out at the start.
    start_time : float
        Time that the first volume's values stand for, s (BIDS StartTime).
    """

    repetition_time: float
    source: str
    target: Optional[float] = PUBLISHED_TARGET
    dummy_scans: int = 0
    start_time: float = 0.0


@dataclass(frozen=True)
class Space:
    """How the world of the grid goes to the world of the run.

    Attributes
    ----------
    name : str or None
        The run's space, for the record.
    steps : tuple of Path and maps of points
        ITK files, and maps such as an `AffineMap`, in the order in which points go through them.
    """

    name: Optional[str] = None
    steps: tuple = ()

    @property
    def transforms(self) -> "tuple[Path, ...]":
        """The files among the steps."""
        return tuple(step for step in self.steps if isinstance(step, Path))

    def read(self) -> list:
        """Maps from world coordinates of the grid to those of the run, in the order of their use."""
        return [one for step in self.steps for one in (read_transform(step) if isinstance(step, Path) else [step])]


def to_model_grid(
    bold,
    mask,
    *,
    repetition_time: Optional[float] = None,
    grid: "Grid | str | None" = None,
    transforms: "Sequence[str | Path]" = (),
    interpolation: str = "linear",
    target_repetition_time: Optional[float] = PUBLISHED_TARGET,
    dummy_scans: int = 0,
    start_time: float = 0.0,
    work_dir: "str | Path | None" = None,
    progress: Optional[Callable[[int, int], None]] = None,
) -> PlacedRun:
    """Place a BOLD run in a model's grid and normalise it as NeuroSTORM was trained.

    World coordinates decide where a voxel goes, never the array's shape or order. Order of the steps: one
    interpolation at the brain voxels of the grid, dummy scans dropped, linear resampling in time, negative values to
    0, one z-score over all brain voxels and frames, and the brain's smallest value everywhere else.

    Parameters
    ----------
    bold : path or nibabel image
        4-D run.
    mask : path or nibabel image
        Its brain mask, in the same space.
    repetition_time : float, optional
        s; by default from the header.
    grid : Grid or str, optional
        Such as ``model.grid``, or "fsl" (the default) or "as-fmriprep".
    transforms : sequence of paths
        ITK files that lead from the grid's template to the space of ``bold``, in the order in which points go
        through them: for T1w, ``from-T1w_to-MNI152NLin6Asym``; for BOLD space, then ``from-boldref_to-T1w``. Empty if
        ``bold`` is in the grid's template.
    interpolation : {"linear", "cubic"}
        Trilinear as published, or cubic B-spline.
    target_repetition_time : float or None
        s; 0.8 as published; `None` keeps the run's own.
    dummy_scans : int
        Volumes to leave out at the start.
    start_time : float
        Time that the first volume's values stand for, s (BIDS StartTime).
    work_dir : path, optional
        Keep the placed frames in a nameless file of this folder and not in memory.
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
    if interpolation not in ("linear", "cubic"):
        raise NeurostormError(f"interpolation is linear or cubic, not '{interpolation}'")
    bold = Bold(bold)
    seconds, source, notes = choose_repetition_time(
        bold.name, asked=repetition_time, header=bold.header_repetition_time
    )
    timing = Timing(seconds, source, target_repetition_time, dummy_scans, start_time)
    space = Space(None, tuple(Path(path) for path in transforms))
    folder = Path(work_dir) if work_dir is not None else None
    return place(bold, mask, get_grid(grid), space, timing, interpolation, folder, progress, notes)


def place(
    bold: Bold,
    mask,
    grid: Grid,
    space: Space,
    timing: Timing,
    interpolation: str = "linear",
    work_dir: Optional[Path] = None,
    progress: Optional[Callable[[int, int], None]] = None,
    notes: Sequence[str] = (),
    clean: Optional[Callable[[FrameStore], dict]] = None,
) -> PlacedRun:
    """`to_model_grid` for an opened run; ``clean`` may change the placed frames before time and normalisation."""
    n_dummies = timing.dummy_scans
    if not 0 <= n_dummies < bold.n_frames:
        raise NeurostormError(f"{bold.name}: cannot drop {n_dummies} dummy scans of {bold.n_frames} volumes")
    brain = brain_of_grid(bold, mask, grid, space)
    sampler = make_sampler(brain.voxels, bold.shape, interpolation)
    frames = FrameStore(len(brain.indices), work_dir)
    for block in bold.blocks(n_dummies, BLOCK):
        placed = sampler(without_undefined(block, bold, brain))
        frames.append(placed)
        if progress:
            progress(len(frames), bold.n_frames - n_dummies)
    cleaned = clean(frames) if clean else {}
    times = time_map(len(frames), timing.repetition_time, timing.target)
    statistics = brain_statistics(frames, times)
    if not statistics.maximum > 0:
        raise NeurostormError(f"{bold.name}: no value in the brain is above 0; is it a z-scored or demeaned run?")
    if not statistics.std > 1e-6 * abs(statistics.mean):  # rounding alone makes a constant run differ by less
        raise NeurostormError(
            f"{bold.name}: the signal is the same everywhere in the brain; there is nothing to encode"
        )
    steps = {
        "InputSpace": space.name,
        "Transforms": [path.name for path in space.transforms],
        "Interpolation": "none (voxels coincide)" if sampler.weights is None else interpolation,
        "BrainVoxels": len(brain.indices),
        "BrainOutsideGrid": brain.outside,
        "BrainOutsideGridSides": sides_beyond(grid, brain.beyond),
        "BrainInTemplate": brain.overlap,
        "SourceRepetitionTime": timing.repetition_time,
        "SourceRepetitionTimeFrom": timing.source,
        "SourceVolumes": bold.n_frames,
        "StartTime": timing.start_time,
        "DummyScansDropped": n_dummies,
        **cleaned,
        "TargetRepetitionTime": timing.target if timing.target is not None else "native",
        "RepetitionTime": times.repetition_time,
        "Frames": len(times),
        "Negatives": "set to 0",
        "Normalisation": {
            "Method": "z-score over brain voxels and frames",
            "Mean": statistics.mean,
            "StandardDeviation": statistics.std,
        },
        "Background": "smallest value in the brain",
    }
    return PlacedRun(
        grid=grid,
        brain=brain.indices,
        frames=frames,
        time_map=times,
        first_frame_time=timing.start_time + n_dummies * timing.repetition_time,
        mean=statistics.mean,
        std=statistics.std,
        minimum=statistics.minimum,
        maximum=statistics.maximum,
        steps=steps,
        notes=[*bold.notes, *notes, *brain.notes],
        beyond=brain.beyond,
    )


def without_undefined(block: np.ndarray, bold: Bold, brain: "Brain") -> np.ndarray:
    """NaN and infinity outside the brain become 0, so that interpolation at its edge does not spread them.

    Raises
    ------
    NeurostormError
        If they are in the brain.
    """
    if np.isfinite(block.sum(dtype=np.float64)):
        return block
    undefined = ~np.isfinite(block)
    index = np.indices(bold.shape).reshape(3, -1, order="F").T
    in_brain = nearest(brain.mask, apply_affine(np.linalg.inv(brain.mask_affine) @ bold.affine, index))
    n = int(undefined[in_brain].any(axis=1).sum())
    if n:
        raise NeurostormError(
            f"{bold.name}: {n} brain voxels hold NaN or infinity; "
            "find out which step wrote them, or take them out of the brain mask"
        )
    return np.where(undefined, np.float32(0), block)


@dataclass(frozen=True)
class Brain:
    """The brain voxels of the grid.

    Attributes
    ----------
    indices : (n,) int array
        In the flattened (C order) grid.
    voxels : (n, 3) array
        Where they are in the run, in voxels.
    beyond : (n, 3) int array
        Where brain lies beyond the grid (looked at every second voxel along each axis, as far as `FAR`).
    outside : float
        Share of the brain that lies there.
    overlap : float
        Share of the placed brain that lies in the template's brain.
    notes : list of str
    mask, mask_affine : arrays
        The mask as it was read.
    """

    indices: np.ndarray
    voxels: np.ndarray
    beyond: np.ndarray
    outside: float
    overlap: float
    notes: list
    mask: np.ndarray
    mask_affine: np.ndarray


def brain_of_grid(bold: Bold, mask, grid: Grid, space: Space) -> Brain:
    """Take the run's brain mask through the same way as its signal; nearest neighbour.

    Raises
    ------
    NeurostormError
        If the mask does not fit the run, or the brain does not come to lie where the template's is.
    """
    in_mask, mask_affine, mask_name = read_mask(mask)
    maps = space.read()
    notes = []
    if in_mask.shape == bold.shape and not np.allclose(mask_affine, bold.affine, atol=1e-3):
        corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(bold.shape) - 1)
        apart = np.linalg.norm(apply_affine(mask_affine, corners) - apply_affine(bold.affine, corners), axis=1).max()
        notes.append(
            f"{Path(mask_name).name}: its affine differs from the run's, by up to {apart:.1f} mm; it is resampled"
        )
    elif in_mask.shape != bold.shape:
        notes.append(
            f"{Path(mask_name).name} is on another grid of voxels ({_by(in_mask.shape)}) than the run "
            f"({_by(bold.shape)}): it is resampled to it"
        )

    def look_up(index: np.ndarray) -> "tuple[np.ndarray, np.ndarray]":
        """Which grid voxels are brain, and where they are in the run."""
        world = map_points(maps, apply_affine(grid.matrix, index))
        voxels = apply_affine(np.linalg.inv(bold.affine), world)
        # A point halfway between two voxels goes to the one on its right, front or top: the same one however stored.
        of_mask = apply_affine(np.linalg.inv(mask_affine), world + HALFWAY)
        return nearest(in_mask, of_mask) & inside(voxels, bold.shape), voxels

    is_brain, voxels = look_up(np.indices(grid.shape).reshape(3, -1).T)
    if not is_brain.any():
        raise NeurostormError(
            f"{mask_name}: none of its brain lies in the grid '{grid.name}' ({grid.template}); "
            + _likely_cause(space, "the header's affine does not put this run in that template")
        )
    beyond = np.stack(np.meshgrid(*(np.arange(-FAR, n + FAR, 2) for n in grid.shape), indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    beyond = beyond[~inside(beyond, grid.shape)]
    beyond = beyond[look_up(beyond)[0]]
    n_outside = 8 * len(beyond)
    if is_brain.sum() < FEWEST_VOXELS:
        raise NeurostormError(
            f"{mask_name}: {is_brain.sum()} voxels of brain in the grid are too few to encode; check the mask"
        )
    template = template_brain(grid)
    overlap, coverage = float(template[is_brain].mean()), float(is_brain[template].mean())
    if coverage < PARTIAL:
        notes.append(
            f"the run covers only {coverage:.0%} of the brain of {grid.template}; the model was trained on whole brains"
        )
    if overlap < GOOD_OVERLAP:
        if overlap < PLAUSIBLE_OVERLAP:
            raise NeurostormError(
                f"{mask_name}: {'after the transforms ' if maps else ''}only {overlap:.0%} of the brain lies in the brain of "
                f"{grid.template}; "
                + _likely_cause(space, "the space of the run is not the one its name says, or its header is damaged")
            )
        notes.append(f"only {overlap:.0%} of the brain lies in the brain of {grid.template}: look at the alignment")
    indices = np.flatnonzero(is_brain)
    outside = n_outside / (n_outside + len(indices))
    if outside > MUCH_OUTSIDE:
        notes.append(f"{outside:.0%} of the brain lies beyond the grid: look at the alignment")
    return Brain(indices, voxels[indices], beyond, outside, overlap, notes, in_mask, mask_affine)


@lru_cache(maxsize=4)
def template_brain(grid: Grid) -> np.ndarray:
    """Which grid voxels are brain in the MNI152 that nilearn ships; (voxels,) bool.

    It is yet another MNI152 (2009a symmetric), near enough to tell whether a brain came to lie where a brain is:
    98 % of the brains of MNI152NLin6Asym and MNI152NLin2009cAsym lie in it.
    """
    from nilearn.datasets import load_mni152_brain_mask

    mask = load_mni152_brain_mask(resolution=2)
    world = apply_affine(grid.matrix, np.indices(grid.shape).reshape(3, -1).T)
    return nearest(np.asarray(mask.dataobj) > 0, apply_affine(np.linalg.inv(mask.affine), world))


@dataclass(frozen=True)
class Statistics:
    """Of the signal in the brain."""

    mean: float
    std: float
    minimum: float
    maximum: float


def brain_statistics(frames: FrameStore, times: TimeMap) -> Statistics:
    """Statistics over all voxels and resampled frames, negatives as 0."""
    total, squares, smallest, largest = 0.0, 0.0, np.inf, -np.inf
    # deviations from a nearby value, not from 0, so that the squares keep their digits
    near = float(np.maximum(frames[0:1], 0).mean(dtype=np.float64))
    for start in range(0, len(times), BLOCK):
        signal = np.maximum(times(frames, start, start + BLOCK), 0)
        smallest, largest = min(smallest, float(signal.min())), max(largest, float(signal.max()))
        signal -= np.float32(near)
        total += float(signal.sum(dtype=np.float64))
        squares += float(np.einsum("ij,ij->", signal, signal, dtype=np.float64))
    n = len(times) * frames.n_voxels
    mean = total / n
    return Statistics(near + mean, float(np.sqrt(max(squares / n - mean**2, 0.0))), smallest, largest)


def _likely_cause(space: Space, otherwise: str) -> str:
    if not space.transforms:
        return otherwise
    names = ", ".join(path.name for path in space.transforms)
    return f"a transform is of another subject, or its from and to are swapped: check {names}"


def _by(shape: tuple) -> str:
    return "x".join(map(str, shape))

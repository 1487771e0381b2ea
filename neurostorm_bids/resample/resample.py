"""From a BOLD series and its brain mask to a run in the model's grid."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
from nibabel.affines import voxel_sizes

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.confounds import MOTION, Confounds, Regressors, motion_regressors, read_regressors
from neurostorm_bids.find.metadata import acquisition_times
from neurostorm_bids.find.motion import parameters_of, read_motion, read_rigid_transforms
from neurostorm_bids.find.source import RunSource
from neurostorm_bids.find.templateflow import find_template
from neurostorm_bids.resample.brain import Brain, Maps, locate_brain
from neurostorm_bids.resample.denoise import regress_out
from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.grid import Grid, get_grid, sides_outside
from neurostorm_bids.resample.gridded import GriddedRun
from neurostorm_bids.resample.interpolation import Advance, interpolate
from neurostorm_bids.resample.nifti import Bold, PathOrImage, open_image
from neurostorm_bids.resample.normalisation import checked_statistics
from neurostorm_bids.resample.raw_series import interpolate_raw, read_raw_run
from neurostorm_bids.resample.registration import register_affine
from neurostorm_bids.resample.steady_state import non_steady_state
from neurostorm_bids.resample.timing import PUBLISHED_TR, RunTiming, choose_repetition_time, time_map
from neurostorm_bids.resample.transforms import DisplacementMap, Moving, PointMap, read_transform
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings.participant import Resampling

LOG = logging.getLogger("neurostorm")
VOLUMES_OF_A_MEAN = 50  # at least; their mean is registered


def resample_run(
    source: RunSource, grid: Grid, resampling: Resampling, seed: int, work_dir: Path | None, progress: Progress
) -> GriddedRun:
    """Resample a run to the model's grid and normalise it as NeuroSTORM was trained.

    Parameters
    ----------
    seed : int
        Random seed of the registration, if there is one.
    work_dir : Path or None
        Keep the resampled volumes in a nameless file of this folder; `None` keeps them in memory.

    Raises
    ------
    NeurostormError
        If a file is missing, damaged or does not fit; the message names it.
    """
    bold = Bold(source.file.path, source.affine_of, resampling.orientation, source.mean)
    timing, confounds, notes = timing_of(source, bold, resampling)
    raw = None
    if source.file.raw is None and (
        of_raw := [o for o in ("slice_timing", "jacobian") if getattr(resampling, o) == "on"]
    ):
        raise NeurostormError(
            f"--{of_raw[0].replace('_', '-')} on: {source.file.path.name} was preprocessed already; leave the option out, or, where fMRIPrep "
            "kept its transforms, give --input-space raw with the raw data set (-d raw=PATH)"
        )
    if source.file.raw is not None:
        raw = read_raw_run(source.file, bold, timing.repetition_time, timing.dummy_scans, resampling)
        notes += raw.notes
        if raw.slices is not None:
            timing = replace(timing, start_time=timing.start_time + raw.moment, slice_timing_corrected=True)
    done: dict[str, Any] = {
        "InputSpace": source.file.space_name,
        "TemplateWarpSkipped": source.warp_skipped,
        "Series": source.file.series,
        "BrainMask": source.mask.kind,
        "MeanAdded": source.mean.name if source.mean else None,
        "RawSeries": raw.steps if raw else None,
    }
    first: list[PointMap] = []
    if source.to_register:
        progress.say(f"registering {source.to_register[0].name} to {grid.template}")
        registration, done["Registration"] = _register(source, bold, grid, seed)
        first = [registration]
    maps = first + _read_all(source.transforms, bold, as_fmriprep=raw is not None)
    advance = progress.step(f"resampling {bold.n_volumes} volumes of {source.file} to grid {grid.name}", "volume")
    mask = source.mask
    to_mask = None if mask.transforms is None else first + _read_all(mask.transforms, bold, as_fmriprep=raw is not None)
    brain = locate_brain(bold, mask.path, grid, Maps(maps, to_mask, raw.distortion if raw else None), source.transforms)
    how, dummies, corrected = resampling.interpolation, timing.dummy_scans, None
    if raw is None:
        frames, done["Interpolation"] = interpolate(bold, brain, dummies, how, work_dir, advance)
    else:
        frames, corrected = interpolate_raw(bold, raw, brain, how, work_dir, advance)
        done["Interpolation"] = how
    if resampling.denoise:
        seconds = timing.repetition_time
        done["Denoising"] = _denoise(frames, source, bold, seconds, timing.dummy_scans, resampling.denoise)
    gridded = _normalise(bold, brain, frames, _Plan(grid, timing, source.transforms), done)
    gridded.notes[:0] = [*bold.notes, *source.notes, *notes]
    for note in gridded.notes:
        LOG.warning("%s: %s", source.run.name, note)
    displacement = None if confounds is None else confounds.framewise_displacement[timing.dummy_scans :]
    return replace(gridded, displacement=displacement, source=source, corrected=corrected)


def to_model_grid(
    bold: PathOrImage,
    mask: PathOrImage,
    *,
    repetition_time: float | None = None,
    grid: Grid | str | None = None,
    transforms: Sequence[str | Path] = (),
    interpolation: str = "linear",
    target_repetition_time: float | None = PUBLISHED_TR,
    dummy_scans: int = 0,
    start_time: float = 0.0,
    slice_timing_corrected: bool = False,
    orientation: str | None = None,
    work_dir: str | Path | None = None,
    progress: Advance | None = None,
) -> GriddedRun:
    """Resample a BOLD run to a model's grid and normalise it as NeuroSTORM was trained.

    World coordinates decide where a voxel goes, never the array's shape or order. The steps are: one interpolation at
    the brain voxels of the grid, dummy scans dropped, linear resampling in time, negative values set to 0, one z-score
    over all brain voxels and frames, and the brain's smallest value everywhere else.

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
        ITK files that lead from the grid's template to the space of ``bold``, in the order in which points go through
        them: for T1w, ``from-T1w_to-MNI152NLin6Asym``; for BOLD space, then ``from-boldref_to-T1w``. Or FSL's field
        ``example_func2standard_warp``. Empty if ``bold`` is in the grid's template.
    interpolation : {"linear", "cubic"}
        Trilinear as published, or cubic B-spline.
    target_repetition_time : float or None
        s; 0.8 as published; `None` keeps the run's own.
    dummy_scans : int
        Volumes to drop at the start.
    start_time : float
        BIDS ``StartTime``: the time after the start of the acquisition that the first volume belongs to, s.
    slice_timing_corrected : bool
        Whether every value of a volume stands for one moment, which is ``start_time`` for the first volume.
    orientation : str, optional
        Such as RAS: how the voxels are stored, where no header says it.
    work_dir : path, optional
        Keep the resampled volumes in a nameless file of this folder instead of in memory.
    progress : callable, optional
        Called with (volumes read, volumes in all).

    Returns
    -------
    GriddedRun
        Array-like (X, Y, Z, T) with ``affine`` and ``frame_times`` (s).

    Raises
    ------
    NeurostormError
        If a file is missing, damaged or does not fit; the message names it.

    Examples
    --------
    Of what was mapped to the grid's template:

    >>> from tempfile import TemporaryDirectory
    >>> from neurostorm_bids.demo.dataset import write_dataset
    >>> folder = TemporaryDirectory()
    >>> write_dataset(Path(folder.name), n_volumes=20)
    >>> stem = f"{folder.name}/sub-01/func/sub-01_task-rest_space-MNI152NLin6Asym_res-2_desc"
    >>> gridded = to_model_grid(f"{stem}-preproc_bold.nii.gz", f"{stem}-brain_mask.nii.gz")
    >>> gridded.grid.name, gridded.shape
    ('fsl', (96, 96, 96, 50))
    >>> folder.cleanup()
    """
    if interpolation not in ("linear", "cubic"):
        raise NeurostormError(f"interpolation is linear or cubic, not '{interpolation}'")
    if isinstance(transforms, (str, Path)):
        raise NeurostormError(f"transforms is a list of paths, not one path; give [{str(transforms)!r}]")
    run, grid, paths = Bold(bold, orientation=orientation), get_grid(grid), [Path(path) for path in transforms]
    seconds, source, notes = choose_repetition_time(run.name, repetition_time, header=run.header_repetition_time)
    timing = RunTiming(seconds, source, target_repetition_time, dummy_scans, start_time, slice_timing_corrected)
    brain = locate_brain(run, mask, grid, Maps(_read_all(paths, run)), paths)
    folder = Path(work_dir) if work_dir is not None else None
    frames, how = interpolate(run, brain, dummy_scans, interpolation, folder, progress)
    done = {"InputSpace": None, "Interpolation": how}
    gridded = _normalise(run, brain, frames, _Plan(grid, timing, paths), done)
    gridded.notes[:0] = [*run.notes, *notes]
    return gridded


def _read_all(paths: Sequence[Path], bold: Bold, *, as_fmriprep: bool = False) -> list[PointMap]:
    """Read transforms; FSL's field, which leads to the voxels of the run, can only be the last."""
    moving = Moving(bold.affine, bold.shape)
    maps = [part for path in paths for part in read_transform(path, moving if path == paths[-1] else None)]
    return [part.as_fmriprep() if as_fmriprep and isinstance(part, DisplacementMap) else part for part in maps]


@dataclass(frozen=True)
class _Plan:
    """What is asked for."""

    grid: Grid
    timing: RunTiming
    transforms: Sequence[Path]


def timing_of(source: RunSource, bold: Bold, resampling: Resampling) -> tuple[RunTiming, Confounds | None, list[str]]:
    """Return the run's timing, its confounds, and notes on both.

    Raises
    ------
    NeurostormError
        If the repetition time is not known, or a file is damaged.
    """
    times = acquisition_times(source.file.sidecars, resampling.repetition_time)
    asked = resampling.repetition_time
    seconds, stated_by, notes = choose_repetition_time(
        bold.name, asked, None if asked else times.repetition_time, bold.header_repetition_time
    )
    notes = [*times.notes, *notes]
    confounds = read_motion(source.run.motion, bold.n_volumes)
    if confounds is None:
        dummies = ", and volumes before the steady state are not known (none dropped)"
        notes.insert(
            0,
            "no confounds, nor a file of head motion: framewise displacement is n/a"
            + (dummies if resampling.dummy_scans is None else ""),
        )
    elif not confounds.has_motion:
        notes.insert(0, "the confounds have no framewise displacement: it is n/a")
    dummy_scans = resampling.dummy_scans
    if dummy_scans is None:
        flagged = confounds.non_steady_state if confounds is not None else 0
        dummy_scans = non_steady_state(bold) if flagged is None else flagged
    timing = RunTiming(
        seconds, stated_by, resampling.target_tr, dummy_scans, times.start_time, times.slice_timing_corrected
    )
    return timing, confounds, notes


def _register(source: RunSource, bold: Bold, grid: Grid, seed: int) -> tuple[PointMap, dict[str, Any]]:
    """Register the image that a source names to the grid's template; returns the map and its record for sidecars."""
    assert source.to_register is not None
    image, mask = source.to_register
    template = find_template(grid.template, None, "T1w"), find_template(grid.template, "brain", "mask")
    moving = bold.mean(VOLUMES_OF_A_MEAN) if image == source.file.path else open_image(image)[0]
    fixed, fixed_mask = (nib.load(path) for path in template)
    result = register_affine(moving, open_image(mask)[0], fixed, fixed_mask, image.name, seed)
    return result.map, {
        "Method": "12-parameter affine, mutual information",
        "Moving": image.name,
        "Fixed": template[0].name,
        "BrainOverlapDice": result.overlap,
        "MutualInformation": result.mutual_information,
        "Affine": result.map.matrix.tolist(),
    }


def _denoise(
    frames: FrameStore, source: RunSource, bold: Bold, repetition_time: float, n_dummies: int, strategy: str
) -> dict[str, Any]:
    """Regress confounds out of the resampled volumes; returns the record for sidecars."""
    regressors = _regressors(source, bold, repetition_time, strategy)
    kept = regressors.kept[n_dummies:]
    regress_out(frames, regressors.values[n_dummies:], kept)
    return {
        "Strategy": f"{strategy} (nilearn's load_confounds_strategy)",
        "Confounds": regressors.names,
        "VolumesInterpolated": int((~kept).sum()),
    }


def _regressors(source: RunSource, bold: Bold, repetition_time: float, strategy: str) -> Regressors:
    """Read what is regressed out: of fMRIPrep's table of confounds or, head motion alone, from its transforms."""
    motion, name = source.run.motion, source.file.path.name
    if motion is not None and motion.layout == "itk":
        if strategy != MOTION:
            raise NeurostormError(
                f"--denoise {strategy} needs the signals of white matter and CSF in fMRIPrep's table of confounds, which {name} has none "
                f"of (--level minimal writes none); give --denoise {MOTION}"
            )
        maps = read_rigid_transforms(motion.path, bold.n_volumes)
        return motion_regressors(*parameters_of(maps, motion.reference), repetition_time, name)
    if motion is None or motion.layout != "fmriprep":
        raise NeurostormError(
            f"--denoise {strategy} needs fMRIPrep's table of confounds, which {name} has none of; HCP and UK Biobank have denoised "
            "series of their own (--series clean)"
        )
    # nilearn looks beside the preprocessed series, which for a raw one need not be there
    beside = (
        source.file.path
        if source.file.raw is None
        else motion.path.with_name(f"{source.run.name}_desc-preproc_bold.nii.gz")
    )
    return read_regressors(beside, strategy)


def _normalise(bold: Bold, brain: Brain, frames: FrameStore, plan: _Plan, done: dict[str, Any]) -> GriddedRun:
    """Resample in time and standardise: one mean and one standard deviation over all brain voxels and frames."""
    timing = plan.timing
    times = time_map(len(frames), timing.repetition_time, timing.target)
    statistics = checked_statistics(frames, times, bold.name)
    steps = {
        **done,
        "Transforms": [path.name for path in plan.transforms],
        "BrainVoxels": len(brain.indices),
        "BrainOutsideGrid": brain.share_outside,
        "BrainOutsideGridSides": sides_outside(plan.grid, brain.outside),
        "BrainInTemplate": brain.overlap,
        "SourceRepetitionTime": timing.repetition_time,
        "SourceRepetitionTimeFrom": timing.source,
        "SourceVolumes": bold.n_volumes,
        "SourceVoxelSizeInMM": [round(float(size), 4) for size in voxel_sizes(bold.affine)],
        "StartTime": timing.start_time,
        "SliceTimingCorrected": timing.slice_timing_corrected,
        "DummyScansDropped": timing.dummy_scans,
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
    return GriddedRun(
        plan.grid,
        brain.indices,
        frames,
        times,
        timing,
        statistics,
        steps=steps,
        notes=list(brain.notes),
        brain_outside=brain.outside,
    )

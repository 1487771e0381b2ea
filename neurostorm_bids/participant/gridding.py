"""Place one run of a data set as the settings ask, and keep it where that is wanted."""

import logging
from typing import Optional

import numpy as np

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.gridded_files import is_whole, made_from, write_int8, write_nifti
from neurostorm_bids.derivatives.names import GridOutputs, sidecar_of
from neurostorm_bids.derivatives.sidecars import fingerprint, write_sidecar
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.metadata import Confounds, denoising_confounds, number_in, read_confounds, read_sidecar
from neurostorm_bids.find.runs import BoldFile, Run
from neurostorm_bids.participant.route import Route, choose_route, register
from neurostorm_bids.resample.denoise import regress_out
from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.gridded import PlacedRun
from neurostorm_bids.resample.nifti import Bold
from neurostorm_bids.resample.resample import Timing, place
from neurostorm_bids.resample.timing import choose_repetition_time
from neurostorm_bids.runtime.locks import lock_run
from neurostorm_bids.runtime.outcome import Outcome
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings import PLACING, Settings, digest

LOG = logging.getLogger("neurostorm")


def place_run(
    run: Run, route: Route, grid: Grid, settings: Settings, progress: Progress
) -> "tuple[PlacedRun, Optional[np.ndarray]]":
    """Place a run in the grid; returns it with the framewise displacement of its kept volumes, mm."""
    file, notes = route.file, list(route.notes)
    bold = Bold(file.path)
    sidecar = read_sidecar(file.sidecar)
    seconds, said_by, warnings = choose_repetition_time(
        bold.name,
        asked=settings.repetition_time,
        sidecar=number_in(sidecar, "RepetitionTime", file.sidecar) if settings.repetition_time is None else None,
        header=bold.header_repetition_time,
    )
    confounds = read_confounds(run.confounds, bold.n_frames)
    if confounds is None:
        dummies = ", and volumes before steady state are not known (none dropped)"
        notes.append(
            "no confounds table: framewise displacement is n/a" + (dummies if settings.dummy_scans is None else "")
        )
    elif not confounds.knows_motion:
        notes.append("the confounds have no framewise displacement: it is n/a")
    timing = Timing(
        seconds,
        said_by,
        settings.target_tr,
        dummy_scans(settings, confounds),
        number_in(sidecar, "StartTime", file.sidecar) or 0.0,
    )
    space, record = route.space, {}
    if route.moving:
        progress.say(f"registering {route.moving[0].name} to {grid.template}")
        space, record = register(route, grid, settings.random_seed)
    placed = place(
        bold,
        file.mask,
        grid,
        space,
        timing,
        settings.interpolation,
        settings.work_dir or settings.out_dir,
        progress.step(f"placing {bold.n_frames} volumes of {file} in grid {grid.name}", "volume"),
        [*notes, *warnings],
        clean=denoiser(file, timing.dummy_scans, settings),
    )
    placed.steps.update(record)
    for note in placed.notes:
        LOG.warning("%s: %s", run.name, note)
    return placed, None if confounds is None else confounds.framewise_displacement[timing.dummy_scans :]


def denoiser(file: BoldFile, n_dummies: int, settings: Settings):
    """What regresses confounds out of the placed frames, or `None` if that is not asked for."""
    if settings.denoise is None:
        return None
    confounds, kept = denoising_confounds(file.path, settings.denoise)

    def clean(frames: FrameStore) -> dict:
        regress_out(frames, confounds.to_numpy(float)[n_dummies:], kept[n_dummies:])
        return {
            "Denoising": {
                "Strategy": f"{settings.denoise} (nilearn's load_confounds_strategy)",
                "Confounds": list(confounds.columns),
                "VolumesInterpolated": int((~kept[n_dummies:]).sum()),
            }
        }

    return clean


def save_grid(run: Run, route: Route, placed: PlacedRun, settings: Settings, progress: Progress) -> None:
    """Keep the placed run, as NIfTI in the output folder and as int8 in the work folder."""
    progress.say("saving the placed run")
    outputs = GridOutputs(run, placed.grid)
    write_nifti(settings.out_dir / outputs.nifti, placed)
    write_sidecar(
        settings.out_dir / sidecar_of(outputs.nifti),
        {
            "RepetitionTime": placed.repetition_time,
            "TaskName": dict(run.entities).get("task", "n/a"),
            "SkullStripped": True,
            "Resolution": f"2 mm, grid {placed.grid.name}",
            "Units": "z-score",
            "Preprocessing": placed.steps,
        },
    )
    write_int8(settings.work / outputs.int8, placed, digest_of_placing(run, route, placed.grid, settings))


def digest_of_placing(run: Run, route: Route, grid: Grid, settings: Settings) -> str:
    """Of everything that a placed run depends on: inputs, grid, settings."""
    return digest(
        {
            "version": __version__,
            "grid": grid.describe(),
            "inputs": fingerprint(route.inputs(run)),
            **{name: getattr(settings, name) for name in PLACING},
        }
    )


def keep_run(run: Run, where: str, dataset: Dataset, settings: Settings, grid: Grid) -> Outcome:
    """Make sure that the int8 store of a run is there and up to date; a problem ends this run and no other.

    Parameters
    ----------
    where : str
        The run's place among the others, such as 2/5.
    """
    progress = Progress(run.name, where)
    path = settings.work / GridOutputs(run, grid).int8
    try:
        with lock_run(settings.out_dir, run, wait=True):
            route = choose_route(run, dataset, grid, settings)
            stamp = digest_of_placing(run, route, grid, settings)
            if made_from(path) == stamp and is_whole(path):
                return Outcome(run.name, "skipped")
            placed, _ = place_run(run, route, grid, settings, progress)
            write_int8(path, placed, stamp)
    except (NeurostormError, OSError) as error:
        return Outcome(run.name, "failed", problems=(str(error),))
    except Exception as error:  # a bug of ours must not stop the other runs
        LOG.debug("%s", run.name, exc_info=True)
        return Outcome(run.name, "failed", problems=(f"unexpected {type(error).__name__}: {error} (a bug)",))
    finally:
        progress.close()
    return Outcome(run.name, "done")


def dummy_scans(settings: Settings, confounds: Optional[Confounds]) -> int:
    """Volumes to leave out at the start."""
    if settings.dummy_scans is not None:
        return settings.dummy_scans
    return confounds.non_steady_state if confounds is not None else 0

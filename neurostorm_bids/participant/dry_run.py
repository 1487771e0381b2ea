"""--dry-run: what would be read of each run, through which transforms, how long it would take; nothing is written."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from neurostorm_bids.encode.sizes import batch_size, run_mb
from neurostorm_bids.encode.windows import window_starts
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.run import Run
from neurostorm_bids.find.source import RunSource
from neurostorm_bids.model.model import Model
from neurostorm_bids.participant.one_run import by_grid, is_done, source_of
from neurostorm_bids.participant.subjects import Subjects
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.nifti import Bold
from neurostorm_bids.resample.resample import timing_of
from neurostorm_bids.resample.timing import time_map
from neurostorm_bids.settings import Settings

# s, measured on runs of 2 mm (benchmarks/RESULTS.md): what a run takes beside encoding, and what each of its volumes
RUN_S = 3.0
VOLUME_S = {"linear": 0.006, "cubic": 0.02}
RAW_VOLUME_S = {"linear": 0.022, "cubic": 0.034}


def dry_run(subjects: Subjects, models: Sequence[Model]) -> int:
    """Say what a call would do; returns how many runs cannot be done."""
    settings = subjects.settings
    paces = {model.encoder: _seconds_a_window(model, settings) for model in {m.encoder: m for m in models}.values()}
    print(f"{settings.as_command()}\n")
    to_do: list[float] = []
    n_done = n_bad = 0
    for run in subjects.runs:
        try:
            lines, seconds = _planned(run, subjects, models, paces)
        except (NeurostormError, OSError) as error:
            print(f"{run.name}: cannot be done\n    {error}")
            n_bad += 1
            continue
        print(f"{run.name}: {'finished' if seconds is None else 'to do'}")
        for line in lines:
            print(f"    {line}")
        if seconds is None:
            n_done += 1
        else:
            to_do.append(seconds)
    nprocs = settings.resources.nprocs
    print(
        f"\n{len(subjects.runs)} run(s): {n_done} finished, {len(to_do)} to do (about {_in_words(sum(to_do) / nprocs)} on this machine, with "
        f"{nprocs} at a time and {_memory_mb(models, settings) * nprocs:,.0f} MB), {n_bad} cannot be done"
    )
    for problem in subjects.problems:
        print(f"not found: {problem}")
    print("Headers were read, not the images: one that is cut short shows when it is run. Nothing was written.")
    return n_bad


def _planned(
    run: Run, subjects: Subjects, models: Sequence[Model], paces: dict[str, float]
) -> tuple[list[str], float | None]:
    """Return what is said of a run, and how many seconds it takes; `None` if all is there.

    Raises
    ------
    NeurostormError
        If it cannot be done.
    """
    settings, dataset = subjects.settings, subjects.dataset
    lines: list[str] = []
    seconds: float | None = None
    for grid, of_grid in by_grid(models, settings).items():
        source = source_of(run, dataset, grid, settings)
        left = [m for m in of_grid if settings.conduct.force or not is_done(source, grid, m, settings)]
        found, n_volumes, n_windows = _way(source, grid, of_grid, settings)
        lines += found
        if left:
            encoding = sum(paces[encoder] * n_windows[encoder] for encoder in {m.encoder for m in left})
            a_volume = (VOLUME_S if source.file.raw is None else RAW_VOLUME_S)[settings.resampling.interpolation]
            took = RUN_S + a_volume * n_volumes + encoding
            seconds = (seconds or 0.0) + took
            maps = ", without the maps of --attribution" if settings.explaining.attribution else ""
            lines.append(f"takes        about {_in_words(took)} and {_memory_mb(left, settings):,.0f} MB{maps}")
    return lines, seconds


def _way(
    source: RunSource, grid: Grid, models: Sequence[Model], settings: Settings
) -> tuple[list[str], int, dict[str, int]]:
    """Return how a run comes to a grid in words, its volumes, and its windows by encoder."""
    bold = Bold(source.file.path, source.affine_of, settings.resampling.orientation)
    timing, _, notes = timing_of(source, bold, settings.resampling)
    times = time_map(bold.n_volumes - timing.dummy_scans, timing.repetition_time, timing.target)
    windows, words = {}, []
    for model in models:
        stride = settings.encoding.window_stride or model.n_frames
        windows[model.encoder] = len(window_starts(len(times), model.n_frames, stride))
        words.append(f"{windows[model.encoder]} windows of {model.n_frames} for model {model.name}")
    motion = source.run.motion
    steps = [*(["a registration to be made"] if source.to_register else []), *(path.name for path in source.transforms)]
    place = settings.bids_dir
    lines = [
        f"reads        {_short(source.file.path, place)}: {bold.n_volumes} volumes, TR {timing.repetition_time:g} s ({timing.source})",
        f"brain mask   {_short(source.mask.path, place) if source.mask.path else 'of the template'}",
        f"head motion  {_short(motion.path, place) if motion else 'not known'}",
        f"dropped      {timing.dummy_scans} volumes at the start",
        f"through      {', then '.join(steps) or 'no transform: it is in the space of the grid'}",
        f"to           grid {grid.name} ({grid.template}), {len(times)} frames of {times.repetition_time:.3g} s; {'; '.join(words)}"
        + (", fewer with --conditions" if settings.conditions.conditions else ""),
        f"with         {_settings_in_words(settings)}",
        *(f"note         {note}" for note in [*source.notes, *bold.notes, *notes]),
    ]
    return lines, bold.n_volumes, windows


def _settings_in_words(settings: Settings) -> str:
    """Return what the numbers depend on beside the files, with what a fine-tuned model brings."""
    threshold = settings.censoring.fd_threshold
    return ", ".join(
        (
            f"{settings.resampling.interpolation} interpolation",
            f"confounds regressed out: {settings.resampling.denoise or 'none'}",
            f"high motion above {threshold:g} mm" if threshold else "no volume censored",
            settings.encoding.precision,
        )
    )


def _short(path: Path, place: Path) -> str:
    return str(path.relative_to(place)) if path.is_relative_to(place) else str(path)


def _memory_mb(models: Sequence[Model], settings: Settings) -> float:
    """Return the memory that a run takes, MB."""
    wanted = settings.encoding.batch_size
    return run_mb(models, [batch_size(model, settings.resources, wanted) for model in models])


def _seconds_a_window(model: Model, settings: Settings) -> float:
    """Return how long a window takes here, s: the second one, since the first warms up."""
    clip = torch.zeros(1, 1, *model.grid.shape, model.n_frames)
    for _ in range(2):
        began = time.perf_counter()
        model.embed(clip, settings.encoding.precision).sum().item()
        took = time.perf_counter() - began
    return took


def _in_words(seconds: float) -> str:
    """Return a time in words.

    >>> _in_words(4.2), _in_words(100), _in_words(5000), _in_words(400000)
    ('4 s', '2 min', '1.4 h', '4.6 days')
    """
    for limit, unit, form in ((90, 1, "{:.0f} s"), (5000, 60, "{:.0f} min"), (36 * 3600, 3600, "{:.1f} h")):
        if seconds < limit:
            return form.format(seconds / unit)
    return f"{seconds / 86400:.1f} days"

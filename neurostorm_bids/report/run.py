"""All figures of one run and one model."""

from pathlib import Path
from typing import Optional

from neurostorm_bids.derivatives.names import FigureOutputs
from neurostorm_bids.derivatives.run import EncodedRun
from neurostorm_bids.report.figures.alignment import draw_crop, draw_mosaic
from neurostorm_bids.report.figures.carpet import draw_carpet
from neurostorm_bids.report.figures.trajectory import course_of, draw_course


def figure_paths(result: EncodedRun) -> "list[Path]":
    """The figures of a run, relative to the output folder, in the report's order."""
    names, label = FigureOutputs(result.run, result.placed.grid.template), result.model.label
    crop = [names.crop] if len(result.placed.beyond) else []
    course = [names.course(label)] if len(result.starts) > 1 else []
    return [names.mosaic, *crop, names.carpet(label), *course]


def draw_figures(out_dir: Path, result: EncodedRun, threshold: Optional[float]) -> None:
    """Draw the figures of a run.

    Parameters
    ----------
    threshold : float or None
        Of the framewise displacement, mm.
    """
    names, label = FigureOutputs(result.run, result.placed.grid.template), result.model.label
    windows = (result.onsets, result.duration, result.censored)
    draw_mosaic(result.placed, out_dir / names.mosaic)
    if len(result.placed.beyond):
        draw_crop(result.placed, out_dir / names.crop)
    draw_carpet(result.placed, result.displacement, *windows, threshold, out_dir / names.carpet(label))
    if len(result.starts) > 1:
        draw_course(course_of(result.embeddings, result.motion.mean), *windows, out_dir / names.course(label))

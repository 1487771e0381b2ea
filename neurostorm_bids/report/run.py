"""Draw the figures of one run: once for the run, and once for each model."""

from pathlib import Path

from neurostorm_bids.derivatives.names import FigureOutputs
from neurostorm_bids.encode.encoded import EncodedRun
from neurostorm_bids.explain.run import Explanation
from neurostorm_bids.report.figures.alignment import draw_alignment, draw_outside
from neurostorm_bids.report.figures.attribution import draw_attribution
from neurostorm_bids.report.figures.carpet import draw_carpet
from neurostorm_bids.report.figures.fieldmap import draw_fieldmap
from neurostorm_bids.report.figures.trajectory import draw_trajectory
from neurostorm_bids.resample.gridded import GriddedRun


def draw_run(out_dir: Path, gridded: GriddedRun) -> list[Path]:
    """Draw how a run lies in the grid; returns the figures, relative to the output folder."""
    assert gridded.source is not None
    names = FigureOutputs(gridded.source.run, gridded.grid.template)
    draw_alignment(gridded, out_dir / names.alignment)
    drawn = [names.alignment]
    if gridded.corrected is not None:
        draw_fieldmap(gridded, out_dir / names.fieldmap)
        drawn.append(names.fieldmap)
    if len(gridded.brain_outside):
        draw_outside(gridded, out_dir / names.outside)
        drawn.append(names.outside)
    return drawn


def draw_explanation(out_dir: Path, explanation: Explanation) -> Path | None:
    """Draw where in the brain a prediction comes from; `None` if two halves of the windows do not tell the same."""
    gridded = explanation.encoded.gridded
    assert gridded.source is not None
    path = FigureOutputs(gridded.source.run, gridded.grid.template).attribution(
        explanation.encoded.model.label, explanation.baseline.name
    )
    if not explanation.may_be_drawn:
        (out_dir / path).unlink(missing_ok=True)
        return None
    draw_attribution(explanation, out_dir / path)
    return path


def draw_model(out_dir: Path, encoded: EncodedRun, threshold: float | None) -> list[Path]:
    """Draw what a model made of a run; returns the figures, relative to the output folder.

    Parameters
    ----------
    threshold : float or None
        Of the framewise displacement, mm.
    """
    gridded, label = encoded.gridded, encoded.model.label
    assert gridded.source is not None
    names = FigureOutputs(gridded.source.run, gridded.grid.template)
    draw_carpet(encoded, threshold, out_dir / names.carpet(label))
    if (encoded.windows.embeddings == encoded.windows.embeddings[0]).all():  # one window, or all the same
        return [names.carpet(label)]
    draw_trajectory(encoded, out_dir / names.trajectory(label))
    return [names.carpet(label), names.trajectory(label)]

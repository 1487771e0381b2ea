"""The methods text: what was done, for papers."""

import platform
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.names import LOGS
from neurostorm_bids.derivatives.sidecars import software_versions
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.masks import OWN
from neurostorm_bids.find.metadata import look_up
from neurostorm_bids.find.run import PREPROCESSED, BoldFile
from neurostorm_bids.find.source import RunSource
from neurostorm_bids.model.model import Model
from neurostorm_bids.report.citations import BEGIN, END, bibliography_of, read_bibliography, to_html, to_tex
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.parcels import atlas_name
from neurostorm_bids.runtime.atomic import write_text
from neurostorm_bids.runtime.boilerplate import boilerplate, filled_in
from neurostorm_bids.runtime.locks import lock_shared_files
from neurostorm_bids.settings import Settings
from neurostorm_bids.settings.participant import BOLD_SPACE, RAW_SPACE, STANDARD_SPACES, Resampling

WIDTH = 110
SPACES = {BOLD_SPACE: "the space of the BOLD series itself", RAW_SPACE: "the raw series' own space"}
FORMATS = ("md", "html", "tex", "bib")


@dataclass(frozen=True)
class RawGridding:
    """What was done with a raw series.

    Attributes
    ----------
    fieldmap : bool
        Whether its distortion was corrected.
    jacobian : bool
        Whether intensities were scaled by how far the field stretches them.
    slice_time_ref : float or None
        Where in the acquisition of a volume slices were shifted to, 0 to 1; `None` if they were not.
    """

    fieldmap: bool
    jacobian: bool
    slice_time_ref: float | None

    @classmethod
    def from_steps(cls, steps: dict[str, Any] | None) -> "RawGridding | None":
        """Read what was done from the sidecar of a run; `None` if it was no raw series."""
        if not steps:
            return None
        distortion, slices = steps["DistortionCorrection"], steps["SliceTiming"]
        is_corrected = isinstance(distortion, dict)
        ref = float(slices["SliceTimeRef"]) if isinstance(slices, dict) else None
        return cls(is_corrected, is_corrected and bool(distortion["Jacobian"]), ref)

    @classmethod
    def planned(cls, file: BoldFile, resampling: Resampling) -> "RawGridding | None":
        """Return what would be done; `None` if it is no raw series."""
        parts = file.raw
        if parts is None:
            return None
        jacobian = parts.fieldmap is not None and parts.scales_intensities(resampling.jacobian)
        is_shifted = parts.slice_timing if resampling.slice_timing == "auto" else resampling.slice_timing == "on"
        is_shifted = is_shifted and look_up("SliceTiming", file.sidecars)[0] is not None
        refs = (resampling.slice_time_ref, parts.slice_time_ref, 0.5)
        return cls(parts.fieldmap is not None, jacobian, next(r for r in refs if r is not None) if is_shifted else None)


@dataclass(frozen=True)
class Gridding:
    """How one run came to its grid, as far as the text tells it.

    Attributes
    ----------
    template : str
    shape, voxel_size : tuple
        Voxels, and mm.
    orientation : str
    space : str
        Of the file that was read.
    transforms : tuple of str
        Names of the files that led to it.
    registered : bool
    warp_skipped : bool
        Whether one template was taken for the other.
    repetition_time : float or None
        s; `None` if it is not known.
    brain_mask : str
        Whose.
    series : str
        What had been done to the series.
    mean_added : bool
        Whether a mean image was added to it.
    raw : RawGridding or None
        Of a raw series.
    """

    template: str
    shape: tuple[int, ...]
    voxel_size: tuple[float, ...]
    orientation: str
    space: str
    transforms: tuple[str, ...] = ()
    registered: bool = False
    warp_skipped: bool = False
    repetition_time: float | None = None
    brain_mask: str = OWN
    series: str = PREPROCESSED
    mean_added: bool = False
    raw: RawGridding | None = None

    @classmethod
    def from_sidecar(cls, sidecar: dict[str, Any]) -> "Gridding":
        """Read what was done from the sidecar of a run.

        Raises
        ------
        KeyError
            If it is not one of ours.
        """
        grid, steps = sidecar["Grid"], sidecar["Preprocessing"]
        return cls(
            grid["Template"],
            tuple(grid["Shape"]),
            tuple(grid["VoxelSizeInMM"]),
            grid["Orientation"],
            steps["InputSpace"],
            tuple(steps["Transforms"]),
            "Registration" in steps,
            bool(steps["TemplateWarpSkipped"]),
            float(steps["SourceRepetitionTime"]),
            str(steps["BrainMask"]),
            str(steps["Series"]),
            bool(steps["MeanAdded"]),
            RawGridding.from_steps(steps.get("RawSeries")),
        )

    @classmethod
    def planned(
        cls, source: RunSource, grid: Grid, repetition_time: float | None, resampling: Resampling
    ) -> "Gridding":
        """Return what would be done with a run that was not processed yet."""
        return cls(
            grid.template,
            grid.shape,
            grid.voxel_size,
            grid.orientation,
            source.file.space_name,
            tuple(path.name for path in source.transforms),
            source.to_register is not None,
            source.warp_skipped,
            repetition_time,
            source.mask.kind,
            source.file.series,
            source.mean is not None,
            RawGridding.planned(source.file, resampling),
        )

    @property
    def grid(self) -> tuple[Any, ...]:
        """What tells one grid from another."""
        return self.template, self.shape, self.voxel_size, self.orientation


def methods_text(settings: Settings, dataset: Dataset, models: Sequence[Model], griddings: Iterable[Gridding]) -> str:
    """Return the text, in Markdown with citations as [@key].

    Parameters
    ----------
    griddings : iterable of Gridding
        Of all runs that the text is about.
    """
    done = list(dict.fromkeys(griddings))
    resampling, censoring = settings.resampling, settings.censoring
    grids = list(dict.fromkeys(each.grid for each in done))
    text = filled_in(
        "methods.md",
        {"listed": listed},
        version=__version__,
        preprocessed_by=_foreign(dataset.generator),
        citation=dataset.citation,
        is_bids=dataset.is_bids,
        series=sorted({each.series for each in done}),
        masks=sorted({each.brain_mask for each in done}),
        own_mask=OWN,
        raw_series=any(each.raw for each in done),
        mean_added=any(each.mean_added for each in done),
        acknowledgement=_foreign(dataset.description.get("HowToAcknowledge") or "").rstrip("."),
        grids=[_grid_facts([each for each in done if each.grid == grid]) for grid in grids],
        uses_transforms=any(name.endswith((".h5", ".txt")) for each in done for name in each.transforms),
        interpolation=resampling.interpolation,
        dummy_scans=resampling.dummy_scans,
        denoise=resampling.denoise,
        target_tr=resampling.target_tr,
        repetition_times=[
            f"{t:g}" for t in sorted({float(f"{each.repetition_time:g}") for each in done if each.repetition_time})
        ],
        models=[_model_facts(model, settings.encoding.window_stride) for model in models],
        precision=settings.encoding.precision,
        conditions=", ".join(settings.conditions.conditions),
        per_trial=settings.conditions.window_per_trial,
        lag=settings.conditions.lag,
        timeseries=", ".join(atlas_name(name) for name in settings.parcellation.timeseries),
        attribution=settings.explaining if settings.explaining.attribution else None,
        fd_threshold=censoring.fd_threshold,
        max_censored=censoring.max_censored,
        python=platform.python_version(),
        versions=software_versions(),
    )
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", text) if block.strip()]
    return "\n\n".join(textwrap.fill(b, WIDTH, break_long_words=False, break_on_hyphens=False) for b in blocks) + "\n"


def write_methods(out_dir: Path, text: str, markdown_only: bool = False) -> None:
    """Write logs/CITATION in Markdown and, unless only that is wanted, in HTML, LaTeX and BibTeX."""
    entries = read_bibliography(boilerplate("references.bib"))
    contents = {"md": text}
    if not markdown_only:
        head = '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Methods</title></head>'
        contents["html"] = f"{head}\n<body>\n{to_html(text, entries)}\n</body></html>\n"
        contents |= {"tex": to_tex(text), "bib": bibliography_of(text, entries)}
    with lock_shared_files(out_dir):
        for suffix in FORMATS:
            path = out_dir / LOGS / f"CITATION.{suffix}"
            if suffix in contents:
                write_text(path, contents[suffix])
            else:  # of an earlier call: it would say something else
                path.unlink(missing_ok=True)


def read_methods(out_dir: Path) -> str:
    """Return the text that a call wrote, as a fragment of HTML without its heading; empty if there is none."""
    try:
        text = (out_dir / LOGS / "CITATION.md").read_text(encoding="utf-8")
    except OSError:
        return ""
    return methods_html(text)


def methods_html(text: str) -> str:
    """Return the text as a fragment of HTML, without its first heading."""
    return to_html(text.partition("\n")[2], read_bibliography(boilerplate("references.bib")))


def listed(items: Sequence[Any]) -> str:
    """Join items as they are in a sentence.

    >>> listed(["T1w", "MNI152NLin6Asym", 2.0])
    'T1w, MNI152NLin6Asym and 2'
    """
    words = [f"{item:g}" if isinstance(item, float) else str(item) for item in items]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _grid_facts(runs: list[Gridding]) -> dict[str, Any]:
    """Return what the text says about one grid and the runs in it."""
    grid = runs[0]
    names = [name for run in runs for name in run.transforms]
    spaces = list(dict.fromkeys(run.space for run in runs))
    return {
        "template": grid.template,
        "shape": " × ".join(map(str, grid.shape)),
        "voxel_size": " × ".join(f"{size:g}" for size in grid.voxel_size) + " mm",
        "orientation": grid.orientation,
        "spaces": [SPACES.get(space, space) for space in spaces],
        "raw": [run.raw for run in runs if run.raw],
        "n_runs": len(runs),
        "coregistration": any(name.endswith(".txt") for name in names),
        "normalisation": any("from-T1w_to-" in name for name in names),
        "fsl": any(name.endswith((".nii", ".nii.gz")) for name in names),
        "warp": any(name.startswith("tpl-") for name in names),
        "other": next(space for space in STANDARD_SPACES if space != grid.template),
        "without_warp": any(run.warp_skipped for run in runs),
        "registered": any(run.registered for run in runs),
    }


def _model_facts(model: Model, stride: int | None) -> dict[str, Any]:
    """Return what the text says about a model."""
    task = model.task
    facts: dict[str, Any] = {
        "name": _foreign(model.name),
        "about": _foreign(model.about),
        "warning": model.warning,
        "control": model.control,
        "sha256": model.sha256[:16],
        "frames": model.n_frames,
        "stride": stride or model.n_frames,
        "channels": model.network.config.n_channels,
        "target": None,
    }
    if task is not None:
        facts |= {
            "target": _foreign(task.target),
            "kind": task.kind,
            "classes": [_foreign(name) for name in task.classes],
            "scaled": task.is_scaled_back,
            "unit": _foreign(task.unit or "the unit of the labels"),
            "label_mean": task.label_mean,
            "label_std": task.label_std,
        }
    return facts


def _foreign(text: Any) -> str:
    """Return text from a file on one line, without anything that would be markup here."""
    line = " ".join(str(text).split()).replace(BEGIN, "").replace(END, "")
    return line.replace("[@", "[ @").replace("*", "").replace("# ", "#")

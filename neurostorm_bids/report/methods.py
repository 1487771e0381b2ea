"""The methods text: what was done in this call, for the paper."""

import platform
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.sidecars import software_versions
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.transforms import BOLD_SPACE, STANDARD_SPACES
from neurostorm_bids.model.load import Model
from neurostorm_bids.report.citations import bibliography_of, read_bibliography, to_html, to_tex
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.atomic import write_text
from neurostorm_bids.runtime.locks import lock_folder
from neurostorm_bids.settings import Settings

WIDTH = 110


@dataclass(frozen=True)
class Way:
    """How one run comes to one grid, as far as the text tells it.

    Attributes
    ----------
    grid : Grid
    space : str
        Of the file that is read.
    transforms : tuple of str
        Names of the files on the way.
    registered : bool
    without_warp : bool
        Whether one template was taken for the other.
    repetition_time : float or None
        s; None if unknown.
    """

    grid: Grid
    space: str
    transforms: tuple = ()
    registered: bool = False
    without_warp: bool = False
    repetition_time: "float | None" = None


def methods_text(settings: Settings, dataset: Dataset, models: "Sequence[Model]", ways: "Iterable[Way]") -> str:
    """The text, in Markdown with citations as [@key]."""
    ways = list(ways)
    environment = jinja2.Environment(  # noqa: S701 (it makes Markdown, not HTML)
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["listed"] = listed
    template = environment.from_string(_boilerplate("methods.md"))
    grids = list(dict.fromkeys(way.grid for way in ways))
    text = template.render(
        version=__version__,
        preprocessed_by=_foreign(dataset.generator),
        is_fmriprep="fmriprep" in dataset.generator.lower(),
        acknowledgement=_foreign(dataset.description.get("HowToAcknowledge") or "").rstrip("."),
        grids=[_grid_facts(grid, [way for way in ways if way.grid == grid]) for grid in grids],
        uses_transforms=any(way.transforms for way in ways),
        interpolation=settings.interpolation,
        dummy_scans=settings.dummy_scans,
        denoise=settings.denoise,
        target_tr=settings.target_tr,
        repetition_times=[
            f"{t:g}" for t in sorted({float(f"{w.repetition_time:g}") for w in ways if w.repetition_time})
        ],
        models=[_model_facts(model, settings) for model in models],
        precision=settings.precision,
        fd_threshold=settings.fd_threshold,
        max_censored=settings.max_censored,
        python=platform.python_version(),
        versions=software_versions(),
    )
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", text) if block.strip()]
    return "\n\n".join(textwrap.fill(b, WIDTH, break_long_words=False, break_on_hyphens=False) for b in blocks) + "\n"


def write_methods(out_dir: Path, text: str, markdown_only: bool = False) -> "list[Path]":
    """Write logs/CITATION in Markdown, and in HTML, LaTeX and BibTeX; returns the paths."""
    entries = read_bibliography(_boilerplate("references.bib"))
    html = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Methods</title></head>\n<body>\n{to_html(text, entries)}\n</body></html>\n'
    contents = {"md": text}
    if not markdown_only:
        contents |= {"html": html, "tex": to_tex(text), "bib": bibliography_of(text, entries)}
    paths = []
    with lock_folder(out_dir):
        for suffix, content in contents.items():
            paths.append(out_dir / "logs" / f"CITATION.{suffix}")
            write_text(paths[-1], content)
        for suffix in {"html", "tex", "bib"} - set(contents):  # of an earlier call: they would tell something else
            (out_dir / "logs" / f"CITATION.{suffix}").unlink(missing_ok=True)
    return paths


def methods_html(text: str) -> str:
    """The text as a fragment of HTML, without its first heading."""
    return to_html(text.split("\n", 1)[1], read_bibliography(_boilerplate("references.bib")))


def listed(items: Sequence) -> str:
    """Items as they stand in a sentence.

    >>> listed(["T1w", "MNI152NLin6Asym", 2.0])
    'T1w, MNI152NLin6Asym and 2'
    """
    words = [f"{item:g}" if isinstance(item, float) else str(item) for item in items]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _grid_facts(grid: Grid, ways: "list[Way]") -> dict:
    names = [name for way in ways for name in way.transforms]
    spaces = list(dict.fromkeys(way.space for way in ways))
    return {
        "template": grid.template,
        "shape": " × ".join(map(str, grid.shape)),
        "voxel_size": " × ".join(f"{size:g}" for size in grid.voxel_size) + " mm",
        "orientation": grid.orientation,
        "spaces": ["the space of the BOLD series itself" if space == BOLD_SPACE else space for space in spaces],
        "coregistration": any(f"from-{start}_to-T1w" in name for name in names for start in ("boldref", "scanner")),
        "normalisation": any("from-T1w_to-" in name for name in names),
        "warp": any(name.startswith("tpl-") for name in names),
        "other": next(space for space in STANDARD_SPACES if space != grid.template),
        "without_warp": any(way.without_warp for way in ways),
        "registered": any(way.registered for way in ways),
    }


def _model_facts(model: Model, settings: Settings) -> dict:
    task = model.task
    return {
        "name": _foreign(model.name),
        "about": _foreign(model.about),
        "warning": model.warning,
        "sha256": model.sha256[:16],
        "frames": model.n_frames,
        "stride": settings.window_stride or model.n_frames,
        "channels": model.network.config.n_channels,
        "target": _foreign(task.target) if task else None,
        "kind": task.kind if task else None,
        "classes": [_foreign(name) for name in task.classes] if task else (),
        "scaled": bool(task and task.is_scaled_back),
        "unit": _foreign(task.unit or "the unit of the labels") if task else None,
        "label_mean": task.label_mean if task else None,
        "label_std": task.label_std if task else None,
    }


def _foreign(text) -> str:
    """Text from a file, on one line and free of what would be markup here."""
    return " ".join(str(text).split()).replace("[@", "[ @").replace("*", "")


def _boilerplate(name: str) -> str:
    return files("neurostorm_bids.boilerplate").joinpath(name).read_text(encoding="utf-8")

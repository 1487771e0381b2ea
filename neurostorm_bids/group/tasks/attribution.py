"""Where in the brain a model's predictions come from: the mean over people of the maps of --attribution, and which parcels hold.

Read from what the participant level wrote.
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.attribution_files import FAITHFUL, write_volume
from neurostorm_bids.derivatives.names import attribution_to
from neurostorm_bids.derivatives.sidecars import PRIVACY
from neurostorm_bids.explain.checks import rank_correlation
from neurostorm_bids.group.attribution_contrast import Contrast, contrast_of, families_of
from neurostorm_bids.group.attribution_figures import map_figure
from neurostorm_bids.group.attribution_maps import Maps, anatomy_or_function, read_all_maps
from neurostorm_bids.group.attribution_words import (
    AGREEING,
    ALPHA,
    alarms_of,
    may_be_drawn,
    notes_of,
    table_of_checks,
    unreachable,
)
from neurostorm_bids.group.baselines import CONNECTOME
from neurostorm_bids.group.connectome_weights import strength_of_parcels
from neurostorm_bids.group.halves import agreement_of_halves
from neurostorm_bids.group.output import FIGURES
from neurostorm_bids.group.sign_flips import sign_flip_test
from neurostorm_bids.group.study import Study, counted
from neurostorm_bids.group.task import GroupResult, Section
from neurostorm_bids.report.figures.attribution import HARDLY, LARGEST
from neurostorm_bids.resample.grid import GRIDS
from neurostorm_bids.resample.parcels import Parcels, parcels_of
from neurostorm_bids.runtime.atomic import write_text

MOST_ROWS = 20  # on the page
CONTRAST = "_stat-contrast"
MEAN, RANDOM = "mean", "random weights"  # titles
OF_VOXELS = ("_stat-t", "_stat-pFWE")
COLUMNS: dict[str, dict[str, Any]] = {
    "parcel": {"Description": "Number, from 1"},
    "name": {"Description": "Of the parcel in the atlas"},
    "voxels": {"Description": "Of the parcel in the grid"},
    "mean": {"Description": "Mean over people of what the parcel adds to the output"},
    "t": {"Description": "Of that mean against 0, over people"},
    "p_fwe": {
        "Description": "Two-sided, by flipping signs of people, corrected for all parcels by the largest statistic"
    },
    "random_weights": {
        "Description": "Share of the parcel in the map, by size, of a network with random weights: mean over people, each with another one"
    },
    "rank": {
        "Description": "By the parcel's share of the mean map minus its share of that of random weights, both of absolute means"
    },
    "r_target": {"Description": "Correlation over people of what the parcel adds with the target"},
    "p_fwe_target": {
        "Description": "Two-sided, by labels that change places, corrected for all parcels by the largest correlation"
    },
}


def run(study: Study) -> list[GroupResult]:
    """Average maps over people."""
    cohort = study.cohort
    grid = next(grid for grid in GRIDS.values() if grid.template == cohort.template)
    found = read_all_maps(study, grid)
    compared = anatomy_or_function(found)
    strengths: dict[tuple[str, ...], np.ndarray | str] = {}  # of each atlas, which baselines mostly share
    for maps in found.values():
        if tuple(maps.names) not in strengths:
            strengths[tuple(maps.names)] = _strengths(maps, study)
    return [_result(maps, baseline, compared, strengths[tuple(maps.names)], study) for baseline, maps in found.items()]


def _result(maps: Maps, baseline: str, compared: str | None, strengths: np.ndarray | str, study: Study) -> GroupResult:
    """Return what the maps from one baseline tell."""
    settings, grid = study.settings, maps.grid
    contrast = contrast_of(maps, study)
    families = families_of(maps, study)
    t, p, n_flips = sign_flip_test(maps.values, settings.group.n_permutations, settings.conduct.random_seed, families)
    table = _table(maps, t, p, contrast)
    page = f"group_desc-{study.cohort.label}_attribution"
    name = f"group_desc-{study.cohort.label}_{attribution_to(baseline)}"
    holding = table[table["p_fwe"] <= ALPHA].sort_values("t", key=lambda t: -np.abs(t))
    answer = (
        f"What the model says of {maps.facts['Output']} beyond {baseline} comes from {counted(len(holding), 'parcel')} of {len(table)} in {len(maps.people)} people "
        f"(p <= {ALPHA}, corrected for all parcels)" + (f", first {holding.iloc[0]['name']}." if len(holding) else ".")
    )
    if isinstance(contrast, Contrast):
        answer += _answer_of(contrast, table)
    shown = table.head(MOST_ROWS).round({"t": 2, "p_fwe": 4, "r_target": 2, "p_fwe_target": 4})
    shown = shown.assign(**{name: shown[name].map("{:+.3g}".format) for name in ("mean", "random_weights")})
    halves = _halves(maps, families, contrast, settings.conduct.random_seed)
    volumes = _volumes(maps, contrast, halves) if may_be_drawn(maps) else {}
    random = _painted(_shares_of_random(maps), maps, study)
    drawn = dict(volumes.values()) | ({RANDOM: random} if random is not None else {})
    of_voxels = _test_of_voxels(maps, families, study) if settings.group.attribution_voxels and "" in volumes else None
    section = Section(
        "Where in the brain",
        words=[answer, *([compared] if compared else []), FAITHFUL, PRIVACY],
        alarms=alarms_of(maps, halves) + ([] if volumes else ["No map is drawn."]),
        facts=[*maps.facts.items(), ("People", str(len(maps.people))), ("Flips of signs", str(n_flips))],
        table=shown,
        figures=[("", _caption(contrast, drawn))] if volumes else [],
        notes=[
            *([contrast] if isinstance(contrast, str) else []),
            *unreachable(maps, families, n_flips, contrast),
            *notes_of(maps, halves, study),
            _beside_connectome(maps, contrast, strengths),
            *([] if of_voxels is None else [_of_voxels_in_words(of_voxels, name)]),
        ],
        links=[
            (f"{name}{ending}_viewer.html", f"Interactive viewer: {title}", "slice by slice, without a network")
            for ending, (title, _) in volumes.items()
        ],
    )
    return GroupResult(
        name=name,
        title="Where in the brain",
        answer=answer,
        sections=[section, Section("Checks of the maps", table=table_of_checks(maps))],
        about={
            "Description": "Where in the brain a model's predictions come from",
            "Method": "Integrated gradients; mean over a person's runs; t over people, signs flipped, largest statistic",
            **maps.facts,
            "Privacy": PRIVACY,
            "Sources": study.sources(),
        },
        page=page,
        tables={"": table},
        columns={"": {name: COLUMNS[name] for name in COLUMNS if name in table}},
        figures={"": map_figure(drawn, grid)} if volumes else {},
        write_more=_writer_of(name, maps, volumes, of_voxels),
    )


def _table(maps: Maps, t: np.ndarray, p: np.ndarray, contrast: Contrast | str) -> pd.DataFrame:
    mean, random = maps.values.mean(axis=0), _shares_of_random(maps)
    beyond = _shares(mean) - random
    table = pd.DataFrame(
        {
            "parcel": np.arange(1, len(mean) + 1),
            "name": maps.names,
            "voxels": maps.voxels,
            "mean": mean,
            "t": t,
            "p_fwe": p,
            "random_weights": random,
            "rank": (-beyond).argsort().argsort() + 1,
        }
    )
    if isinstance(contrast, Contrast):
        table = table.assign(r_target=contrast.r, p_fwe_target=contrast.p)
        return table.sort_values("r_target", key=lambda r: -np.abs(r), ignore_index=True)
    return table.sort_values("rank", ignore_index=True)


def _answer_of(contrast: Contrast, table: pd.DataFrame) -> str:
    """Return where maps go with the target, in a sentence."""
    holding = table[table["p_fwe_target"] <= ALPHA]
    first = f", first {holding.iloc[0]['name']} (r = {holding.iloc[0]['r_target']:.2f})" if len(holding) else ""
    return (
        f" It goes with the target ({contrast.words}, {contrast.n} people) in {counted(len(holding), 'parcel')} (p <= {ALPHA}, corrected)"
        f"{first}."
    )


def _shares(values: np.ndarray) -> np.ndarray:
    """Return the shares of parcels in a map, by size: maps of networks with random weights have a scale of their own."""
    total = np.abs(values).sum()
    return np.abs(values) / total if total else np.zeros(values.shape)


def _shares_of_random(maps: Maps) -> np.ndarray:
    """Return the mean over people of parcels' shares in the maps of their networks of random weights, whose signs mean nothing."""
    return np.asarray(np.mean([_shares(values) for values in maps.random], axis=0))


def _parcels_of(maps: Maps, study: Study) -> Parcels | None:
    """Return the parcels that the maps are of; `None` if that atlas is not at hand."""
    parcels = parcels_of(maps.grid, study.settings.explaining.attribution_parcels)
    return parcels if (parcels.name, list(parcels.labels)) == (maps.facts["Atlas"], maps.names) else None


def _painted(values: np.ndarray, maps: Maps, study: Study) -> np.ndarray | None:
    """Return values of parcels over their voxels, (X, Y, Z); `None` if the atlas of the maps is not at hand."""
    parcels = _parcels_of(maps, study)
    if parcels is None:
        return None
    per_voxel = np.concatenate([[0], values / np.maximum(parcels.sums(np.ones(parcels.numbers.size)), 1)])
    return np.asarray(per_voxel[parcels.numbers].reshape(maps.grid.shape))


def _test_of_voxels(maps: Maps, families: np.ndarray | None, study: Study) -> tuple[np.ndarray, np.ndarray]:
    """Return t and corrected p of every voxel's mean over people, (X, Y, Z) each; 0 and 1 where all maps are 0."""
    of_people, settings = maps.of_voxels(), study.settings
    there = np.flatnonzero(of_people.any(axis=0))
    t, p, _ = sign_flip_test(of_people[:, there], settings.group.n_permutations, settings.conduct.random_seed, families)
    whole = np.zeros(of_people.shape[1], np.float32), np.ones(of_people.shape[1], np.float32)
    whole[0][there], whole[1][there] = t, p
    return whole[0].reshape(maps.grid.shape), whole[1].reshape(maps.grid.shape)


def _of_voxels_in_words(found: tuple[np.ndarray, np.ndarray], name: str) -> str:
    """Return how many voxels hold, and where their images are."""
    n = int((found[1] <= ALPHA).sum())
    return (
        f"{counted(n, 'voxel')} of the mean hold (p <= {ALPHA}, corrected for all voxels; values are the same within a patch of the network): "
        + " and ".join(f"{name}{ending}_statmap.nii.gz" for ending in OF_VOXELS)
    )


def _halves(maps: Maps, families: np.ndarray | None, contrast: Contrast | str, seed: int) -> dict[str, float | None]:
    """Return how two halves of the people agree: title of a map -> correlation."""
    together = np.array(maps.people) if families is None else families
    halves = {MEAN: agreement_of_halves(together, lambda some: np.mean(maps.values[some], axis=0), seed)}
    return {**halves, contrast.words: contrast.halves} if isinstance(contrast, Contrast) else halves


def _volumes(
    maps: Maps, contrast: Contrast | str, halves: dict[str, float | None]
) -> dict[str, tuple[str, np.ndarray]]:
    """Return the maps to draw and to keep, those that come out twice: what their files' names end with -> title and map."""
    volumes = {"": (MEAN, maps.volume)}
    if isinstance(contrast, Contrast):
        volumes[CONTRAST] = contrast.words, contrast.volume
    agreeing = {title for title, r in halves.items() if r is not None and r >= AGREEING}
    return {ending: volume for ending, volume in volumes.items() if volume[0] in agreeing}


def _caption(contrast: Contrast | str, drawn: dict[str, np.ndarray]) -> str:
    """Return what is said of the figure."""
    words = (
        "Over the template, colours to the range of each map. Left is left (L). Red raises the output, blue lowers it."
    )
    if isinstance(contrast, Contrast) and contrast.words in drawn:
        more = "the first" if contrast.of_classes else "those of whom it is higher"
        where = "Below" if MEAN in drawn else "Here"
        words += f" {where}, {contrast.words}: where red, a place raises the output more in {more}."
    if RANDOM in drawn:
        words += " Last, what networks with random weights show, by parcels: what any network would show."
    return words


def _strengths(maps: Maps, study: Study) -> np.ndarray | str:
    """Return how much the classical way rests on each parcel; or why it can't be told."""
    parcels = _parcels_of(maps, study)
    if parcels is None:
        return f"not compared with the {CONNECTOME}: give the maps' atlas with --attribution-parcels"
    return strength_of_parcels(study, parcels)


def _beside_connectome(maps: Maps, contrast: Contrast | str, strengths: np.ndarray | str) -> str:
    """Return how the map goes with the weights of the connectome: of two classes, by what differs between them."""
    if isinstance(strengths, str):
        return strengths
    is_contrast = isinstance(contrast, Contrast)
    values = contrast.r if isinstance(contrast, Contrast) else maps.values.mean(axis=0)
    r = rank_correlation(np.abs(values), strengths)
    return (
        f"rank correlation of {r:.2f} between {'how a parcel goes with the target' if is_contrast else 'the attribution of a parcel'} and the "
        f"weight of its connections in a ridge regression on the {CONNECTOME}"
    )


def _writer_of(
    name: str,
    maps: Maps,
    volumes: dict[str, tuple[str, np.ndarray]],
    of_voxels: tuple[np.ndarray, np.ndarray] | None,
) -> Callable[[Path], None]:
    """Return what writes maps, their viewers and, where that is asked for, the test of voxels."""

    def write(out_dir: Path) -> None:
        from nilearn.plotting import view_img

        grid = maps.grid
        for ending in {"", CONTRAST, *OF_VOXELS} - volumes.keys():  # of an earlier call
            for kind in ("statmap.nii.gz", "viewer.html"):
                (out_dir / f"{name}{ending}_{kind}").unlink(missing_ok=True)
        if not volumes:
            (out_dir / FIGURES / f"{name}.png").unlink(missing_ok=True)
        for ending, (title, volume) in volumes.items():
            write_volume(out_dir / f"{name}{ending}_statmap.nii.gz", volume, grid)
            top = float(np.percentile(np.abs(volume[volume != 0]), LARGEST)) if volume.any() else 1.0
            image = nib.Nifti1Image((volume / top).astype(np.float32), grid.matrix)  # 1: where the colours end
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # numpy's, of the masked arrays that nilearn sorts
                page = view_img(image, threshold=HARDLY, vmax=1, symmetric_cmap=True, cmap="RdBu_r", title=title)
            html = re.sub(
                r'<link rel="icon"[^>]*>', "", page.get_standalone()
            )  # nilearn's, which is fetched from the web
            write_text(out_dir / f"{name}{ending}_viewer.html", html)
        for ending, values in zip(OF_VOXELS, of_voxels or (), strict=False):
            write_volume(out_dir / f"{name}{ending}_statmap.nii.gz", values, grid)

    return write

"""A division of a grid's brain into parcels: an atlas, or blocks where there is none."""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.entities import letters_and_digits
from neurostorm_bids.find.templateflow import templateflow_home
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.nifti import checked_affine, one_volume, open_image
from neurostorm_bids.resample.sampler import nearest
from neurostorm_bids.resample.template import template_brain
from neurostorm_bids.runtime.files import check_there
from neurostorm_bids.runtime.json_files import digest

ATLAS = "tpl-{0}_res-02_atlas-Schaefer2018_desc-100Parcels7Networks_dseg.nii.gz"
BLOCK = 12  # voxels along an edge of a block: 24 mm
MIN_VOXELS = 64  # of a parcel
LARGEST_LABEL = 2**31  # FreeSurfer's have five digits


@dataclass(frozen=True)
class Parcels:
    """Parcels of a grid.

    Attributes
    ----------
    name : str
        Of the atlas, letters and digits.
    numbers : (voxels,) int array
        Of each voxel of the flattened (C order) grid, from 1; 0 outside.
    labels : tuple of str
        What the parcels are called.
    """

    name: str
    numbers: np.ndarray
    labels: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """Of numbers and labels."""
        return digest(
            {"labels": self.labels, "numbers": hashlib.sha256(self.numbers.astype("<i4").tobytes()).hexdigest()}
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def columns(self) -> list[str]:
        """What tables call the parcels: parcel001, ..."""
        return [f"parcel{i + 1:03d}" for i in range(len(self))]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of values over each parcel, (voxels,) or (voxels, T) -> (parcels,) or (parcels, T)."""
        columns = values.reshape(len(self.numbers), -1)
        n = len(self) + 1
        found = np.stack([np.bincount(self.numbers, weights=column, minlength=n)[1:] for column in columns.T], axis=1)
        return found[:, 0] if values.ndim == 1 else found


def parcels_of(grid: Grid, file: Path | None = None, edge: int = BLOCK, smallest: int = MIN_VOXELS) -> Parcels:
    """Return the parcels of a file; else TemplateFlow's Schaefer atlas of 100 parcels, if it is there; else blocks.

    Parameters
    ----------
    file : Path, optional
        Image of labels in the space of the grid's template; a ``.tsv`` of the same name may hold ``index`` and ``name``.
    edge : int
        Voxels along an edge of a block.
    smallest : int
        Voxels of the grid that a parcel of a file needs to count as one.

    Raises
    ------
    NeurostormError
        If the file cannot be read, or holds fewer than two parcels of the brain.
    """
    if file is not None:
        return _of_file(grid, file, smallest)
    atlas = templateflow_home() / f"tpl-{grid.template}" / ATLAS.format(grid.template)
    return _of_file(grid, atlas, smallest) if atlas.is_file() and atlas.stat().st_size else blocks(grid, edge)


@lru_cache(maxsize=4)
def _of_file(grid: Grid, file: Path, smallest: int) -> Parcels:
    labels = labels_in(file, grid)
    numbers, large = _renumbered(labels, smallest)
    if len(large) < 2:
        raise NeurostormError(
            f"{file} holds fewer than two parcels in the grid '{grid.name}'; is it in {grid.template}?"
        )
    names = _names_beside(file)
    return Parcels(atlas_name(file), numbers, tuple(names.get(int(i), f"label {i}") for i in large))


@lru_cache(maxsize=4)
def blocks(grid: Grid, edge: int = BLOCK) -> Parcels:
    """Return blocks of the template's brain, named by where their middles are."""
    index = np.indices(grid.shape).reshape(3, -1)
    cells: np.ndarray = np.ravel_multi_index(index // edge, [-(-size // edge) for size in grid.shape])  # type: ignore[assignment]
    numbers = _renumbered(np.where(template_brain(grid), cells + 1, 0))[0]
    counts = np.bincount(numbers)[1:]
    middles = [np.bincount(numbers, weights=axis)[1:] / counts for axis in apply_affine(grid.matrix, index.T).T]
    names = tuple(
        f"{'left' if x < 0 else 'right'} ({x:+.0f}, {y:+.0f}, {z:+.0f}) mm" for x, y, z in zip(*middles, strict=True)
    )
    return Parcels(f"blocks{edge * grid.voxel_size[0]:.0f}mm", numbers, names)


def _renumbered(labels: np.ndarray, smallest: int = MIN_VOXELS) -> tuple[np.ndarray, np.ndarray]:
    """Number the labels that have enough voxels from 1 on, the others 0; also returns these labels."""
    there, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    is_large = (counts >= smallest) & (there > 0)
    return np.asarray(np.where(is_large, np.cumsum(is_large), 0)[which]), there[is_large]


def labels_in(atlas: Path, grid: Grid) -> np.ndarray:
    """Return the label that a parcellation gives every voxel of a grid, by world coordinates, nearest neighbour: (voxels,) int.

    Raises
    ------
    NeurostormError
        If it cannot be read, or is no image of labels.
    """
    image, name = open_image(atlas)
    affine = checked_affine(image, name)
    values = one_volume(image, name, "an atlas is one volume of labels (dseg), not one map for each parcel (probseg)")
    world = apply_affine(grid.matrix, np.indices(grid.shape).reshape(3, -1).T)
    found = nearest(values, apply_affine(np.linalg.inv(affine), world))
    labels = np.round(found) if found.dtype.kind == "f" else found
    if (
        found.dtype.kind not in "iufb"
        or not np.allclose(labels, found, atol=1e-3)
        or np.abs(labels).max() > LARGEST_LABEL
    ):
        raise NeurostormError(f"{name} does not hold whole numbers as labels; is it an atlas (dseg)?")
    return np.asarray(labels.astype(int))


def _names_beside(file: Path) -> dict[int, str]:
    """Return the names of labels that a table beside an atlas gives."""
    import pandas as pd

    stem = file.name.removesuffix(".gz").removesuffix(".nii")
    whole = "_".join(part for part in stem.split("_") if not part.startswith("res-"))  # one table for all resolutions
    table = next((path for name in (stem, whole) if (path := file.with_name(f"{name}.tsv")).is_file()), None)
    if table is None:
        return {}
    check_there(table)
    try:
        found = pd.read_csv(table, sep="\t")
        column = next(name for name in ("name", "label", "region") if name in found)
        named = found[["index", column]].dropna()  # a label without a name keeps its number
        return {int(index): str(name) for index, name in zip(named["index"], named[column], strict=True)}
    except (ValueError, KeyError, StopIteration, OverflowError) as error:
        raise NeurostormError(
            f"{table} is no table of labels (index, name): {type(error).__name__}; correct or remove it"
        ) from None


def atlas_name(file: str | Path) -> str:
    """Return what an atlas is called, such as Schaefer2018100Parcels7Networks."""
    name = Path(file).name
    parts = dict(part.partition("-")[::2] for part in name.split("_"))
    named = parts.get("atlas", "") + parts.get("desc", "") or name.split(".")[0]
    return letters_and_digits(named)

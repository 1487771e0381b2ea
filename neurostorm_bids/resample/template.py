"""A template brain that is always at hand: nilearn's MNI152, in a small file that comes with the package.

It is the symmetric ICBM 2009a template at 2 mm (Fonov et al. 2009, https://doi.org/10.1016/S1053-8119(09)70884-5), yet
another MNI152, and near enough to tell whether a brain lies where a brain should: 98 % of the brains of MNI152NLin6Asym
and MNI152NLin2009cAsym lie in it. ``python -m neurostorm_bids.resample.template`` makes the file from nilearn; its
licence is beside it.
"""

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine

from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.sampler import inside, make_sampler, nearest

FILE = "mni152_2mm.npz"
NAME = "MNI152 of nilearn"


@lru_cache(maxsize=4)
def template_brain(grid: Grid) -> np.ndarray:
    """Return which voxels of a grid are brain, (voxels,) bool."""
    brain, _, affine = _template()
    return nearest(brain, apply_affine(np.linalg.inv(affine), _world(grid)))


def template_mask() -> tuple[np.ndarray, np.ndarray]:
    """Return the template's brain mask, (X, Y, Z) bool, and its affine."""
    brain, _, affine = _template()
    return brain, affine


def template_t1w(grid: Grid) -> np.ndarray:
    """Return the template's T1w image in a grid, without the skull, (X, Y, Z) float32."""
    _, t1w, affine = _template()
    return resampled(t1w, affine, grid)


def resampled(volume: np.ndarray, affine: np.ndarray, grid: Grid) -> np.ndarray:
    """Resample a volume to a grid linearly; 0 outside its field of view; (X, Y, Z) float32."""
    voxels = apply_affine(np.linalg.inv(affine), _world(grid))
    within = inside(voxels, volume.shape)
    out = np.zeros(len(voxels), dtype=np.float32)
    values = np.asarray(volume, dtype=np.float32).reshape(-1, 1, order="F")
    out[within] = make_sampler(voxels[within], volume.shape)(values)[0]
    return out.reshape(grid.shape)


def _world(grid: Grid) -> np.ndarray:
    return np.asarray(apply_affine(grid.matrix, np.indices(grid.shape).reshape(3, -1).T))


@lru_cache(maxsize=1)
def _template() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read brain mask, T1w image and affine from the file."""
    with files(__package__).joinpath(FILE).open("rb") as file, np.load(file) as content:
        t1w = content["t1w"]
        brain = np.unpackbits(content["brain"], count=t1w.size).reshape(t1w.shape).astype(bool)
        return brain, t1w, content["affine"]


def make_file(path: Path) -> None:
    """Make the file from the template that nilearn ships."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    mask, image = load_mni152_brain_mask(resolution=2), load_mni152_template(resolution=2)
    t1w = image.get_fdata()
    np.savez_compressed(
        path,
        t1w=np.round(255 * t1w / t1w.max()).astype(np.uint8),
        brain=np.packbits(np.asarray(mask.dataobj) > 0),
        affine=mask.affine,
    )


if __name__ == "__main__":
    make_file(Path(__file__).with_name(FILE))

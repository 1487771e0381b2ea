"""Resampling: a volume of 97 x 115 x 97 to the model's grid, beside nilearn; and memory against length."""

import tempfile
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from benchmarks.measure import in_own_process, print_table, side_by_side
from neurostorm_bids.resample.grid import FSL
from neurostorm_bids.resample.sampler import inside, make_sampler

SHAPE = (97, 115, 97)
AFFINE = np.array([[2.0, 0, 0, -96.5], [0, 2.0, 0, -132.5], [0, 0, 2.0, -78.5], [0, 0, 0, 1]])
N_VOLUMES = 16  # a block, as in a run
LENGTHS = (100, 1000)

RESAMPLE = """
from neurostorm_bids import to_model_grid
run = to_model_grid(values["bold"], values["mask"], work_dir=values["work"])
result["frames"] = run.shape[3]
"""


def brain_mask(shape: tuple[int, ...]) -> np.ndarray:
    """An ellipsoid of about as many voxels as a brain has."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return (sum((x / r) ** 2 for x, r in zip(axes, (0.72, 0.75, 0.68), strict=True)) < 1).astype(np.uint8)


def interpolation() -> None:
    """Seconds per volume, once weights are built."""
    from nilearn.image import resample_img

    data = np.asfortranarray(np.random.RandomState(0).standard_normal((*SHAPE, N_VOLUMES)).astype(np.float32))
    image, block = nib.Nifti1Image(data, AFFINE), data.reshape(-1, N_VOLUMES, order="F")
    mask = brain_mask(FSL.shape).ravel().astype(bool)
    voxels = apply_affine(np.linalg.inv(AFFINE) @ FSL.matrix, np.indices(FSL.shape).reshape(3, -1).T[mask])
    voxels = voxels[inside(voxels, SHAPE)]
    rows = []
    for ours, theirs in (("linear", "linear"), ("cubic", "continuous")):
        sampler = make_sampler(voxels, SHAPE, ours)

        def nilearn(interpolation=theirs):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                resample_img(image, FSL.matrix, FSL.shape, interpolation=interpolation)

        seconds = side_by_side(
            {"build": lambda ours=ours: make_sampler(voxels, SHAPE, ours), "ours": lambda s=sampler: s(block), "nilearn": nilearn},
            rounds=3,
        )  # fmt: skip
        per_volume = {name: 1000 * seconds[name] / N_VOLUMES for name in ("ours", "nilearn")}
        rows.append(
            (
                ours,
                f"{seconds['build']:.2f}",
                f"{per_volume['ours']:.1f}",
                f"{per_volume['nilearn']:.1f}",
                f"{per_volume['nilearn'] / per_volume['ours']:.0f}",
            )
        )
    print_table(
        "Interpolation, 97 x 115 x 97 to 96 x 96 x 96",
        ("", "building weights (s)", "a volume (ms)", "nilearn's resample_img (ms)", "ratio"),
        rows,
    )


def memory() -> None:
    """Peak memory of resampling a short and a long run, each in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        mask = brain_mask(SHAPE)
        nib.save(nib.Nifti1Image(mask, AFFINE), Path(folder) / "mask.nii.gz")
        rng = np.random.RandomState(0)
        volume = (1000 + 30 * rng.standard_normal(SHAPE)).astype(np.int16)
        for n in LENGTHS:
            image = nib.Nifti1Image(np.broadcast_to(volume[..., None], (*SHAPE, n)), AFFINE)
            image.header.set_zooms((2.0, 2.0, 2.0, 2.0))
            image.header.set_xyzt_units("mm", "sec")
            path = Path(folder) / f"bold{n}.nii"
            nib.save(image, path)
            measured = in_own_process(RESAMPLE, bold=str(path), mask=str(Path(folder) / "mask.nii.gz"), work=folder)
            path.unlink()
            rows.append((n, measured["frames"], f"{measured['seconds']:.1f}", f"{measured['peak_mb']:.0f}"))
    print_table("Resampling a run of 2 mm", ("volumes", "frames of 0.8 s", "seconds", "peak memory (MB)"), rows)


def run() -> None:
    """Everything about resampling."""
    interpolation()
    memory()

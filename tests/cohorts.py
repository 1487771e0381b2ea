"""Small subjects as the HCP pipelines and UK Biobank leave them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from helpers import AFFINE, ellipsoid, save, signal

LAS = np.array(
    [[-6.0, 0, 0, 93], [0, 6.0, 0, -129], [0, 0, 6.0, -75], [0, 0, 0, 1]]
)  # the grid of `AFFINE`, x reversed


def motion(n_volumes, seed=0):
    """Translations in mm and rotations in radians, (volumes, 3) each."""
    rng = np.random.RandomState(seed)
    return 0.1 * rng.standard_normal((n_volumes, 3)), 0.002 * rng.standard_normal((n_volumes, 3))


def hcp_run(folder: Path, subject="100307", name="rfMRI_REST1_LR", data=None, affine=AFFINE, clean=False) -> Path:
    """Write one run of the HCP pipelines; returns its series."""
    data = signal() if data is None else data
    results = folder / subject / "MNINonLinear" / "Results" / name
    path = save(results / f"{name}.nii.gz", data, affine, 2.0)
    if clean:
        save(results / f"{name}_hp2000_clean.nii.gz", data + 100, affine, 2.0)
    save(results / "brainmask_fs.2.nii.gz", ellipsoid(data.shape[:3]), affine)
    millimetres, radians = motion(data.shape[3])
    table = np.hstack([millimetres, np.rad2deg(radians), np.zeros((data.shape[3], 6))])
    np.savetxt(results / "Movement_Regressors.txt", table)
    return path


def ukb_run(folder: Path, visit="1000001_20227_2_0", data=None, affine=AFFINE, field=None, kind="rfMRI.ica") -> Path:
    """Write one run of UK Biobank; returns its series. Without a field, the run lies where the template does.

    Parameters
    ----------
    field : (image data, affine), optional
        FSL's displacements on the template's grid.
    """
    data = signal() if data is None else data
    results = folder / visit / "fMRI" / kind
    series = "filtered_func_data_clean" if kind == "rfMRI.ica" else "filtered_func_data"
    path = save(results / f"{series}.nii.gz", data, affine, 0.0)
    save(results / "mask.nii.gz", ellipsoid(data.shape[:3]), affine)
    millimetres, radians = motion(data.shape[3])
    (results / "mc").mkdir(parents=True)
    np.savetxt(results / "mc" / "prefiltered_func_data_mcf.par", np.hstack([radians, millimetres]))
    sidecar = results.parent / ("rfMRI.json" if kind == "rfMRI.ica" else "tfMRI.json")
    sidecar.write_text(json.dumps({"RepetitionTime": 2.0}))
    displacements, of_field = field if field is not None else identity_field(affine, data.shape[:3])
    warp = nib.Nifti1Image(displacements.astype(np.float32), of_field)
    warp.header.set_intent(2006)
    (results / "reg").mkdir()
    nib.save(warp, results / "reg" / "example_func2standard_warp.nii.gz")
    return path


FSL_2MM = np.array([[-2.0, 0, 0, 90], [0, 2.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1]])  # MNI152_T1_2mm


def fsl_mm(affine, shape, world):
    """World coordinates (n, 3) as FSL's: written down from FSL's documentation, voxel by voxel."""
    voxels = (np.linalg.inv(affine) @ np.c_[world, np.ones(len(world))].T).T[:, :3]
    if np.linalg.det(affine) > 0:
        voxels[:, 0] = shape[0] - 1 - voxels[:, 0]
    return voxels * np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def field_of(function, affine, shape, grid=FSL_2MM, grid_shape=(91, 109, 91)):
    """FSL's field of a map of world points, from the grid's world to the run's."""
    voxels = np.indices(grid_shape).reshape(3, -1).T.astype(float)
    world = voxels @ grid[:3, :3].T + grid[:3, 3]
    there = fsl_mm(affine, shape, function(world)) - fsl_mm(grid, grid_shape, world)
    return there.reshape(*grid_shape, 3), grid


def identity_field(affine, shape):
    """FSL's field for a run that lies where the template does."""
    return field_of(lambda world: world, affine, shape)

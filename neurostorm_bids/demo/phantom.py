"""A phantom: the anatomy of the template that nilearn ships, with slow network fluctuations. No person's data."""

from dataclasses import dataclass

import numpy as np

# MNI152NLin6Asym at 2 mm as TemplateFlow stores it (res-2): RAS, mm.
SHAPE = (91, 109, 91)
AFFINE = np.array([[2.0, 0, 0, -90], [0, 2.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1]])
TEMPLATE = "MNI152NLin6Asym"

# Nodes in world coordinates (RAS, mm; +x is right), rounded from what any atlas shows.
NETWORKS = {
    "default": [(0, -52, 26), (0, 52, -2), (-46, -66, 30), (48, -62, 30)],
    "somatomotor": [(-40, -24, 56), (40, -24, 56), (0, -12, 58)],
    "visual": [(-10, -92, 2), (10, -92, 2), (-28, -80, -10), (28, -80, -10)],
    "frontoparietal": [(-42, 40, 20), (42, 40, 20), (-44, -52, 46), (46, -52, 46)],
}


@dataclass(frozen=True)
class Anatomy:
    """Brain mask, T1w contrast and EPI contrast on the res-2 grid, and each network's strength."""

    mask: np.ndarray  # (X, Y, Z) bool
    t1w: np.ndarray  # (X, Y, Z)
    epi: np.ndarray  # (X, Y, Z)
    networks: np.ndarray  # (networks, X, Y, Z), 0 to 1


def anatomy() -> Anatomy:
    """Resample nilearn's template (ICBM 2009a symmetric) by affine onto the res-2 grid."""
    import nibabel as nib
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_template
    from nilearn.image import resample_img

    def on_grid(image: nib.Nifti1Image, interpolation: str = "linear") -> np.ndarray:
        # as float: a boolean or integer image cannot be interpolated
        image = nib.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32), image.affine)
        resampled: nib.Nifti1Image = resample_img(image, AFFINE, SHAPE, interpolation=interpolation)
        return resampled.get_fdata(dtype=np.float32)

    mask = on_grid(load_mni152_brain_mask(resolution=2), "nearest") > 0.5
    t1w = on_grid(load_mni152_template(resolution=2))
    grey = on_grid(load_mni152_gm_template(resolution=2))
    grey = np.clip(grey / grey.max(), 0, 1) * mask
    t1w = t1w / t1w.max()
    world = np.indices(SHAPE).reshape(3, -1).T @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    networks = []
    for nodes in NETWORKS.values():
        squared = [((world - node) ** 2).sum(axis=1) for node in nodes]
        networks.append(np.exp(-np.min(squared, axis=0) / (2 * 9.0**2)).reshape(SHAPE) * grey)
    epi = 1000 * (1.5 - t1w) * mask  # in EPI grey matter is brighter than white, and fluid brightest
    return Anatomy(mask, (1000 * t1w * mask).astype(np.float32), epi.astype(np.float32), np.stack(networks))


def slow_fluctuation(rng: np.random.RandomState, n_volumes: int, repetition_time: float) -> np.ndarray:
    """A random time course between 0.01 and 0.1 Hz with unit standard deviation, shape (n_volumes,)."""
    spectrum = np.fft.rfft(rng.standard_normal(4 * n_volumes))
    frequency = np.fft.rfftfreq(4 * n_volumes, repetition_time)
    spectrum[(frequency < 0.01) | (frequency > 0.1)] = 0
    course = np.fft.irfft(spectrum)[:n_volumes]
    return (course - course.mean()) / course.std()


def bold_run(brain: Anatomy, seed: int, n_volumes: int, repetition_time: float, n_dummies: int) -> np.ndarray:
    """One run, int16, (X, Y, Z, n_volumes): anatomy, networks at 2 % of the signal, noise at 1 %.

    The first ``n_dummies`` volumes are brighter, as before the steady state.
    """
    rng = np.random.RandomState(seed)
    courses = np.stack([slow_fluctuation(rng, n_volumes, repetition_time) for _ in brain.networks])
    inside = brain.mask
    change = 0.02 * brain.networks[:, inside].T @ courses
    change += 0.01 * rng.standard_normal(change.shape)
    change[:, :n_dummies] += 0.3 / 2 ** np.arange(n_dummies)
    data = np.zeros((*SHAPE, n_volumes), dtype=np.int16)
    data[inside] = np.round(brain.epi[inside, None] * (1 + change)).astype(np.int16)
    return data


def motion(seed: int, n_volumes: int) -> np.ndarray:
    """Head position as fMRIPrep writes it: (n_volumes, 6), three translations in mm, three rotations in radians."""
    rng = np.random.RandomState(seed)
    steps = rng.standard_normal((n_volumes, 6)) * np.array([0.02] * 3 + [0.0003] * 3)
    return np.cumsum(steps, axis=0) * 0.7


def framewise_displacement(position: np.ndarray) -> np.ndarray:
    """Framewise displacement (Power et al. 2012): rotations on a sphere of 50 mm; mm, the first is NaN."""
    moved = np.abs(np.diff(position, axis=0))
    return np.concatenate([[np.nan], moved[:, :3].sum(axis=1) + 50 * moved[:, 3:].sum(axis=1)])

"""Transforms and images as ITK has them, written with SimpleITK, for tests to compare with."""

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_sitk(data, affine):
    """A nibabel array and affine (RAS) as a SimpleITK image (LPS)."""
    affine = LPS @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.asarray(data).T)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def affine_transform(matrix):
    """A map of points in RAS, (4, 4), as ITK's affine."""
    matrix = LPS @ matrix @ LPS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def field_transform(displacement, affine):
    """A displacement field in RAS mm, (X, Y, Z, 3), as ITK's."""
    flipped = displacement * np.array([-1.0, -1.0, 1.0])
    image = sitk.GetImageFromArray(np.moveaxis(flipped, (0, 1, 2), (2, 1, 0)).astype(np.float64), isVector=True)
    like = to_sitk(np.zeros(displacement.shape[:3], np.float32), affine)
    image.CopyInformation(like)
    return sitk.DisplacementFieldTransform(image)


def smooth_field(shape, amplitude, seed=0):
    """A smooth displacement of some mm, (X, Y, Z, 3), largest in the middle."""
    rng = np.random.RandomState(seed)
    axes = np.meshgrid(*(np.linspace(0, np.pi, n) for n in shape), indexing="ij")
    envelope = np.sin(axes[0]) * np.sin(axes[1]) * np.sin(axes[2])
    waves = [
        sum(rng.uniform(-1, 1) * np.cos(k * axis + rng.uniform(0, 6)) for axis in axes for k in (1, 2))
        for _ in range(3)
    ]
    return amplitude * envelope[..., None] * np.stack(waves, axis=-1)


def write(path: Path, *transforms):
    """Write an affine as .txt or several transforms as a composite .h5, in ITK's order: the last is applied first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteTransform(
        transforms[0] if path.suffix == ".txt" else sitk.CompositeTransform(list(transforms)), str(path)
    )
    return path


def map_points(transform, points):
    """Map (n, 3) RAS points with ITK."""
    flip = np.array([-1.0, -1.0, 1.0])
    return np.array([transform.TransformPoint((p * flip).tolist()) for p in points]) * flip


def resample(path_or_image, reference_affine, shape, transform, interpolator):
    """Resample a 3-D image onto a grid with ITK."""
    image = nib.load(path_or_image) if isinstance(path_or_image, (str, Path)) else path_or_image
    like = to_sitk(np.zeros(shape, np.float32), reference_affine)
    moving = to_sitk(np.asarray(image.dataobj, dtype=np.float32), image.affine)
    return sitk.GetArrayFromImage(sitk.Resample(moving, like, transform, interpolator, 0.0)).T

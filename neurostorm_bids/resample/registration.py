"""Affine registration to a template, for runs that nothing leads to."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.sampler import apply_affine, inside, nearest
from neurostorm_bids.resample.transforms import AffineMap

POOR_OVERLAP = 0.8  # Dice coefficient of the two brain masks, within the run's field of view
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS to LPS and back


@dataclass(frozen=True)
class Registration:
    """A 12-parameter registration and how good it is.

    Attributes
    ----------
    map : AffineMap
        Points of the template to points of the moving image, RAS mm.
    overlap : float
        Dice coefficient of the brain masks, within the moving image's field of view.
    mutual_information : float
        Of the two images at the end (Mattes; larger is better).
    """

    map: AffineMap
    overlap: float
    mutual_information: float


def register_affine(moving, moving_mask, fixed, fixed_mask, name: str, seed: int = 0) -> Registration:
    """Register an image to a template by mutual information, rigidly first and then with all 12 parameters.

    Parameters
    ----------
    moving, fixed : nibabel images
        3-D: a mean BOLD volume or a T1w image, and the template.
    moving_mask, fixed_mask : nibabel images
        Their brain masks.
    name : str
        Of the moving image, for messages.

    Raises
    ------
    NeurostormError
        If SimpleITK is not installed, the registration fails, or the brains overlap poorly after it.
    """
    try:
        import SimpleITK as sitk
    except ImportError:
        raise NeurostormError("--register needs SimpleITK: pip install 'neurostorm-bids[register]'") from None
    target, target_mask = _to_sitk(fixed, sitk), _to_sitk(fixed_mask, sitk)
    source, source_mask = _to_sitk(moving, sitk), _to_sitk(moving_mask, sitk)
    try:
        start = sitk.CenteredTransformInitializer(
            target_mask, source_mask, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
        )
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(32)
        method.SetMetricFixedMask(
            sitk.Cast(sitk.BinaryDilate(sitk.Cast(target_mask, sitk.sitkUInt8), [4] * 3), sitk.sitkUInt8)
        )
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(0.25, seed + 1)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetShrinkFactorsPerLevel([4, 2, 1])
        method.SetSmoothingSigmasPerLevel([4, 2, 0])
        method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
        method.SetOptimizerAsGradientDescentLineSearch(1.0, 100, convergenceMinimumValue=1e-6, convergenceWindowSize=8)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(start, inPlace=False)
        rigid = sitk.Euler3DTransform(sitk.CompositeTransform(method.Execute(target, source)).GetBackTransform())
        affine = sitk.AffineTransform(3)
        affine.SetCenter(rigid.GetCenter())
        affine.SetMatrix(rigid.GetMatrix())
        affine.SetTranslation(rigid.GetTranslation())
        method.SetInitialTransform(affine, inPlace=True)
        method.Execute(target, source)
    except RuntimeError as error:
        raise NeurostormError(f"{name}: registration to the template failed ({_last_line(error)})") from None
    matrix = _matrix(affine)
    overlap = _overlap(matrix, moving_mask, fixed_mask)
    if overlap < POOR_OVERLAP:
        raise NeurostormError(
            f"{name}: registration to the template is poor (the brains overlap by {overlap:.2f}, at least "
            f"{POOR_OVERLAP} is asked for); give fMRIPrep's transforms, or run it with --output-spaces MNI152NLin6Asym:res-2"
        )
    return Registration(AffineMap(matrix), overlap, -float(method.GetMetricValue()))


def _to_sitk(image, sitk):
    """A nibabel image (RAS) as SimpleITK's (LPS)."""
    affine = FLIP @ image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    out = sitk.GetImageFromArray(np.asarray(image.dataobj, dtype=np.float32).T)
    out.SetSpacing(spacing.tolist())
    out.SetOrigin(affine[:3, 3].tolist())
    out.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return out


def _matrix(affine) -> np.ndarray:
    """SimpleITK's affine (LPS, about a centre) as a (4, 4) matrix, RAS."""
    linear, centre = np.array(affine.GetMatrix()).reshape(3, 3), np.array(affine.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(affine.GetTranslation()) + centre - linear @ centre
    return FLIP @ matrix @ FLIP


def _overlap(matrix: np.ndarray, moving_mask: nib.Nifti1Image, fixed_mask: nib.Nifti1Image) -> float:
    world = apply_affine(fixed_mask.affine, np.indices(fixed_mask.shape).reshape(3, -1).T)
    voxels = apply_affine(np.linalg.inv(moving_mask.affine), apply_affine(matrix, world))
    seen = inside(voxels, moving_mask.shape)
    ours = nearest(np.asarray(moving_mask.dataobj) > 0, voxels)[seen]
    theirs = (np.asarray(fixed_mask.dataobj) > 0).ravel()[seen]
    return float(2 * (ours & theirs).sum() / max(1, ours.sum() + theirs.sum()))


def _last_line(error: Exception) -> str:
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()

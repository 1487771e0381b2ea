"""Affine registration to a template, for runs that no transform leads to."""

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.nifti import Image
from neurostorm_bids.resample.sampler import inside, nearest
from neurostorm_bids.resample.transforms import AffineMap

MIN_DICE = 0.8  # of the two brain masks within the run's field of view; registrations that went wrong stay below
MAX_SHEAR = 1e-3  # cosine between two axes of voxels, above which they are no longer taken as perpendicular
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS (NIfTI, here) to LPS (ITK) and back


@dataclass(frozen=True)
class Registration:
    """A 12-parameter registration and how good it is.

    Attributes
    ----------
    map : AffineMap
        Points of the template to points of the moving image, RAS, mm.
    overlap : float
        Dice coefficient of the brain masks, within the moving image's field of view.
    mutual_information : float
        Of the two images at the end (Mattes; larger is better).
    """

    map: AffineMap
    overlap: float
    mutual_information: float


def register_affine(
    moving: Image, moving_mask: Image, fixed: Image, fixed_mask: Image, name: str, seed: int = 0
) -> Registration:
    """Register an image to a template by mutual information, rigidly first and then with all 12 parameters.

    Parameters
    ----------
    moving, moving_mask : nibabel images
        3-D: a mean BOLD volume or a T1w image, and its brain mask.
    fixed, fixed_mask : nibabel images
        The template and its brain mask.
    name : str
        Of the moving image, for messages.
    seed : int
        Of the random choice of voxels.

    Raises
    ------
    NeurostormError
        If SimpleITK is not installed, the registration fails, or the brains overlap poorly after it.
    """
    try:
        import SimpleITK as sitk
    except ImportError:
        raise NeurostormError("--register needs SimpleITK: pip install 'neurostorm-bids[register]'") from None
    try:
        affine, information = _register(
            _to_sitk(moving, sitk),
            _to_sitk(moving_mask, sitk),
            _to_sitk(fixed, sitk),
            _to_sitk(fixed_mask, sitk),
            seed,
            sitk,
        )
    except RuntimeError as error:
        raise NeurostormError(f"{name}: registration to the template failed ({_last_line(error)})") from None
    matrix = _to_matrix(affine)
    overlap = _overlap(matrix, moving_mask, fixed_mask)
    if overlap < MIN_DICE:
        raise NeurostormError(
            f"{name}: registration to the template is poor (the brains overlap with a Dice coefficient of {overlap:.2f}, at "
            f"least {MIN_DICE} is required); provide fMRIPrep's transforms, or run it with --output-spaces "
            "MNI152NLin6Asym:res-2"
        )
    return Registration(AffineMap(matrix), overlap, information)


def _register(source: Any, source_mask: Any, target: Any, target_mask: Any, seed: int, sitk: Any) -> tuple[Any, float]:
    """Return SimpleITK's affine from the target to the source, and the mutual information it comes to."""
    start = sitk.CenteredTransformInitializer(
        target_mask, source_mask, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(
        sitk.Cast(sitk.BinaryDilate(sitk.Cast(target_mask, sitk.sitkUInt8), [4] * 3), sitk.sitkUInt8)
    )
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.25, seed + 1)  # 0 would mean the clock
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
    return affine, -float(method.GetMetricValue())


def _to_sitk(image: Image, sitk: Any) -> Any:
    """Turn a nibabel image (RAS) into SimpleITK's (LPS), whose axes are perpendicular: sheared voxels are resampled."""
    if _is_sheared(image.affine):
        from nilearn.image import resample_img

        straight = np.diag(voxel_sizes(image.affine))
        data = np.asarray(image.dataobj, dtype=np.float32)
        how = "nearest" if len(np.unique(data)) <= 2 else "continuous"  # a mask stays one
        plain = nib.Nifti1Image(data, image.affine)
        image = resample_img(plain, straight, interpolation=how, force_resample=True, copy_header=True)
    affine = FLIP @ image.affine
    spacing = voxel_sizes(affine)
    out = sitk.GetImageFromArray(np.asarray(image.dataobj, dtype=np.float32).T)
    out.SetSpacing(spacing.tolist())
    out.SetOrigin(affine[:3, 3].tolist())
    out.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return out


def _is_sheared(affine: np.ndarray) -> bool:
    axes = affine[:3, :3] / voxel_sizes(affine)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > MAX_SHEAR)


def _to_matrix(affine: Any) -> np.ndarray:
    """Turn SimpleITK's affine (LPS, about a centre) into a (4, 4) matrix, RAS."""
    linear, centre = np.array(affine.GetMatrix()).reshape(3, 3), np.array(affine.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(affine.GetTranslation()) + centre - linear @ centre
    return np.asarray(FLIP @ matrix @ FLIP)


def _overlap(matrix: np.ndarray, moving_mask: Image, fixed_mask: Image) -> float:
    world = apply_affine(fixed_mask.affine, np.indices(fixed_mask.shape).reshape(3, -1).T)
    voxels = apply_affine(np.linalg.inv(moving_mask.affine), apply_affine(matrix, world))
    seen = inside(voxels, moving_mask.shape)
    ours = nearest(np.asarray(moving_mask.dataobj) > 0, voxels)[seen]
    theirs = (np.asarray(fixed_mask.dataobj) > 0).ravel()[seen]
    return float(2 * (ours & theirs).sum() / max(1, ours.sum() + theirs.sum()))


def _last_line(error: Exception) -> str:
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()

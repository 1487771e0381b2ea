"""Raw series by fMRIPrep's transforms: against fMRIPrep's own resampler, and against a signal that is known everywhere."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers import GOLDEN, Tree
from minimal import TR, Minimal, edit_image
from nibabel.affines import apply_affine, from_matvec
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import find_dataset
from neurostorm_bids.find.masks import T1W, BrainMask
from neurostorm_bids.find.run import Fieldmap
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.find.source import choose_source
from neurostorm_bids.resample import gather as gathering
from neurostorm_bids.resample.brain import Brain, Distorted
from neurostorm_bids.resample.fieldmap import read_field
from neurostorm_bids.resample.gather import Points, gather, prepared
from neurostorm_bids.resample.grid import FSL
from neurostorm_bids.resample.nifti import Bold
from neurostorm_bids.resample.raw_series import interpolate_raw, read_raw_run
from neurostorm_bids.resample.resample import resample_run
from neurostorm_bids.resample.steady_state import non_steady_state, outliers_at_start
from neurostorm_bids.resample.transforms import DisplacementMap, map_points, read_transform
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings.participant import Resampling, Selection


def source_of(derivatives, raw, **options):
    dataset = find_dataset(derivatives, {"raw": raw})
    runs, problems = find_runs(dataset, Selection())
    assert not problems
    resampling = Resampling(**{"interpolation": "cubic", **options})
    return choose_source(runs[0], dataset, FSL.template, resampling), resampling


def gridded(case, **options):
    """The run in the grid, (volumes, voxels), and the signal that is there."""
    source, resampling = source_of(case.derivatives, case.raw, **{"dummy_scans": 0, "jacobian": "off", **options})
    run = resample_run(source, FSL, resampling, 0, None, Progress("run", "1/1"))
    points = case.at_grid(apply_affine(FSL.matrix, np.stack(np.unravel_index(run.brain, FSL.shape), axis=1)))
    truth = np.stack([case.truth(points, v * TR + run.timing.start_time) for v in range(len(run.frames))])
    return run.frames[0 : len(run.frames)], truth, run


def test_it_is_what_fmriprep_s_own_resampler_makes():
    golden = GOLDEN / "minimal"
    reference = np.load(golden / "reference.npz")
    source, resampling = source_of(golden / "fmriprep", golden / "raw", mask="template")
    bold = Bold(source.file.path)
    raw = read_raw_run(source.file, bold, 2.0, 0, resampling)
    voxels = np.indices((91, 109, 91))[:, 1::3, 1::3, 1::3].reshape(3, -1).T[reference["inside"]]
    maps = [part for path in source.transforms for part in read_transform(path)]
    maps = [part.as_fmriprep() if isinstance(part, DisplacementMap) else part for part in maps]
    points = map_points(maps, apply_affine(reference["affine"], voxels))
    assert np.abs(raw.distortion.field(points) - reference["fieldmap_hz"]).max() < 0.005
    shift = raw.distortion.shift(points)
    at = apply_affine(np.linalg.inv(bold.affine), points) + shift[:, None] * [0, 1, 0]
    none = (np.empty(0, int), np.empty((0, 3)), np.empty(0))
    brain = Brain(np.arange(len(at)), at, None, 0.0, 1.0, [], np.zeros(bold.shape, bool), Distorted(shift, None, *none))
    frames, _ = interpolate_raw(bold, raw, brain, "cubic", None, None)
    ours, theirs = frames[0:24][::4].T, reference["bold"]
    assert np.abs(ours - theirs).max() < 0.002 * theirs.std()
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99999


CASES = [
    {"encoding": "i-", "kind": "oblique", "version": "23.2.0"},
    {"encoding": "j", "kind": "LAS", "levels": 2, "version": "24.1.1"},
    {"version": "26.0.0"},
]
MORE_CASES = [
    {"encoding": "j-"},
    {"encoding": "i", "kind": "LAS"},
    {"encoding": "k", "kind": "oblique"},
    {"has_field": False},
]


@pytest.mark.parametrize(
    "case",
    [*CASES, *(pytest.param(case, marks=pytest.mark.heavy) for case in MORE_CASES)],
    ids=lambda case: " ".join(map(str, case.values())),
)
def test_the_signal_of_a_place_is_found_wherever_it_landed(tmp_path, case):
    ours, truth, run = gridded(Minimal(tmp_path, **case))
    assert np.abs(ours - truth).max() < 0.06 * truth.std()
    assert np.corrcoef(ours.ravel(), truth.ravel())[0, 1] > 0.99999
    assert (run.corrected is None) == (not case.get("has_field", True))


def test_without_the_fieldmap_s_transform_distortion_stays(tmp_path):
    # fMRIPrep 22.1 and 23.0 kept fieldmaps, but not the way to them
    ours, truth, run = gridded(Minimal(tmp_path, version="22.1.1"))
    assert np.corrcoef(ours.ravel(), truth.ravel())[0, 1] < 0.999
    assert any("distortion is not corrected" in note and "no such transform" in note for note in run.notes)


def test_intensities_are_scaled_as_the_field_draws_the_signal_apart(tmp_path):
    # a scanner keeps the signal of a stretch of the head, which is then spread over more or fewer voxels
    case = Minimal(tmp_path, moves=0.0)
    axis = case.axis
    step = 0.01 * case.affine[:3, axis]

    def spread(volume):
        voxels = np.indices(volume.shape[:3]).reshape(3, -1).T.astype(float)
        undistorted = voxels.copy()
        for _ in range(12):
            points = apply_affine(case.affine, undistorted)
            undistorted[:, axis] = voxels[:, axis] - case.hertz(points) * case.readout
        slope = (case.hertz(points + step) - case.hertz(points - step)) / 0.02 * case.readout
        return volume / (1 + slope.reshape(volume.shape[:3]))[..., None]

    edit_image(case.raw / "sub-01" / "func" / f"{case.run}_bold.nii.gz", spread)
    scaled, truth, _ = gridded(case, jacobian="on")
    assert np.abs(scaled - truth).max() < 0.12 * truth.std()
    assert np.abs(gridded(case, jacobian="off")[0] - truth).max() > truth.std()


def test_slices_are_shifted_to_the_middle_of_the_volume(tmp_path):
    times = np.linspace(0, 1.9, 42)
    case = Minimal(tmp_path, slice_times=[*times[::2], *times[1::2]], n_volumes=24, moves=0.0, has_field=False)
    ours, truth, run = gridded(case)
    assert run.timing.start_time == pytest.approx(0.95)
    assert run.timing.slice_timing_corrected
    inner = slice(7, -7)  # beyond the ends nothing is known
    assert np.abs(ours[inner] - truth[inner]).max() < 0.05 * truth.std()
    first = gridded(case, slice_time_ref=0.0)
    assert first[2].timing.start_time == 0.0
    assert np.abs(first[0][inner] - first[1][inner]).max() < 0.05 * truth.std()
    assert np.abs(gridded(case, slice_timing="off")[0] - truth)[inner].max() > 0.05 * truth.std()


def test_the_field_is_the_sum_of_its_splines(tmp_path):
    case = Minimal(tmp_path, levels=2, n_volumes=2)
    fmap = case.derivatives / "sub-01" / "fmap"
    transform = next((case.derivatives / "sub-01" / "func").glob("*_to-auto00000_*.txt"))
    levels = tuple(sorted(fmap.glob("*coeff*")))
    field = read_field(Fieldmap("auto00000", levels, None, transform, None))
    points = np.random.RandomState(0).uniform(-60, 60, (40, 3))
    spline = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)
    there = apply_affine(np.linalg.inv(case.to_field), points)
    expected = np.zeros(40)
    for coefficients, affine in case.knots:
        weights = [
            np.nan_to_num(spline(at[:, None] - np.arange(n)))
            for at, n in zip(apply_affine(np.linalg.inv(affine), there).T, coefficients.shape, strict=True)
        ]
        expected += np.einsum("ni,nj,nk,ijk->n", *weights, coefficients)
    assert np.abs(field(points) - expected).max() < 1e-6


def test_the_field_ends_where_its_image_ends(tmp_path):
    case = Minimal(tmp_path, n_volumes=2)
    raw = source_of(case.derivatives, case.raw)[0].file.raw
    field = read_field(raw.fieldmap)
    far = apply_affine(case.to_field, np.array([[-134.0, 0, 0], [-126.0, 0, 0]]))  # its image starts at -130
    assert field(far)[0] == 0
    assert field(far)[1] != 0


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_without_the_compiled_code_the_numbers_are_the_same(interpolation, monkeypatch):
    assert gathering.library() is not None
    rng = np.random.RandomState(0)
    volume = prepared(rng.standard_normal((1, 9, 8, 7)).astype(np.float32), interpolation)[0]
    points = Points(rng.uniform(-9, 17, (500, 3)).astype(np.float32), rng.uniform(-1, 1, 500).astype(np.float32), 1)
    moved = np.eye(4) + 0.02 * rng.standard_normal((4, 4))
    ours = gather(volume, points, moved, interpolation)
    monkeypatch.setattr(gathering, "library", lambda: None)
    assert np.abs(ours - gather(volume, points, moved, interpolation)).max() < 2e-3
    assert (ours == 0).sum() > 10


def test_no_more_of_the_volumes_is_read_than_is_needed(tmp_path, monkeypatch):
    case = Minimal(tmp_path)
    ours = gridded(case)[0]
    monkeypatch.setattr("neurostorm_bids.resample.raw_series.MARGIN", {"linear": 99, "cubic": 99})
    assert np.abs(gridded(case)[0] - ours).max() < 0.01


def test_volumes_before_the_steady_state_are_found(tmp_path):
    case = Minimal(tmp_path, has_field=False, n_volumes=12)

    def brighten(data):
        data[..., :2] *= [1.8, 1.3]
        return data

    edit_image(case.raw / "sub-01" / "func" / f"{case.run}_bold.nii.gz", brighten)
    source, _ = source_of(case.derivatives, case.raw)
    assert non_steady_state(Bold(source.file.path)) == 2
    assert gridded(case, dummy_scans=None)[2].timing.dummy_scans == 2


@pytest.mark.parametrize(
    ("signal", "expected"), [([5.0] * 9, 0), ([1, 9, *[1, 2] * 9], 0), ([9, 8, 7.5, *[1, 2] * 9], 3)]
)
def test_only_outliers_at_the_start_count(signal, expected):
    assert outliers_at_start(np.array(signal, float)) == expected


def test_transforms_of_another_run_are_noticed(tmp_path):
    case = Minimal(tmp_path, n_volumes=2)
    edit_image(case.named("desc-hmc_boldref.nii.gz"), lambda data: data[:-2])
    with pytest.raises(NeurostormError, match=r"desc-hmc_boldref.*does not lie where"):
        gridded(case)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_one_interpolation_is_nearer_to_the_truth_than_two(tmp_path, interpolation):
    # the series in the template's space at its own resolution, as fMRIPrep --level full writes it: cubic, by maps of its own
    case = Minimal(tmp_path, n_volumes=3)
    shape, affine = (36, 42, 36), from_matvec(np.diag([5.2] * 3), [-92, -127, -75])
    points = case.at_grid(apply_affine(affine, np.indices(shape).reshape(3, -1).T))
    raw = nib.load(next((case.raw / "sub-01" / "func").glob("*.nii.gz"))).get_fdata()
    full = np.zeros((*shape, 3), np.float32)
    for v in range(3):
        at = apply_affine(np.linalg.inv(case.affine) @ case.motion[v], points)
        at[:, case.axis] += case.hertz(points) * case.readout
        full[..., v] = map_coordinates(raw[..., v], at.T, order=3, mode="grid-constant").reshape(shape)
    tree = Tree(tmp_path / "full")
    tree.run(data=full, mask=np.ones(shape, np.uint8), affine=affine, confounds=False)
    ours, truth, run = gridded(case, interpolation=interpolation)
    source, resampling = source_of(tree.path, case.raw, interpolation=interpolation, dummy_scans=0, mask="run")
    source = replace(
        source,
        mask=BrainMask(
            next(case.derivatives.rglob("*desc-brain_mask.nii.gz")),
            T1W,
            source_of(case.derivatives, case.raw)[0].transforms[:1],
        ),
    )
    twice = resample_run(source, FSL, resampling, 0, None, Progress("run", "1/1"))
    both = np.isin(run.brain, twice.brain)
    assert both.mean() > 0.95
    of_twice = twice.frames[0:3][:, np.isin(twice.brain, run.brain)]
    once, two = (np.sqrt(np.mean((values - truth[:, both]) ** 2)) for values in (ours[:, both], of_twice))
    print(f"{interpolation}: once {once:.3f}, twice {two:.3f}, of {truth.std():.0f}")
    assert once < (0.8 if interpolation == "cubic" else 1) * two

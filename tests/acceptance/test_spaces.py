"""One subject in every space that fMRIPrep writes comes to the same place in the grid."""

import itk
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from helpers import FMRIPREP_SPACE, FSL_SPACE, NARROW, Tree, lightning, random_network, save
from nibabel.affines import apply_affine
from scipy.ndimage import gaussian_filter

from neurostorm_bids.derivatives.tables import channels_of, read_table
from neurostorm_bids.find.templateflow import TemplateWarp
from neurostorm_bids.resample.grid import FSL

WARP = TemplateWarp(source=FMRIPREP_SPACE, target=FSL_SPACE)
# How points go from one world to the next (RAS, mm)
TO_2009C = nib.affines.from_matvec(np.diag([1.01, 1.02, 0.99]), [0.5, -1.5, 1.0])  # from MNI152NLin6Asym
TO_T1W = nib.affines.from_matvec(
    np.array([[0.92, 0.08, -0.03], [-0.07, 0.95, 0.1], [0.02, -0.09, 0.9]]), [4.0, 12.0, -9.0]
)  # from MNI152NLin2009cAsym
TO_BOLD = nib.affines.from_matvec(np.array([[1, -0.05, 0], [0.05, 1, 0.03], [0, -0.03, 1]]), [-2.0, 6.0, 5.0])
N_VOLUMES = 9


def world_of(affine, shape):
    return apply_affine(affine, np.indices(shape).reshape(3, -1).T)


class Subject:
    """A head that is a smooth function of place in MNI152NLin6Asym, so that it can be looked at from any space."""

    def __init__(self):
        rng = np.random.RandomState(5)
        self.affine = np.diag([4.0, 4, 4, 1])
        self.affine[:3, 3] = [-110, -146, -90]
        texture = gaussian_filter(rng.standard_normal((56, 64, 56, N_VOLUMES)), (3, 3, 3, 0))
        self.volume = 1000 + 150 * texture / texture.std()
        self.volume += 8 * apply_affine(self.affine, np.indices((56, 64, 56)).reshape(3, -1).T)[:, 0].reshape(
            56, 64, 56, 1
        )

    def at(self, points):
        """Signal (n, volumes) and brain (n,) at points of MNI152NLin6Asym."""
        from scipy.ndimage import map_coordinates

        voxels = apply_affine(np.linalg.inv(self.affine), points).T
        values = [map_coordinates(self.volume[..., t], voxels, order=3, mode="nearest") for t in range(N_VOLUMES)]
        brain = (((points - [0, -18, 10]) / [62, 78, 62]) ** 2).sum(axis=1) < 1
        return np.stack(values, axis=1).astype(np.float32), brain.astype(np.uint8)

    def write(self, tree, space, affine, shape, to_fsl):
        """Write the run as seen on a grid of voxels whose world points ``to_fsl`` takes to MNI152NLin6Asym."""
        values, brain = self.at(to_fsl(world_of(affine, shape)))
        return tree.run(space=space, data=values.reshape(*shape, -1), mask=brain.reshape(shape), affine=affine)


def box(size, start, oblique=False):
    """A grid of voxels of this size, mm, that begins at a corner."""
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = start
    if oblique:
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
        affine = turn @ affine
    return affine


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A data set with one run in four spaces, its transforms, and a TemplateFlow folder with the warp."""
    folder = tmp_path_factory.mktemp("subject")
    tree, head = Tree(folder / "fmriprep"), Subject()
    fsl_from_2009c, c_from_t1w, t1w_from_bold = (np.linalg.inv(m) for m in (TO_2009C, TO_T1W, TO_BOLD))
    bend = itk.smooth_field((20, 24, 20), 6.0)
    bend_affine = box((11, 11, 11), (-105, -140, -80))
    warp = itk.field_transform(bend, bend_affine)

    def apply(matrix):
        return lambda points: apply_affine(matrix, points)

    def unbend(points):
        """Invert p -> p + bend(p), in MNI152NLin2009cAsym."""
        flip = np.array([-1.0, -1.0, 1.0])
        inverse = points.copy()
        for _ in range(12):
            moved = np.array([warp.TransformPoint((p * flip).tolist()) for p in inverse]) * flip
            inverse += points - moved
        return inverse

    # points: MNI152NLin6Asym -affine-> 2009cAsym; 2009cAsym -bend, then affine-> T1w; T1w -affine-> BOLD
    def to_c(p):
        return apply_affine(fsl_from_2009c, p)

    def t1w_to_c(p):
        return to_c(unbend(apply_affine(c_from_t1w, p)))

    head.write(tree, f"space-{FSL_SPACE}_res-2", box((3, 3, 3), (-93, -129, -75)), (63, 75, 63), lambda p: p)
    head.write(tree, f"space-{FMRIPREP_SPACE}", box((3.5, 3.5, 3.5), (-98, -133, -79)), (56, 66, 58), to_c)
    head.write(tree, "space-T1w", box((3, 3, 3), (-95, -120, -90)), (64, 74, 62), t1w_to_c)
    head.write(
        tree,
        "",
        box((3, 3, 3), (-100, -115, -80), True),
        (66, 74, 62),
        lambda p: t1w_to_c(apply_affine(t1w_from_bold, p)),
    )
    anat, func = tree.path / "sub-01" / "anat", tree.path / "sub-01" / "func"
    itk.write(anat / f"sub-01_from-T1w_to-{FMRIPREP_SPACE}_mode-image_xfm.h5", itk.affine_transform(TO_T1W), warp)
    itk.write(
        func / "sub-01_task-rest_from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt", itk.affine_transform(TO_BOLD)
    )
    itk.write(
        folder / "templateflow" / f"tpl-{FSL_SPACE}" / WARP.name,
        itk.affine_transform(TO_2009C),
        itk.field_transform(np.zeros((4, 4, 4, 3)), bend_affine),
    )
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"])
    lightning(folder / "narrow.ckpt", network.state_dict(), **NARROW)
    return folder


pytestmark = pytest.mark.heavy
SPACES = {FSL_SPACE: 0, FMRIPREP_SPACE: 1, "T1w": 2, "bold": 3}  # and their steps


@pytest.fixture(scope="module")
def gridded(subject):
    """The run gridded from each space: NIfTI volumes, embeddings and sidecars."""
    import json

    from click.testing import CliRunner

    from neurostorm_bids.command.main import main

    results = {}
    for space, n_steps in SPACES.items():
        out = subject / space
        result = CliRunner().invoke(
            main,
            [str(subject / "fmriprep"), str(out), "participant", "--model", str(subject / "narrow.ckpt"), "--input-space", space, "--save-grid", "--target-tr", "native", "--interpolation", "cubic"],
            env={"TEMPLATEFLOW_HOME": str(subject / "templateflow")},
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        image = nib.load(next(out.rglob("*_desc-fsl_bold.nii.gz")))
        sidecar = json.loads(next(out.rglob("func/*embeddings.json")).read_text())
        assert len(sidecar["Preprocessing"]["Transforms"]) == n_steps
        assert sidecar["Preprocessing"]["InputSpace"] == space
        embedding = channels_of(read_table(next(out.rglob("func/*embeddings.tsv"))))
        results[space] = (np.asarray(image.dataobj, dtype=np.float32), embedding, sidecar)
    return results


@pytest.mark.parametrize("space", list(SPACES)[1:])
def test_the_grid_arrays_agree(gridded, space):
    reference, other = gridded[FSL_SPACE][0], gridded[space][0]
    both = (reference[..., 0] > reference.min()) & (other[..., 0] > other.min())
    assert both.sum() > 0.97 * (reference[..., 0] > reference.min()).sum()
    assert np.corrcoef(reference[both].ravel(), other[both].ravel())[0, 1] > 0.99999
    assert np.abs(reference[both] - other[both]).max() < 0.02  # of a standard deviation


@pytest.mark.parametrize("space", list(SPACES)[1:])
def test_the_embeddings_agree(gridded, space):
    reference, other = gridded[FSL_SPACE][1], gridded[space][1]
    cosine = (reference * other).sum(axis=1) / np.linalg.norm(reference, axis=1) / np.linalg.norm(other, axis=1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize("space", SPACES)
def test_left_stays_left(gridded, space):
    mean = gridded[space][0].mean(axis=3)  # brighter on the right by 8 a mm
    brain = mean > mean.min()
    x = world_of(FSL.matrix, FSL.shape)[:, 0].reshape(FSL.shape)
    assert np.corrcoef(x[brain], mean[brain])[0, 1] > 0.9


def test_the_nearest_space_is_taken(subject, neurostorm, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(subject / "templateflow"))
    _, _, said = neurostorm(subject / "fmriprep", subject / "any", "participant", "--model", subject / "narrow.ckpt")
    assert f"of space-{FSL_SPACE}_res-2 to grid fsl" in said


@pytest.mark.parametrize("space", ["T1w", "bold"])
def test_a_landmark_of_one_voxel_lands_where_its_transforms_say(subject, tmp_path, space):
    from neurostorm_bids import to_model_grid

    func, anat = subject / "fmriprep/sub-01/func", subject / "fmriprep/sub-01/anat"
    stem = "sub-01_task-rest_space-T1w" if space == "T1w" else "sub-01_task-rest"
    image = nib.load(func / f"{stem}_desc-preproc_bold.nii.gz")
    transforms = [
        subject / "templateflow" / f"tpl-{FSL_SPACE}" / WARP.name,
        anat / f"sub-01_from-T1w_to-{FMRIPREP_SPACE}_mode-image_xfm.h5",
        *([func / "sub-01_task-rest_from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt"] if space == "bold" else []),
    ]
    target = np.array([-30.0, -40, 26])  # MNI152NLin6Asym, left
    there = target[None]
    for path in transforms:
        there = itk.map_points(sitk.ReadTransform(str(path)), there)
    voxel = np.round(apply_affine(np.linalg.inv(image.affine), there)[0]).astype(int)
    data = np.full((*image.shape[:3], 2), 100, np.float32)
    data[(*voxel, slice(None))] = 1000
    bold = save(tmp_path / "b.nii.gz", data, image.affine, 2.0)
    grid = to_model_grid(
        bold, func / f"{stem}_desc-brain_mask.nii.gz", transforms=transforms, target_repetition_time=None
    )
    weights = grid.frames[:][0] - 100
    centre = (world_of(FSL.matrix, FSL.shape)[grid.brain] * weights[:, None]).sum(axis=0) / weights.sum()
    # the landmark is a voxel's centre, up to half a voxel from the target; take that part out
    landmark = apply_affine(image.affine, voxel[None])[0]
    offset = np.linalg.norm(landmark - there[0])
    assert np.linalg.norm(centre - target) < 1.0 + 1.2 * offset
    assert offset < 2.6


def test_swapped_transforms_are_refused(subject, tmp_path, neurostorm, monkeypatch):
    import shutil

    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(subject / "templateflow"))
    shutil.copytree(subject / "fmriprep", tmp_path / "d")
    far = nib.affines.from_matvec(TO_BOLD[:3, :3], [-2.0, 46.0, 25.0])  # BOLD 40 mm from T1w, as scanners leave it
    func = tmp_path / "d/sub-01/func"
    name = func / "sub-01_task-rest_from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt"
    shift = far @ np.linalg.inv(TO_BOLD)
    for path in (func / "sub-01_task-rest_desc-preproc_bold.nii.gz", func / "sub-01_task-rest_desc-brain_mask.nii.gz"):
        image = nib.load(path)
        save(path, np.asarray(image.dataobj), shift @ image.affine, 2.0 if image.ndim == 4 else None)
    call = (
        tmp_path / "d",
        tmp_path / "out",
        "participant",
        "--model",
        subject / "narrow.ckpt",
        "--input-space",
        "bold",
    )
    itk.write(name, itk.affine_transform(far))
    assert neurostorm(*call)[0] == 0
    itk.write(name, itk.affine_transform(np.linalg.inv(far)))
    status, _, said = neurostorm(*call)
    assert status == 1
    assert "its from and to are swapped" in said
    assert name.name in said


def test_without_the_warp_another_space_is_used_and_reported(subject, tmp_path, neurostorm, monkeypatch):
    import shutil

    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "empty"))
    shutil.copytree(subject / "fmriprep", tmp_path / "d")
    for path in (tmp_path / "d").rglob(f"*space-{FSL_SPACE}*"):
        path.unlink()
    anat = tmp_path / "d/sub-01/anat"
    warp = itk.field_transform(np.zeros((4, 4, 4, 3)), box((50, 50, 50), (-100, -100, -100)))
    itk.write(anat / f"sub-01_from-T1w_to-{FSL_SPACE}_mode-image_xfm.h5", itk.affine_transform(TO_T1W @ TO_2009C), warp)
    for path in (tmp_path / "d/sub-01/func").glob("*space-T1w*"):
        path.unlink()
    call = (tmp_path / "d", tmp_path / "out", "participant", "--model", subject / "narrow.ckpt")
    monkeypatch.setattr("neurostorm_bids.find.templateflow._fetched", lambda *_: (None, ""))
    status, _, said = neurostorm(*call)
    assert status == 0
    assert (
        f"space-{FMRIPREP_SPACE} would be nearer, but the warp between the templates is not there: space-bold is used"
        in said
    )
    assert neurostorm(*call[:1], tmp_path / "o2", *call[2:], "--template-warp", "require")[0] == 1

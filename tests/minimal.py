"""What fMRIPrep --level minimal leaves of a made-up run, and its raw series: the signal is known at every point and moment.

The signal is a formula of points of the BOLD reference and of time. The raw series is that formula at the points whose
signal lands on each voxel, found by iteration; so what is read from it can be compared with the truth and with nothing of ours.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
from helpers import save
from nibabel.affines import apply_affine, from_matvec
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

SHAPE, TR = (42, 50, 42), 2.0
FIELD_ID = "auto00000"
NAMES = {  # of fMRIPrep: head motion, its reference, coregistration, to the fieldmap
    "23.2.0": ("from-orig_to-boldref_mode-image_desc-hmc_xfm", "desc-hmc_boldref", "from-boldref_to-T1w_mode-image_desc-coreg_xfm", "from-boldref_to-{}_mode-image_xfm"),
    "24.1.1": ("from-orig_to-boldref_mode-image_desc-hmc_xfm", "desc-hmc_boldref", "from-boldref_to-T1w_mode-image_desc-coreg_xfm", "from-boldref_to-{}_mode-image_xfm"),
    "25.2.5": ("from-orig_to-boldref_mode-image_desc-hmc_xfm", "desc-hmc_boldref", "from-boldref_to-T1w_mode-image_desc-coreg_xfm", "from-boldref_to-{}_mode-image_desc-fmap_xfm"),
    "22.1.1": ("from-scanner_to-boldref_mode-image_xfm", "boldref", "from-scanner_to-T1w_mode-image_xfm", None),
    "26.0.0": ("from-orig_to-run_mode-image_desc-hmc_xfm", "space-orig_desc-hmc_boldref", "from-run_to-T1w_mode-image_desc-coreg_xfm", "from-run_to-{}_mode-image_desc-fmap_xfm"),
}  # fmt: skip


def storage(kind: str) -> np.ndarray:
    """Affine of the raw series, 5 mm, whose array covers the head: RAS, LAS, or oblique with axes y, x, z."""
    centre, size = np.array([0.0, -18.0, 8.0]), 5.2
    directions = {"RAS": np.eye(3), "LAS": np.diag([-1.0, 1, 1])}.get(kind)
    if directions is None:
        directions = Rotation.from_euler("xyz", [11, -7, 5], degrees=True).as_matrix() @ np.eye(3)[:, [1, 0, 2]]
    return from_matvec(directions * size, centre - directions @ (size * (np.array(SHAPE) - 1) / 2))


@dataclass
class Minimal:
    """One run; options say how it was acquired and kept.

    Parameters
    ----------
    folder : Path
        Gets raw/ and fmriprep/.
    """

    folder: Path
    version: str = "25.2.5"
    kind: str = "RAS"
    encoding: str = "j"
    levels: int = 1
    has_field: bool = True
    slice_times: list | None = None
    n_volumes: int = 5
    run: str = "sub-01_task-rest"
    sidecar: dict = field(default_factory=dict)
    moves: float = 1.0
    seed: int = 0

    def __post_init__(self):
        rng = np.random.RandomState(self.seed)
        self.affine = storage(self.kind)
        shifts, turns = (
            self.moves * rng.uniform(-1.5, 1.5, (self.n_volumes, 3)),
            self.moves * rng.uniform(-2, 2, (self.n_volumes, 3)),
        )
        self.motion = [
            from_matvec(Rotation.from_euler("xyz", t, degrees=True).as_matrix(), s)
            for t, s in zip(turns, shifts, strict=True)
        ]
        self.coreg = from_matvec(Rotation.from_euler("xyz", [3, -2, 4], degrees=True).as_matrix(), [4.0, -6, 3])
        self.norm = from_matvec(
            np.diag([1.03, 0.97, 1.02]) @ Rotation.from_euler("xyz", [1, 2, -1], degrees=True).as_matrix(), [1.0, 2, -2]
        )
        self.to_field = from_matvec(Rotation.from_euler("xyz", [2, 1, -3], degrees=True).as_matrix(), [2.0, 1, -1])
        self.knots = [
            (
                rng.uniform(-24, 24, (13 * (level + 1), 15 * (level + 1), 13 * (level + 1))) / 4**level,
                from_matvec(np.diag([30.0 / (level + 1)] * 3), np.array([-180.0, -228, -172]) / (level + 1)),
            )
            for level in range(self.levels)
        ]
        self.readout = 0.05 * (-1 if self.encoding.endswith("-") else 1) if self.has_field else 0.0
        self.axis = "ijk".index(self.encoding[0])
        self.write()

    def truth(self, points, seconds):
        """The signal at (n, 3) points of the BOLD reference."""
        x, y, z = np.asarray(points).T / 60
        anatomy = (
            1000
            + 150 * np.sin(2 * np.pi * x + 1) * np.cos(2 * np.pi * y)
            + 120 * np.sin(2 * np.pi * (z - 0.5 * x))
            + 2 * np.asarray(points)[:, 0]
        )
        return anatomy + 60 * np.sin(2 * np.pi * (x + y - z)) * np.sin(2 * np.pi * seconds / 23 + y)

    def hertz(self, points):
        """The field at points of the BOLD reference."""
        there = apply_affine(np.linalg.inv(self.to_field), points)
        return sum(
            map_coordinates(c, apply_affine(np.linalg.inv(a), there).T, order=3, prefilter=False, mode="grid-constant")
            for c, a in self.knots
        )

    def volume(self, v):
        """Volume v as the scanner sees it."""
        voxels = np.indices(SHAPE).reshape(3, -1).T.astype(float)
        undistorted = voxels.copy()
        back = np.linalg.inv(self.motion[v])
        for _ in range(12 if self.has_field else 1):
            points = apply_affine(back @ self.affine, undistorted)
            undistorted[:, self.axis] = voxels[:, self.axis] - self.hertz(points) * self.readout
        seconds = np.full(len(voxels), v * TR)
        if self.slice_times is not None:
            seconds += np.array(self.slice_times)[voxels[:, 2].astype(int)]
        return self.truth(apply_affine(back @ self.affine, undistorted), seconds).reshape(SHAPE)

    def at_grid(self, world):
        """Points of the template -> of the BOLD reference."""
        return apply_affine(self.coreg, apply_affine(self.norm, world))

    @property
    def raw(self):
        """The raw data set."""
        return self.folder / "raw"

    @property
    def derivatives(self):
        """What fMRIPrep left."""
        return self.folder / "fmriprep"

    def named(self, ending):
        """A file of the run in the derivatives."""
        return self.derivatives / "sub-01" / "func" / f"{self.run}_{ending}"

    def write(self):
        """Write both data sets."""
        hmc, reference, coreg, fmap = NAMES[self.version]
        data = np.stack([self.volume(v) for v in range(self.n_volumes)], axis=-1).astype(np.float32)
        save(self.raw / "sub-01" / "func" / f"{self.run}_bold.nii.gz", data, self.affine, TR)
        about = {"RepetitionTime": TR, "PhaseEncodingDirection": self.encoding, "TotalReadoutTime": 0.05}
        about |= {"SliceTiming": self.slice_times} if self.slice_times is not None else {}
        about = {key: value for key, value in (about | self.sidecar).items() if value is not None}
        (self.raw / "sub-01" / "func" / f"{self.run}_bold.json").write_text(json.dumps(about))
        (self.raw / "dataset_description.json").write_text(json.dumps({"Name": "raw", "BIDSVersion": "1.9.0"}))
        self.derivatives.mkdir(parents=True, exist_ok=True)
        made = {
            "Name": "d",
            "BIDSVersion": "1.9.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "fMRIPrep", "Version": self.version}],
        }
        (self.derivatives / "dataset_description.json").write_text(json.dumps(made))
        still = self.truth(apply_affine(self.affine, np.indices(SHAPE).reshape(3, -1).T), 0.0).reshape(SHAPE)
        save(self.named(f"{reference}.nii.gz"), still.astype(np.float32), self.affine)
        write_transforms(self.named(f"{hmc}.txt"), self.motion)
        write_transforms(self.named(f"{coreg}.txt"), [self.coreg])
        anat = self.derivatives / "sub-01" / "anat"
        itk.write(anat / "sub-01_from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5", itk.affine_transform(self.norm))
        self._write_mask(anat / "sub-01_desc-brain_mask.nii.gz")
        if self.has_field:
            self._write_field(fmap)

    def _write_mask(self, path):
        """The template's brain on the T1w image."""
        from neurostorm_bids.resample.template import template_mask

        brain, affine = template_mask()
        world = apply_affine(
            from_matvec(np.diag([3.0] * 3), [-100, -140, -90]), np.indices((66, 76, 66)).reshape(3, -1).T
        )
        there = np.round(apply_affine(np.linalg.inv(affine) @ np.linalg.inv(self.norm), world)).astype(int)
        inside = ((there >= 0) & (there < brain.shape)).all(axis=1)
        mask = np.zeros(len(world), np.uint8)
        mask[inside] = brain[tuple(there[inside].T)]
        save(path, mask.reshape(66, 76, 66), from_matvec(np.diag([3.0] * 3), [-100, -140, -90]))

    def _write_field(self, transform):
        fmap = self.derivatives / "sub-01" / "fmap"
        for level, (coefficients, affine) in enumerate(self.knots):
            number = "" if self.levels == 1 else str(level)
            save(
                fmap / f"sub-01_fmapid-{FIELD_ID}_desc-coeff{number}_fieldmap.nii.gz",
                coefficients.astype(np.float32),
                affine,
            )
        self.knots = [(c.astype(np.float32).astype(float), a) for c, a in self.knots]
        grid = from_matvec(np.diag([4.0] * 3), [-130, -160, -120])
        save(fmap / f"sub-01_fmapid-{FIELD_ID}_desc-magnitude_fieldmap.nii.gz", np.ones((65, 75, 65), np.float32), grid)
        if transform:
            write_transforms(self.named(f"{transform.format(FIELD_ID)}.txt"), [self.to_field])


def write_transforms(path, maps):
    """Write maps of points (RAS) as ITK's text."""
    lines = ["#Insight Transform File V1.0"]
    for i, matrix in enumerate(maps):
        m = itk.LPS @ matrix @ itk.LPS
        numbers = " ".join(f"{x:.12g}" for x in (*m[:3, :3].ravel(), *m[:3, 3]))
        lines += [
            f"#Transform {i}",
            "Transform: MatrixOffsetTransformBase_double_3_3",
            f"Parameters: {numbers}",
            "FixedParameters: 0 0 0",
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def edit_sidecar(path, **changes):
    """Change a JSON file; `None` removes a key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def edit_image(path, change):
    """Replace the data of an image by a function of them."""
    image = nib.load(path)
    save(path, change(np.asarray(image.dataobj)), image.affine)

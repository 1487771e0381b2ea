"""Small data sets, written to disk as fMRIPrep writes them."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

torch.set_num_threads(1)
os.environ.setdefault("TRITON_INTERPRET", "1")  # GPU kernels are run by Triton's interpreter, on the CPU

# A coarse box around the brain in world coordinates: 6 mm, RAS.
SHAPE = (32, 38, 32)
AFFINE = np.array([[6.0, 0, 0, -93], [0, 6.0, 0, -129], [0, 0, 6.0, -75], [0, 0, 0, 1]])
FSL_SPACE, FMRIPREP_SPACE = "MNI152NLin6Asym", "MNI152NLin2009cAsym"


def ellipsoid(shape=SHAPE):
    """A brain-shaped mask."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return (sum((x / r) ** 2 for x, r in zip(axes, (0.72, 0.78, 0.7), strict=True)) < 1).astype(np.uint8)


def signal(seed=0, shape=SHAPE, n_volumes=12):
    """A run, float32, whose left and right differ."""
    rng = np.random.RandomState(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    anatomy = 1000 + 200 * np.sin(5 * y) * np.cos(4 * z) + 150 * x
    return (anatomy[..., None] + 30 * rng.standard_normal((*shape, n_volumes))).astype(np.float32)


def save(path: Path, data, affine=AFFINE, repetition_time=None, unit="sec"):
    """Write a NIfTI file with its codes, units and TR set."""
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=4)
    image.header.set_xyzt_units("mm", unit)
    if repetition_time is not None:
        image.header["pixdim"][4] = repetition_time
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


class Tree:
    """An fMRIPrep data set that grows run by run."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        description = {
            "Name": "test",
            "BIDSVersion": "1.4.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.2.0"}],
        }
        (path / "dataset_description.json").write_text(json.dumps(description))

    def run(
        self,
        name="sub-01_task-rest",
        space=f"space-{FSL_SPACE}_res-2",
        data=None,
        mask=None,
        repetition_time=2.0,
        header_repetition_time=2.0,
        confounds=True,
        affine=AFFINE,
    ) -> Path:
        """Add one run; returns the path of its BOLD file."""
        stem = self.folder(name) / "_".join(part for part in (name, space) if part)
        data = signal() if data is None else data
        bold = save(Path(f"{stem}_desc-preproc_bold.nii.gz"), data, affine, header_repetition_time)
        save(Path(f"{stem}_desc-brain_mask.nii.gz"), ellipsoid(data.shape[:3]) if mask is None else mask, affine)
        sidecar = {"TaskName": "rest"} | ({"RepetitionTime": repetition_time} if repetition_time is not None else {})
        Path(f"{stem}_desc-preproc_bold.json").write_text(json.dumps(sidecar))
        if confounds:
            n = data.shape[3] if data.ndim > 3 else 1
            rows = ["n/a\t1.0", *(f"{0.1 * i:.1f}\t1.0" for i in range(1, n))]
            table = "\n".join(["framewise_displacement\tglobal_signal", *rows]) + "\n"
            (self.folder(name) / f"{name}_desc-confounds_timeseries.tsv").write_text(table)
        return bold

    def folder(self, name: str) -> Path:
        """Where the files of a run go."""
        entities = dict(part.split("-", 1) for part in name.split("_"))
        session = f"ses-{entities['ses']}" if "ses" in entities else ""
        folder = self.path / f"sub-{entities['sub']}" / session / "func"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@pytest.fixture
def tree(tmp_path):
    """An empty fMRIPrep data set."""
    return Tree(tmp_path / "fmriprep")


@pytest.fixture
def neurostorm(capsys):
    """Call the command in this process; returns exit status, stdout and stderr."""
    from neurostorm_bids.command.main import main

    def call(*args):
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return call

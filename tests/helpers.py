"""What the tests share: small data sets as fMRIPrep writes them, small networks, checkpoints, golden references."""

import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import rule
import torch

from neurostorm_bids.model.network import NeuroSTORM, NeuroSTORMConfig

TESTS = Path(__file__).parent
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"

# A coarse box around the brain in world coordinates: 6 mm, RAS.
SHAPE = (32, 38, 32)
AFFINE = np.array([[6.0, 0, 0, -93], [0, 6.0, 0, -129], [0, 0, 6.0, -75], [0, 0, 0, 1]])
RUN = "sub-01_task-rest"
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
        name=RUN,
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


class Results:
    """A raw data set with derivatives, and tables of embeddings in OUT_DIR as the participant level writes them.

    Parameters
    ----------
    folder : Path
        Gets raw/ and out/.
    label : str
        Of the model.
    """

    CHANNELS, WINDOW = 6, 16.0

    def __init__(self, folder: Path, seed=0, label="base"):
        self.raw, self.out, self.label = folder / "raw", folder / "out", label
        self.rng = np.random.default_rng(seed)
        derivatives = self.raw / "derivatives" / "fmriprep"
        derivatives.mkdir(parents=True)
        for path, kind in ((self.raw, "raw"), (derivatives, "derivative")):
            about = {"Name": "t", "BIDSVersion": "1.8.0", "DatasetType": kind, "GeneratedBy": [{"Name": "fMRIPrep"}]}
            (path / "dataset_description.json").write_text(json.dumps(about))

    def add(self, name, embeddings=None, label=None, onset=0.0):
        """Add one run of windows, with random embeddings and head motion unless they are given; returns its table."""
        entities = dict(part.split("-", 1) for part in name.split("_"))
        subject = f"sub-{entities['sub']}"
        folder = Path(subject, f"ses-{entities['ses']}" if "ses" in entities else "", "func")
        (self.raw / "derivatives" / "fmriprep" / folder).mkdir(parents=True, exist_ok=True)
        (self.out / folder).mkdir(parents=True, exist_ok=True)
        if embeddings is None:
            embeddings = self.rng.standard_normal((8, self.CHANNELS))
        n = len(embeddings)
        fd = self.rng.random((2, n))
        table = pd.DataFrame(
            {
                "onset": onset + self.WINDOW * np.arange(n),
                "duration": self.WINDOW,
                "mean_framewise_displacement": fd[0],
                "max_framewise_displacement": fd.max(axis=0),
                **{f"channel{i:03d}": column for i, column in enumerate(np.transpose(embeddings))},
            }
        )
        stem = self.out / folder / f"{name}_space-{FSL_SPACE}_desc-{label or self.label}_embeddings"
        table.to_csv(f"{stem}.tsv", sep="\t", index=False)
        about = {
            "SettingsHash": "x",
            "InputFiles": {},
            "FramewiseDisplacement": {"Mean": fd[0].mean(), "Max": fd.max()},
            "Windows": {"Count": n},
            **{name: {} for name in table if name.startswith("channel")},
        }
        stem.with_suffix(".json").write_text(json.dumps(about))
        return table


def full_confounds(tree, n_volumes, n_dummies=0, spike=None):
    """Write the confounds that nilearn's strategies ask for."""
    rng = np.random.RandomState(3)
    table = pd.DataFrame({"framewise_displacement": 0.1 + 0.01 * rng.random_sample(n_volumes)})
    for name in [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"] + [
        "csf",
        "white_matter",
        "global_signal",
    ]:
        values = rng.standard_normal(n_volumes).cumsum()
        table[name], table[f"{name}_power2"] = values, values**2
        change = np.diff(values, prepend=np.nan)
        table[f"{name}_derivative1"], table[f"{name}_derivative1_power2"] = change, change**2
    for i in range(3):
        table[f"cosine{i:02d}"] = np.cos(np.pi * (i + 1) * (np.arange(n_volumes) + 0.5) / n_volumes)
    table["std_dvars"] = 1.0
    components = [f"a_comp_cor_{i:02d}" for i in range(4)]
    for name in components:
        table[name] = rng.standard_normal(n_volumes)
    for i in range(n_dummies):
        table[f"non_steady_state_outlier{i:02d}"] = (np.arange(n_volumes) == i).astype(float)
    if spike is not None:
        table.loc[spike, "framewise_displacement"] = 2.0
    table.loc[0, "framewise_displacement"] = np.nan
    path = tree.folder(RUN) / f"{RUN}_desc-confounds_timeseries.tsv"
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    about = {name: {"Method": "aCompCor", "Mask": "combined", "Retained": True} for name in components}
    path.with_suffix(".json").write_text(json.dumps(about))
    return table


def golden(name):
    """A reference: its description, its arrays, and the weights it was made with."""
    about = json.loads((GOLDEN / f"{name}.json").read_text())
    arrays = np.load(GOLDEN / f"{name}.npz")
    return about, arrays, {key: torch.from_numpy(np.asarray(w)) for key, w in rule.weights(about["shapes"]).items()}


def config_of_golden(about):
    """The configuration of the network that a reference was made with."""
    fields = NeuroSTORMConfig.__dataclass_fields__
    config = {name: value for name, value in about["config"].items() if name in fields}
    return NeuroSTORMConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in config.items()})


def lightning(path, weights, **hyper_parameters):
    """Write a checkpoint as Lightning 1.9 does."""
    content = {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "1.9.4",
        "state_dict": weights,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'valid_acc'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3}]}],
        "lr_schedulers": [],
        "hyper_parameters": hyper_parameters,
    }
    torch.save(content, path)
    return path


SMALL = {
    "img_size": (24, 24, 24, 6),
    "embed_dim": 8,
    "depths": (1, 2),
    "patch_size": (6, 6, 6, 1),
    "window_size": (4, 4, 4, 4),
    "first_window_size": (4, 4, 4, 4),
    "last_layer_full_MSA": True,
}

# A quick model: 4 x 4 x 4 tokens, 6 frames
NARROW = {**SMALL, "img_size": (96, 96, 96, 6), "patch_size": (24, 24, 24, 1)}


def random_network(**changes):
    torch.manual_seed(0)
    network = NeuroSTORM(NeuroSTORMConfig(**{**SMALL, **changes}))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def narrow_model(path, **hyper_parameters):
    """Write the checkpoint of a quick model with random weights, with a head if there is a task."""
    head = {"head": "v1", "n_outputs": 1} if hyper_parameters else {}
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"], **head)
    return lightning(path, network.state_dict(), **NARROW, **hyper_parameters)


def textbook_scan(u, delta, A, B, C):
    """The recurrence as one product over all steps, in float64."""
    u, delta, A, B, C = (x.double() for x in (u, delta, A, B, C))
    decay = torch.exp(delta[..., None] * A)  # (S, L, D, N)
    drive = (delta * u)[..., None] * B[:, :, None]
    state, outputs = torch.zeros_like(drive[:, 0]), []
    for step in range(u.shape[1]):
        state = decay[:, step] * state + drive[:, step]
        outputs.append(torch.einsum("sdn,sn->sd", state, C[:, step]))
    return torch.stack(outputs, dim=1)


def rewrite(path, target, *, pickled=None, compress=False, drop=()):
    """Copy a checkpoint with another pickle, compression, or without some members."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if any(part in name for part in drop):
                continue
            data = pickled if pickled is not None and name.endswith("data.pkl") else old.read(name)
            new.writestr(name, data, zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED)
    return target

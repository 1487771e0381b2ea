"""A region that carries a label, planted in phantoms: through fine-tuning on whole runs, is it the region that maps rank first?

Every cell of 48 mm rises or falls over a run, by chance; one falls in half of the people and rises in the others, which is the label. A small
network with random weights is fine-tuned on 96 people by the command, and maps are made of 20 others, by the command. Takes 20 minutes.
"""

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import apply_affine

from benchmarks.measure import print_table
from neurostorm_bids.demo.dataset import write_json
from neurostorm_bids.derivatives.tables import read_table
from neurostorm_bids.group.level import group_level
from neurostorm_bids.model.checkpoint import Checkpoint, write_safetensors
from neurostorm_bids.model.initial import new_network
from neurostorm_bids.model.network import NeuroSTORM, NeuroSTORMConfig
from neurostorm_bids.participant.level import participant_level
from neurostorm_bids.resample.grid import FSL
from neurostorm_bids.resample.sampler import nearest
from neurostorm_bids.resample.template import template_mask
from neurostorm_bids.runtime.atomic import write_text
from neurostorm_bids.runtime.json_files import read_json
from neurostorm_bids.settings import Settings

SHAPE, FRAMES = (32, 38, 32), 12
AFFINE = np.array([[6.0, 0, 0, -93], [0, 6, 0, -129], [0, 0, 6, -75], [0, 0, 0, 1]])
EDGE = 24  # voxels of the grid: 48 mm, the network's patches
PLANTED = (1, 2, 2)  # the cell, of 4 x 4 x 4
SLOPE, NOISE = 60.0, 30.0  # of a mean of 1000, from the middle to an end of the run; standard deviation
CONFIG = {
    "img_size": [96, 96, 96, 6], "patch_size": [24, 24, 24, 1], "embed_dim": 8, "depths": [1, 2], "first_window_size": [4, 4, 4, 4],
    "window_size": [4, 4, 4, 4], "last_layer_full_MSA": True,
}  # fmt: skip


def write_people(folder: Path, n: int, seed: int) -> None:
    """Write runs as fMRIPrep lays them out, and what the people differ in."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    anatomy = 1000 + 200 * np.sin(5 * y) * np.cos(4 * z) + 150 * x
    template, of_template = template_mask()
    world = apply_affine(AFFINE, np.indices(SHAPE).reshape(3, -1).T)
    brain = nearest(template, apply_affine(np.linalg.inv(of_template), world)).reshape(SHAPE).astype(np.uint8)
    in_grid = apply_affine(np.linalg.inv(FSL.matrix) @ AFFINE, np.indices(SHAPE).reshape(3, -1).T)
    cells = np.ravel_multi_index((np.clip(np.round(in_grid), 0, 95).astype(int) // EDGE).T, (4, 4, 4)).reshape(SHAPE)
    rows = ["participant_id\tsex"]
    for i in range(n):
        rng, label = np.random.RandomState(seed + i), i % 2
        signs = rng.choice([-1.0, 1.0], 64)
        signs[np.ravel_multi_index(PLANTED, (4, 4, 4))] = 2 * label - 1
        ramps = SLOPE * signs[cells][..., None] * np.linspace(-1, 1, FRAMES)
        data = anatomy[..., None] + ramps + NOISE * rng.standard_normal((*SHAPE, FRAMES))
        func = folder / f"sub-{i:03d}" / "func"
        func.mkdir(parents=True)
        stem = f"{func}/sub-{i:03d}_task-rest_space-MNI152NLin6Asym_res-2_desc-"
        _save(f"{stem}preproc_bold.nii.gz", data.astype(np.float32))
        _save(f"{stem}brain_mask.nii.gz", brain)
        write_json(Path(f"{stem}preproc_bold.json"), {"RepetitionTime": 0.8, "TaskName": "rest"})
        rows.append(f"sub-{i:03d}\t{'FM'[label]}")
    write_text(folder / "participants.tsv", "\n".join([*rows, ""]))
    about = {"Name": "planted", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
    write_json(
        folder / "dataset_description.json", {**about, "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.2.0"}]}
    )


def _save(path: str, data: np.ndarray) -> None:
    image = nib.Nifti1Image(data, AFFINE)
    image.set_sform(AFFINE, code=4)
    image.set_qform(AFFINE, code=4)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def run() -> None:
    """Print the table."""
    folder = Path(tempfile.mkdtemp())
    write_people(folder / "train", 96, 1000)
    write_people(folder / "others", 20, 5000)
    network = new_network(
        lambda: NeuroSTORM(NeuroSTORMConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in CONFIG.items()})),
        0,
    )  # type: ignore[arg-type]
    weights = {name: tensor.to(torch.float32) for name, tensor in network.state_dict().items()}
    write_safetensors(Checkpoint(folder / "new.safetensors", weights, CONFIG), folder / "new.safetensors")
    cells = np.ravel_multi_index((np.indices(FSL.shape).reshape(3, -1) // EDGE), (4, 4, 4)).reshape(FSL.shape) + 1
    nib.save(nib.Nifti1Image(cells.astype(np.int16), FSL.matrix), folder / "atlas-cells_dseg.nii.gz")
    part = ("train",) * 4 + ("test",) * 2 + ("train",) * 2 + ("validation",) * 2 + ("train",) * 2
    rows = [f"sub-{i:03d}\t{part[i % 12]}" for i in range(96)]
    write_text(folder / "split.tsv", "\n".join(["participant_id\tsplit", *rows, ""]))
    tuning = {
        "group_task": "finetune", "target": ("sex",), "tuning": "full", "epochs": 70, "patience": 70, "batch_size": 16, "learning_rate": 5e-3,
        "augmentation": "none", "windows_per_sample": 2, "split": folder / "split.tsv", "save_as": "sex", "random_seed": 1,
    }  # fmt: skip
    group_level(
        Settings.of(folder / "train", folder / "out", "group", model=(str(folder / "new.safetensors"),), **tuning)
    )
    mapping = {"attribution": True, "attribution_windows": 2, "attribution_parcels": folder / "atlas-cells_dseg.nii.gz"}
    tuned = (str(folder / "out" / "models" / "sex"),)
    participant_level(Settings.of(folder / "others", folder / "maps", model=tuned, **mapping))
    label = f"label {int(np.ravel_multi_index(PLANTED, (4, 4, 4))) + 1}"
    tables = [read_table(path) for path in sorted((folder / "maps").rglob("*_statmap.tsv"))]
    rows_of_table = []
    for column in ("attribution", "occlusion", "attribution_random_weights"):
        first = [table["name"][table[column].abs().argmax()] == label for table in tables]
        rows_of_table.append((column.replace("_", " "), f"{sum(first)} of {len(first)}", f"{len(tables[0])}"))
    print_table(
        "A planted region, through fine-tuning, in people who were not trained on",
        ("by", "it ranks first in", "regions"),
        rows_of_table,
    )
    abouts = [read_json(path) for path in sorted((folder / "maps").rglob("*_statmap.json")) if "_seg-" not in path.name]
    rows_of_checks = []
    for k, check in enumerate(abouts[0]["Checks"]):
        of_people = [about["Checks"][k]["Passed"] for about in abouts]
        rows_of_checks.append((check["Name"], *(str(of_people.count(which)) for which in (True, None, False))))
    print_table(f"Their {len(abouts)} maps by check", ("check", "passed", "open", "failed"), rows_of_checks)

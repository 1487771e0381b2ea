"""The whole participant level: a run of 2 mm, gzip, from file to embedding with a model of the base size."""

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from isal import igzip

from benchmarks.measure import in_own_process, print_table
from benchmarks.resampling import brain_mask
from neurostorm_bids.model.network import NeuroSTORM, NeuroSTORMConfig

SHAPE = (91, 109, 91)
AFFINE = np.array([[2.0, 0, 0, -90], [0, 2.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1]])
LENGTHS = (300, 3000)

COMMAND = """
from neurostorm_bids.command.main import main
from neurostorm_bids.participant import one_run
embed_windows = one_run.embed_windows
def timed(*args, **more):
    began = time.perf_counter()
    windows = embed_windows(*args, **more)
    result["encoding"] = time.perf_counter() - began
    return windows
one_run.embed_windows = timed
try:
    main(values["command"])
except SystemExit as stop:
    result["status"] = stop.code
"""


def write_run(folder: Path, n_volumes: int) -> None:
    """An fMRIPrep data set with one run of noise in a brain, TR 2 s."""
    func = folder / "sub-01" / "func"
    func.mkdir(parents=True)
    stem = f"{func}/sub-01_task-rest_space-MNI152NLin6Asym_res-2_desc-"
    mask, rng = brain_mask(SHAPE), np.random.RandomState(0)
    anatomy = (1000 + 200 * rng.standard_normal(SHAPE)) * mask
    volumes = [np.round((anatomy + 20 * rng.standard_normal(SHAPE)) * mask).astype("<i2") for _ in range(10)]
    header = nib.Nifti1Header()
    header.set_data_shape((*SHAPE, n_volumes))
    header.set_data_dtype(np.int16)
    header.set_sform(AFFINE, 4)
    header.set_xyzt_units("mm", "sec")
    header.set_zooms((2, 2, 2, 2.0))
    header["vox_offset"] = header.single_vox_offset
    with igzip.open(f"{stem}preproc_bold.nii.gz", "wb", compresslevel=2) as file:
        file.write(header.binaryblock + bytes(header.single_vox_offset - len(header.binaryblock)))
        for i in range(n_volumes):
            file.write((volumes[i % 10] + (i % 7) * mask).astype("<i2").tobytes(order="F"))
    nib.save(nib.Nifti1Image(mask, AFFINE), f"{stem}brain_mask.nii.gz")
    Path(f"{stem}preproc_bold.json").write_text('{"RepetitionTime": 2.0}')
    made = {"Name": "benchmark", "BIDSVersion": "1.8.0", "DatasetType": "derivative"}
    (folder / "dataset_description.json").write_text(json.dumps(made))


def write_model(path: Path) -> None:
    """A checkpoint of the base model's size; what its weights are does not change the time."""
    config = NeuroSTORMConfig()
    torch.manual_seed(0)
    names = ("img_size", "patch_size", "depths", "first_window_size", "window_size", "embed_dim", "last_layer_full_MSA")
    hyper_parameters = {name: getattr(config, name) for name in names}
    torch.save({"state_dict": NeuroSTORM(config).state_dict(), "hyper_parameters": hyper_parameters}, path)


def run() -> None:
    """Seconds and peak memory of the command, for a short and a long run."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model.ckpt")
        for n in LENGTHS:
            write_run(folder / str(n), n)
            command = [folder / str(n), folder / f"out{n}", "participant", "--model", folder / "model.ckpt"]
            measured = in_own_process(COMMAND, command=[str(part) for part in command])
            assert measured["status"] == 0
            seconds, encoding, n_windows = measured["seconds"], measured["encoding"], int(n * 2 / 0.8) // 20
            rest, peak = seconds - encoding, measured["peak_mb"]
            rows.append((n, n_windows, f"{seconds:.1f}", f"{encoding:.1f}", f"{rest:.1f}", f"{peak:.0f}"))
    print_table(
        "From file to embedding, the whole command, one run of 2 mm, TR 2 s, gzip",
        ("volumes", "windows", "seconds", "of these encoding", "the rest", "peak memory (MB)"),
        rows,
    )

"""Pretraining: a step of the base autoencoder, clips a second from stores, and memory with many runs."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import in_own_process, print_table
from neurostorm_bids.derivatives.gridded_files import write_int8
from neurostorm_bids.resample.grid import FSL
from neurostorm_bids.resample.gridded import GriddedRun, Statistics
from neurostorm_bids.resample.template import template_brain
from neurostorm_bids.resample.timing import RunTiming, TimeMap

N_FRAMES = 240

STEP = """
import statistics, time
import torch
from benchmarks.encoding import textbook_scan
from neurostorm_bids.model import network as model
from neurostorm_bids.model.mae import recompute_blocks
from neurostorm_bids.model.masks import Masking
from neurostorm_bids.model.pretrained import config_of_size, new_autoencoder
if values["textbook"]:
    model.scan_for = lambda *_: textbook_scan
network = new_autoencoder(config_of_size((values["size"],)), Masking(), 0)
if values["again"]:
    recompute_blocks(network)
clip, seconds = torch.randn(1, 1, *network.config.img_size), []
hidden = network.draw(1, torch.Generator().manual_seed(0))
for _ in range(values["rounds"]):
    started = time.perf_counter()
    network.loss(clip, hidden).backward()
    seconds.append(time.perf_counter() - started)
result["step"] = statistics.median(seconds[1:] or seconds)
"""

READ = """
import time
from pathlib import Path
import numpy as np
from neurostorm_bids.derivatives.store_index import index_of
from neurostorm_bids.model.masks import Masking
from neurostorm_bids.train.pretrain_data import PretrainingWindows, Views
folder = Path(values["folder"])
paths = sorted(folder.glob("*.npy"))
started = time.perf_counter()
index, _ = index_of(paths, folder / "index.npz")
result["index"] = time.perf_counter() - started
started = time.perf_counter()
index, _ = index_of(paths, folder / "index.npz")
result["again"] = time.perf_counter() - started
data = PretrainingWindows(index, np.arange(len(index)), 20, Views(Masking(), 320, "none"), 0, shifted=True)
order = np.random.default_rng(0).permutation(len(data))[:60]
data[0, int(order[0])]
started = time.perf_counter()
for i in order:
    data[0, int(i)]
result["clips"] = len(order) / (time.perf_counter() - started)
"""


def steps() -> None:
    """A step of one clip, forward and backward."""
    rows = []
    for size, textbook, again, rounds in (
        ("base", True, False, 2),
        ("base", False, False, 4),
        ("base", False, True, 4),
        ("narrow", False, False, 4),
    ):
        found = in_own_process(STEP, size=size, textbook=textbook, again=again, rounds=rounds)
        how = "textbook" if textbook else "as installed"
        rows.append((size, how, "yes" if again else "no", f"{found['step']:.2f}", f"{found['peak_mb']:.0f}"))
    print_table(
        "Step of the masked autoencoder, one clip of 96 x 96 x 96 x 20, fp32",
        ("size", "scan", "--activation-checkpointing", "seconds", "peak memory (MB)"),
        rows,
    )


def one_store(folder: Path) -> Path:
    """Write the store of a run of noise in the template's brain."""
    brain = np.flatnonzero(template_brain(FSL))
    frames = np.random.default_rng(0).standard_normal((N_FRAMES, len(brain)), dtype=np.float32)
    time_map = TimeMap(np.arange(N_FRAMES), np.zeros(N_FRAMES), 0.8)
    run = GriddedRun(FSL, brain, frames, time_map, RunTiming(0.8, "made up"), Statistics(0.0, 1.0, -4.0, 5.0))
    write_int8(folder / "run.npy", run, "benchmark")
    return folder / "run.npy"


def many_stores(folder: Path, n: int) -> None:
    """Write the stores of so many runs, whose files are sparse."""
    real = one_store(folder.parent)
    about, shape = real.with_suffix(".json").read_text(), np.load(real, mmap_mode="r").shape
    folder.mkdir()
    for i in range(n):
        path = folder / f"run-{i:06d}.npy"
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|i1", "fortran_order": False, "shape": shape})
            file.truncate(real.stat().st_size)
        path.with_suffix(".json").write_text(about)


def reading() -> None:
    """Clips a second from stores, one process; index and memory with many stores, whose files are sparse."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for n in (100, 10_000, 100_000):
            folder = Path(place) / str(n)
            many_stores(folder, n)
            found = in_own_process(READ, folder=str(folder))
            cells = (
                f"{found['index']:.1f}",
                f"{found['again']:.1f}",
                f"{found['clips']:.0f}",
                f"{found['peak_mb']:.0f}",
            )
            rows.append((f"{n:,}", *cells))
            shutil.rmtree(folder)
    print_table(
        f"Reading windows of 20 frames at random, runs of {N_FRAMES} frames (sparse files), one process",
        ("runs", "index, made (s)", "index, checked (s)", "clips a second", "peak memory (MB)"),
        rows,
    )


def run() -> None:
    """Everything about pretraining."""
    print(f"\nPyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    steps()
    reading()

"""Training: one step of the base model on one clip, forward and backward, with and without the compiled scan."""

import torch

from benchmarks.measure import in_own_process, print_table

ONE_STEP = """
import statistics, time
import torch
from neurostorm_bids.model import network as model
from neurostorm_bids.model.scan.reference import selective_scan
from neurostorm_bids.train.plan import Plan
from neurostorm_bids.train.tuning import prepare_for_tuning
if values["loop"]:
    model.scan_for = lambda *_: selective_scan
plan = Plan(values["tuning"], epochs=1, patience=1, batch_size=1, device=torch.device("cpu"))
network = prepare_for_tuning(model.NeuroSTORM(model.NeuroSTORMConfig()), 1, plan)
clip, seconds = torch.randn(1, 1, 96, 96, 96, 20), []
for _ in range(4):
    started = time.perf_counter()
    network.output_head(network.embed(clip)).sum().backward()
    seconds.append(time.perf_counter() - started)
result["step"] = statistics.median(seconds[1:])
"""


def run() -> None:
    """A step by every tuning."""
    print(f"\nPyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    rows = []
    for tuning in ("full", "lora", "layernorm", "prompt"):
        for loop in (True, False) if tuning == "full" else (False,):
            found = in_own_process(ONE_STEP, loop=loop, tuning=tuning)
            how = "loop over tokens" if loop else "compiled"
            rows.append((tuning, how, f"{found['step']:.2f}", f"{found['peak_mb']:.0f}"))
    print_table(
        "Training step of the base model, one clip, fp32", ("tuning", "scan", "seconds", "peak memory (MB)"), rows
    )

"""Attribution: seconds and memory of one window of a base model with random weights, step by step."""

from benchmarks.measure import in_own_process, print_table

STEP = """
import torch
from dataclasses import replace
from neurostorm_bids.explain import checks
from neurostorm_bids.explain.gradients import integrated_gradients
from neurostorm_bids.explain.occlusion import occlude
from neurostorm_bids.explain.target import Target
from neurostorm_bids.model.initial import random_network
from neurostorm_bids.model.network import NeuroSTORMConfig
from neurostorm_bids.resample.grid import FSL
from neurostorm_bids.resample.parcels import blocks
network = checks.random_like(random_network(NeuroSTORMConfig()), 0)
network = checks.random_like(type(network)(replace(network.config, head="v1", n_outputs=1)), 0)
clip, baseline = torch.randn(2, 96, 96, 96, 20, generator=torch.Generator().manual_seed(0))
target = Target("x", "logit")
output = lambda x: target.of(network, x)
parcels = blocks(FSL)
numbers = torch.from_numpy(parcels.numbers.reshape(FSL.shape))
if values["what"] == "gradients":
    result["n"] = integrated_gradients(output, clip, baseline, nodes=(16,)).nodes
else:
    occlude(output, clip, baseline, numbers)
    result["n"] = len(parcels)
"""


def run() -> None:
    """Print the table."""
    rows = []
    for name, what in (("integrated gradients", "gradients"), ("occlusion by blocks of 24 mm", "occlusion")):
        done = in_own_process(STEP, what=what)
        rows.append((name, f"{done['n']:.0f}", f"{done['seconds']:.0f}", f"{done['peak_mb']:.0f}"))
    print_table(
        "Explaining one window of the base model, with start-up",
        ("", "gradients or parcels", "seconds", "peak memory (MB)"),
        rows,
    )

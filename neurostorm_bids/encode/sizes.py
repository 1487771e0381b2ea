"""How much memory encoding takes, how many windows fit at a time, and which precisions a device has."""

import math
from collections.abc import Sequence

import torch

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model import cpu_encoder
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.scan import kernels
from neurostorm_bids.runtime.process import MB, resident_mb
from neurostorm_bids.settings.participant import Resources

MAX_WINDOWS_ON_GPU = 16  # at a time
RESAMPLING_MB = 420  # beside what the libraries take: measured on runs of 2 mm
GPU_SHARE = 0.8  # of the free memory of a GPU that is planned with
# Arrays of the first stage's tokens and channels (float32) that are in memory at a time: measured
ARRAYS_COMPILED, ARRAYS_PLAIN = 20, 50


def window_mb(model: Model) -> float:
    """Return the memory that encoding one window takes, MB."""
    config = model.network.config
    with torch.inference_mode():
        n_arrays = ARRAYS_COMPILED if cpu_encoder.available(model.network) else ARRAYS_PLAIN
    return n_arrays * 4 * math.prod(config.grid(0)) * config.n_frames * config.embed_dim / MB


def run_mb(models: Sequence[Model], n_windows: Sequence[int]) -> float:
    """Return the memory that a run takes from file to embedding, MB.

    Parameters
    ----------
    n_windows : sequence of int
        How many each of the models encodes at a time.
    """
    of_encoding = max(window_mb(model) * n for model, n in zip(models, n_windows, strict=True))
    return resident_mb() + RESAMPLING_MB + of_encoding


def check_precision(models: Sequence[Model], precision: str) -> None:
    """Refuse a half precision where it would only be slower.

    Raises
    ------
    NeurostormError
        If the processor has no instructions for it, or the compiled kernels are missing.
    """
    on_cpu = any(model.device.type == "cpu" for model in models)
    if precision == "bf16" and on_cpu and not kernels.library():
        raise NeurostormError(
            "--precision bf16 on a CPU needs the compiled kernels, which this installation lacks; install it again where "
            "there is a C compiler, or use --precision fp32"
        )
    if precision == "bf16" and on_cpu and not cpu_encoder.has_bfloat16():
        raise NeurostormError("--precision bf16: this processor has no bfloat16 instructions; use --precision fp32")
    if precision == "fp16" and on_cpu:
        raise NeurostormError("--precision fp16 is for GPUs; on a CPU use --precision fp32, or bf16")


def check_memory(models: Sequence[Model], resources: Resources) -> None:
    """Say before the work begins that --mem-mb is too little for it.

    Raises
    ------
    NeurostormError
        With what is needed.
    """
    if resources.mem_mb is None:
        return
    needed = math.ceil(run_mb(models, [1] * len(models)) * resources.nprocs)
    if resources.mem_mb < needed:
        raise NeurostormError(
            f"--mem-mb {resources.mem_mb} is too little: {resources.nprocs} run(s) at a time need about {needed} MB; "
            "give more" + (", or use a smaller --nprocs" if resources.nprocs > 1 else "")
        )


def batch_size(model: Model, resources: Resources, wanted: int | None = None) -> int:
    """Return how many windows to encode at a time.

    On a GPU as many as its free memory holds, up to where more would not keep more of it busy. On a CPU one, since more
    do not help, and never more than --mem-mb holds.

    Parameters
    ----------
    wanted : int, optional
        The user's choice.
    """
    if model.device.type == "cuda":
        free_mb = torch.cuda.mem_get_info(model.device)[0] / MB / resources.nprocs
        return wanted or max(1, min(MAX_WINDOWS_ON_GPU, int(GPU_SHARE * free_mb / window_mb(model))))
    if resources.mem_mb is None:
        return wanted or 1
    left = resources.mem_mb / resources.nprocs - resident_mb()
    return max(1, min(wanted or 1, int(left / window_mb(model))))

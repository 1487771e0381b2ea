"""Encoding: the selective scan and the whole encoder of the base model, each way there is, side by side."""

import torch
import torch.nn.functional as F

from benchmarks.measure import in_own_process, print_table, side_by_side
from neurostorm_bids.model import backend
from neurostorm_bids.model import network as model
from neurostorm_bids.model.network import NeuroSTORM, NeuroSTORMConfig
from neurostorm_bids.model.scan import kernels
from neurostorm_bids.model.scan.kernels import ScanArrays
from neurostorm_bids.model.scan.reference import selective_scan

WINDOWS, TOKENS, CHANNELS, STATES = 320, 256, 72, 16  # the first stage of one clip

ONE_CLIP = """
import torch
from neurostorm_bids.model.backend import embed
from neurostorm_bids.model.network import NeuroSTORM, NeuroSTORMConfig
network, clip = NeuroSTORM(NeuroSTORMConfig()).eval(), torch.randn(1, 1, 96, 96, 96, 20)
with torch.inference_mode():
    for _ in range(3):
        embed(network, clip)
"""


def textbook_scan(u, delta, A, B, C):
    """The reference as textbooks give it: all (windows, channels, tokens, states) coefficients are built first."""
    u, delta, B, C = (x.transpose(1, 2).contiguous() for x in (u, delta, B, C))
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    state, outputs = u.new_zeros(u.shape[0], u.shape[1], A.shape[1]), []
    # unbound at once: the gradient of one slice after the other would fill all coefficients anew for each token
    for decayed, driven, read in zip(decay.unbind(2), drive.unbind(2), C.unbind(2), strict=True):
        state = decayed * state + driven
        outputs.append(torch.einsum("bdn,bn->bd", state, read))
    return torch.stack(outputs, dim=2).transpose(1, 2)


def scan() -> None:
    """The scan of one block of the first stage, whole machine."""
    u, delta = torch.randn(2, WINDOWS, TOKENS, CHANNELS)
    delta = F.softplus(delta - 3)
    A = -torch.arange(1.0, STATES + 1).repeat(CHANNELS, 1)
    BC = torch.randn(WINDOWS, TOKENS, 2 * STATES)
    B, C = BC.split(STATES, dim=2)
    D, out, by_state = torch.zeros(CHANNELS), torch.empty_like(u), A.T.contiguous()
    n = torch.get_num_threads()

    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(n)

    def compiled() -> None:
        parts = [slice(i * WINDOWS // n, (i + 1) * WINDOWS // n) for i in range(n)]
        list(pool.map(lambda p: kernels.scan(ScanArrays(u[p], delta[p], by_state, BC[p]), D, None, out[p]), parts))

    ways = {
        "textbook": lambda: textbook_scan(u, delta, A, B, C),
        "loop over tokens": lambda: selective_scan(u, delta, A, B, C),
    }
    if kernels.library() is not None:
        ways["compiled"] = compiled
    with torch.inference_mode():
        seconds = side_by_side(ways, rounds=3)
        assert torch.allclose(out, selective_scan(u, delta, A, B, C), atol=1e-4) or "compiled" not in ways
    rows = [(name, f"{s:.3f}", f"{seconds['textbook'] / s:.0f}") for name, s in seconds.items()]
    print_table(
        f"Selective scan, {WINDOWS} windows x {TOKENS} tokens x {CHANNELS} channels x {STATES} states",
        ("", "seconds", "times quicker"),
        rows,
    )


def encoder() -> None:
    """The base encoder, one clip."""
    network, clip = NeuroSTORM(NeuroSTORMConfig()).eval(), torch.randn(1, 1, 96, 96, 96, 20)

    def with_scan(function) -> None:
        kept, model.scan_for = model.scan_for, lambda *_: function
        try:
            network.model(clip)
        finally:
            model.scan_for = kept

    with torch.inference_mode():
        seconds = side_by_side(
            {
                "textbook scan": lambda: with_scan(textbook_scan),
                "loop over tokens (no compiled kernels)": lambda: with_scan(selective_scan),
                "as installed": lambda: backend.features(network, clip),
            },
            rounds=3,
        )
    peak = in_own_process(ONE_CLIP)["peak_mb"]
    rows = [(name, f"{s:.2f}", f"{seconds['textbook scan'] / s:.1f}") for name, s in seconds.items()]
    print_table(
        "Encoder of the base model, one clip of 96 x 96 x 96 x 20, fp32", ("", "seconds", "times quicker"), rows
    )
    print(f"\nPeak memory of a process that encodes one clip, PyTorch included: {peak:.0f} MB")


def run() -> None:
    """Everything about encoding."""
    print(f"\nPyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    scan()
    encoder()

"""The selective scan on a GPU, forward and backward, as Triton kernels: compiled where they run, nothing to build.

Triton comes with PyTorch's CUDA builds. A program takes one sequence and some channels through all tokens, its states
in registers. For the gradient, states are kept every `SEGMENT` tokens and those between are computed again.
The numbers are those of reference.py, which says what is computed; sums are in float32 whatever the inputs are.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

SEGMENT = 16  # tokens from one kept state to the next
CHANNELS = 32  # of one program


@triton.jit
def _forward(
    u, delta, A, B, C, y, kept,
    length, n_channels, n_states, n_segments,
    KEEP: tl.constexpr, SEGMENT: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    s = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    in_d, in_n = d < n_channels, n < n_states
    a = tl.load(A + d[:, None] * n_states + n[None], mask=in_d[:, None] & in_n[None], other=0.0).to(tl.float32)
    h = tl.zeros((CHANNELS, STATES), dtype=tl.float32)
    for t in range(length):
        if KEEP:  # noqa: SIM102 (one is decided when the kernel is compiled, the other when it runs)
            if t % SEGMENT == 0:
                at = ((s * n_segments + t // SEGMENT) * n_channels + d[:, None]) * n_states + n[None]
                tl.store(kept + at, h, mask=in_d[:, None] & in_n[None])
        row = s * length + t
        step = tl.load(delta + row * n_channels + d, mask=in_d, other=0.0).to(tl.float32)
        x = tl.load(u + row * n_channels + d, mask=in_d, other=0.0).to(tl.float32)
        b = tl.load(B + row * n_states + n, mask=in_n, other=0.0).to(tl.float32)
        c = tl.load(C + row * n_states + n, mask=in_n, other=0.0).to(tl.float32)
        h = tl.exp(step[:, None] * a) * h + (step * x)[:, None] * b[None]
        tl.store(y + row * n_channels + d, tl.sum(h * c[None], axis=1), mask=in_d)


@triton.jit
def _backward(
    u, delta, A, B, C, dy, kept, states, du, ddelta, dA, dB, dC,
    length, n_channels, n_states, n_segments, n_blocks,
    SEGMENT: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    s = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    d = block * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    in_d, in_n = d < n_channels, n < n_states
    both = in_d[:, None] & in_n[None]
    plane = d[:, None] * n_states + n[None]
    a = tl.load(A + plane, mask=both, other=0.0).to(tl.float32)
    dh = tl.zeros((CHANNELS, STATES), dtype=tl.float32)
    da_sum = tl.zeros((CHANNELS, STATES), dtype=tl.float32)
    for back in range(n_segments):
        segment = n_segments - 1 - back
        first = segment * SEGMENT
        size = tl.minimum(SEGMENT, length - first)
        # states[i]: before token first + i; each program has its own part of the array
        h = tl.load(kept + (s * n_segments + segment) * n_channels * n_states + plane, mask=both, other=0.0)
        for i in range(size):
            tl.store(states + (s * SEGMENT + i) * n_channels * n_states + plane, h, mask=both)
            row = s * length + first + i
            step = tl.load(delta + row * n_channels + d, mask=in_d, other=0.0).to(tl.float32)
            x = tl.load(u + row * n_channels + d, mask=in_d, other=0.0).to(tl.float32)
            b = tl.load(B + row * n_states + n, mask=in_n, other=0.0).to(tl.float32)
            h = tl.exp(step[:, None] * a) * h + (step * x)[:, None] * b[None]
        tl.debug_barrier()  # what was stored above is loaded below
        for j in range(size):
            i = size - 1 - j
            row = s * length + first + i
            before = tl.load(states + (s * SEGMENT + i) * n_channels * n_states + plane, mask=both, other=0.0)
            step = tl.load(delta + row * n_channels + d, mask=in_d, other=0.0).to(tl.float32)
            x = tl.load(u + row * n_channels + d, mask=in_d, other=0.0).to(tl.float32)
            b = tl.load(B + row * n_states + n, mask=in_n, other=0.0).to(tl.float32)
            c = tl.load(C + row * n_states + n, mask=in_n, other=0.0).to(tl.float32)
            g = tl.load(dy + row * n_channels + d, mask=in_d, other=0.0).to(tl.float32)
            decay = tl.exp(step[:, None] * a)
            after = decay * before + (step * x)[:, None] * b[None]
            dh += g[:, None] * c[None]
            d_decay = dh * before * decay
            through_b = tl.sum(dh * b[None], axis=1)
            tl.store(du + row * n_channels + d, step * through_b, mask=in_d)
            tl.store(ddelta + row * n_channels + d, tl.sum(d_decay * a, axis=1) + x * through_b, mask=in_d)
            of_block = (row * n_blocks + block) * n_states + n
            tl.store(dB + of_block, tl.sum(dh * (step * x)[:, None], axis=0), mask=in_n)
            tl.store(dC + of_block, tl.sum(after * g[:, None], axis=0), mask=in_n)
            da_sum += d_decay * step[:, None]
            dh = dh * decay
    tl.store(dA + s * n_channels * n_states + plane, da_sum, mask=both)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        u, delta, A, B, C = (x.contiguous() for x in (u, delta, A, B, C))
        s, length, channels = u.shape
        states, n_segments = A.shape[1], triton.cdiv(length, SEGMENT)
        keep = any(ctx.needs_input_grad)
        y = torch.empty_like(u, dtype=torch.float32)
        kept = y.new_empty((s, n_segments, channels, states) if keep else (1,))
        _forward[(s, triton.cdiv(channels, CHANNELS))](
            u, delta, A, B, C, y, kept, length, channels, states, n_segments,
            KEEP=keep, SEGMENT=SEGMENT, CHANNELS=CHANNELS, STATES=triton.next_power_of_2(states),
        )  # fmt: skip
        ctx.save_for_backward(u, delta, A, B, C, kept)
        return y.to(u.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, kept = ctx.saved_tensors
        s, length, channels = u.shape
        states, n_segments, n_blocks = A.shape[1], triton.cdiv(length, SEGMENT), triton.cdiv(channels, CHANNELS)
        du, ddelta = (kept.new_empty(u.shape) for _ in range(2))
        dA = kept.new_empty(s, channels, states)  # of each sequence; summed below, as are those of each block
        dB, dC = (kept.new_empty(s, length, n_blocks, states) for _ in range(2))
        between = kept.new_empty(s, SEGMENT, channels, states)
        _backward[(s, n_blocks)](
            u, delta, A, B, C, dy.contiguous(), kept, between, du, ddelta, dA, dB, dC,
            length, channels, states, n_segments, n_blocks,
            SEGMENT=SEGMENT, CHANNELS=CHANNELS, STATES=triton.next_power_of_2(states),
        )  # fmt: skip
        gradients = du, ddelta, dA.sum(dim=0), dB.sum(dim=2), dC.sum(dim=2)
        return tuple(g.to(x.dtype) for g, x in zip(gradients, (u, delta, A, B, C), strict=True))


def triton_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """`reference.selective_scan` by Triton kernels; same arguments, with gradients."""
    y: Tensor = _Scan.apply(u, delta, A, B, C)  # type: ignore[no-untyped-call]
    return y

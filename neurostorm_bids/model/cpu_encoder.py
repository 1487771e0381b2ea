"""The encoder on a CPU: the network of network.py, run window by window with compiled kernels.

A block mixes tokens within their window only, and everything else in it is done token by token. So a block runs on some
windows at a time, few enough that intermediate results stay in cache, and threads share the windows. Tokens stay in one
(tokens, channels) array all the way. A window is a row of an index into it, which includes the roll of shifted blocks,
and is written back to where it was read.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from neurostorm_bids.model.network import Block, Encoder, Mamba, NeuroSTORM, to_windows
from neurostorm_bids.model.scan import kernels
from neurostorm_bids.model.scan.kernels import ScanArrays
from neurostorm_bids.model.threads import Share, shared_among_threads

CHUNK = 8192 * 36  # tokens times channels that a thread works on at a time; larger and smaller ones were slower

Linear = Callable[..., Tensor]


def available(network: NeuroSTORM) -> bool:
    """Whether this encoder can be used: compiled kernels, float32 weights on the CPU, no gradient wanted."""
    weight = network.model.patch_embed.fc.weight
    states = max(block.mamba.d_state for _, stage in network.model.parts() for block in stage.parts())
    return (
        kernels.library() is not None
        and states <= kernels.MAX_STATES
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.is_inference_mode_enabled()
    )


def has_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 numbers."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def features_of(
    network: NeuroSTORM, clips: Tensor, stages: tuple[int, ...], precision: str = "fp32"
) -> tuple[Tensor, ...]:
    """`Encoder.stages`, of which some are kept: (B, channels, X, Y, Z, frames) -> (B, C, d, h, w, T) each.

    Parameters
    ----------
    stages : tuple of int
        From 1.
    precision : {"fp32", "bf16"}
        Of the products in linear layers; everything else is float32.
    """
    linear = F.linear if precision == "fp32" else _linear_bf16
    with shared_among_threads() as share:
        of_clips = [_one_clip(network.model, clip, share, linear, stages) for clip in clips]
    return tuple(map(torch.stack, zip(*of_clips, strict=True)))


def _one_clip(
    encoder: Encoder, clip: Tensor, share: Share, linear: Linear, stages: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """(channels, X, Y, Z, frames) -> (C, d, h, w, T) of each stage that is kept."""
    x: Tensor | None = None
    found = {}
    for number, (embedding, stage) in enumerate(encoder.parts(), 1):
        where = embedding.pos_embed[0, ..., 0].permute(1, 2, 3, 0)  # (D, H, W, C)
        when = embedding.time_embed[0, :, 0, 0, 0].T  # (T, C)
        if x is None:
            x = _patches(encoder, clip, where, when, share)
        else:
            x += where[:, :, :, None]
            x += when
        for block in stage.parts():
            _block(block, x, share, linear)
        if number in stages:
            found[number] = x.permute(4, 0, 1, 2, 3)
        x = stage.merge(x[None])[0]  # into a new array: what is kept stays
    return tuple(found[number] for number in stages)


def _patches(encoder: Encoder, clip: Tensor, where: Tensor, when: Tensor, share: Share) -> Tensor:
    """Patch and position embedding, slab after slab along x; -> (D, H, W, T, C)."""
    embed = encoder.patch_embed
    width = embed.patch_size[0]
    d, h, w, c = where.shape
    x = clip.new_empty(d, h, w, len(when), c)

    def slab(i: int) -> None:
        part = clip[None, :, i * width : (i + 1) * width]
        x[i] = embed(part)[0, 0]
        x[i] += where[i, :, :, None]
        x[i] += when[: x.shape[3]]

    share(slab, d)
    return x


def _block(block: Block, x: Tensor, share: Share, linear: Linear) -> None:
    """`Block.forward` in place, (D, H, W, T, C)."""
    channels = x.shape[-1]
    index = _window_index(tuple(x.shape[:4]), block.window, block.shift)  # (windows, tokens)
    tokens = x.view(-1, channels)
    n_windows, length = index.shape
    padded = bool((index < 0).any())
    per_chunk = max(1, CHUNK // (channels * length))
    n_chunks = max(math.ceil(n_windows / per_chunk), min(n_windows, share.threads))
    mixer = _Mixer.of(block.mamba)

    def chunk(i: int) -> None:
        rows = index[i * n_windows // n_chunks : (i + 1) * n_windows // n_chunks]
        shape, rows = rows.shape, rows.reshape(-1)
        if padded:
            there = rows >= 0
            part = tokens.index_select(0, rows.clamp(min=0))
            normal = _norm(part, block.norm1) * there[:, None]  # the published padding comes after the norm
        else:
            part = tokens.index_select(0, rows)
            normal = _norm(part, block.norm1)
        normal = normal.view(*shape, channels)
        if block.prompt is not None:
            n_prompt = block.prompt.shape[1]
            normal = torch.cat([block.prompt.expand(shape[0], -1, -1), normal], dim=1)
            part += mixer(normal, linear)[:, n_prompt:].reshape(-1, channels)
        else:
            part += mixer(normal, linear).view(-1, channels)
        first, second = block.mlp.linear1, block.mlp.linear2
        hidden = F.gelu(linear(_norm(part, block.norm2), first.weight, first.bias))
        part += linear(hidden, second.weight, second.bias)
        if padded:
            rows, part = rows[there], part[there]
        tokens.index_copy_(0, rows, part)

    share(chunk, n_chunks)


class _Mixer:
    """`Mamba.forward` with the compiled kernels, its weights in their layout."""

    def __init__(self, mamba: Mamba):
        self.mamba, self.made_of = mamba, _state(mamba)
        self.decay = (-torch.exp(mamba.A_log)).T.contiguous()  # (N, d_inner)
        self.taps = mamba.conv1d.weight[:, 0].T.contiguous()  # (taps, d_inner)

    @staticmethod
    def of(mamba: Mamba) -> "_Mixer":
        """Return the mixer of a module; it is made once, and again when training has changed the weights."""
        mixer = mamba.__dict__.get("_mixer")
        if mixer is None or mixer.made_of != _state(mamba):
            mixer = mamba.__dict__["_mixer"] = _Mixer(mamba)
        return mixer

    def __call__(self, x: Tensor, linear: Linear) -> Tensor:
        """(S, L, C) -> (S, L, C)."""
        m, (s, length, _) = self.mamba, x.shape
        both = linear(x, m.in_proj.weight)  # (S, L, 2 d_inner): u, gate
        u = x.new_empty(s, length, m.d_inner)
        assert m.conv1d.bias is not None
        kernels.conv_silu(both, self.taps, m.conv1d.bias, u)
        projected = linear(u, m.x_proj.weight)  # (S, L, dt_rank + 2 N): dt, B, C
        delta = F.softplus(m.dt_proj(projected[..., : m.dt_rank]))
        inputs = ScanArrays(u, delta, self.decay, projected[..., m.dt_rank :])
        kernels.scan(inputs, m.D, both[..., m.d_inner :], u)
        return linear(u, m.out_proj.weight)


def _state(mamba: Mamba) -> tuple[tuple[int, int], ...]:
    """Return what changes when the weights do that a mixer keeps in its own layout."""
    kept = (mamba.A_log, mamba.conv1d.weight)
    return tuple((id(weight), 0 if weight.is_inference() else weight._version) for weight in kept)


def _linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = F.linear(x.bfloat16(), weight.bfloat16()).float()
    return product if bias is None else product.add_(bias)


def _norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


@lru_cache(maxsize=64)
def _window_index(grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> Tensor:
    """Return the tokens of every window of a (possibly shifted) block, (windows, tokens); -1 where a window is padded.

    It is what `Block.mix` does to the tokens, done once to their numbers.
    """
    clipped = tuple(min(n, w) for n, w in zip(grid, window, strict=True))
    rolled = [-s if n > w else 0 for n, w, s in zip(grid, window, shift, strict=True)]
    numbers = torch.arange(math.prod(grid)).view(grid)
    missing = [-n % w for n, w in zip(grid, clipped, strict=True)]
    numbers = F.pad(numbers, [pad for n in reversed(missing) for pad in (0, n)], value=-1)
    numbers = torch.roll(numbers, rolled, dims=(0, 1, 2, 3))
    return to_windows(numbers[None, ..., None], clipped)[..., 0].contiguous()

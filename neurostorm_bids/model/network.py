"""NeuroSTORM: a shifted-window Mamba encoder for 4-D fMRI. The whole model, with its parts in the order of their use.

Source: Wang et al. (2026), Nature Biomedical Engineering, doi 10.1038/s41551-026-01666-y.
Modules have the names of the published weights, so that those load without renaming.

Shapes: B clips, C channels, (D, H, W) the volume in patches along x, y, z; T frames.
Inside the encoder tokens are (B, D, H, W, T, C).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurostorm_bids.model.scan.dispatch import scan_for


@dataclass(frozen=True)
class NeuroSTORMConfig:
    """The configuration of a NeuroSTORM network; the defaults are the published base model."""

    img_size: tuple[int, ...] = (96, 96, 96, 20)  # voxels along x, y, z; frames
    patch_size: tuple[int, ...] = (6, 6, 6, 1)
    in_chans: int = 1
    embed_dim: int = 36
    depths: tuple[int, ...] = (2, 2, 6, 2)
    c_multiplier: int = 2  # channels grow by this at every patch merging
    first_window_size: tuple[int, ...] = (4, 4, 4, 4)
    window_size: tuple[int, ...] = (4, 4, 4, 4)
    last_layer_full_MSA: bool = True  # the last stage's windows span its whole volume (no attention anywhere)
    prompt_len: int = 0  # learned tokens put before every window; 0: none
    head: str | None = None  # "v1", "v2", or None
    n_outputs: int = 0

    @property
    def n_frames(self) -> int:
        """Frames in one clip."""
        return self.img_size[3]

    @property
    def n_channels(self) -> int:
        """Length of an embedding."""
        return self.embed_dim * self.c_multiplier ** (len(self.depths) - 1)

    def grid(self, stage: int) -> tuple[int, ...]:
        """Tokens along x, y, z of one stage."""
        return tuple(math.ceil(n // p / 2**stage) for n, p in zip(self.img_size[:3], self.patch_size[:3], strict=True))


class PatchEmbed(nn.Module):
    """Cut the volume into patches and project each linearly."""

    def __init__(self, config: NeuroSTORMConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.fc = nn.Linear(config.in_chans * math.prod(config.patch_size), config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, X, Y, Z, frames) -> (B, D, H, W, T, C)."""
        px, py, pz, pt = self.patch_size
        b, c, nx, ny, nz, nt = x.shape
        x = x.reshape(b, c, nx // px, px, ny // py, py, nz // pz, pz, nt // pt, pt)
        x = x.permute(0, 2, 4, 6, 8, 3, 5, 7, 9, 1)  # inside a patch: x, y, z, t, channel
        return self.fc(x.flatten(5))


class PositionalEmbedding(nn.Module):
    """A learned embedding of place plus one of time."""

    def __init__(self, channels: int, grid: tuple[int, ...], n_frames: int):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, channels, *grid, 1))
        self.time_embed = nn.Parameter(torch.zeros(1, channels, 1, 1, 1, n_frames))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, T, C) -> the same."""
        where = self.pos_embed.permute(0, 2, 3, 4, 5, 1)
        when = self.time_embed[..., : x.shape[4]].permute(0, 2, 3, 4, 5, 1)
        return x + where + when


class Mamba(nn.Module):
    """Mamba-1 (Gu & Dao 2023): gated causal convolution and selective scan along a sequence."""

    def __init__(self, channels: int, d_state: int = 16, d_conv: int = 4, expand: int = 2):
        super().__init__()
        self.d_inner = expand * channels
        self.dt_rank = math.ceil(channels / 16)
        self.d_state = d_state
        self.in_proj = nn.Linear(channels, 2 * self.d_inner, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        steps = torch.arange(1.0, d_state + 1, device="cpu")  # also where a network without numbers is built: quicker
        self.A_log = nn.Parameter(torch.log(steps).repeat(self.d_inner, 1))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(S, L, C) -> (S, L, C): S sequences of L tokens."""
        length = x.shape[1]
        u, gate = self.in_proj(x).chunk(2, dim=-1)  # (S, L, d_inner) each
        u = self.conv1d(u.transpose(1, 2))[..., :length].transpose(1, 2)  # causal: the padding's tail is cut off
        u = F.silu(u)
        dt, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = F.softplus(self.dt_proj(dt))
        with torch.autocast(x.device.type, enabled=False):  # a sum over hundreds of steps: never in half precision
            u, delta, B, C = u.float(), delta.float(), B.float(), C.float()
            y = scan_for(u, self.d_state)(u, delta, -torch.exp(self.A_log), B, C) + self.D * u
        return self.out_proj(y * F.silu(gate))


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, channels: int):
        super().__init__()
        self.linear1 = nn.Linear(channels, 4 * channels)
        self.linear2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.linear2(F.gelu(self.linear1(x)))


def to_windows(x: Tensor, window: tuple[int, ...]) -> Tensor:
    """Cut (B, D, H, W, T, C) into (windows, tokens, C); tokens in x, y, z, t raster order, t fastest."""
    b, d, h, w, t, c = x.shape
    wd, wh, ww, wt = window
    x = x.view(b, d // wd, wd, h // wh, wh, w // ww, ww, t // wt, wt, c)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6, 8, 9).reshape(-1, math.prod(window), c)


def from_windows(windows: Tensor, window: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Undo `to_windows`; ``shape`` is (B, D, H, W, T, C)."""
    b, d, h, w, t, c = shape
    wd, wh, ww, wt = window
    x = windows.view(b, d // wd, h // wh, w // ww, t // wt, wd, wh, ww, wt, c)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4, 8, 9).reshape(shape)


class Block(nn.Module):
    """Mamba inside 4-D windows, then an MLP; both residual."""

    def __init__(self, channels: int, window: tuple[int, ...], shift: tuple[int, ...], prompt_len: int):
        super().__init__()
        self.window, self.shift = window, shift
        if prompt_len:
            self.prompt = nn.Parameter(torch.zeros(1, prompt_len, channels))
        else:
            self.register_parameter("prompt", None)
        self.norm1 = nn.LayerNorm(channels)
        self.mamba = Mamba(channels)
        self.dropout: nn.Module | None = None  # of tokens in pretraining; see `strd`
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels)

    def mix(self, x: Tensor) -> Tensor:
        """Scan the tokens of every window, (B, D, H, W, T, C) -> the same."""
        grid = x.shape[1:5]
        # On an axis no longer than the window, the window is the axis and is not shifted.
        window = tuple(min(n, w) for n, w in zip(grid, self.window, strict=True))
        shift = tuple(s if n > w else 0 for n, w, s in zip(grid, self.window, self.shift, strict=True))
        missing = [-n % w for n, w in zip(grid, window, strict=True)]
        if any(missing):  # zeros after the last token, as many as complete the last window
            x = F.pad(x, [0, 0] + [pad for n in reversed(missing) for pad in (0, n)])
        if any(shift):
            x = torch.roll(x, [-s for s in shift], dims=(1, 2, 3, 4))
        tokens = to_windows(x, window)
        if self.prompt is None:
            tokens = self.mamba(tokens)
        else:
            prompt = self.prompt.expand(len(tokens), -1, -1)
            tokens = self.mamba(torch.cat([prompt, tokens], dim=1))[:, prompt.shape[1] :]
        if self.dropout is not None and self.training:
            tokens = self.dropout(tokens, window)
        x = from_windows(tokens, window, x.shape)
        if any(shift):
            x = torch.roll(x, shift, dims=(1, 2, 3, 4))
        return x[:, : grid[0], : grid[1], : grid[2], : grid[3]]

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, T, C) -> the same."""
        x = x + self.mix(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Join 2 x 2 x 2 neighbours and project them; time is never merged."""

    def __init__(self, channels: int, c_multiplier: int):
        super().__init__()
        self.norm = nn.LayerNorm(8 * channels)
        self.reduction = nn.Linear(8 * channels, c_multiplier * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, T, C) -> (B, D/2, H/2, W/2, T, c_multiplier C)."""
        odd = [n % 2 for n in x.shape[1:4]]
        if any(odd):
            x = F.pad(x, [0, 0, 0, 0, 0, odd[2], 0, odd[1], 0, odd[0]])
        b, d, h, w, t, c = x.shape
        x = x.view(b, d // 2, 2, h // 2, 2, w // 2, 2, t, c)
        x = x.permute(0, 1, 3, 5, 7, 2, 4, 6, 8).flatten(5)  # the neighbour along z varies fastest
        return self.reduction(self.norm(x))


class Stage(nn.Module):
    """Blocks at one resolution, every second one with its windows shifted by half; then patch merging."""

    def __init__(self, config: NeuroSTORMConfig, stage: int):
        super().__init__()
        channels = config.embed_dim * config.c_multiplier**stage
        last = stage == len(config.depths) - 1
        window = config.first_window_size if stage == 0 else config.window_size
        half = tuple(n // 2 for n in window)
        if last and config.last_layer_full_MSA:
            window, half = (*config.grid(stage), config.window_size[3]), (0, 0, 0, 0)
        self.blocks = nn.ModuleList(
            Block(channels, window, half if i % 2 else (0, 0, 0, 0), config.prompt_len)
            for i in range(config.depths[stage])
        )
        self.downsample = None if last else PatchMerging(channels, config.c_multiplier)

    def parts(self) -> "Iterator[Block]":
        """Yield the blocks, typed."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def tokens(self, x: Tensor) -> Tensor:
        """(B, D, H, W, T, C) -> the same, before the next stage merges patches."""
        for block in self.blocks:
            x = block(x)
        return x

    def merge(self, x: Tensor) -> Tensor:
        """(B, D, H, W, T, C) -> the next stage's grid and channels."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, T, C) -> the next stage's grid and channels."""
        return self.merge(self.tokens(x))


class Encoder(nn.Module):
    """Patches, then stages of windowed Mamba; no final norm."""

    def __init__(self, config: NeuroSTORMConfig):
        super().__init__()
        self.patch_embed = PatchEmbed(config)
        stages = range(len(config.depths))
        self.pos_embeds = nn.ModuleList(
            PositionalEmbedding(
                config.embed_dim * config.c_multiplier**i, config.grid(i), config.n_frames // config.patch_size[3]
            )
            for i in stages
        )
        self.layers = nn.ModuleList(Stage(config, i) for i in stages)

    def parts(self) -> "Iterator[tuple[PositionalEmbedding, Stage]]":
        """Yield the stages with the embeddings that are added before them, typed."""
        for embed, stage in zip(self.pos_embeds, self.layers, strict=True):
            assert isinstance(embed, PositionalEmbedding)
            assert isinstance(stage, Stage)
            yield embed, stage

    def stages(self, x: Tensor) -> "Iterator[Tensor]":
        """(B, channels, X, Y, Z, frames) -> the tokens of each stage, (B, C, d, h, w, T)."""
        x = self.patch_embed(x)
        for embed, stage in self.parts():
            x = stage.tokens(embed(x))
            yield x.permute(0, 5, 1, 2, 3, 4)
            x = stage.merge(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, X, Y, Z, frames) -> features (B, C, d, h, w, T)."""
        *_, features = self.stages(x)
        return features


class LinearHead(nn.Module):
    """From an embedding to raw outputs: one linear layer (v1), or two with nothing between them (v2)."""

    def __init__(self, config: NeuroSTORMConfig):
        super().__init__()
        channels = config.n_channels
        self.hidden = nn.Linear(channels, 4 * channels) if config.head == "v2" else nn.Identity()
        self.head = nn.Linear(4 * channels if config.head == "v2" else channels, config.n_outputs)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, C) -> (B, n_outputs)."""
        return self.head(self.hidden(embedding))


class OutputHead(nn.Module):
    """Holds the head under the name it has in published weights, ``output_head.head``."""

    def __init__(self, config: NeuroSTORMConfig):
        super().__init__()
        self.head = LinearHead(config)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, C) -> (B, n_outputs)."""
        return self.head(embedding)


class NeuroSTORM(nn.Module):
    """The encoder and, if the checkpoint has one, its head."""

    def __init__(self, config: NeuroSTORMConfig):
        super().__init__()
        self.config = config
        self.model = Encoder(config)
        self.output_head = OutputHead(config) if config.head else None

    def resized(self, clips: Tensor) -> Tensor:
        """Resize the volumes of clips (B, 1, X, Y, Z, frames) to `img_size`: the low-resolution variants need it."""
        return resized(clips, self.config.img_size[:3])

    def features(self, clips: Tensor) -> Tensor:
        """(B, 1, X, Y, Z, frames) -> output tokens (B, C, d, h, w, T)."""
        tokens: Tensor = self.model(self.resized(clips))
        return tokens

    def embed(self, clips: Tensor) -> Tensor:
        """(B, 1, X, Y, Z, frames) -> (B, C): the mean over all output tokens."""
        return mean_over_tokens(self.features(clips))


def resized(clips: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize the volumes of clips, (B, channels, X, Y, Z, frames) -> (B, channels, *size, frames)."""
    if tuple(clips.shape[2:5]) == tuple(size):
        return clips
    b, c, *_, t = clips.shape
    frames = clips.movedim(-1, 1).reshape(b * t, c, *clips.shape[2:5])
    frames = F.interpolate(frames, size=size, mode="trilinear", align_corners=False)
    return frames.reshape(b, t, c, *size).movedim(1, -1)


def mean_over_tokens(features: Tensor) -> Tensor:
    """(B, C, d, h, w, T) -> (B, C)."""
    return features.flatten(2).mean(dim=2)

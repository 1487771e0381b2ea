"""The masked autoencoder of NeuroSTORM's pretraining: hidden tokens, the encoder as it is, a decoder, the loss.

Source: Wang et al. (2026), Nature Biomedical Engineering, doi 10.1038/s41551-026-01666-y. Names of the modules are those
of published weights. Shapes as in `network`.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from neurostorm_bids.model.masks import Masking, of_tokens, places_in_window
from neurostorm_bids.model.network import Block, Encoder, NeuroSTORMConfig

MERGED = 2  # along each axis of space, by every patch merging
KEPT_BYTES = 900  # for gradients, for each channel of each token of the finest stage; depths of 2, 2, 6, 2; measured


class PatchExpanding(nn.Module):
    """Undo a patch merging: twice the tokens along each axis of space, half the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.expand = nn.Linear(channels, 4 * channels, bias=False)
        self.norm = nn.LayerNorm(channels // 2)

    def forward(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(B, d, h, w, T, C) -> (B, *grid, T, C/2); what padding added is cut off."""
        b, d, h, w, t, c = x.shape
        x = self.expand(x).view(b, d, h, w, t, MERGED, MERGED, MERGED, c // 2)
        x = x.permute(0, 1, 5, 2, 6, 3, 7, 4, 8).reshape(b, MERGED * d, MERGED * h, MERGED * w, t, c // 2)
        found: Tensor = self.norm(x[:, : grid[0], : grid[1], : grid[2]])
        return found


class DecoderStage(nn.Module):
    """Blocks of one resolution, every second one with its windows shifted by half; then expanding, but for the finest."""

    def __init__(self, config: NeuroSTORMConfig, stage: int):
        super().__init__()
        channels = config.embed_dim * config.c_multiplier**stage
        half = tuple(n // 2 for n in config.window_size)
        self.blocks = nn.ModuleList(
            Block(channels, config.window_size, half if i % 2 else (0, 0, 0, 0), 0) for i in range(config.depths[stage])
        )
        self.upsample = PatchExpanding(channels) if stage else None

    def forward(self, x: Tensor, finer: tuple[int, ...]) -> Tensor:
        """(B, d, h, w, T, C) -> the finer stage's grid and channels; the finest one's own."""
        for block in self.blocks:
            x = block(x)
        return x if self.upsample is None else self.upsample(x, finer)


class MaskedEncoder(Encoder):
    """The encoder with what stands for hidden tokens, and the decoder."""

    def __init__(self, config: NeuroSTORMConfig):
        super().__init__(config)
        if config.c_multiplier != MERGED or config.patch_size[3] != 1 or len(config.depths) < 2:
            raise ValueError(
                "pretraining needs two stages or more, channels that double from each to the next, and patches of one frame"
            )
        self.config = config
        channels, stages = config.embed_dim, len(config.depths)
        self.mask_token = nn.Parameter(torch.zeros(channels))
        self.window_mask_token = nn.Parameter(torch.zeros(math.prod(config.window_size), channels))
        self.atlas_mask_token = nn.Parameter(torch.zeros(channels))
        self.first_patch_expanding = PatchExpanding(config.n_channels)
        self.layers_up = nn.ModuleList(DecoderStage(config, i) for i in range(stages - 2, -1, -1))
        self.norm_up = nn.LayerNorm(channels)
        self.decoder_pred = nn.Linear(channels, config.in_chans * math.prod(config.patch_size))

    def hide(self, x: Tensor, hidden: Tensor, masking: Masking) -> Tensor:
        """Put mask tokens in place of hidden tokens, (B, D, H, W, T, C) -> the same.

        Parameters
        ----------
        hidden : (B, D, H, W, T) bool tensor
        """
        if masking.has_places:
            places = places_in_window(tuple(x.shape[1:5]), self.config.window_size).to(x.device)
            instead = self.window_mask_token[places]
        else:
            instead = self.atlas_mask_token if masking.kind == "atlas" else self.mask_token
        return torch.where(hidden[..., None], instead.to(x.dtype), x)

    def encode(self, clips: Tensor, hidden: Tensor, masking: Masking) -> Tensor:
        """(B, channels, X, Y, Z, frames) -> features (B, d, h, w, T, C)."""
        x = self.hide(self.patch_embed(clips), hidden, masking)
        for embed, stage in self.parts():
            x = stage(embed(x))
        return x

    def decode(self, features: Tensor) -> Tensor:
        """Features (B, d, h, w, T, C) -> patches (B, D, H, W, T, voxels of a patch)."""
        patches: Tensor = self.decoder_pred(self.norm_up(self.expanded(features)))
        return patches

    def expanded(self, features: Tensor) -> Tensor:
        """Features (B, d, h, w, T, C) -> tokens of the finest stage (B, D, H, W, T, C)."""
        n = len(self.config.depths)
        x: Tensor = self.first_patch_expanding(features, self.config.grid(n - 2))
        for stage, layer in zip(range(n - 2, -1, -1), self.layers_up, strict=True):
            x = layer(x, self.config.grid(stage - 1) if stage else ())
        return x

    def patches(self, clips: Tensor) -> Tensor:
        """Cut clips into the patches that `decode` gives, in the same order."""
        px, py, pz, _ = self.config.patch_size
        b, c, nx, ny, nz, t = clips.shape
        x = clips.reshape(b, c, nx // px, px, ny // py, py, nz // pz, pz, t)
        return x.permute(0, 2, 4, 6, 8, 3, 5, 7, 1).flatten(5)  # inside a patch: x, y, z, channel

    def voxels(self, patches: Tensor) -> Tensor:
        """Undo `patches`: (B, D, H, W, T, voxels of a patch) -> (B, channels, X, Y, Z, frames)."""
        px, py, pz, _ = self.config.patch_size
        b, d, h, w, t, _ = patches.shape
        x = patches.view(b, d, h, w, t, px, py, pz, -1)
        return x.permute(0, 8, 1, 5, 2, 6, 3, 7, 4).reshape(b, -1, d * px, h * py, w * pz, t)


def kept_gb(config: NeuroSTORMConfig, n_clips: int) -> float:
    """Return about how much memory (GB) a step of so many clips takes for what it keeps for gradients."""
    n_tokens = math.prod(config.img_size) // math.prod(config.patch_size)
    return n_clips * n_tokens * config.embed_dim * KEPT_BYTES / 1e9


def recompute_blocks(network: nn.Module) -> None:
    """Let a network's blocks, in place, be computed again for their gradients instead of being kept (Chen et al. 2016)."""
    for block in network.modules():
        if isinstance(block, Block):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


@dataclass(frozen=True)
class Reconstruction:
    """What the autoencoder makes of clips.

    Attributes
    ----------
    loss : tensor
        Mean squared error of hidden patches, a number.
    patches : (B, D, H, W, T, voxels of a patch) tensor
        Reconstructed, hidden and seen ones.
    hidden : (B, D, H, W, T) bool tensor
    """

    loss: Tensor
    patches: Tensor
    hidden: Tensor


class MaskedAutoencoder(nn.Module):
    """Hides tokens of clips and reconstructs them; its encoder is that of `NeuroSTORM`.

    Parameters
    ----------
    config : NeuroSTORMConfig
    masking : Masking
    regions : (D, H, W) int tensor, optional
        Label of every patch, for a mask of regions.
    """

    def __init__(self, config: NeuroSTORMConfig, masking: Masking, regions: Tensor | None = None):
        super().__init__()
        self.config, self.masking = config, masking
        self.model = MaskedEncoder(config)
        shape = (*config.grid(0), config.n_frames // config.patch_size[3])
        self.register_buffer("units", masking.units(shape, regions), persistent=False)
        n_units = int(self.units.max()) + 1
        if not masking.draw(1, n_units, torch.Generator()).any():
            raise ValueError(
                f"a share of {masking.ratio:g} of {n_units} units hides none; give --mask-ratio {1 / n_units:.2g} or more, or another --hidden"
                if n_units > 1
                else f"--hidden {masking.kind} has one unit in a network of this size: nothing or everything is hidden; give another --hidden"
            )

    units: Tensor

    def draw(self, n_clips: int, generator: torch.Generator) -> Tensor:
        """Return which tokens are hidden in each clip, (B, D, H, W, T) bool."""
        hidden = self.masking.draw(n_clips, int(self.units.max()) + 1, generator)
        return of_tokens(hidden, self.units)

    def loss(self, clips: Tensor, hidden: Tensor) -> Tensor:
        """Return the loss alone, as `forward` does, without making the patches that are seen."""
        model = self.model
        tokens = model.expanded(model.encode(clips, hidden, self.masking))[hidden]
        patches = model.decoder_pred(model.norm_up(tokens)).float()
        return F.mse_loss(patches, model.patches(clips)[hidden])

    def forward(self, clips: Tensor, hidden: Tensor) -> Reconstruction:
        """Reconstruct clips (B, channels, X, Y, Z, frames) of which some tokens are hidden (B, D, H, W, T)."""
        patches = self.model.decode(self.model.encode(clips, hidden, self.masking)).float()
        errors = ((patches - self.model.patches(clips)) ** 2).mean(dim=-1)
        return Reconstruction((errors * hidden).sum() / hidden.sum(), patches, hidden)

"""A network in pretraining: the masked autoencoder, the contrastive objective, or both."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import Dataset

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.contrastive import ProjectionHead, instance_loss, local_loss, nt_xent
from neurostorm_bids.model.initial import new_network
from neurostorm_bids.model.mae import MaskedAutoencoder
from neurostorm_bids.model.masks import of_tokens
from neurostorm_bids.train.data import Order, Stream
from neurostorm_bids.train.distributed import all_gather, rank
from neurostorm_bids.train.module import TrainingModule
from neurostorm_bids.train.plan import Plan
from neurostorm_bids.train.skill import Errors, effective_rank, probe, rank_one, spread

OBJECTIVES = ("mae", "contrastive", "mae+contrastive")
CONTRASTS = ("instance", "local", "both")
SMALLEST_SPREAD = 1e-6  # of embeddings over their size, below which they have collapsed: what float32 can tell apart
SMALLEST_RANK = 1.05  # effective, of embeddings: below, one direction has 99 % of their variance
NOT_BACKGROUND = 0.1  # z-score by which brain differs from background, which stores round

Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # clips (B, n, 1, X, Y, Z, T), hidden units, backgrounds, people


@dataclass(frozen=True)
class Goal:
    """What pretraining minimises.

    Attributes
    ----------
    objective : str
        One of `OBJECTIVES`.
    contrast : str
        One of `CONTRASTS`.
    weight : float
        Of the contrastive loss beside that of the autoencoder.
    """

    objective: str = "mae"
    contrast: str = "both"
    weight: float = 1.0

    @property
    def has_mae(self) -> bool:
        """Whether tokens are hidden and reconstructed."""
        return "mae" in self.objective

    @property
    def has_contrast(self) -> bool:
        """Whether clips are compared."""
        return "contrastive" in self.objective

    @property
    def n_clips(self) -> int:
        """Clips that a step needs of each window."""
        return (2 if self.contrast == "instance" else 4) if self.has_contrast else 1


class PretrainedNetwork(nn.Module):
    """The autoencoder and, where clips are compared, the head that does it, under their published names."""

    def __init__(self, autoencoder: MaskedAutoencoder, has_contrast: bool, seed: int = 0):
        super().__init__()
        self.autoencoder = autoencoder
        n_channels = autoencoder.config.n_channels
        self.output_head = new_network(lambda: ProjectionHead(n_channels), seed) if has_contrast else None

    def train_only_what_is_used(self, goal: Goal) -> None:
        """Freeze the decoder where nothing is reconstructed, and what stands for tokens that this mask never hides."""
        model, masking = self.autoencoder.model, self.autoencoder.masking
        tokens = {"window": model.window_mask_token, "atlas": model.atlas_mask_token}
        used = tokens.get(masking.kind, model.mask_token) if goal.has_mae else None
        for token in (model.mask_token, model.window_mask_token, model.atlas_mask_token):
            token.requires_grad_(token is used)
        for part in (model.first_patch_expanding, model.layers_up, model.norm_up, model.decoder_pred):
            part.requires_grad_(goal.has_mae)

    def weights(self) -> dict[str, Tensor]:
        """Return all weights with their published names."""
        found = dict(self.autoencoder.state_dict())
        if self.output_head is not None:
            found |= {f"output_head.{name}": tensor for name, tensor in self.output_head.state_dict().items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}


class Pretraining(TrainingModule):
    """A network that learns without labels.

    Parameters
    ----------
    network : PretrainedNetwork
    goal : Goal
    train, validation : Dataset
        `PretrainingWindows`.
    plan : Plan
    target : tuple of (people,) array and bool, optional
        What is predicted from embeddings to see whether they learn it, by number of a person, and whether it is classes.
    """

    def __init__(
        self,
        network: PretrainedNetwork,
        goal: Goal,
        train: Dataset[Any],
        validation: Dataset[Any],
        plan: Plan,
        target: tuple[np.ndarray, bool] | None = None,
    ):
        super().__init__(network, train, validation, plan)
        self.network: PretrainedNetwork = network
        self.goal, self.target = goal, target
        self.contrast_loss = torchmetrics.MeanMetric()
        self.embedded: dict[int, tuple[Tensor, int]] = {}
        self.was_line = False  # at the last look, embeddings lay on one
        self.rank_of_random: Callable[[], float] = lambda: math.inf  # of random weights' embeddings of the same windows
        self.errors: Errors | None = None

    @property
    def clip_size(self) -> tuple[int, ...]:
        """(X, Y, Z) of the clips that the network takes; low-resolution ones take smaller ones."""
        return self.network.autoencoder.config.img_size[:3]

    def order(self, which: str, seed: int | None) -> Order:
        """Return the order of items; in training, whole steps of one pass over all windows after the other."""
        if which != "train":
            return super().order(which, seed)
        n: Any = self.data[which]
        here, world = self.trainer.global_rank, self.trainer.world_size
        return Stream(len(n), self.plan.seed, self.plan.windows_in_step, self.plan.steps, here, world)

    def training_step(self, batch: Batch, _number: int) -> Tensor:
        """Return the loss of one batch."""
        clips, hidden, _, people = batch
        # dropout of tokens, and nothing else, takes random numbers here: those of the step and the process
        torch.manual_seed(self.plan.seed + 1_000_003 * self.global_step + rank())
        loss = torch.zeros((), device=clips.device)
        if self.goal.has_mae:
            autoencoder = self.network.autoencoder
            loss = loss + autoencoder.loss(clips[:, 0], of_tokens(hidden, autoencoder.units))
        if self.goal.has_contrast:
            loss = loss + self.goal.weight * self._contrast(clips, people)
        self.train_loss.update(loss.detach(), len(clips))
        if self.trainer.logger is not None:
            self.log("train_loss_step", loss.detach())
        return loss

    def _contrast(self, clips: Tensor, people: Tensor) -> Tensor:
        """Return the contrastive loss of views of pairs of clips, (B, n, 1, X, Y, Z, T), of people (B,)."""
        head = self.network.output_head
        assert head is not None
        encoder = self.network.autoencoder.model
        views = [head(encoder.forward(clips[:, k])) for k in range(clips.shape[1])]
        if self.goal.contrast == "instance":
            return instance_loss(views[0], views[1], people)
        local = local_loss((views[0], views[1]), (views[2], views[3])) / len(clips)
        return local if self.goal.contrast == "local" else local + instance_loss(views[0], views[2], people)

    def validation_step(self, batch: Batch, number: int) -> None:
        """Add up errors of one batch of windows of people who are held out, and keep their embeddings."""
        clips, hidden, backgrounds, people = batch
        autoencoder = self.network.autoencoder
        shown = of_tokens(hidden, autoencoder.units)
        first = clips[:, 0]
        patches = autoencoder.model.patches(first)
        brain = ((patches - backgrounds.to(patches).view(-1, 1, 1, 1, 1, 1)).abs() > NOT_BACKGROUND).any(dim=-1)
        found = Errors.of(patches, autoencoder(first, shown).patches, shown, brain)
        self.errors = found if self.errors is None else self.errors + found
        features = autoencoder.model.forward(first)
        if self.network.output_head is not None:
            pairs = self.network.output_head(features), self.network.output_head(autoencoder.model.forward(clips[:, 1]))
            # of this process alone: processes may have different numbers of windows
            self.contrast_loss.update(nt_xent(*pairs, people), len(clips))
        embeddings = features.flatten(2).mean(dim=2).float().cpu()
        world = max(1, self.trainer.world_size)
        for k, (embedding, person) in enumerate(zip(embeddings, people.tolist(), strict=True)):
            self.embedded[(number * self.plan.batch_size + k) * world + self.trainer.global_rank] = (embedding, person)

    def on_validation_epoch_end(self) -> None:
        """Log what came out over all processes; a network whose embeddings are all alike is stopped."""
        assert self.errors is not None
        parts = all_gather({rank(): self.errors.cpu()})  # what is pickled on a GPU comes back to that GPU
        total = None
        for part in parts.values():
            total = part if total is None else total + part
        embedded = all_gather(self.embedded)
        rows = [embedded[i] for i in sorted(embedded)]
        embeddings, people = torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
        assert total is not None
        record = total.record()
        apart = spread(embeddings)
        for name, value in record.items():
            self.log(f"validation_{name}", value)
        contrast = 0.0
        if self.goal.has_contrast:
            contrast = float(self.contrast_loss.compute())
            self.log("validation_contrast", contrast)
            self.contrast_loss.reset()
        self.log("validation_loss", (record["error"] if self.goal.has_mae else 0.0) + self.goal.weight * contrast)
        self.log("spread", apart)
        found = self.of_embeddings(embeddings, people)
        for name, value in found.items():
            self.log(name, value)
        self.errors, self.embedded = None, {}
        if len(rows) > 1:
            self._stop_if_collapsed(apart, found["effective_rank"], len(rows))

    def _stop_if_collapsed(self, apart: float, rank: float, n_windows: int) -> None:
        """Stop if embeddings are all alike, or lie on a line at two looks in succession: a training may pass through one.

        Where those of random weights lie on one too, it is the data that have no more.
        """
        is_line = n_windows > 2 and rank < SMALLEST_RANK  # two always lie on one
        how = ""
        if apart < SMALLEST_SPREAD:
            how = f"become alike (spread {apart:.1g} of their size)"
        elif is_line and self.was_line and self.rank_of_random() > 2 * SMALLEST_RANK:
            how = f"come to lie on one line (effective rank {rank:.2f})"
        self.was_line = is_line
        if how:
            raise NeurostormError(
                f"the embeddings of all windows have {how}: training has collapsed; give a smaller --learning-rate, or another --objective"
            )

    def of_embeddings(self, embeddings: Tensor, people: Tensor) -> dict[str, float]:
        """Return what embeddings of windows (n, channels) of people tell, by name."""
        rank1, low, high = rank_one(embeddings, people)
        found = {
            "effective_rank": effective_rank(embeddings),
            "rank1": rank1,
            "rank1_low": low,
            "rank1_high": high,
        }
        if self.target is not None:
            found["probe"] = probe(embeddings, people, *self.target)
        return found

    def epoch_record(self, logged: dict[str, float]) -> dict[str, float]:
        """Return losses, errors, skills and what is known of the embeddings."""
        record = {"train_loss": float(self.train_loss.compute()), **logged}
        self.train_loss.reset()
        return record

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep everything, since statistics of the head's normalisation are no parameters; and the loss so far."""
        self.save_progress(checkpoint)

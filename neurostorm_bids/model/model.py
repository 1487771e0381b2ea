"""A model that is ready to run: the network, its weights, its grid, and what its head predicts."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model import backend
from neurostorm_bids.model.hyper_parameters import HyperParameters
from neurostorm_bids.model.network import NeuroSTORM, mean_over_tokens
from neurostorm_bids.model.task import Task
from neurostorm_bids.resample.grid import Grid


@dataclass(frozen=True)
class Model:
    """A NeuroSTORM model with its weights.

    Attributes
    ----------
    name : str
        Registry name, or the file's name without extension.
    label : str
        `name` in letters and digits, for the BIDS entity ``desc-``.
    network : NeuroSTORM
    hyper_parameters : dict
        As stored in the checkpoint; plain values.
    grid : Grid
        The grid the model was trained in.
    task : Task or None
        What the head predicts; `None` without a head.
    sha256 : str
        Of the weights file; for the demo model, of its tensors.
    source : str
        Where the weights came from.
    device : torch.device
    about : str
        What is known of their training, in one line; empty if nothing is.
    warning : str or None
        Goes into every output, such as that it is for demonstration.
    licence : str
        Of the weights; empty if nothing is known.
    encoder_of : str or None
        SHA-256 of the model whose encoder this is, if not its own.
    permuted_heads : (heads, outputs, C) tensor, or None
        Weights of heads that were fitted to permuted labels: what no label at all would show.
    reference : dict or None
        What the data were like that it was made of, as plain values.
    control : str
        What it is fed in place of the run (`AT_MEAN`, `AT_FLUCTUATION`); empty for the run itself.
    """

    name: str
    label: str
    network: NeuroSTORM
    hyper_parameters: HyperParameters
    grid: Grid
    task: Task | None
    sha256: str
    source: str
    device: torch.device
    about: str = ""
    warning: str | None = None
    licence: str = ""
    encoder_of: str | None = None
    permuted_heads: Tensor | None = None
    reference: dict[str, Any] | None = None
    control: str = ""

    @property
    def encoder(self) -> str:
        """Stands for the encoder's weights: models with the same one give the same embeddings."""
        return self.encoder_of or self.sha256

    @property
    def n_frames(self) -> int:
        """Frames in one clip."""
        return self.network.config.n_frames

    @torch.inference_mode()
    def features(self, clips: Tensor) -> Tensor:
        """Return the output tokens of clips, (B, 1, X, Y, Z, T) -> (B, C, x, y, z, T)."""
        return backend.features(self.network, self._checked(clips))

    @torch.inference_mode()
    def embed(self, clips: Tensor, precision: str = "fp32") -> Tensor:
        """Return the embeddings of clips, (B, 1, X, Y, Z, T) -> (B, C): the mean over all output tokens.

        Parameters
        ----------
        clips : (B, 1, X, Y, Z, T) tensor or array
            z-scored as `to_model_grid` does it.
        precision : {"fp32", "bf16", "fp16"}
            Type of matrix products; "fp16" on a GPU only.
        """
        return backend.embed(self.network, self._checked(clips), precision)

    @torch.inference_mode()
    def embed_with_tokens(self, clips: Tensor, stage: int, precision: str = "fp32") -> tuple[Tensor, Tensor]:
        """Return the embeddings of clips, (B, C), and the tokens of a stage, (B, C', x, y, z, T), in one pass.

        Parameters
        ----------
        clips : (B, 1, X, Y, Z, T) tensor or array
        stage : int
            From 1; the last one's tokens are those that the embedding is the mean of.
        precision : {"fp32", "bf16", "fp16"}
        """
        last = len(self.network.config.depths)
        features, tokens = backend.features_of(self.network, self._checked(clips), (last, stage), precision)
        return mean_over_tokens(features), tokens

    @torch.inference_mode()
    def predict(self, clips: Tensor) -> Tensor:
        """Return the raw outputs of the head (logits, or a standardised value), (B, 1, X, Y, Z, T) -> (B, outputs)."""
        return self.predict_from(self.embed(clips))

    @torch.inference_mode()
    def predict_from(self, embeddings: Tensor) -> Tensor:
        """Return the raw outputs of the head from embeddings, (B, C) -> (B, outputs).

        Raises
        ------
        NeurostormError
            If the model has no head.
        """
        if self.network.output_head is None:
            raise NeurostormError(f"model '{self.name}' has no head: it gives embeddings, not predictions")
        outputs: Tensor = self.network.output_head(embeddings.to(self.device))
        return outputs

    def with_label_scaling(self, mean: float | None, std: float | None) -> "Model":
        """Return the model with the user's label scaling in place of the registry's or the checkpoint's."""
        if self.task is None or (mean is None and std is None):
            return self
        return replace(self, task=self.task.with_scaling(mean, std))

    def _checked(self, clips: Any) -> Tensor:
        clips = torch.as_tensor(clips, dtype=torch.float32)
        config = self.network.config
        if clips.ndim != 6 or clips.shape[1] != config.in_chans or clips.shape[5] != config.n_frames:
            raise NeurostormError(
                f"clips have shape {tuple(clips.shape)}; model '{self.name}' takes "
                f"(batch, {config.in_chans}, X, Y, Z, {config.n_frames})"
            )
        sizes = {self.grid.shape, tuple(config.img_size[:3])}
        if tuple(clips.shape[2:5]) not in sizes:
            raise NeurostormError(
                f"clips have {tuple(clips.shape[2:5])} voxels; model '{self.name}' takes "
                f"{' or '.join(map(str, sorted(sizes)))} (to_model_grid resamples a run to its grid)"
            )
        checked: Tensor = clips.to(self.device)
        return checked

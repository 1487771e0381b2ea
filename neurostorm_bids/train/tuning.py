"""What of a network is tuned: its head alone, or with prompts, norms, low-rank additions, or all of it."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neurostorm_bids.model.network import NeuroSTORM
from neurostorm_bids.model.tuned import HEAD, LOW_RANK

# Tuning -> learning rate of what is tuned beside the head
LEARNING_RATES = {
    "linear": 1e-2,
    "prompt": 1e-2,
    "layernorm": 1e-3,
    "prompt-layernorm": 1e-3,
    "lora": 1e-3,
    "full": 1e-4,
}
LOW_RANK_LAYERS = ("in_proj", "out_proj", "linear1", "linear2")  # of every block


class LowRank(nn.Module):
    """Adds B @ A to a weight (Hu et al. 2022, arXiv 2106.09685); nothing at first, since B begins as 0."""

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        n_out, n_in = weight.shape
        rank = min(rank, n_out, n_in)
        self.a = nn.Parameter(torch.randn(rank, n_in) / math.sqrt(n_in))
        self.b = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in) -> (out, in)."""
        return weight + self.b @ self.a


def to_be_tuned(
    backbone: NeuroSTORM, tuning: str, n_outputs: int, prompt_length: int = 50, rank: int = 8, seed: int = 0
) -> NeuroSTORM:
    """A copy of a network with a new head, whose parameters want gradients as far as they are to be tuned.

    Parameters
    ----------
    tuning : str
        One of `LEARNING_RATES`.
    prompt_length : int
        Tokens before every window, unless the backbone has prompts already: those are tuned further.
    rank : int
        Of the low-rank additions.
    """
    has_prompts = backbone.config.prompt_len > 0
    length = prompt_length if "prompt" in tuning and not has_prompts else backbone.config.prompt_len
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NeuroSTORM(replace(backbone.config, head="v1", n_outputs=n_outputs, prompt_len=length))
        weights = {name: w for name, w in backbone.state_dict().items() if not name.startswith(HEAD)}
        network.load_state_dict(weights, strict=False)
        for name, parameter in network.named_parameters():
            if name.endswith(".prompt") and not has_prompts:
                nn.init.normal_(parameter, std=0.02)
            if name.startswith(HEAD):
                nn.init.zeros_(parameter)
        network.requires_grad_(tuning == "full")
        if tuning == "lora":
            for name, module in list(network.model.named_modules()):
                if name.split(".")[-1] in LOW_RANK_LAYERS:
                    parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))
    for module in network.modules():
        if isinstance(module, nn.LayerNorm) and "layernorm" in tuning:
            module.requires_grad_(True)
        if isinstance(module, LowRank):
            module.requires_grad_(True)
    for name, parameter in network.named_parameters():
        if name.endswith(".prompt") and "prompt" in tuning:
            parameter.requires_grad_(True)
    network.output_head.requires_grad_(True)
    return network


def tuned_parts(network: NeuroSTORM) -> "dict[str, Tensor]":
    """What was tuned, named as in a tuned model's file."""
    parts = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            for ours, stored in zip(("a", "b"), LOW_RANK, strict=True):
                name = name.replace(f"parametrizations.weight.0.{ours}", f"weight{stored}")
            parts[name] = parameter.detach().clone()
    return parts


def merged(network: NeuroSTORM) -> NeuroSTORM:
    """The network with low-rank additions added to the weights for good, in place."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return network.requires_grad_(False).eval()

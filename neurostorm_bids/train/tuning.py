"""What is tuned in a network: its head alone, or with prompts, norms, low-rank additions, or all of it."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neurostorm_bids.model.network import NeuroSTORM
from neurostorm_bids.model.tuned import HEAD, LOW_RANK
from neurostorm_bids.train.plan import Plan

LOW_RANK_LAYERS = ("in_proj", "out_proj", "linear1", "linear2")  # of every block


class LowRank(nn.Module):
    """Adds scale times B @ A to a weight (Hu et al. 2022, arXiv 2106.09685); at first nothing, since B starts as 0."""

    def __init__(self, weight: Tensor, rank: int, scale: float):
        super().__init__()
        self.scale = scale
        n_out, n_in = weight.shape
        rank = min(rank, n_out, n_in)
        self.a = nn.Parameter(torch.randn(rank, n_in) / math.sqrt(n_in))
        self.b = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in) -> (out, in)."""
        return weight + self.scale * (self.b @ self.a)


def prepare_for_tuning(backbone: NeuroSTORM, n_outputs: int, plan: Plan) -> NeuroSTORM:
    """Return a copy of a network with a new head, whose parameters require gradients as far as they are to be tuned.

    Parameters
    ----------
    n_outputs : int
        Of the head.
    plan : Plan
        Prompts that the backbone already has are tuned further, whatever `prompt_length` is.
    """
    has_prompts = backbone.config.prompt_len > 0
    adds_prompts = "prompt" in plan.tuning and not has_prompts
    length = plan.prompt_length if adds_prompts else backbone.config.prompt_len
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        network = NeuroSTORM(replace(backbone.config, head="v1", n_outputs=n_outputs, prompt_len=length))
        weights = {name: w for name, w in backbone.state_dict().items() if not name.startswith(HEAD)}
        network.load_state_dict(weights, strict=False)
        for name, parameter in network.named_parameters():
            if name.endswith(".prompt") and not has_prompts:
                nn.init.normal_(parameter, std=0.02)
            if name.startswith(HEAD):
                nn.init.zeros_(parameter)
        network.requires_grad_(plan.tuning == "full")
        if plan.tuning == "lora":
            _add_low_rank(network, plan)
    _require_gradients(network, plan.tuning)
    return network


def _add_low_rank(network: NeuroSTORM, plan: Plan) -> None:
    """Add low-rank matrices to the linear layers of every block."""
    for name, module in list(network.model.named_modules()):
        if name.split(".")[-1] in LOW_RANK_LAYERS:
            parametrize.register_parametrization(
                module, "weight", LowRank(module.weight, plan.lora_rank, plan.lora_scale)
            )


def _require_gradients(network: NeuroSTORM, tuning: str) -> None:
    """Require gradients of what is tuned."""
    for module in network.modules():
        if isinstance(module, LowRank) or (isinstance(module, nn.LayerNorm) and "layernorm" in tuning):
            module.requires_grad_(True)
    for name, parameter in network.named_parameters():
        if name.endswith(".prompt") and "prompt" in tuning:
            parameter.requires_grad_(True)
    assert network.output_head is not None
    network.output_head.requires_grad_(True)


def tuned_parts(network: NeuroSTORM) -> dict[str, Tensor]:
    """Return what was tuned, with the names that it has in the file of a tuned model."""
    parts = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            for ours, stored in zip(("a", "b"), LOW_RANK, strict=True):
                name = name.replace(f"parametrizations.weight.0.{ours}", f"weight{stored}")
            parts[name] = parameter.detach().clone()
    return parts


def merged(network: NeuroSTORM) -> NeuroSTORM:
    """Add low-rank additions to the weights for good, in place; returns the network."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return network.requires_grad_(False).eval()

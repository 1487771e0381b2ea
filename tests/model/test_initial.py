"""What a training from the beginning starts from."""

import torch
import torch.nn.functional as F

from neurostorm_bids.model.initial import random_network
from neurostorm_bids.model.network import Mamba, NeuroSTORMConfig, PositionalEmbedding

SMALL = NeuroSTORMConfig(img_size=(24, 24, 24, 4), embed_dim=24, depths=(2, 2))


def test_steps_are_between_a_thousandth_and_a_tenth():
    for module in random_network(SMALL).modules():
        if isinstance(module, Mamba):
            steps = F.softplus(module.dt_proj.bias)
            assert steps.min() >= 0.999e-3
            assert steps.max() <= 0.1001
            assert steps.log().std() > 0.5  # spread over the whole range
            assert module.dt_proj.weight.abs().max() <= module.dt_rank**-0.5
            assert torch.equal(module.A_log[0], torch.log(torch.arange(1.0, 17)))
            assert (module.D == 1).all()


def test_embeddings_of_place_are_small_and_not_zero():
    found = [m for m in random_network(SMALL).modules() if isinstance(m, PositionalEmbedding)]
    assert found
    for module in found:
        assert 0.01 < module.pos_embed.std() < 0.02
        assert module.pos_embed.abs().max() <= 0.04


def test_the_same_seed_gives_the_same_network():
    one, other, third = random_network(SMALL, 1), random_network(SMALL, 1), random_network(SMALL, 2)
    state = other.state_dict()
    assert all(torch.equal(w, state[name]) for name, w in one.state_dict().items())
    assert not torch.equal(one.model.patch_embed.fc.weight, third.model.patch_embed.fc.weight)

"""Budgets hold for networks that torch computes in fused calls, and what comes out is measured again."""

from __future__ import annotations

import pytest
import torch
from tests.foreign import Detector, Encoder, Recurrent, UNet

from mapsto import evaluate, prune
from mapsto.errors import DomainError
from mapsto.kinds import Network, trusting
from mapsto.nn.profile.cost import cost_of


@pytest.fixture(autouse=True)
def _trusted():
    torch.manual_seed(0)
    with trusting("tests"):
        yield


def macs(network: Network) -> float:
    return evaluate.size()(network).metrics["macs"].value


def test_a_transformers_budget_counts_its_attention():
    given = Network.from_module(Encoder(), torch.randn(2, 12, 32), arguments={})
    assert macs(given) == cost_of(given, "macs") == 215_168
    assert 0.75 < macs(prune.magnitude(macs=0.8)(given)) / 215_168 <= 0.8
    with pytest.raises(DomainError, match=r"the smallest is 0.5503; .*54%: attention, recurrent layers"):
        prune.magnitude(macs=0.5)(given)


def test_a_recurrent_network_that_cannot_be_pruned_is_refused():
    given = Network.from_module(Recurrent(), torch.randn(2, 12, 32), arguments={})
    assert macs(given) == 98_432
    with pytest.raises(DomainError, match="no layer of it can be pruned"):
        prune.magnitude(macs=0.5)(given)


@pytest.mark.parametrize("kind", [Detector, UNet])
def test_detectors_and_dense_outputs_meet_their_budgets(kind):
    given = Network.from_module(kind().eval(), torch.randn(2, 3, 32, 32))
    small = prune.magnitude(macs=0.5)(given)
    assert 0.4 < macs(small) / macs(given) <= 0.5
    x = torch.randn(2, 3, 32, 32)
    assert small.module()(x).shape == given.module()(x).shape

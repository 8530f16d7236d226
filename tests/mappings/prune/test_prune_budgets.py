"""Every step with a budget measures what it made, by a count of its own, and says where that is not what was asked for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests.foreign import Encoder
from torch import nn

from mapsto import discovery, prune
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network, trusting
from mapsto.nn.prune import budget_check
from mapsto.nn.prune.budget import Budget, Sized, missed
from mapsto.nn.prune.criterion import Criterion
from mapsto.testing import contract


def budgeted() -> list[str]:
    """Mappings with a budget, or with a field for one that has it: whoever adds another need not name it here."""
    found: list[str] = []
    for name in discovery.entries("mappings"):
        cls = discovery.find("mappings", name)
        fields = {field.name for field in dataclasses.fields(cls)}
        if issubclass(cls, Sized) or ("criterion" in fields and isinstance(contract.example(cls).criterion, Criterion)):
            found += [name] if cls.gives is Network else []
    return found


def test_the_budgeted_mappings_are_found():
    assert {"prune.magnitude", "prune.low_rank", "prune.heads", "prune.gradual", "prune.meta", "train.sparse"} <= set(
        budgeted()
    )


@pytest.mark.parametrize("factor", [2.0, 0.01])
@pytest.mark.parametrize("name", budgeted())
def test_what_is_reached_is_measured_and_told(name: str, factor: float, monkeypatch: pytest.MonkeyPatch):
    """The count finds another size than the step planned: twice the original's, or next to nothing."""
    (case,) = [case for case in contract.cases(name) if case.name == name]
    given: Any = contract._input(case)
    monkeypatch.setattr(budget_check, "_measured", lambda network, *_: 100.0 if network is given else 100.0 * factor)
    ctx = Context()
    ctx.apply(case.example(), given)
    said = [text for text in (ctx.warnings if factor > 1 else ctx.notes) if "asked for" in text]
    others = [text for text in (ctx.notes if factor > 1 else ctx.warnings) if "asked for" in text]
    assert len(said) == 1, f"{name} does not measure what it made: call mapsto.nn.prune.budget_check.told_reached"
    assert ("the budget is not met" in said[0]) == (factor > 1)
    assert not others


def test_a_budget_that_is_missed_is_named():
    budget = Budget("macs", 0.5)
    assert missed(budget, 0.5) is None
    assert "the budget is not met: asked for macs = 0.5, got 0.75" in missed(budget, 0.75).text
    assert "asked for macs = 0.5, got 0.25" in missed(budget, 0.25).text
    assert "got 60,000 bytes" in missed(Budget("bytes", 50_000, "bytes"), 60_000).text
    assert missed(Budget("bytes", 1e6, "bytes"), 30_000, cut=False) is None, "it was small enough as it was"
    assert missed(Budget("latency_ms", 1.0, "ms"), 1.2) is None, "a second measurement differs by noise"


class Narrow(nn.Module):
    """8 × 8 multiply-accumulates that stay, as their result is added to the input, and 8 × 2 + 2 × 40 that hang on two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.classifier = nn.Linear(8, 8), nn.Linear(8, 2), nn.Linear(2, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.hidden(x + self.first(x)).relu())


def test_overshoot_is_a_note_that_names_what_stays_whole():
    """Asked for 95 % of 160 multiply-accumulates, one channel goes, and 64 + 8 + 40 are left."""
    with trusting("tests"):
        given = Network.from_module(Narrow(), torch.randn(2, 8))
        ctx = Context()
        small = ctx.apply(prune.magnitude(macs=0.95), given)
        assert (budget_check.cost_of(given, "macs"), budget_check.cost_of(small, "macs")) == (160, 112)
    (note,) = [text for text in ctx.notes if "asked for" in text]
    assert "asked for macs = 0.95, got 0.7: far less than needed" in note
    assert "57 % of its multiply-accumulates are in layers that stay whole (first 57 %)" in note
    assert ctx.warnings == []


def test_out_of_reach_says_what_is_left_of_heads_and_factors():
    with trusting("tests"):
        given = Network.from_module(Encoder(), torch.randn(2, 12, 32), arguments={})
        with pytest.raises(DomainError, match=r"is out of reach: .*% of that is in what is not factorised"):
            prune.low_rank(macs=0.01)(given)
    from mapsto.mappings.prune.heads import _transformer

    with pytest.raises(DomainError, match=r"is out of reach: .*% of its macs belong to no head, and stay"):
        prune.heads(macs=0.01)(_transformer())

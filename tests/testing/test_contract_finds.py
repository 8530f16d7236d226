"""The contract's promise of results on the way finds those who break it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from tests.toys import Toy, Walk, _Walking

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.process import Live, State
from mapsto.testing.contract import PROMISES, Case, ContractError

pytestmark = pytest.mark.usefixtures("trusted")


class _Sharing(_Walking):
    def result(self) -> Network:
        return dataclasses.replace(self.value, tensors={**self.value.tensors, "weight": self.weight})


class _Moving(_Walking):
    def result(self) -> Network:
        self.weight *= 0.5
        return super().result()


class _Forgetful(_Walking):
    """Does something else once it was asked, of which its state says nothing, as a module that was put into its mode for inference."""

    asked = False

    def advance(self, item: int) -> Any:
        rows = super().advance(item)
        self.weight += float(self.asked)
        return rows

    def result(self) -> Network:
        self.asked = True
        return super().result()


class Bad(Walk):
    """A walk whose results are not as they must be."""

    def open(self, value: Network, state: State | None, ctx: Context) -> Live[Network]:
        return KINDS[self.marks.name](self, value, state) if self.marks is not None else _Walking(self, value, state)


def _giving(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


KINDS = {"sharing": _Sharing, "moving": _Moving, "forgetful": _Forgetful}


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("sharing", "changed as the process went on|writes to the process"),
        ("moving", "changed its state"),
        ("forgetful", "an item gave another state"),
    ],
)
def test_a_result_that_is_not_its_own_is_found(
    kind: str, found: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Context().apply(Toy(), None)
    made = Bad(steps=6, marks=tmp_path / kind)
    monkeypatch.setattr("mapsto.testing.contract._input", _giving(given))
    monkeypatch.setattr("mapsto.testing.contract._applied", _giving(given))
    monkeypatch.setattr(Case, "example", _giving(made))
    with pytest.raises(ContractError, match=found):
        PROMISES["killed at a random step it resumes"](Case("bad"), tmp_path)

"""Pruning little by little with training in between: how fast, and the process whose network changes as it goes.

Its state carries the network of the round (factory, edits, tensors) beside the state of the training that is under way, so that
it goes on with the very structure that it had.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

from torch import Tensor

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.nn.network import serialization
from mapsto.nn.profile.cost import cost_of
from mapsto.nn.prune.budget import Budgeted
from mapsto.nn.prune.budget_check import told_reached
from mapsto.nn.prune.criterion import Criterion
from mapsto.nn.prune.round_tables import RoundTables
from mapsto.nn.prune.structured import Ranked, choice, ranked
from mapsto.process import Items, Live, Process, Rows, State

__all__ = ["Gradual", "Pace", "packed", "remaining", "round_context", "unpacked"]

Pace: TypeAlias = Literal["cubic", "linear", "geometric"]


def remaining(pace: Pace, done: float, final: float) -> float:
    """The share of the cost that is left once the share `done` of the rounds is done, `final` at the end.

    >>> [round(remaining("cubic", k / 4, 0.2), 4) for k in range(5)]
    [1.0, 0.5375, 0.3, 0.2125, 0.2]
    >>> [round(remaining("linear", k / 4, 0.2), 4) for k in range(5)]
    [1.0, 0.8, 0.6, 0.4, 0.2]
    >>> [round(remaining("geometric", k / 4, 0.0625), 4) for k in range(5)]
    [1.0, 0.5, 0.25, 0.125, 0.0625]
    """
    if pace == "geometric":
        return final**done
    gone = done if pace == "linear" else 1 - (1 - done) ** 3
    return 1 - (1 - final) * gone


def packed(network: Network) -> State:
    """A network as a part of a state."""
    blobs: dict[str, Tensor | bytes] = {}

    def put(blob: Any) -> str:
        blobs[str(len(blobs))] = blob
        return str(len(blobs) - 1)

    return {"tree": serialization.encode(network, put), "blobs": blobs}


def unpacked(state: State) -> Network:
    """The network of `packed`."""
    blobs = state["blobs"]
    return serialization.decode(state["tree"], lambda blob, _: blobs[blob], lambda blob, _: blobs[blob])


def round_context(ctx: Context, number: int) -> Context:
    """The context of a round: other orders and draws in each, everything else shared."""
    _ = ctx.fabric  # made once, not anew in each round
    of_round = copy.copy(ctx)
    of_round.key = f"{ctx.key}, round {number}"
    return of_round


class Gradual(Live[Network]):
    """Rounds of pruning and training at work.

    Parameters
    ----------
    value
        The network that is given; the budget is a share of its cost.
    criterion
        What goes, and to what budget in the end.
    train
        The training after each pruning.
    rounds, pace
        How many prunings, and how fast.
    state
        A snapshot; None prunes for the first time.
    where
        The mapping's name, for errors.

    Raises
    ------
    DomainError
        The budget of the last round is out of reach.
    """

    def __init__(
        self,
        value: Network,
        criterion: Criterion,
        train: Process[Network, Network],
        *,
        rounds: int,
        pace: Pace,
        state: State | None,
        ctx: Context,
        where: str,
    ) -> None:
        self._value, self._criterion, self._train, self._ctx = value, criterion, train, ctx
        self._rounds = rounds
        self._pace: Pace = pace
        self._first_chosen: Any = None
        self._whole: float
        self._channels: dict[str, int]
        self._tables = RoundTables(criterion.name, None if state is None else state.get("tables"))
        self.step = 0 if state is None else int(state["step"])
        if state is None:
            network = self._first_pruned(where)
            self._begin(1, network, None)
            self._first_chosen = self._inner.snapshot().get("chosen")
        else:
            self._whole, self._channels, self._first_chosen = (state[name] for name in ("whole", "channels", "chosen"))
            self._begin(int(state["round"]), unpacked(state["network"]), state["inner"])

    def _first_pruned(self, where: str) -> Network:
        """The network after the first pruning."""
        value, own, settings = self._value, round_context(self._ctx, 1), self._criterion.settings
        found = self._ranked(value, own, where)
        judge = self._criterion.judge(value, own)
        choice(found, settings, judge=judge, where=where)
        self._whole = cost_of(value, _kind(settings))
        self._channels = {name: len(scores) for name, scores in found.scores.items()}
        share = remaining(self._pace, 1 / self._rounds, _final(settings, self._whole))
        return value if share >= 1 else self._shrunk(found, _to_share(settings, share), own, where=where)

    def _ranked(self, network: Network, own: Context, where: str) -> Ranked:
        settings, importance = self._criterion.settings, self._criterion.importance(network, own)
        return ranked(
            network,
            importance,
            embedding=settings.prune_embedding,
            padded=settings.padded,
            where=where,
            log=self._ctx.log if self.step == 0 else lambda _: None,
        )

    def _shrunk(self, found: Ranked, wanted: Budgeted, own: Context, *, where: str) -> Network:
        """What is left of a network for a budget; why each channel goes is kept."""
        judge, whole = self._criterion.judge(found.network, own), self._channels if self.step else None
        taken = choice(found, wanted, judge=judge, whole=whole, where=where)
        self._tables.add(taken, taken.verdicts(found.groups, found.scores))
        return found.shrunk(taken.kept)

    @property
    def total(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Items in all, if no round that is to come stops early."""
        if self._inner.total is None:
            return None
        return self.step - self._inner.step + (self._rounds - self._round + 1) * self._inner.total

    @property
    def done(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the training of the last round is done."""
        return self._round == self._rounds and self._inner.done

    def advance(self, item: Any) -> Rows:
        inner = self._inner
        before = self.step - inner.step
        rows = inner.advance(self._items[inner.step])
        self.step += 1
        more = {"round": float(self._round), "cost_share": self._share}
        if inner.done and self._round < self._rounds:
            self._prune_again()
        return [(before + n, {**metrics, **more}) for n, metrics in rows]

    def snapshot(self) -> State:
        return {
            "step": self.step,
            "round": self._round,
            "whole": self._whole,
            "channels": self._channels,
            "network": packed(self._network),
            "inner": self._inner.snapshot(),
            "chosen": self._first_chosen,
            "tables": self._tables.state,
        }

    def result(self) -> Network:
        for name, table in self._tables.made().items():
            self._ctx.attach(name, table)
        told_reached(self._value, self._network, self._criterion.settings.budget, self._ctx)
        return self._inner.result()

    def _begin(self, number: int, network: Network, inner: State | None) -> None:
        self._round, self._network = number, network
        own = round_context(self._ctx, number)
        self._inner = self._train.open(network, inner, own)
        if inner is None and self._first_chosen:
            # The rule that chose the engine looks at shapes, which pruning changes: all rounds run in that of the first.
            self._inner = self._train.open(network, {**self._inner.snapshot(), "chosen": self._first_chosen}, own)
        self._items = cast("Items", self._train.items(network, own))
        self._share = cost_of(network, _kind(self._criterion.settings)) / self._whole

    def _prune_again(self) -> None:
        trained = self._inner.result()
        number, settings = self._round + 1, self._criterion.settings
        own = round_context(self._ctx, number)
        share = remaining(self._pace, number / self._rounds, _final(settings, self._whole))
        now = share * self._whole / cost_of(trained, _kind(settings))
        network = trained
        if now < 1:
            name = self._criterion.name
            network = self._shrunk(self._ranked(trained, own, name), _to_share(settings, now), own, where=name)
        self._begin(number, network, None)
        self._ctx.log(f"round {number} of {self._rounds}: {self._share:.1%} of the {_kind(settings)}")


def _kind(settings: Budgeted) -> Literal["macs", "parameters", "bytes"]:
    return cast("Any", settings.budget.kind)


def _final(settings: Budgeted, whole: float) -> float:
    """The budget as a share of the whole network's cost."""
    budget = settings.budget
    return min(budget.limit / whole if budget.unit == "bytes" else budget.limit, 1.0)


def _to_share(settings: Budgeted, share: float) -> Budgeted:
    """The settings with another budget of the same kind."""
    changes: Mapping[str, Any] = {"macs": None, "parameters": None, "bytes": None, _kind(settings): share}
    return dataclasses.replace(cast("Any", settings), **changes)

"""Samplers that need no library: random, grid, and regularised evolution for one objective or several.

Each gives for the trials so far a function that answers for every hole it is asked for, so that conditional holes are drawn only where
their branch is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mapsto.search.holes import Filled, Hole, same
from mapsto.search.space import Suggest
from mapsto.search.trials import Trial

__all__ = ["SAMPLERS", "evolution", "grid", "random_search", "ranks"]

_GRID_POINTS = 4
"""Numbers of a range without a step that a grid takes."""
_POPULATION = 20
"""The last trials, among which parents are sought; Real et al. have 100 of 20,000."""
_TOURNAMENT = 5
_WIDTH = 0.15
"""Standard deviation of a mutation, as a share of a range."""
_TRIES = 20
"""Draws after which a configuration that was tried already is taken all the same."""

Sampler = Callable[
    [Callable[[Suggest], Filled], Sequence[Trial], Sequence[float], np.random.Generator], "Suggest | None"
]


def random_search(
    ask: Callable[[Suggest], Filled], trials: Sequence[Trial], signs: Sequence[float], rng: np.random.Generator
) -> Suggest:
    """Each hole by itself, each value alike likely (Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", 2012)."""
    return _new(ask, trials, lambda: lambda hole: hole.draw(rng))


def grid(
    ask: Callable[[Suggest], Filled], trials: Sequence[Trial], signs: Sequence[float], rng: np.random.Generator
) -> Suggest | None:
    """The next of all combinations, the last hole fastest; None where all were tried. Of a range four numbers, or those of its step."""
    taken = [trial.holes for trial in trials]
    for holes in _combinations(ask):
        if not any(same(holes, other) for other in taken):
            return lambda hole: holes[hole.name]
    return None


def evolution(
    ask: Callable[[Suggest], Filled], trials: Sequence[Trial], signs: Sequence[float], rng: np.random.Generator
) -> Suggest:
    """The best of five of the last twenty trials, with a hole or two changed (Real et al., "Regularized Evolution for Image Classifier
    Architecture Search", 2019). What misses limits comes last; of several objectives the better is what fewer others dominate.
    """
    done = [trial for trial in trials if trial.state == "complete"][-_POPULATION:]
    if len(done) < max(4, _TOURNAMENT):
        return random_search(ask, trials, signs, rng)
    order = ranks(done, signs)

    def child() -> Suggest:
        entrants = rng.choice(len(done), size=min(_TOURNAMENT, len(done)), replace=False)
        parent = done[int(min(entrants, key=lambda at: order[int(at)]))]
        changed = set(rng.choice(sorted(parent.holes), size=1 + int(rng.random() < 0.5)))  # pyright: ignore[reportUnknownArgumentType]

        def suggest(hole: Hole) -> Any:
            if hole.name not in parent.holes or not hole.contains(parent.holes[hole.name]):
                return hole.draw(rng)
            value = parent.holes[hole.name]
            return _mutated(hole, value, rng) if hole.name in changed else value

        return suggest

    return _new(ask, trials, child)


def ranks(trials: Sequence[Trial], signs: Sequence[float]) -> list[tuple[float, int, float]]:
    """What trials are sorted by, the best first: missed limits, how many others dominate it, the sum of ranks over objectives."""
    values = np.array([[sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in trials])
    places = values.argsort(axis=0).argsort(axis=0).sum(axis=1)
    found: list[tuple[float, int, float]] = []
    for at, trial in enumerate(trials):
        beaten = (values <= values[at]).all(axis=1) & (values < values[at]).any(axis=1)
        found.append((trial.miss, int(beaten.sum()), float(places[at])))
    return found


def _mutated(hole: Hole, value: Any, rng: np.random.Generator) -> Any:
    if hole.kind != "range":
        others = [option for option in hole.options if not same(option, value)]
        return others[int(rng.integers(len(others)))] if others else value
    share = hole.share_of(value) + _WIDTH * float(rng.standard_normal())
    return hole.at(min(max(share, 0.0), 1 - 1e-12))


def _new(ask: Callable[[Suggest], Filled], trials: Sequence[Trial], draw: Callable[[], Suggest]) -> Suggest:
    """What `draw` gives, drawn anew where it was tried already."""
    holes: Filled = {}
    for _ in range(_TRIES):
        holes = ask(draw())
        if not any(same(holes, trial.holes) for trial in trials):
            break
    return lambda hole: holes[hole.name]


def _combinations(ask: Callable[[Suggest], Filled]) -> Iterator[Filled]:
    """All fillings in turn, as an odometer whose wheels are those holes that the ones before it leave."""
    wheels: list[int] = []
    while True:
        sizes: list[int] = []
        turned = list(wheels)

        def suggest(hole: Hole, sizes: list[int] = sizes, turned: list[int] = turned) -> Any:
            options, place = hole.grid(_GRID_POINTS), len(sizes)
            sizes.append(len(options))
            return options[turned[place] if place < len(turned) else 0]

        yield ask(suggest)
        wheels = [*wheels, *([0] * (len(sizes) - len(wheels)))][: len(sizes)]
        while wheels and wheels[-1] + 1 >= sizes[len(wheels) - 1]:
            wheels.pop()
        if not wheels:
            return
        wheels[-1] += 1


SAMPLERS: dict[str, Sampler] = {"random": random_search, "grid": grid, "evolution": evolution}

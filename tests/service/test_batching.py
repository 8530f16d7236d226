"""Requests that came together run together; one that fails, goes or is late costs no other anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mapsto.service.batching import Batcher
from mapsto.service.refusal import Refusal


class Doubling:
    """A model that takes its time, notes its batches, and fails on NaN."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[int] = []
        self.seconds = seconds

    def __call__(self, samples: NDArray[Any]) -> Sequence[NDArray[Any]]:
        self.batches.append(len(samples))
        time.sleep(self.seconds)
        if np.isnan(samples).any():
            raise ValueError("it cannot be computed")
        return [samples * 2]


def one(value: float, width: int = 1) -> NDArray[np.float32]:
    return np.full((1, width), value, np.float32)


async def answers(batcher: Batcher, values: Sequence[NDArray[Any]], key: str = "") -> list[Any]:
    deadline = time.perf_counter() + 60
    asked = (batcher.submit(value, deadline=deadline, key=key) for value in values)
    return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize("seconds", [0.0, 0.002], ids=["in the loop", "in a thread"])
def test_what_came_together_runs_together(seconds: float) -> None:
    model = Doubling(seconds)
    batcher = Batcher(model, seconds=seconds, most=8)
    found = asyncio.run(answers(batcher, [one(value) for value in range(20)]))
    assert [float(outputs[0][0, 0]) for outputs in found] == [2 * value for value in range(20)]
    assert model.batches == [8, 8, 4]


def test_a_request_of_more_than_a_batch_is_answered_whole() -> None:
    model = Doubling()
    (found,) = asyncio.run(answers(Batcher(model, seconds=0, most=4), [np.arange(10, dtype=np.float32)[:, None]]))
    assert found[0][:, 0].tolist() == [2.0 * value for value in range(10)]
    assert max(model.batches) <= 4


def test_shapes_are_not_mixed() -> None:
    found = asyncio.run(answers(Batcher(Doubling(), seconds=0), [one(1), one(2, width=3), one(3)]))
    assert [outputs[0].shape for outputs in found] == [(1, 1), (1, 3), (1, 1)]


def test_one_that_fails_costs_its_neighbours_nothing() -> None:
    found = asyncio.run(answers(Batcher(Doubling(), seconds=0), [one(1), one(float("nan")), one(3)]))
    assert (found[0][0], found[2][0]) == (2, 6)
    assert isinstance(found[1], Refusal)
    assert (found[1].status, "cannot be computed" in found[1].text) == (500, True)


def test_one_whose_client_has_gone_is_not_run() -> None:
    model = Doubling(0.05)
    batcher = Batcher(model, seconds=0.05, most=1)

    async def run() -> float:
        tasks = [
            asyncio.ensure_future(batcher.submit(one(value), deadline=time.perf_counter() + 60)) for value in (1, 2, 3)
        ]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        return float((await tasks[2])[0][0, 0])

    assert asyncio.run(run()) == 6
    assert model.batches == [1, 1]


def test_after_its_deadline_nothing_is_done_for_a_request() -> None:
    model = Doubling(0.05)
    batcher = Batcher(model, seconds=0.0, most=1)  # as if it were fast, so that it is let in
    batcher._threads = Batcher(model, seconds=1.0)._threads

    async def run() -> Any:
        now = time.perf_counter()
        first = batcher.submit(one(1), deadline=now + 60)
        late = batcher.submit(one(2), deadline=now + 0.02)
        return await asyncio.gather(first, late, return_exceptions=True)

    first, late = asyncio.run(run())
    assert first[0][0] == 2
    assert isinstance(late, Refusal)
    assert late.status == 504
    assert model.batches == [1]


def test_what_would_wait_too_long_is_refused_with_when_to_come_back() -> None:
    batcher = Batcher(Doubling(0.01), seconds=0.1, most=1, most_wait=0.35)
    found = asyncio.run(answers(batcher, [one(value) for value in range(10)]))
    refused = [each for each in found if isinstance(each, Refusal)]
    assert len(refused) == 6
    assert all(each.status == 429 and each.retry_after for each in refused)
    assert len({each.retry_after for each in refused}) > 1, "they do not come back at once"


def test_one_key_does_not_take_the_room_of_another() -> None:
    batcher = Batcher(Doubling(0.01), seconds=0.1, most=1, most_wait=0.35)

    async def run() -> tuple[list[Any], list[Any]]:
        greedy = asyncio.ensure_future(answers(batcher, [one(0)] * 10, key="greedy"))
        await asyncio.sleep(0)
        modest = await answers(batcher, [one(1)], key="modest")
        return await greedy, modest

    greedy, modest = asyncio.run(run())
    assert sum(isinstance(each, Refusal) for each in greedy) == 6
    assert modest[0][0][0] == 2

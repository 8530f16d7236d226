"""Episodes, and working ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapsto.data.sets.digits import Digits
from mapsto.data.sets.episodes import EpisodesOf
from mapsto.data.tasks.drawn import DrawnEpisodes
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Preprocessing, Samples
from mapsto.run.prefetch import Prefetched


def samples_of(labels: list[int]) -> Samples:
    return Samples(
        inputs=np.arange(len(labels), dtype=np.float32)[:, None],
        labels=np.array(labels, np.int64),
        classes=tuple(f"c{i}" for i in range(max(labels, default=0) + 2)),
        preprocessing=Preprocessing(kind="none"),
    )


# ------------------------------------------------------------------------------------------------------------ episodes


@given(
    counts=st.lists(st.integers(4, 8), min_size=2, max_size=8),
    shots=st.integers(1, 2),
    queries=st.integers(1, 2),
    seed=st.integers(0, 2**63 - 1),
    data=st.data(),
)
def test_an_episode_is_sound_and_reproducible(
    counts: list[int], shots: int, queries: int, seed: int, data: st.DataObject
) -> None:
    ways, index = data.draw(st.integers(2, len(counts))), data.draw(st.integers(0, 2**40))
    labels = [2 * label for label, count in enumerate(counts) for _ in range(count)]
    order = np.random.default_rng(0).permutation(len(labels))
    samples = samples_of(np.array(labels)[order].tolist())
    episodes = DrawnEpisodes(samples, ways=ways, shots=shots, queries=queries, seed=seed)
    episode = episodes[index]
    assert len(set(episode.classes)) == ways
    assert episode.support_labels.tolist() == [way for way in range(ways) for _ in range(shots)]
    assert episode.query_labels.tolist() == [way for way in range(ways) for _ in range(queries)]
    for indices, ways_of in (
        (episode.support_indices, episode.support_labels),
        (episode.query_indices, episode.query_labels),
    ):
        assert samples.labels[indices].tolist() == [episode.classes[way] for way in ways_of]
    both = [*episode.support_indices, *episode.query_indices]
    assert len(set(both)) == ways * (shots + queries)
    again = DrawnEpisodes(samples, ways=ways, shots=shots, queries=queries, seed=seed)
    _ = again[index + 1]
    assert again[index].query_indices.tolist() == episode.query_indices.tolist()


def test_episodes_differ_by_index_and_by_seed() -> None:
    opened = [EpisodesOf(data=Digits(), seed=seed).open() for seed in range(3)]
    drawn = {tuple(episodes[index].query_indices.tolist()) for episodes in opened for index in range(20)}
    assert len(drawn) == 60


def test_every_class_and_every_sample_is_drawn_alike() -> None:
    samples = samples_of([0] * 5 + [1] * 5 + [2] * 5 + [3] * 5)
    episodes = DrawnEpisodes(samples, ways=2, shots=1, queries=1, seed=0)
    counts = np.zeros(20)
    for index in range(4000):
        counts[episodes[index].support_indices] += 1
    assert abs(counts / 400 - 1).max() < 0.2


@pytest.mark.parametrize(
    ("labels", "fields", "message"),
    [
        ([0, 0, 1, 1], {"ways": 3, "queries": 1}, "need 3 classes, but the data has 2"),
        ([0, 0, 1, 1, 3], {"ways": 2, "queries": 1}, r"need 2 samples of each class, but 'c3' has 1"),
        ([0, 0, 1, 1], {"ways": 2, "queries": 5}, r"'c0' has 2 \(and 1 more classes\)"),
        ([], {"ways": 2, "queries": 1}, "not one sample"),
    ],
)
def test_data_that_cannot_give_such_episodes(labels: list[int], fields: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        DrawnEpisodes(samples_of(labels), shots=1, seed=0, **fields)


def test_targets_give_no_episodes() -> None:
    targets = Samples(
        inputs=np.zeros((3, 1)), labels=np.zeros((3, 2), np.float32), classes=("a", "b"), preprocessing=Preprocessing()
    )
    with pytest.raises(DataError, match="needs one class for each sample"):
        DrawnEpisodes(targets, ways=2, shots=1, queries=1, seed=0)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(SpecError, match="ways"):
        EpisodesOf(data=Digits(), ways=1)
    with pytest.raises(DomainError, match="numbered from 0"):
        EpisodesOf(data=Digits()).open()[-1]


# ----------------------------------------------------------------------------------------------------- working ahead


class Slow:
    """Squares that take a while; remembers what was asked for and by whom."""

    def __init__(self, end: int | None = None) -> None:
        self.asked: list[int] = []
        self.end = end
        if end is not None:
            self.__class__ = type("Sized", (Slow,), {"__len__": lambda self: self.end})

    def __getitem__(self, step: int) -> int:
        self.asked.append(step)
        time.sleep(0.002)
        if step == 13:
            raise ValueError("thirteen")
        return step * step


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def workers() -> int:
    return sum(thread.name.startswith("mapsto-prefetch") for thread in threading.enumerate())


@given(steps=st.lists(st.integers(0, 12), max_size=6), threads=st.integers(1, 3), depth=st.integers(0, 3))
def test_items_are_those_asked_for(steps: list[int], threads: int, depth: int) -> None:
    with Prefetched(Slow(), threads, depth) as ahead:
        assert [ahead[step] for step in steps] == [step * step for step in steps]


def test_the_next_items_are_computed_ahead_and_no_further() -> None:
    slow = Slow(end=6)
    with Prefetched(slow, workers=2, depth=3) as ahead:
        assert ahead[1] == 1
        wait_for(lambda: len(slow.asked) == 4)
        time.sleep(0.02)
        assert sorted(slow.asked) == [1, 2, 3, 4]
        assert [ahead[step] for step in range(2, 6)] == [4, 9, 16, 25]
    assert sorted(slow.asked) == [1, 2, 3, 4, 5]


def test_an_error_comes_when_its_item_is_asked_for() -> None:
    with Prefetched(Slow(), depth=3) as ahead:
        assert ahead[12] == 144
        with pytest.raises(ValueError, match="thirteen"):
            ahead[13]
        assert ahead[14] == 196


def test_threads_end_with_their_owner() -> None:
    ahead = Prefetched(Slow(), workers=3, depth=50)
    assert ahead[0] == 0
    assert workers() > 0
    ahead.close()
    assert workers() == 0
    assert ahead[3] == 9
    ahead.close()
    dropped = Prefetched(Slow(), workers=2, depth=5)
    assert dropped[0] == 0
    del dropped
    wait_for(lambda: workers() == 0)

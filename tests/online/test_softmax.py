"""`online.softmax` in native code: blocks at once, events one by one, and NumPy give the same bits, and go on from each other."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.online.test_learning import block

from mapsto import online, streams
from mapsto.context import Context
from mapsto.errors import DomainError, StoreError
from mapsto.kinds import Block
from mapsto.native import tabular
from mapsto.native.plain import FLAGS, SOURCES, VARIANTS
from mapsto.nn.online import native_adagrad
from mapsto.nn.online.adagrad import AdaGrad
from mapsto.nn.online.learning import Answers, StreamLearner, TableLearner
from mapsto.nn.online.native_adagrad import NativeAdaGrad, adagrad
from mapsto.nn.online.rule import Rule


class _RowByRow(AdaGrad):
    """The native rule, which is given no whole blocks."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self._own = NativeAdaGrad(rate)

    def grow(self, inputs: int, classes: int) -> None:
        self._own.grow(inputs, classes)

    def scores(self, row: np.ndarray) -> np.ndarray:
        return self._own.scores(row)

    def learn(self, row: np.ndarray, label: int) -> None:
        self._own.learn(row, label)

    def arrays(self) -> dict[str, Any]:
        return self._own.arrays()

    def restore(self, arrays: Any) -> None:
        self._own.restore(arrays)


RULES: list[type[Rule]] = [NativeAdaGrad, _RowByRow, AdaGrad]


def learner(rule: Any) -> TableLearner:
    return TableLearner(rule(0.2), {}, most_categories=3, most_late=2)


class Taught:
    """A learner that is given events in blocks of some sizes, and what it said of each."""

    def __init__(self, live: StreamLearner) -> None:
        self.live, self.scores, self.answers, self.at = live, list[bytes](), list[Any](), 0

    def learn(self, made: Block) -> None:
        def answered(answers: Answers) -> None:
            for event, scores, label in zip(*answers[:3], strict=True):
                self.answers.append((self.at + int(event), scores.copy(), float(label)))

        table = self.live.learn(made, answered)
        for row in table:
            self.scores.append(b"" if np.isnan(row[:1]).any() else np.trim_zeros(row, "b").tobytes())
        self.at += len(made)

    def state(self) -> Any:
        arrays = {name: (array.shape, array.tobytes()) for name, array in self.live.arrays().items()}
        return arrays, self.live.values(), self.live.signature, self.live.doubts

    def said(self) -> Any:
        """What depends on the events alone: without the zeros of classes that came later in a block."""
        answers = [(event, np.trim_zeros(scores, "b").tobytes(), label) for event, scores, label in self.answers]
        return self.scores, answers


NUMBERS = [1.0, -2.5, 0.5, 3.0, 7.25, 1e9, 1e9 + 1]
WORDS = ["red", "blue", "green", "grey", "black", ""]
CELLS = st.fixed_dictionaries(
    {"d": st.sampled_from(NUMBERS), "c": st.sampled_from(WORDS)},
    optional={"b": st.sampled_from(NUMBERS), "a": st.sampled_from(WORDS)},
)
ODD = st.fixed_dictionaries({}, optional={"d": st.sampled_from([np.inf, 1e99, 2e100]), "c": st.sampled_from(WORDS)})
ORDINARY = st.tuples(CELLS, st.just(""), st.sampled_from(["y", "n", "m", None]))
STRANGE = st.tuples(
    CELLS | ODD, st.sampled_from(["", "q1", "q2", "q3"]), st.sampled_from([None, None, "y", "new", "nan", "", "inf"])
)
EVENTS = st.lists(ORDINARY | ORDINARY | ORDINARY | STRANGE, min_size=1, max_size=40)


def events_block(events: list[Any]) -> Block:
    names = dict.fromkeys(name for x, _, _ in events for name in x)
    x = {name: [each.get(name) for each, _, _ in events] for name in names}
    return block(x or {"d": [None] * len(events)}, [y for _, _, y in events], [name for _, name, _ in events])


def teach(taught: Taught, events: list[Any], sizes: list[int]) -> Taught:
    at = turn = 0
    while at < len(events):
        size = sizes[turn % len(sizes)]
        made = events_block(events[at : at + size])
        taught.learn(dataclasses.replace(made, times=made.times + at))
        at, turn = at + size, turn + 1
    return taught


@settings(max_examples=40, deadline=None)
@given(events=EVENTS, cuts=st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_whole_blocks_single_events_and_numpy_agree_to_the_bit(events: list[Any], cuts: list[int]) -> None:
    first = teach(Taught(learner(NativeAdaGrad)), events, [1])
    for rule in RULES:
        for sizes in ([1], cuts, [1000]):
            other = teach(Taught(learner(rule)), events, sizes)
            assert other.state() == first.state(), (rule.__name__, sizes)
            assert other.said() == first.said(), (rule.__name__, sizes)
    question = events_block([(x, "", None) for x, _, _ in events])
    predicted = [teach(Taught(learner(rule)), events, cuts).live.predict(question) for rule in RULES]
    assert len({table.tobytes() for table in predicted}) == 1


@settings(max_examples=25, deadline=None)
@given(events=EVENTS, at=st.integers(0, 39), order=st.permutations(RULES))
def test_each_goes_on_where_another_stopped(events: list[Any], at: int, order: list[Any]) -> None:
    whole = teach(Taught(learner(order[0])), events, [7])
    before, after = teach(Taught(learner(order[1])), events[:at], [5]), Taught(learner(order[2]))
    after.live.restore(before.live.signature, before.live.arrays(), before.live.values())
    teach(after, events[at:], [9])
    assert after.state()[:3] == whole.state()[:3]


def _numbers(count: int, inputs: int, classes: int, *, seed: int = 0) -> Block:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, inputs)) * 10.0 ** rng.integers(-3, 4, inputs)
    return block({f"x{n}": x[:, n].tolist() for n in range(inputs)}, [f"c{n}" for n in rng.integers(0, classes, count)])


@pytest.mark.parametrize(("inputs", "classes"), [(1, 1), (2, 2), (5, 3), (9, 7), (3, 40)])
def test_the_exponential_and_the_sums_of_numpy_are_those_of_native_code(inputs: int, classes: int) -> None:
    rng = np.random.default_rng(inputs)
    native, plain = NativeAdaGrad(0.7), AdaGrad(0.7)
    for rule in (native, plain):
        rule.grow(inputs, classes)
        rule.restore({"weights": 90 * rng.normal(size=(classes, inputs)), "squares": np.ones((classes, inputs))})
        rng = np.random.default_rng(inputs)
    rows = rng.normal(size=(200, inputs)) * 10.0 ** rng.integers(-6, 3, (200, 1))
    rows[rng.random(rows.shape) < 0.2] = 0.0
    for row, label in zip(rows, rng.integers(0, classes, 200).tolist(), strict=True):
        assert native.scores(row).tobytes() == plain.scores(row).tobytes()
        native.learn(row, label)
        plain.learn(row, label)
    for name, array in native.arrays().items():
        assert array.tobytes() == plain.arrays()[name].tobytes(), name


def test_scores_are_those_of_the_formula() -> None:
    rng = np.random.default_rng(1)
    rule, weights = NativeAdaGrad(0.2), rng.normal(size=(4, 6)) * 3
    rule.restore({"weights": weights, "squares": np.ones((4, 6))})
    row = rng.normal(size=6)
    expected = np.exp(weights @ row) / np.exp(weights @ row).sum()
    np.testing.assert_allclose(rule.scores(row), expected, rtol=1e-13)
    rule.learn(row, 2)
    gradient = np.outer(expected - np.eye(4)[2], row)
    np.testing.assert_allclose(rule.arrays()["squares"], 1 + gradient**2, rtol=1e-12)
    np.testing.assert_allclose(
        rule.arrays()["weights"], weights - 0.2 * gradient / np.sqrt(1 + gradient**2 + 1e-8), rtol=1e-11
    )


def test_an_odd_event_costs_its_block_little() -> None:
    """Of 256 events with one infinite number nearly all are learnt at once."""
    live, rule = learner(NativeAdaGrad), NativeAdaGrad
    live.learn(_numbers(10, 3, 3))
    taken: list[int] = []
    take = rule.take

    def counted(self: Any, columns: Any, count: int, *more: Any) -> Any:
        table = take(self, columns, count, *more)
        taken.extend([count] if table is not None else [])
        return table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rule, "take", counted)
        given = _numbers(256, 3, 3, seed=1)
        given.x["x1"][100] = np.inf
        assert np.isnan(live.learn(given)).any(1).nonzero()[0].tolist() == [100]
        assert sum(taken) >= 252
        taken.clear()
        live.learn(_numbers(256, 3, 5, seed=2))  # with classes that are new
        assert taken == [256]


def test_without_native_code_the_rule_of_numpy_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> Any:
        raise DomainError(f"no {name}", hint="none")

    assert type(adagrad(0.2)) is NativeAdaGrad
    with monkeypatch.context() as patch:
        patch.setattr(native_adagrad, "learner_library", none)
        native_adagrad._library.cache_clear()
        assert type(adagrad(0.2)) is AdaGrad
        with pytest.raises(DomainError, match="no native code"):
            NativeAdaGrad(0.2)
    native_adagrad._library.cache_clear()
    assert type(adagrad(0.2)) is NativeAdaGrad


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_all_variants_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tabular._flags()
    marches = [march for march, needed in VARIANTS.get(platform.machine(), ()) if needed <= here]
    found: dict[str, Any] = {}
    for name, flags in {**{each: [f"-march={each}"] for each in marches}, "-O1": ["-O1"]}.items():
        to = tmp_path / f"{name}.so"
        command = ["g++", *FLAGS, *flags, "-shared", str(SOURCES["softmax_learner"][0]), "-o", str(to)]
        subprocess.run(command, check=True, timeout=600)
        monkeypatch.setattr(native_adagrad, "learner_library", lambda _, to=to: to)
        native_adagrad._library.cache_clear()
        taught = Taught(learner(NativeAdaGrad))
        for seed, classes in enumerate((2, 3, 7, 40)):
            taught.learn(_numbers(300, 18, classes, seed=seed))
        found[name] = (taught.state(), taught.said())
    native_adagrad._library.cache_clear()
    assert len(found) >= 2
    assert all(each == found["-O1"] for each in found.values())


@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (2, 4)])
def test_weights_of_another_shape_are_refused(shape: tuple[int, int]) -> None:
    """Of a model of three classes and four inputs: native code would read beyond them."""
    made = online.softmax(stream=streams.sea())
    live: Any = made.open(None, None, Context())._learner
    live.learn(_numbers(30, 3, 3))
    model = made.open(None, None, Context()).result()
    arrays = {**live.arrays(), "weights": np.ones(shape), "squares": np.ones(shape)}
    model = dataclasses.replace(model, signature=live.signature, arrays=arrays, values=live.values())
    with pytest.raises(StoreError, match=r"not as online\.softmax makes it"):
        model.open()

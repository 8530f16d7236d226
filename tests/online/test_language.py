"""``online.language``: what it learns from a text, alone and with the members apart, and how it goes on."""

from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.context import Context
from mapsto.data.streams.bytes import Bytes
from mapsto.data.streams.drift import Drift
from mapsto.data.streams.sea import Sea
from mapsto.data.text.byte_names import BYTE_NAMES
from mapsto.errors import DomainError, SpecError, StoreError
from mapsto.kinds import Block, EventSignature, Model
from mapsto.mappings.online.language import Language

SMALL: dict[str, Any] = {"hidden": 16, "chunk": 8, "table_bits": 12, "memory": 20_000, "rate": 0.005}
RHYME = b"Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.\n"
NUMBERS = b"one and two are three; two and two are four; three and one are four; four and five are nine.\n"


@pytest.fixture
def rhyme(tmp_path: Path) -> Path:
    file = tmp_path / "rhyme.txt"
    file.write_bytes(RHYME * 30)
    return file


def text(file: Path, *ranges: tuple[int, int | None]) -> Bytes:
    given = ranges or ((0, None),)
    return Bytes(files=(str(file),) * len(given), ranges=given)


def learn(stream: Any, before: Model | None = None, **fields: Any) -> tuple[Model, dict[str, Any]]:
    mapping = Language(stream=stream, **{**SMALL, **fields})
    live = mapping.open(before, None, Context())
    for block in stream.open():
        live.advance(block)
    return live.result(), live.account()


def test_it_takes_fewer_bits_than_its_parts_and_than_counting(rhyme: Path) -> None:
    _, account = learn(text(rhyme))
    bits, beside = account["figures"]["bits_per_byte"], account["baselines"]
    assert bits < min(beside["n-gram alone"], beside["network alone"], beside["order 0"], beside["8 bits"])
    assert account["figures"]["perplexity"] == pytest.approx(2**bits)
    assert sum(account["shares"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(("members", "part"), [("contexts", "n-gram alone"), ("network", "network alone")])
def test_a_part_of_the_mixture_is_what_it_is_by_itself(rhyme: Path, members: str, part: str) -> None:
    _, both = learn(text(rhyme))
    _, alone = learn(text(rhyme), members=members)
    assert alone["figures"]["bits_per_byte"] == pytest.approx(both["baselines"][part], rel=1e-12)
    assert part not in alone["baselines"]
    assert not alone["shares"]


def test_probabilities_sum_to_one(rhyme: Path) -> None:
    for members in ("both", "contexts", "network"):
        learner = learn(text(rhyme), members=members)[0].open()
        scores = learner.learn(next(text(rhyme).open(size=50)))
        assert scores.shape == (50, 256)
        assert (scores > 0).all()
        assert np.abs(scores.sum(1) - 1).max() < 1e-9


def test_a_frozen_model_reads_on_and_learns_nothing(rhyme: Path) -> None:
    model, _ = learn(text(rhyme))
    after, account = learn(text(rhyme, (0, 500)), model, frozen=True)
    for name, array in model.arrays.items():
        moves = name.startswith(("network.live", "network.inputs", "network.targets", "text.", "match.")) or name in (
            "length",
            "network.state",
            "network.at",
            "network.last",
        )
        assert moves or array.tobytes() == after.arrays[name].tobytes(), name
    assert account["figures"]["bits_per_byte"] < 1.0


def test_without_update_the_network_stays_and_the_contexts_learn(rhyme: Path) -> None:
    model, _ = learn(text(rhyme))
    after, _ = learn(text(rhyme, (0, 500)), model, update="none")
    assert after.arrays["network.weights"].tobytes() == model.arrays["network.weights"].tobytes()
    assert after.arrays["mixer.weights"].tobytes() != model.arrays["mixer.weights"].tobytes()


def test_adapters_are_low_rank_additions_that_stay_when_all_is_learnt_on(rhyme: Path) -> None:
    model, _ = learn(text(rhyme))
    adapted, _ = learn(text(rhyme, (0, 800)), model, update="adapters", rank=2)
    hidden, start = 16, 256 * 3 * 16
    of_state = slice(start, start + hidden * 3 * hidden)
    change = (adapted.arrays["network.weights"][of_state] - model.arrays["network.weights"][of_state]).astype(float)
    sizes = np.linalg.svd(change.reshape(hidden, 3 * hidden), compute_uv=False)
    assert sizes[1] > 0
    assert sizes[2] < 1e-4 * sizes[0]
    inputs = slice(0, start)
    assert adapted.arrays["network.weights"][inputs].tobytes() == model.arrays["network.weights"][inputs].tobytes()
    again, _ = learn(text(rhyme, (0, 4)), adapted, update="none")
    assert not len(again.arrays["network.adapters"])
    assert again.arrays["network.weights"].tobytes() == adapted.arrays["network.weights"].tobytes()


def test_it_goes_on_with_a_model_as_without_a_stop(rhyme: Path) -> None:
    first, _ = learn(text(rhyme, (0, 1001)))
    second, _ = learn(text(rhyme, (1001, None)), first)
    whole, _ = learn(text(rhyme))
    assert second.events == whole.events
    assert all(second.arrays[name].tobytes() == array.tobytes() for name, array in whole.arrays.items())


def test_a_model_of_other_fields_is_refused(rhyme: Path) -> None:
    model, _ = learn(text(rhyme, (0, 100)))
    with pytest.raises(DomainError, match="with hidden 16, not 32"):
        learn(text(rhyme), model, hidden=32)


def test_adapters_of_another_rank_are_refused(rhyme: Path) -> None:
    model, _ = learn(text(rhyme, (0, 100)))
    adapted, _ = learn(text(rhyme, (0, 100)), model, update="adapters", rank=2)
    with pytest.raises(DomainError, match="with rank 2, not 3"):
        learn(text(rhyme, (0, 100)), adapted, update="adapters", rank=3)


@pytest.mark.parametrize(
    ("fields", "why"), [({"frozen": True}, "nothing is learnt"), ({"update": "none"}, "update: none alone")]
)
def test_what_learns_nothing_from_nothing_is_told(rhyme: Path, fields: dict[str, Any], why: str) -> None:
    ctx = Context()
    Language(stream=text(rhyme, (0, 100)), **SMALL, **fields).open(None, None, ctx)
    assert any(why in each for each in ctx.warnings)


def test_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "learn_online_language.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert (failed, tried) == (0, 5)


def test_a_state_that_does_not_fit_is_refused(rhyme: Path) -> None:
    model, _ = learn(text(rhyme, (0, 999)))
    for name, array in model.arrays.items():
        if not len(array):  # adapters, where there are none
            continue
        for wrong in (
            array[:-1],
            np.concatenate((array, array[:1])),
            array.astype("<f8" if array.dtype != "<f8" else "<f4"),
        ):
            with pytest.raises(StoreError, match=r"is not as online\.language makes it"):
                replace(model, arrays={**model.arrays, name: wrong}).open()
        if array.dtype.kind == "f":
            with pytest.raises(StoreError, match=r"is not as online\.language makes it"):
                replace(model, arrays={**model.arrays, name: np.full_like(array, np.nan)}).open()
    with pytest.raises(StoreError):
        replace(model, signature=EventSignature(classes=("a",))).open()


def test_a_state_of_any_values_does_no_harm(rhyme: Path) -> None:
    """What is read from a file may hold anything: it is refused, or learnt on with."""
    model, _ = learn(text(rhyme, (0, 999)))
    draw = np.random.default_rng(0)
    block = next(text(rhyme).open(size=100))
    for name, array in model.arrays.items():
        if array.dtype.kind != "f":
            wild = np.frombuffer(draw.bytes(array.nbytes), array.dtype)
            try:
                learner = replace(model, arrays={**model.arrays, name: wild}).open()
            except StoreError:
                continue
            assert np.isfinite(learner.learn(block)).all(), name


def test_the_text_may_change_by_drift(tmp_path: Path, rhyme: Path) -> None:
    other = tmp_path / "numbers.txt"
    other.write_bytes(NUMBERS * 20)
    parts = Drift(streams=(text(rhyme, (0, 1200)), text(other, (0, 1200)), text(rhyme, (1200, None))), at=(1200, 2400))
    one = Bytes(files=(str(rhyme), str(other), str(rhyme)), ranges=((0, 1200), (0, 1200), (1200, None)))
    by_drift, by_ranges = learn(parts), learn(one)
    assert by_drift[1]["figures"] == by_ranges[1]["figures"]
    assert all(by_drift[0].arrays[name].tobytes() == array.tobytes() for name, array in by_ranges[0].arrays.items())


def test_what_is_no_byte_is_set_aside_and_a_question_is_only_answered(rhyme: Path) -> None:
    learner = learn(text(rhyme))[0].open()
    there = np.ones(4, np.bool_)
    has_x, has_y = there.copy(), there.copy()
    has_y[1], has_x[3] = False, False
    block = Block(
        times=np.full(4, np.nan),
        ids=np.array(["", "", "", "q"], object),
        x={},
        has_x=has_x,
        y=np.array(["R", "", "Row", "o"], object),
        has_y=has_y,
        next=None,
    )
    scores = learner.learn(block)
    assert np.isnan(scores[2:]).all()
    assert not np.isnan(scores[:2]).any()
    assert BYTE_NAMES[int(scores[1].argmax())] == "o"
    assert learner.aside == {"a label that is no byte": 1, "a byte that comes late, when its text has gone on": 1}  # type: ignore[attr-defined]


def test_a_continuation_is_drawn_by_its_seed_and_changes_nothing(rhyme: Path) -> None:
    model, _ = learn(text(rhyme))
    learner: Any = model.open()
    before = {name: array.tobytes() for name, array in learner.arrays().items()}
    assert learner.continuation("gently down", length=12, temperature=0.0) == b" the stream."
    drawn = [learner.continuation("Row", length=40, temperature=6.0, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert before == {name: array.tobytes() for name, array in learner.arrays().items()}


def test_what_can_be_no_continuation_is_refused(rhyme: Path) -> None:
    learner: Any = learn(text(rhyme, (0, 200)))[0].open()
    for fields in ({"temperature": -1.0}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"length": -1}):
        with pytest.raises(SpecError, match=f"continuation: {next(iter(fields))}"):
            learner.continuation("Row", **fields)
    assert learner.continuation(b"Row", length=5) == learner.continuation("Row", length=5)


def test_a_stream_of_something_else_is_refused() -> None:
    with pytest.raises(DomainError, match="is no byte"):
        Language(stream=Sea(events=10), **SMALL)(None)

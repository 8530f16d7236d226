"""Drift detectors: where they answer on known drifts, how often without one, and that their state is all they know."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mapsto.errors import SpecError
from mapsto.nn.online.drift import DETECTORS, Adwin, Ddm, Detector, Kswin, PageHinkley, detector_of
from mapsto.nn.online.drift.monitor import Mark, Monitor


def points(detector: Detector, values: NDArray[np.float64], *, start: int = 0) -> list[int]:
    """The values at which a drift is told."""
    return [start + place for place, value in enumerate(values.tolist()) if detector.update(value)]


def answers(seed: int) -> NDArray[np.float64]:
    """Right and wrong ones, whose share changes at 2000, 4000 and 6000."""
    rng = np.random.default_rng(seed)
    return np.concatenate([(rng.random(2000) < share).astype(float) for share in (0.2, 0.35, 0.1, 0.6)])


def measures(seed: int) -> NDArray[np.float64]:
    """Uniform numbers, then others at 1500 and 3000."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random(1500), 0.3 + 0.7 * rng.random(1500), rng.random(1500) ** 2])


@pytest.mark.parametrize(
    ("made", "values", "expected"),
    [
        (PageHinkley(threshold=20), answers(0), [1978, 4070, 6035, 6580, 7745]),
        (PageHinkley(threshold=20), measures(2), [1602, 3048]),
        (Ddm(), answers(0), [2095, 6143]),
        (Ddm(), answers(1), [279, 2083, 6159, 6288]),
        (Ddm(), answers(2), [7385]),
    ],
)
def test_drifts_are_told_where_river_tells_them(
    made: Detector, values: NDArray[np.float64], expected: list[int]
) -> None:
    """The numbers are those of river 0.26.1 with the same settings, on the same values."""
    assert points(made, values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (answers(0), [2175, 4127, 6047]),
        (answers(1), [2175, 4095, 6047]),
        (measures(0), [1695, 3039]),
        (measures(2), [1727, 3071]),
    ],
)
def test_adwin_that_begins_anew_after_each_drift_tells_those_of_river(
    values: NDArray[np.float64], expected: list[int]
) -> None:
    found, adwin = [], Adwin()
    for place, value in enumerate(values.tolist()):
        if adwin.update(value):
            found.append(place)
            adwin = Adwin()
    assert found == expected


def test_the_buckets_of_adwin_are_the_window() -> None:
    """Its sums are those of its values, and it holds O(log n) of them."""
    values = np.random.default_rng(3).random(5000)
    adwin = Adwin()
    for number, value in enumerate(values.tolist(), start=1):
        adwin.update(value)
        if number % 997 == 0:
            window = values[number - adwin.width : number]
            assert adwin.mean == pytest.approx(window.mean(), rel=1e-12)
            assert adwin._squares == pytest.approx(((window - window.mean()) ** 2).sum(), rel=1e-9)
            assert len(adwin.state()["sums"]) <= 6 * np.log2(adwin.width)
    assert adwin.width == 5000


LATEST = {"adwin": 120, "ddm": 250, "kswin": 110, "page_hinkley": 300}
"""Values from a drift to its detection."""
FALSE = {"adwin": 0, "ddm": 3, "kswin": 0, "page_hinkley": 2}
"""Alarms in ten streams of 4,000 values without a drift."""


def with_a_rise(name: str, seed: int) -> NDArray[np.float64]:
    """1,500 values that are larger from 1000 on: an error rate of 0.1 and then 0.4; for KSWIN numbers, by one standard deviation."""
    rng, after = np.random.default_rng(seed), np.arange(1500) >= 1000
    return rng.normal(size=1500) + after if name == "kswin" else (rng.random(1500) < 0.1 + 0.3 * after).astype(float)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_drift_is_found_soon_and_seldom_where_there_is_none(name: str) -> None:
    false = 0
    for seed in range(10):
        found = [point for point in points(DETECTORS[name](), with_a_rise(name, seed)) if point >= 1000]
        assert found, f"seed {seed}: none"
        assert found[0] - 1000 <= LATEST[name], f"seed {seed}"
        false += len(points(DETECTORS[name](), (np.random.default_rng(seed).random(4000) < 0.2).astype(float)))
    assert false <= FALSE[name]


def test_kswin_finds_a_change_that_leaves_the_mean() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=1000), 3 * rng.normal(size=1000)])
    assert 1000 < points(Kswin(), values)[0] < 1120


def test_kswin_draws_from_its_own_counter_without_repetition() -> None:
    from mapsto.nn.online.drift.kswin import _draws

    rows = _draws(7, 3, 200, 100)
    assert all(len(set(row)) == 100 for row in rows.tolist())
    counts = np.bincount(np.concatenate([_draws(0, turn, 200, 100) for turn in range(20)]).ravel(), minlength=200)
    assert abs(counts - 640).max() < 5 * np.sqrt(640 / 2), "each place is drawn half the time"
    values = np.random.default_rng(1).random(3000)
    assert points(Kswin(seed=1), values) == points(Kswin(seed=1), values)


def test_ddm_warns_before_a_drift_and_not_at_the_first_error() -> None:
    assert points(Ddm(), np.array([0.0] * 500 + [1.0] + [0.0] * 500)) == []
    ddm, warned = Ddm(), []
    for place, value in enumerate(([0.0] * 9 + [1.0]) * 50 + [1.0, 0.0] * 200):
        if ddm.update(value):
            assert warned
            assert 500 < warned[0] < place
            break
        warned += [place] if ddm.warning else []
    else:
        pytest.fail("no drift")


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_that_is_restored_goes_on_as_the_other(name: str) -> None:
    values = answers(4)
    one, other = DETECTORS[name](), DETECTORS[name]()
    for stop in (1, 37, 2500, 5000):
        one = DETECTORS[name]()
        points(one, values[:stop])
        other = DETECTORS[name]()
        other.restore(one.state())
        assert points(one, values[stop:]) == points(other, values[stop:])


def test_an_unknown_detector_is_refused() -> None:
    with pytest.raises(SpecError, match=r"unknown drift detector 'adwim'.*adwin"):
        detector_of("adwim")
    with pytest.raises(SpecError, match="unknown drift detector"):
        Monitor({"error": ("adwim",)})


# ----------------------------------------------------------------------------------------------------------------- monitor

COUNT = 6000


def signals() -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Errors that rise at 3000, confidence that falls at 4000, columns that change at 2000 and that begin at 1000; with gaps."""
    rng, place = np.random.default_rng(0), np.arange(COUNT)
    errors = (rng.random(COUNT) < np.where(place < 3000, 0.1, 0.4)).astype(float)
    errors[rng.random(COUNT) < 0.1] = np.nan
    confidences = np.where(place < 4000, 0.9, 0.6) + 0.1 * rng.random(COUNT)
    shifted = 1e5 + 100 * (rng.normal(size=COUNT) + 3 * (place >= 2000))
    shifted[rng.random(COUNT) < 0.3] = np.nan
    late = np.where(place < 1000, np.nan, rng.normal(size=COUNT) * 1e-6)
    return (
        errors,
        confidences,
        {"late": late, "shifted": shifted, "same": rng.normal(size=COUNT), "constant": place * 0.0},
    )


def marks(monitor: Monitor, size: int, start: int = 0, stop: int = COUNT) -> list[Mark]:
    errors, confidences, columns = signals()
    found: list[Mark] = []
    for first in range(start, stop, size):
        part = slice(first, min(stop, first + size))
        found += monitor.update(
            first, errors[part], confidences[part], {name: values[part] for name, values in columns.items()}
        )
    return found


def test_each_signal_is_marked_once_after_its_drift() -> None:
    found = marks(Monitor(), 256)
    assert [(mark.signal, mark.detector) for mark in found] == [
        ("feature:shifted", "adwin"),
        ("error", "adwin"),
        ("confidence", "adwin"),
    ]
    for mark, drift, latest in zip(found, (2000, 3000, 4000), (700, 200, 100), strict=True):
        assert 0 < mark.event - drift <= latest
    assert [mark.change > 0 for mark in found] == [True, True, False]


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_marks_do_not_depend_on_blocks(size: int) -> None:
    settings = {"error": ("ddm", "adwin"), "confidence": ("page_hinkley",), "features": ("kswin", "adwin")}
    assert marks(Monitor(settings, columns=3), size) == marks(Monitor(settings, columns=3), 256)


@pytest.mark.parametrize("stop", [100, 2001, 3050])
def test_a_monitor_that_is_restored_goes_on_as_the_other(stop: int) -> None:
    one = Monitor(values=True)
    marks(one, 64, 0, stop)
    other = Monitor(values=True)
    other.restore(one.snapshot())
    assert marks(one, 64, stop) == marks(other, 17, stop)


def test_a_learner_that_gets_better_is_no_drift_and_errors_of_numbers_have_any_scale() -> None:
    none = np.full(4000, np.nan)
    falling = (np.random.default_rng(0).random(4000) < np.where(np.arange(4000) < 2000, 0.5, 0.1)).astype(float)
    assert Monitor().update(0, falling, none, {}) == []
    for scale in (1e-6, 1.0, 1e6):
        sizes = scale * np.abs(np.random.default_rng(1).normal(size=4000)) * np.where(np.arange(4000) < 2000, 1, 3)
        (mark,) = Monitor(values=True).update(0, sizes, none, {})
        assert 2000 < mark.event < 2300


def test_only_the_first_columns_are_watched_by_the_events_that_bring_them() -> None:
    monitor, none = Monitor(columns=2), np.full(64, np.nan)
    late, early = np.where(np.arange(64) < 9, np.nan, 1.0), np.where(np.arange(64) < 3, np.nan, 1.0)
    monitor.update(0, none, none, {"late": late, "early": early, "first": np.ones(64)})
    assert [each["name"] for each in monitor.snapshot()["columns"]] == ["first", "early"]


def test_a_detector_of_errors_watches_nothing_else() -> None:
    monitor, none = Monitor(dict.fromkeys(("error", "confidence", "features"), ("ddm", "adwin"))), np.full(64, np.nan)
    monitor.update(0, none, none, {"width": np.ones(64)})
    state = monitor.snapshot()
    assert [len(each) for each in (state["error"], state["confidence"], state["columns"][0]["detectors"])] == [2, 1, 1]


@pytest.mark.parametrize(("detector", "latest"), [("adwin", 900), ("kswin", 1000), ("page_hinkley", 800)])
def test_a_column_that_changes_by_a_standard_deviation_is_marked(detector: str, latest: int) -> None:
    rng, none = np.random.default_rng(0), np.full(9000, np.nan)
    columns = {f"x{place}": rng.normal(size=9000) for place in range(4)}
    columns["x2"][6000:] += 1
    marks = Monitor({"features": (detector,)}).update(0, none, none, columns)
    assert {mark.signal for mark in marks} == {"feature:x2"}
    assert 0 < marks[0].event - 6000 <= latest
    assert marks[0].change > 0

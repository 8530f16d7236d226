"""Drift of inputs: no alarm while nothing changes, an alarm once they shift, for few and for many samples."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mapsto.errors import StoreError
from mapsto.service.drift import LEVEL, Reference
from mapsto.service.online_accuracy import online_accuracy

STREAMS, WINDOWS = 20, 3


class Features:
    """Features of a network as they come: correlated, many of them 0."""

    def __init__(self, seed: int, width: int = 32) -> None:
        self._rng = np.random.default_rng(seed)
        self._mixing = self._rng.normal(size=(width, width)) / width**0.5

    def draw(self, count: int, shift: float = 0.0) -> NDArray[np.float32]:
        mixed = self._rng.normal(size=(count, len(self._mixing))) @ self._mixing
        return np.maximum(mixed + shift, 0).astype(np.float32)


def confidence(features: NDArray[np.float32]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.abs(features[:, 0] - features[:, 1]).astype(np.float64)))


@pytest.mark.parametrize("count", [100, 1000])
def test_only_inputs_that_shift_alarm(count: int) -> None:
    false, missed = 0, 0
    for seed in range(STREAMS):
        features = Features(seed)
        before = features.draw(1000)
        reference = Reference.of(before, confidence(before))

        def alarms(late: NDArray[np.float32], reference: Reference = reference) -> bool:
            return min(reference.p_values(late, confidence(late)).values()) < LEVEL

        false += any(alarms(features.draw(count)) for _ in range(WINDOWS))
        missed += not alarms(features.draw(count, shift=0.5))
    assert (false, missed) == (0, 0)


def test_a_shift_beside_all_directions_is_seen() -> None:
    rng = np.random.default_rng(0)
    spread = np.array([10.0] * 6 + [0.1] * 6)
    reference = Reference.of((rng.normal(size=(1000, 12)) * spread).astype(np.float32))
    late = rng.normal(size=(200, 12)) * spread
    late[:, 6:] += 0.3
    found = reference.p_values(late, None)
    assert min(found, key=lambda name: found[name]) == "residual"
    assert found["residual"] < LEVEL
    assert found["component_1"] > 0.05


def test_p_values_are_corrected_for_their_number() -> None:
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(1)
    reference = Reference.of(rng.normal(size=(1000, 4)).astype(np.float32))
    late = rng.normal(0.3, 1, (100, 4))
    raw = [
        ks_2samp(now, before, method="asymp").pvalue
        for now, before in zip(reference.statistics(late, None), reference.values, strict=True)
    ]
    found = reference.p_values(late, None)
    assert min(found.values()) == pytest.approx(len(raw) * min(raw))
    assert all(corrected >= single for corrected, single in zip(found.values(), raw, strict=True))


def test_a_reference_is_read_as_it_was_and_damage_is_told() -> None:
    rng = np.random.default_rng(0)
    reference = Reference.of(rng.normal(size=(1000, 5)).astype(np.float32), rng.uniform(size=1000), until=7.0)
    again, late = Reference.read(reference.content()), rng.normal(size=(100, 5))
    assert again.until == 7.0
    assert again.p_values(late, late[:, 0]) == reference.p_values(late, late[:, 0])
    with pytest.raises(StoreError, match="damaged"):
        Reference.read(reference.content()[:100])


def test_a_drop_of_accuracy_is_told_from_chance() -> None:
    rng = np.random.default_rng(0)

    def stream(*parts: tuple[int, float]) -> list[bool]:
        return [bool(rng.uniform() < share) for count, share in parts for _ in range(count)]

    steady = [online_accuracy(stream((1000, 0.9))) for _ in range(20)]
    dropped = [online_accuracy(stream((900, 0.9), (100, 0.65))) for _ in range(20)]
    assert sum(each is not None and each.drop_p_value is not None and each.drop_p_value < 0.001 for each in steady) == 0
    assert (
        sum(each is not None and each.drop_p_value is not None and each.drop_p_value < 0.001 for each in dropped) == 20
    )
    assert online_accuracy([True] * 29) is None
    few = online_accuracy([True] * 110)
    assert few is not None
    assert (few.recent, few.before, few.drop_p_value) == (1.0, None, None)

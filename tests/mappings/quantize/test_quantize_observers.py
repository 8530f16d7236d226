"""`quantize.static`: ranges by least divergence, and calibration on episodes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.nets import Blobs, Plain, images, network

from mapsto.context import Context
from mapsto.data.sets.digits import Digits
from mapsto.discovery import find
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.quantize.static import Static
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import fused_operations
from mapsto.nn.quantize.entropy import divergence, entropy_range

pytestmark = pytest.mark.usefixtures("trusted")


def by_hand(counts: list[float], first: int, end: int, levels: int) -> float:
    """KL(P ‖ Q), bin by bin."""
    inside = counts[first:end]
    p = list(inside)
    p[0] += sum(counts[:first])
    p[-1] += sum(counts[end:])
    q = [0.0] * len(inside)
    for level in range(levels):
        members = [i for i in range(len(inside)) if i * levels // max(len(inside), levels) == level]
        filled = [i for i in members if inside[i] > 0]
        for i in filled:
            q[i] = sum(inside[j] for j in members) / len(filled)
    total = sum(q)
    if not total:
        return math.inf
    terms = ((a / sum(p), max(b / total, 1e-9)) for a, b in zip(p, q, strict=True))
    return sum(a * math.log(a / b) for a, b in terms if a)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 9), min_size=8, max_size=40), st.integers(0, 3), st.integers(0, 3), st.sampled_from([4, 8])
)
def test_the_divergence_by_hand(counts, left, right, levels):
    counts = [float(count) for count in counts]
    found = divergence(np.array(counts), left, len(counts) - right, levels)
    expected = by_hand(counts, left, len(counts) - right, levels)
    assert found == expected or found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("signed", [False, True])
def test_a_long_tail_is_cut_and_a_short_one_kept(signed):
    values = np.random.default_rng(0).normal(size=200_000)
    values = values if signed else np.abs(values)
    for outlier, cut in ((None, False), (60.0, True)):
        all_of_them = values if outlier is None else np.append(values, outlier)
        low, high = min(all_of_them.min(), 0.0), all_of_them.max()
        counts, _ = np.histogram(all_of_them, 2048, (low, high))
        found = entropy_range(counts.astype(float), low, high, 8)
        assert low <= found[0] <= 0 < found[1] <= high
        assert (found[1] < 0.5 * high) == cut


def test_the_observer_gives_a_network_with_integer_kernels():
    source = network(Plain)
    small = Static(data=Blobs(), samples=200, observer="entropy")(source)
    before, after = source.module()(images(200, 5)), small.module()(images(200, 5))
    assert (before.argmax(1) == after.argmax(1)).float().mean() > 0.9
    assert fused_operations(to_onnx(small))["QLinearConv"] >= 2
    plain = Static(data=Blobs(), samples=200)(source)
    wider = [
        a.scale[0] <= b.scale[0] * 1.0001
        for a, b in zip(small.edits[-1].quantizers, plain.edits[-1].quantizers, strict=True)
    ]
    assert all(wider)


def test_episodes_are_calibration_data():
    tasks = find("data", "episodes")(data=Digits(size=16), ways=3, shots=2, queries=4)
    mapping = Static(tasks=tasks, samples=40)
    learner = Conv4(channels=1, size=16, width=4)()
    batches = mapping.batches(learner, Context(), where="test")
    assert sum(map(len, batches)) == 40
    first = tasks.open()[0]
    pixels = np.concatenate([first.support, first.query])
    from mapsto.nn.network.preprocess import prepare

    assert torch.equal(batches[0][: len(pixels)], prepare(pixels, learner.signature.preprocessing))
    small = mapping(learner)
    x = batches[0]
    cosine = torch.nn.functional.cosine_similarity(learner.module()(x), small.module()(x))
    assert cosine.min() > 0.95
    assert mapping(learner).edits == small.edits

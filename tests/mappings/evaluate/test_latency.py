"""Latency and size: ratios that hold, and what is counted."""

from __future__ import annotations

import time

import pytest
import torch
from tests.nets import Blobs, Plain, Residual, network

from mapsto.context import Context
from mapsto.mappings.evaluate.latency import Latency
from mapsto.mappings.evaluate.size import Size
from mapsto.mappings.export.onnx import Onnx
from mapsto.mappings.quantize.static import Static
from mapsto.nn.profile.timing import interleaved, speedup, torch_threads

pytestmark = pytest.mark.usefixtures("trusted", "one_thread")


def test_turns_are_interleaved():
    order: list[str] = []
    interleaved({name: lambda name=name: order.append(name) for name in "ab"}, rounds=3, least=2, most=2, warmup=2)
    assert "".join(order) == "aabb" + 3 * "aaabbb", "warm-up, then in each turn one call that is not counted"


def test_a_known_ratio_is_found():
    timings = interleaved(
        {"slow": lambda: time.sleep(0.004), "fast": lambda: time.sleep(0.001)}, rounds=3, least=5, most=5, warmup=1
    )
    middle, least, most = speedup(timings["slow"], timings["fast"])
    assert least <= middle <= most
    assert 2 < middle < 5
    assert timings["fast"].p50 <= timings["fast"].p99


def test_threads_come_back():
    torch.set_num_threads(1)
    with torch_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1


@pytest.mark.slow
def test_latency_of_a_package_against_a_network():
    given = network(Plain)
    package = Onnx(samples=2)(Static(data=Blobs(), samples=32)(given))
    report = Latency(baselines={"teacher": given}, rounds=2, seconds=0.01)(package)
    assert all(metric.measured for metric in report.metrics.values())
    assert report.metrics["speedup_vs_teacher_pytorch"].value > 1
    assert report.metrics["speedup_vs_teacher_ort"].value > 0
    assert 0 < report.metrics["p50"].value <= report.metrics["p99"].value
    table = report.tables["latency"]
    assert [row[0] for row in table.rows] == ["value", "teacher_pytorch", "teacher_ort"]
    assert table.measured


def test_latency_of_a_network_with_all_threads():
    context = Context()
    report = context.apply(Latency(rounds=1, seconds=0.005), network(Plain))
    expected = {"p50", "p99"} | ({"p50_all_threads", "p99_all_threads"} if context.numerics.threads > 1 else set())
    assert set(report.metrics) == expected


def test_size_counts_quantized_weights_as_bytes():
    given = network(Plain)
    small = Static(data=Blobs(), samples=32)(given)
    before, after = (Size()(value).metrics for value in (given, small))
    weights = 8 * 9 + 12 * 8 * 9 + 12 * 12 * 9 + 5 * 12
    assert before["parameters"].value == weights + 5 + 2 * (8 + 12 + 12)
    assert before["macs"].value == pytest.approx(16 * 16 * 72 + 8 * 8 * (12 * 72 + 12 * 108) + 60, rel=0.05)
    norm_buffers = 3 * 8 + 2 * (8 + 12 + 12) * 4
    assert before["bytes"].value == 4 * before["parameters"].value + norm_buffers
    scales = 12 + 12 + 5
    assert after["bytes"].value == weights - 72 + 4 * (72 + 8 + 12 + 12 + 5 + scales)
    feature_map = 4 * 8 * 16 * 16
    assert before["peak_memory"].value >= before["bytes"].value + 2 * feature_map


def test_size_of_a_package_and_ratios():
    given = network(Plain)
    package = Onnx(samples=2)(given)
    report = Size(baseline=network(Residual))(package)
    assert report.metrics["bytes"].value == sum(path.stat().st_size for path in package.files.values())
    assert report.metrics["peak_memory"].measured
    assert report.metrics["peak_memory"].value > 0
    assert report.metrics["parameters_ratio"].value > 1

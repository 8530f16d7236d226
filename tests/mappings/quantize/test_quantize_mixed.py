"""`quantize.mixed` and `evaluate.quantization`: the layer that hurts stays float, and no more of them than need be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.nets import Blobs, Plain, Residual, images, network

from mapsto.context import Context
from mapsto.data.sets.digits import Digits
from mapsto.discovery import find
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Dataset, Network, Samples
from mapsto.mappings.evaluate.quantization import Quantization
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.quantize.mixed import Mixed
from mapsto.mappings.quantize.static import Static
from mapsto.nn.edits.quantizers import Quantizers
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import fused_operations, runner
from mapsto.nn.quantize.layer_sensitivity import QuantizerCosts

pytestmark = pytest.mark.usefixtures("trusted", "one_thread")


class Answered(Dataset):
    """Blobs labelled as `Plain` itself answers: its accuracy on them is 100 %."""

    def fingerprint(self) -> str:
        return "answered"

    def open(self) -> Samples:
        samples = Blobs(count=300).open()
        pixels = torch.as_tensor(samples.inputs).float().div(255).sub(0.5).div(0.25)
        with torch.no_grad():
            labels = network(Plain).module()(pixels).argmax(1).numpy()
        return dataclasses.replace(samples, labels=labels)


def coarse(path: str) -> Network:
    """`Plain` at 8 bits, with one layer's weight on 2 bits."""
    small = Static(data=Blobs(), samples=64)(network(Plain))
    quantizers = tuple(
        dataclasses.replace(q, quant_min=-1, quant_max=1, scale=tuple(np.array(q.scale) * 127))
        if q.path == path and q.function == "weight"
        else q
        for q in small.edits[-1].quantizers
    )
    return dataclasses.replace(small, edits=(*small.edits[:-1], Quantizers(quantizers=quantizers)))


def weights(value: Network) -> set[str]:
    return {q.path for q in value.edits[-1].quantizers if q.function == "weight"}


@pytest.mark.parametrize("path", ["features.4", "features.7"])
def test_the_layer_that_hurts_is_found_and_left_in_float(path):
    small = coarse(path)
    report = Quantization(data=Answered(), samples=300)(small)
    drops = {row[0]: row[1:] for row in report.tables["layers"].rows}
    assert set(drops) == weights(small)
    assert max(drops, key=lambda name: drops[name][1]) == path
    assert report.metrics["float_accuracy"].value == 100
    assert report.metrics["drop"].value == pytest.approx(100 - report.metrics["accuracy"].value)
    assert report.metrics["drop"].value > 2
    better = Mixed(data=Answered(), samples=300, max_drop=2)(small)
    assert weights(better) == weights(small) - {path}
    assert Quantization(data=Answered(), samples=300)(better).metrics["drop"].value <= 2


def test_within_the_limit_nothing_changes():
    small = Static(data=Blobs(), samples=64)(network(Plain))
    assert Mixed(data=Answered(), samples=300, max_drop=3)(small) is small


def test_a_limit_that_cannot_be_kept_is_refused():
    small = Static(data=Blobs(), samples=64, bits=2)(network(Plain))
    with pytest.raises(DomainError, match=r"points are still lost, more than max_drop 0\.0"):
        Mixed(data=Answered(), samples=300, max_drop=0)(small)


@pytest.mark.parametrize("kind", [Plain, pytest.param(Residual, marks=pytest.mark.slow)])
def test_quantizers_stay_where_integer_layers_need_them(kind):
    small = Static(data=Blobs(), samples=64)(network(kind))
    at_hand = QuantizerCosts(Mixed(data=Blobs(), samples=50), small, Context(), where="test")
    everything = small.edits[-1].quantizers
    assert at_hand.quantizers(()) == everything
    assert at_hand.quantizers(at_hand.layers) == ()
    for path in at_hand.layers:
        kept = at_hand.quantizers([path])
        assert set(kept) < set(everything)
        assert not [q for q in kept if q.path == path and q.weight]
        value = dataclasses.replace(small, edits=(*small.edits[:-1], Quantizers(quantizers=kept)))
        x = images(32, 3)
        simulated, real = value.module()(x).detach().numpy(), runner(to_onnx(value))(x.numpy())
        assert np.median(np.abs(simulated - real)) < 0.02 * simulated.std(0).mean()


def test_onnx_runtime_runs_the_rest_in_integers():
    better = Mixed(data=Answered(), samples=300, max_drop=2)(coarse("features.7"))
    fused = fused_operations(to_onnx(better))
    assert fused["QLinearConv"] == 1
    assert fused["Conv"] == 2


def test_a_learner_is_measured_on_tasks():
    tasks = find("data", "episodes")(data=Digits(size=16), ways=3, shots=2, queries=5)
    small = Static(tasks=tasks, samples=64, bits=4)(Conv4(channels=1, size=16, width=4)())
    report = Quantization(tasks=tasks, samples=30)(small)
    assert report.metrics["accuracy"].n == 30
    assert len(report.tables["layers"].rows) == 3


def test_data_without_the_classes_is_refused():
    small = Static(data=Blobs(), samples=64)(network(Plain))
    with pytest.raises((DomainError, DataError), match="5 outputs, the data 10 classes"):
        Mixed(data=Digits(size=16))(small)

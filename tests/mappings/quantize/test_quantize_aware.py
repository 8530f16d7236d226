"""`quantize.aware`: gradients of a step by hand, training that helps, and quantizers that still fit each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.nets import Blobs, Plain, images, network

from mapsto.data.sets.digits import Digits
from mapsto.errors import DataError, DomainError
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.quantize.aware import Aware
from mapsto.mappings.quantize.static import Static
from mapsto.nn.edits.quantizers import Quantizer, Quantizers, learn_steps
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import fused_operations, runner
from mapsto.nn.train.metrics import class_metrics

pytestmark = pytest.mark.usefixtures("trusted", "one_thread")


def test_the_gradient_of_a_step_by_hand():
    """``∂x̂/∂s`` is round(x/s) − x/s inside and the end's code outside, over √(N · highest code) (Esser et al. 2020)."""
    net = torch.nn.Sequential(torch.nn.Linear(6, 1, bias=False))
    rng = np.random.default_rng(0)
    w, x, step, highest = rng.normal(size=(1, 6)), rng.normal(size=6), 0.3, 3
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor(w))
    Quantizers(
        quantizers=(
            Quantizer(
                path="0",
                function="weight",
                weight=True,
                bits=3,
                scale=(step,),
                zero_point=(0,),
                axis=0,
                quant_min=-4,
                quant_max=highest,
            ),
        )
    ).apply(net)
    learn_steps(net, {})
    net(torch.tensor(x, dtype=torch.float32).unsqueeze(0)).sum().backward()
    ratio = w[0] / step
    inside = np.clip(np.rint(ratio), -4, highest) == np.rint(ratio)
    slope = np.where(inside, np.rint(ratio) - ratio, np.clip(np.rint(ratio), -4, highest))
    expected = (slope * x).sum() / np.sqrt(6 * highest)
    [learned] = [p for name, p in net.named_parameters() if name.endswith("_step")]
    np.testing.assert_allclose(learned.grad.item(), expected, rtol=1e-4)


@pytest.fixture(scope="module")
def trained():
    data = Digits(size=16)
    small = Static(data=data, samples=64, bits=4)(Conv4(channels=1, size=16, width=8, classes=10)())
    return small, {
        learn: Aware(data=data, epochs=2, batch_size=32, learning_rate=0.05, learn_scales=learn)(small)
        for learn in (False, True)
    }


@pytest.mark.parametrize("learn", [pytest.param(False, marks=pytest.mark.slow), True])
def test_training_helps(trained, learn):
    small, results = trained
    samples = Digits(size=16).open()
    before, after = (
        class_metrics(value.module(), samples, value.signature.preprocessing) for value in (small, results[learn])
    )
    assert after["val_loss"] < 0.8 * before["val_loss"]


def test_scales_move_only_if_they_are_to(trained):
    small, results = trained
    assert results[False].edits == small.edits
    moved = [
        a.scale != b.scale for a, b in zip(small.edits[-1].quantizers, results[True].edits[-1].quantizers, strict=True)
    ]
    assert sum(moved) > len(moved) / 2
    assert set(results[True].tensors) == set(small.tensors)


def test_poolings_and_biases_follow(trained):
    _, results = trained
    quantizers = {str(q.site): q for q in results[True].edits[-1].quantizers}
    assert quantizers["features.1.2: relu 0"].scale == quantizers["features.1.3: max_pool2d 0"].scale
    weight, bias = quantizers["features.2.0: weight 0"], quantizers["features.2.0: bias 0"]
    source = quantizers["features.1.3: max_pool2d 0"].scale[0]
    np.testing.assert_allclose(bias.scale, np.array(weight.scale) * source, rtol=1e-6)


@pytest.mark.parametrize("learn", [False, True])
def test_onnx_runtime_agrees(trained, learn):
    value = trained[1][learn]
    x = torch.rand(50, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    simulated, real = value.module()(x).detach().numpy(), runner(to_onnx(value))(x.numpy())
    assert np.median(np.abs(simulated - real)) < 1e-3 * simulated.std(0).mean()


def test_at_8_bits_kernels_stay_integer():
    small = Static(data=Blobs(), samples=64)(network(Plain))
    better = Aware(data=Blobs(), epochs=1, learn_scales=True)(small)
    assert fused_operations(to_onnx(better)) == fused_operations(to_onnx(small))
    assert better.module()(images(2)).shape == (2, 5)


def test_other_classes_and_bad_data_are_refused():
    small = Static(data=Blobs(), samples=64)(network(Plain))
    with pytest.raises((DomainError, DataError), match=r"outputs|class"):
        Aware(data=Digits(size=16))(small)
    with pytest.raises(DomainError, match=r"0 outputs|12 outputs"):
        Aware(data=Blobs())(Static(data=Blobs(), samples=64)(network(Plain, classes=0)))

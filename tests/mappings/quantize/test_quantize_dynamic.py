"""`quantize.dynamic`: the numbers of DynamicQuantizeLinear, and integer kernels in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.nets import Plain, Residual, images, network
from torch import nn

from mapsto.kinds import Network
from mapsto.mappings.networks.mlp import Mlp
from mapsto.mappings.quantize.dynamic import Dynamic
from mapsto.nn.edits.dynamic_quantizers import DynamicQuantizers, dynamically_quantized
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import fused_operations, runner

pytestmark = pytest.mark.usefixtures("trusted")


def by_hand(x: np.ndarray) -> np.ndarray:
    """ONNX's DynamicQuantizeLinear and back, in float64."""
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    scale = (high - low) / 255 or 1.0
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-3, 1.0, 1e4]),
    st.sampled_from([-3.0, 0.0, 3.0]),
)
def test_inputs_are_on_the_nearest_of_256_steps(seed, scale, shift):
    x = (np.random.default_rng(seed).normal(size=(3, 7)) + shift) * scale
    found = dynamically_quantized(torch.tensor(x, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(found, by_hand(x), rtol=1e-9, atol=1e-12 * scale)
    step = (max(x.max(), 0) - min(x.min(), 0)) / 255
    assert np.abs(found - x).max() <= step * 1.001
    assert len(np.unique(np.rint(found / step))) <= 256


def test_zeros_stay_zero():
    assert torch.equal(dynamically_quantized(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_a_layer_is_what_its_codes_say():
    source = Mlp(inputs=6, classes=4, widths=())()
    small = Dynamic()(source)
    [edit] = small.edits
    assert isinstance(edit, DynamicQuantizers)
    [weight] = edit.weights
    name = next(name for name in small.tensors if name.endswith("weight"))
    w, bias = small.tensors[name].double().numpy(), small.tensors[name.replace("weight", "bias")].double().numpy()
    scale = np.abs(w).max(1) / weight.quant_max
    np.testing.assert_allclose(weight.scale, scale, rtol=1e-6)
    x = np.random.default_rng(0).normal(size=(5, 6))
    expected = by_hand(x) @ (np.rint(w / scale[:, None]) * scale[:, None]).T + bias
    found = small.module()(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_gradients_pass_through():
    module = Dynamic()(Mlp(inputs=6, classes=4)()).module()
    x = torch.randn(5, 6, requires_grad=True)
    module(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters() if p.ndim > 1)


@pytest.mark.parametrize("kind", [Plain, pytest.param(Residual, marks=pytest.mark.slow)])
def test_onnx_runtime_computes_with_integers_and_agrees(kind):
    source = network(kind)
    small = Dynamic()(source)
    model = to_onnx(small)
    fused = fused_operations(model)
    assert fused["ConvInteger"] >= 2
    assert fused["DynamicQuantizeMatMul"] == 1
    batch = images(64, 3)
    simulated, real = small.module()(batch).detach().numpy(), runner(model)(batch.numpy())
    spread = simulated.std(0).mean()
    assert np.abs(simulated - real).mean() < 0.01 * spread
    assert len(model) < 0.6 * len(to_onnx(source))


def test_linear_layers_alone_and_skipped_ones():
    source = network(Plain)

    def paths(**fields: object) -> list[str]:
        return [q.path for q in Dynamic(**fields)(source).edits[-1].weights]

    assert paths(layers="linear") == ["classifier"]
    assert paths() == ["features.4", "features.7", "classifier"]
    assert paths(first="int")[0] == "features.0"
    assert paths(skip=("features",)) == ["classifier"]


class Padded(nn.Module):
    """Strides, groups, dilation and padding of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(4, 8, 3, padding="same", dilation=2, groups=2)
        self.two = nn.Conv2d(8, 8, (3, 2), stride=(2, 1), padding=(1, 0), bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x).relu()).mean((-1, -2))


def test_every_convolution_is_exported():
    torch.manual_seed(0)
    module = Padded().eval()
    x = torch.randn(3, 4, 9, 8)
    source = Network.from_module(module, x)
    small = Dynamic()(source)
    simulated, real = small.module()(x).detach().numpy(), runner(to_onnx(small))(x.numpy())
    np.testing.assert_allclose(simulated, real, atol=0.02 * simulated.std())

"""`quantize.weight_only` and `quantize.bf16`: steps by hand, files of the promised size, the same results in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.nets import Plain, images, network

from mapsto.errors import DomainError
from mapsto.mappings.evaluate.size import Size
from mapsto.mappings.networks.mlp import Mlp
from mapsto.mappings.quantize.bf16 import Bf16
from mapsto.mappings.quantize.weight_only import WeightOnly
from mapsto.nn.edits.grouped_weights import codes_of, dequantized, rounded_inputs, steps
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import fused_operations, runner

pytestmark = pytest.mark.usefixtures("trusted")


def by_hand(row: np.ndarray, bits: int, *, symmetric: bool) -> np.ndarray:
    """One group's values on their steps, in float64."""
    top = 2**bits - 1
    if symmetric:
        scale, zero = np.abs(row).max() / (top // 2) or 1.0, (top + 1) // 2
    else:
        low, high = min(row.min(), 0.0), max(row.max(), 0.0)
        scale = (high - low) / top or 1.0
        zero = np.clip(np.rint(-low / scale), 0, top)
    return (np.clip(np.rint(row / scale) + zero, 0, top) - zero) * scale


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([4, 8]),
    st.sampled_from([16, 32]),
    st.integers(1, 70),
    st.booleans(),
    st.floats(-2, 2),
)
def test_weights_are_on_their_groups_steps(seed, bits, group, inputs, symmetric, shift):
    w = (np.random.default_rng(seed).normal(size=(3, inputs)) + shift).astype(np.float32)
    weight = torch.tensor(w)
    scale, zero = steps(weight, bits, group, symmetric=symmetric)
    found = dequantized(codes_of(weight, scale, zero, bits, group), scale, zero, weight.shape).numpy()
    for row, result in zip(w.astype(np.float64), found, strict=True):
        for start in range(0, inputs, group):
            part = row[start : start + group]
            step = (np.abs(part).max() * 2 if symmetric else np.ptp(np.append(part, 0))) / (2**bits - 2)
            error = np.abs(result[start : start + group] - by_hand(part, bits, symmetric=symmetric))
            assert error.max() <= step * 1.01, "at most a tie apart"
            assert np.mean(error > 1e-4 * step) <= 0.2, "steps are kept in float32, codes reach 255 of them"


def test_inputs_are_on_127_steps_a_group():
    x = torch.randn(2, 3, 40, dtype=torch.float64)
    found = rounded_inputs(x, 16).numpy()
    for row, result in zip(x.numpy().reshape(6, 40), found.reshape(6, 40), strict=True):
        for start in (0, 16, 32):
            part = row[start : start + 16]
            scale = np.abs(part).max() / 127
            np.testing.assert_allclose(result[start : start + 16], np.rint(part / scale) * scale, atol=1e-12)


@pytest.mark.parametrize("inputs", [64, 250])
@pytest.mark.parametrize("fields", [{"bits": 8}, {"bits": 4}, {"bits": 4, "symmetric": False, "observer": "mse"}])
@pytest.mark.parametrize("products", ["int8", "float"])
def test_onnx_runtime_agrees(inputs, fields, products):
    small = WeightOnly(**fields, products=products)(Mlp(inputs=inputs, classes=3)())
    model = to_onnx(small)
    x = torch.randn(9, inputs)
    simulated, real = small.module()(x).detach().numpy(), runner(model)(x.numpy())
    assert np.mean(np.abs(simulated - real)) < 1e-3 * simulated.std()
    wanted = 0 if products == "float" and fields["bits"] == 8 else 3
    assert fused_operations(model)["MatMulNBits"] == wanted


def test_least_error_is_less():
    source = Mlp(inputs=256, classes=3)()
    x = torch.randn(64, 256)
    errors = []
    for observer in ("minmax", "mse"):
        small = WeightOnly(bits=4, observer=observer, products="float", group=128)(source)
        name = next(name for name in source.tensors if name.endswith("weight"))
        layer = name.rpartition(".")[0]
        scale, zero = small.tensors[f"{layer}.weight_scale"], small.tensors[f"{layer}.weight_zero"]
        weight = source.tensors[name]
        errors.append(
            float(
                (dequantized(codes_of(weight, scale, zero, 4, 128), scale, zero, weight.shape) - weight).square().sum()
            )
        )
        assert torch.isfinite(small.module()(x)).all()
    assert errors[1] < 0.95 * errors[0]


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "least"), [(8, 3.2), (4, 5.5)])
def test_the_file_is_smaller(bits, least):
    source = Mlp(inputs=512, classes=10, widths=(512, 512))()
    assert len(to_onnx(source)) / len(to_onnx(WeightOnly(bits=bits)(source))) > least


@pytest.mark.slow
def test_convolutions_are_unpacked_and_run_as_float():
    source = network(Plain)
    small = WeightOnly(bits=4)(source)
    model = to_onnx(small)
    assert fused_operations(model)["Conv"] == 3
    assert len(model) < 0.75 * len(to_onnx(source))
    x = images(16)
    np.testing.assert_allclose(small.module()(x).detach().numpy(), runner(model)(x.numpy()), atol=1e-4)
    assert WeightOnly(layers="linear")(source).edits[-1].weights == ("classifier.weight",)


def test_training_goes_on():
    module = WeightOnly(bits=4)(Mlp(inputs=20, classes=3)()).module()
    module(torch.randn(8, 20)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters() if p.ndim > 1)


# --------------------------------------------------------------------------------------------------------------- 16 bits


@pytest.mark.parametrize("form", ["bf16", "fp16"])
def test_parameters_are_rounded_once(form):
    source = network(Plain)
    small = Bf16(format=form)(source)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[form]
    weight = small.tensors["classifier.weight"]
    assert weight.dtype == dtype
    exact = source.tensors["classifier.weight"].double()
    relative = ((weight.double() - exact) / exact).abs().max()
    assert relative <= {"bf16": 2**-8, "fp16": 2**-11}[form]
    x = images(16)
    np.testing.assert_allclose(small.module()(x).detach().numpy(), runner(to_onnx(small))(x.numpy()), atol=1e-5)


def test_the_16_bit_file_is_half():
    source = Mlp(inputs=512, classes=10, widths=(512, 512))()
    assert len(to_onnx(source)) / len(to_onnx(Bf16()(source))) > 1.95


def test_what_float16_does_not_hold_is_named():
    source = network(Plain)
    module = source.module()
    with torch.no_grad():
        module.classifier.weight[0, 0] = 1e5
    big = source.with_module(module)
    with pytest.raises(DomainError, match=r"classifier\.weight: the parameter is not finite in fp16"):
        Bf16(format="fp16")(big)
    assert torch.isfinite(Bf16()(big).module()(images(2))).all()


def test_size_counts_codes_steps_and_zero_points():
    float32 = Mlp(inputs=64, widths=(), classes=2)(seed=0)

    def size(bits):
        return Size()(WeightOnly(bits=bits, group=32)(float32)).metrics["bytes"].value

    groups, bias = 2 * 2, 2 * 4
    assert size(8) == 64 * 2 + groups * (4 + 1) + bias
    assert size(4) == 64 * 2 / 2 + groups * (4 + 0.5) + bias

"""`quantize.adaround`: the numbers of the paper's formulas, and less error than the nearest step gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.nets import Blobs, Plain, images, network

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import trusting
from mapsto.mappings.quantize.adaround import Adaround
from mapsto.mappings.quantize.static import Static
from mapsto.nn.edits.quantizers import Quantizer
from mapsto.nn.quantize.adaround import (
    LayerRounding,
    hardened,
    opening,
    quantized_layers,
    regulariser,
    rounded,
    soft_weight,
)
from mapsto.store import decode_state, encode_state, network_digest

pytestmark = pytest.mark.usefixtures("trusted", "one_thread")


def four_bits(scale: tuple[float, ...]) -> Quantizer:
    zeros = (0,) * len(scale)
    return Quantizer(
        path="0",
        function="weight",
        weight=True,
        bits=4,
        scale=scale,
        zero_point=zeros,
        axis=0,
        quant_min=-8,
        quant_max=7,
    )


def test_formulas_by_hand():
    rng = np.random.default_rng(0)
    w, v, scale = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)) * 2, np.array([0.1, 0.2, 0.3])
    quantizer = four_bits(tuple(scale))
    h = np.clip(1.2 / (1 + np.exp(-v)) - 0.1, 0, 1)
    steps = scale[:, None]
    soft = np.clip(np.floor(w / steps) + h, -8, 7) * steps
    weight, opened = torch.tensor(w), torch.tensor(v)
    np.testing.assert_allclose(soft_weight(weight, opened, quantizer), soft, rtol=1e-12)
    hard = np.clip(np.floor(w / steps) + (h >= 0.5), -8, 7) * steps
    np.testing.assert_allclose(hardened(weight, opened, quantizer), hard, rtol=1e-12)
    np.testing.assert_allclose(float(regulariser(opened, 3.0)), (1 - np.abs(2 * h - 1) ** 3).sum(), rtol=1e-12)


def test_it_begins_at_the_float_weight_and_rounds_it_to_the_nearest():
    w = torch.randn(4, 6, dtype=torch.float64).clamp(-0.7, 0.7)
    quantizer = four_bits((0.1, 0.1, 0.2, 0.3))
    v = opening(w, quantizer)
    torch.testing.assert_close(soft_weight(w, v, quantizer), w)
    torch.testing.assert_close(hardened(w, v, quantizer), rounded(w, quantizer))


def test_errors_that_add_up_are_rounded_apart():
    """Five equal weights of 0.4 steps: the nearest step loses all of them, the best rounds some of them up."""
    from torch import nn

    layer = nn.Linear(5, 1, bias=False)
    nn.init.constant_(layer.weight, 0.4)
    net = nn.Sequential(layer)
    from mapsto.nn.edits.quantizers import Quantizers

    Quantizers(quantizers=(four_bits((1.0,)),)).apply(net)
    [found] = quantized_layers(net)
    x = 1 + 0.3 * torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    rounding = LayerRounding(
        found, x, layer(x).detach(), rectified=False, learning_rate=0.05, regularisation=0.3, warmup=0.2, beta=(20, 2)
    )
    for step in range(400):
        rounding.advance(torch.arange(64), step / 400)
    assert torch.allclose(rounding.soft(), rounding.soft().round(), atol=1e-2), "h is 0 or 1 in the end"
    rounding.harden()
    assert layer.weight.sum() in (1, 2, 3)


@pytest.fixture(scope="module")
def pair():
    with trusting("tests"):
        source = network(Plain)
        return source, Static(data=Blobs(), samples=64, bits=3)(source)


def test_weights_are_on_the_steps_beside_them_and_the_error_falls(pair):
    source, small = pair
    better = Adaround(data=Blobs(), samples=128, steps=150)(small)
    assert better.edits == small.edits
    x = images(200, 5)
    with torch.no_grad():
        error = [(value.module()(x) - source.module()(x)).square().mean() for value in (small, better)]
    assert error[1] < 0.7 * error[0]
    moved = 0
    for quantizer in small.edits[-1].quantizers:
        if quantizer.weight and quantizer.bits == 3:
            name = f"{quantizer.path}.{quantizer.function}"
            step = torch.tensor(quantizer.scale).view(-1, *[1] * (small.tensors[name].ndim - 1))
            codes, before = better.tensors[name] / step, small.tensors[name] / step
            torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
            inside = (before > quantizer.quant_min) & (before < quantizer.quant_max)
            assert ((codes - before)[inside].abs() < 1.001).all()
            moved += int((codes.round() != before.round()).sum())
    assert moved > 10


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_stopped_within_a_layer_or_between_two_it_goes_on_the_same(pair, stop):
    _, small = pair
    mapping = Adaround(data=Blobs(), samples=32, steps=4)
    whole = network_digest(mapping(small, seed=3))
    context = Context(seed=3)
    context.seed_everything(mapping.name)
    live = mapping.open(small, None, context)
    while not live.done:
        context.seed_everything(live.step)
        live.advance(None)
        if live.step == stop:
            live = mapping.open(small, decode_state(encode_state(live.snapshot())), context)
    assert network_digest(live.result()) == whole


def test_a_learning_rate_that_diverges_is_named(pair):
    _, small = pair
    module = small.module()
    with torch.no_grad():
        module.features[4].weight.fill_(1e30)
    with pytest.raises(DomainError, match=r"error of layer 'features\.4'|not finite"):
        Adaround(data=Blobs(), samples=32, steps=2)(small.with_module(module))

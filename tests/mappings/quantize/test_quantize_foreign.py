"""Networks whose parts give several tensors are quantized whole, and what stays in float is named with its reason."""

from __future__ import annotations

import logging

import pytest
import torch
from tests.foreign import Detector, Encoder, Noise, Recurrent, Selecting
from torch import nn

from mapsto import quantize
from mapsto.errors import DomainError
from mapsto.kinds import Network, trusting
from mapsto.nn.edits.quantizers import Quantizers
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import fused_operations, runner
from mapsto.nn.network.call_sites import Site, trace


@pytest.fixture(autouse=True)
def _trusted():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with trusting("tests"):
        yield
    torch.set_num_threads(threads)


def quantized_weights(small: Network) -> set[str]:
    edit = small.edits[-1]
    assert isinstance(edit, Quantizers)
    return {f"{q.path}.{q.function}" for q in edit.quantizers if q.weight and q.bits == 8}


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_every_convolution_behind_chunk_and_split_is_an_integer_kernel(caplog):
    module = Detector()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    x = torch.randn(4, 3, 32, 32)
    given = Network.from_module(module, x)
    small = quantize.static(data=Noise(shape=(3, 32, 32)), samples=32)(given)
    count = sum(isinstance(part, nn.Conv2d) for part in module.modules())
    assert len(quantized_weights(small)) == count == 6
    model = to_onnx(small)
    assert fused_operations(model)["QLinearConv"] == count
    assert "Conv" not in fused_operations(model)
    expected = small.module()(x).detach()
    assert torch.allclose(torch.as_tensor(runner(model)(x.numpy())), expected, atol=1e-3)
    assert 0 < float((expected - module.eval()(x)).detach().abs().max()) < 0.01
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("split", ["chunk", "split"])
def test_parts_share_the_codes_of_what_they_are_parts_of(split):
    given = Network.from_module(Detector(split).eval(), torch.randn(2, 3, 32, 32))
    small = quantize.static(data=Noise(shape=(3, 32, 32)), samples=32)(given)
    at = {quantizer.site: quantizer for quantizer in small.edits[-1].quantizers}
    whole = at[Site("block.first.act", "silu")]
    assert [at[Site("block", name)].scale for name in (split, f"{split}[1]")] == [whole.scale] * 2


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_linear_layer_behind_a_recurrent_one_is_quantized_and_the_recurrent_one_is_named(kind, caplog):
    given = Network.from_module(Recurrent(kind), torch.randn(4, 12, 32), arguments={"kind": kind})
    small = quantize.static(data=Noise(shape=(12, 32)), samples=32)(given)
    assert quantized_weights(small) == {"head.weight"}
    (text,) = warnings_of(caplog)
    assert text.startswith("left in float: layer (1 of 2 layers), because ")
    assert Site("layer", kind.lower()) in {quantizer.site for quantizer in small.edits[-1].quantizers}


@pytest.mark.parametrize("mapping", [quantize.dynamic(), quantize.weight_only()])
def test_attention_in_one_call_is_named(mapping, caplog):
    mapping(Network.from_module(Encoder(1), torch.randn(4, 12, 32), arguments={"layers": 1}))
    (text,) = warnings_of(caplog)
    assert text.startswith("left in float: encoder.layers.0.self_attn (1 of 4 layers), because ")


def test_what_the_user_leaves_in_float_is_a_note(caplog):
    caplog.set_level(logging.INFO, "mapsto")
    given = Network.from_module(Selecting(), torch.randn(4, 16))
    quantize.dynamic(skip=("first",))(given)
    assert warnings_of(caplog) == []
    assert "left in float: first (1 of 2 layers), because skip names it" in caplog.text


def test_layers_behind_topk_and_max_are_quantized():
    given = Network.from_module(Selecting(), torch.randn(4, 16))
    small = quantize.static(data=Noise(shape=(16,)), samples=32)(given)
    assert quantized_weights(small) == {"first.weight", "second.weight"}
    sites = {call.site for call in trace(given.module(), torch.randn(2, 16)).calls}
    assert Site("", "topk") in sites
    assert Site("", "topk", 0)._replace(function="topk[1]") not in sites  # the places are not used


def test_where_nothing_can_be_quantized_each_reason_is_given():
    given = Network.from_module(Selecting(), torch.randn(4, 16))
    with pytest.raises(DomainError, match="first: skip names it; second: skip names it"):
        quantize.static(data=Noise(shape=(16,)), skip=("first", "second"))(given)

"""Folding, tracing, quantizing: the simulation is exact, trains, replays and exports."""

from __future__ import annotations

import copy
import json

import numpy as np
import onnx
import pytest
import torch
from tests.nets import Depthwise, Padded, Plain, Residual, block, images, network, quantized, settled
from torch import Tensor, nn
from torch.nn import functional as F

from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network, trusting
from mapsto.nn.edits.fold_batch_norm import FoldBatchNorm, foldable_pairs
from mapsto.nn.edits.quantizers import Quantizer, Quantizers, is_quantized
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import fused_operations, runner
from mapsto.nn.network.call_sites import INPUT, Site, trace
from mapsto.nn.quantize.calibration import calibrate
from mapsto.nn.quantize.observers import Range, clipped
from mapsto.nn.quantize.placement import place_quantizers
from mapsto.nn.quantize.post_training import needs_reduced_range

pytestmark = pytest.mark.usefixtures("trusted", "one_thread")


@pytest.fixture(scope="module", params=[Plain, pytest.param(Residual, marks=pytest.mark.slow)])
def pair(request) -> tuple[Network, Network]:
    with trusting("tests"):
        given = network(request.param)
        return given, quantized(given)


# ------------------------------------------------------------------------------------------------------------------- sites


def test_trace_names_calls_without_a_module_of_their_own():
    graph = trace(Residual().eval(), images(2))
    sites = [call.site for call in graph.calls]
    assert Site("", "add", 0) in sites
    assert Site("", "add", 1) in sites
    assert Site("", "pad", 0) in sites
    assert Site("stem.2", "hardtanh", 0) in sites
    assert len(set(sites)) == len(sites)
    adds = {call.site.call: call.sources for call in graph.calls if call.site.function == "add"}
    assert adds[0] == (Site("bn2", "batch_norm"), Site("", "pad"))


def test_plan_quantizes_every_result_but_what_a_rectifier_absorbs():
    module = Residual().eval()
    FoldBatchNorm(pairs=foldable_pairs(module, trace(module, images(2)))).apply(module)
    chosen = place_quantizers(trace(module, images(2)))
    assert INPUT in chosen.observed
    assert Site("stem.0", "conv2d") not in chosen.observed
    assert Site("stem.2", "hardtanh") in chosen.rectified
    assert Site("", "add", 0) in chosen.observed, "a leaky rectifier absorbs nothing"
    assert Site("", "add", 1) not in chosen.observed
    assert Site("classifier", "linear") not in chosen.observed, "the scores stay float"
    assert set(chosen.weights) == {
        f"{name}.weight" for name in ("stem.0", "conv1", "conv2", "conv3", "short.0", "classifier")
    }


def test_skipped_modules_have_no_quantizer():
    module = Residual().eval()
    chosen = place_quantizers(trace(module, images(2)), skip=("short", "classifier"))
    assert "short.0.weight" not in chosen.weights
    assert "classifier.weight" not in chosen.weights
    assert not [site for site in chosen.observed if site.path.startswith("short")]


# -------------------------------------------------------------------------------------------------------------------- fold


@pytest.mark.parametrize("kind", [Plain, Residual])
def test_folding_changes_no_output_and_drops_every_batch_norm(kind):
    module = settled(kind())
    before = module(images(8))
    pairs = foldable_pairs(module, trace(module, images(2)))
    edit = FoldBatchNorm(pairs=pairs)
    folded = edit.apply(module)
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
    torch.testing.assert_close(folded(images(8)), before, rtol=1e-4, atol=1e-5)
    assert edit.follow(f"{pairs[0][1]}.weight", torch.ones(3)) is None
    assert edit.follow(f"{pairs[0][0]}.weight", torch.ones(3)) is not None


def test_a_shared_or_branching_convolution_is_not_folded():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    module = Branching().eval()
    assert foldable_pairs(module, trace(module, images(2))) == ()


def test_folding_something_else_is_refused():
    with pytest.raises(DomainError, match="cannot fold ReLU '2' into Conv2d '0'"):
        FoldBatchNorm(pairs=(("0", "2"),)).apply(nn.Sequential(*block(1, 2)))


# -------------------------------------------------------------------------------------------------------------- simulation


def test_quantized_is_near_the_original_but_not_the_same(pair):
    given, small = pair
    before, after = given.module()(images(200, 2)), small.module()(images(200, 2))
    spread = before.std(0).mean()
    assert 1e-6 < (after - before).abs().max() < 0.3 * spread
    assert (after.argmax(1) == before.argmax(1)).float().mean() > 0.95


def test_tensors_keep_their_names_and_replay_is_exact(pair):
    _, small = pair
    module = small.module()
    assert is_quantized(module)
    assert not [name for name in module.state_dict() if "quantizer" in name]
    assert torch.equal(small.module()(images(4)), module(images(4)))
    assert torch.equal(copy.deepcopy(module)(images(4)), module(images(4)))


def test_edits_survive_json(pair):
    import dataclasses

    _, small = pair
    edit = small.edits[-1]
    assert isinstance(edit, Quantizers)
    plain = json.loads(json.dumps(dataclasses.asdict(edit)))
    again = Quantizers(quantizers=tuple(Quantizer(**item) for item in plain["quantizers"]))
    assert again == edit


def test_embed_and_forward_agree(pair):
    _, small = pair
    module = small.module()
    codes = module.embed(images(16))
    [last] = [q for q in small.edits[-1].quantizers if q.function in ("mean", "adaptive_avg_pool2d")]
    steps = codes / last.scale[0]
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)


def test_training_goes_on_and_only_moves_what_it_should(pair):
    _, small = pair
    module = small.module().train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    labels = torch.arange(32) % 5
    losses = []
    for _ in range(8):
        loss = F.cross_entropy(module(images(32)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert losses[-1] < losses[0]


def test_quantizing_twice_is_refused(pair):
    _, small = pair
    with pytest.raises(DomainError, match="quantized already"):
        small.edits[-1].apply(small.module())


def test_a_pruned_weight_no_longer_fits(pair):
    given, small = pair
    fold, attach = small.edits
    module = fold.apply(given.module())
    name = next(q.path for q in attach.quantizers if q.weight)
    layer = module.get_submodule(name)
    layer.weight = nn.Parameter(layer.weight[:3].clone())
    with pytest.raises(DomainError, match="prune before quantizing"):
        attach.apply(module)


def test_wrong_quantizers_are_refused():
    with pytest.raises(DomainError, match="2 scales"):
        Quantizer(path="0", function="weight", scale=(1.0, 2.0), zero_point=(0, 0), quant_min=-128, quant_max=127)


# ------------------------------------------------------------------------------------------------------------------- range


def test_observers_differ_on_a_long_tail():
    values = torch.cat([torch.randn(20000, generator=torch.Generator().manual_seed(0)), torch.tensor([60.0])])
    seen = Range()
    seen.widen(values)
    seen.count(values)
    assert clipped(seen, "minmax", 99.9, 8)[1] == 60
    assert clipped(seen, "percentile", 99.9, 8)[1] < 10
    assert 10 < clipped(seen, "mse", 99.9, 8)[1] < 60


def test_nan_is_named():
    module = settled(Plain())
    batch = images(4)
    batch[1, 0, 2, 2] = float("nan")
    with pytest.raises(DataError, match="not all finite"):
        calibrate(module, [batch])


@pytest.mark.parametrize("observer", ["minmax", "percentile", "mse"])
def test_reduced_range_leaves_a_bit_unused(observer):
    module = settled(Plain())
    for quantizer in calibrate(module, [images(16)], reduce_range=True, observer=observer):
        if quantizer.weight and quantizer.bits == 8:
            weight = module.get_submodule(quantizer.path).get_parameter(quantizer.function)
            codes = weight / torch.tensor(quantizer.scale).view(-1, *[1] * (weight.ndim - 1))
            assert codes.round().clamp(quantizer.quant_min, quantizer.quant_max).abs().max() <= 64


def test_a_filter_for_each_channel_keeps_all_bits_and_its_kernel_does_not_saturate():
    small = quantized(network(Depthwise), first=True, reduce_range=True)
    weights = [q for q in small.edits[-1].quantizers if q.weight and q.bits == 8]
    assert {q.path: q.quant_max for q in weights} == {"widen": 63, "filter": 127, "mix": 63, "classifier": 63}
    batch = images(64, 3).abs() + 1  # the highest codes, where pairs of products would not fit 16 bits
    model = to_onnx(small)
    assert fused_operations(model)["QLinearConv"] == 3
    simulated, real = small.module()(batch).detach().numpy(), runner(model)(batch.numpy())
    assert np.abs(simulated - real).max() < 1e-4


# ------------------------------------------------------------------------------------------------------------------ export


def test_onnx_runtime_runs_integer_kernels_and_agrees(pair):
    given, small = pair
    model = to_onnx(small)
    fused = fused_operations(model)
    assert fused["QLinearConv"] >= 2
    assert fused["Conv"] == 1, "only the first convolution, of one channel, stays float"
    assert fused["QGemm"] == 1
    assert fused["QLinearGlobalAveragePool"] == 1
    batch = images(200, 3)
    simulated, real = small.module()(batch).detach().numpy(), runner(model)(batch.numpy())
    difference = np.abs(simulated - real)
    assert np.median(difference) < 1e-5, "the simulation is exact up to ties in the float layer"
    assert difference.max() < 0.1 * simulated.std(0).mean()
    assert (simulated.argmax(1) == real.argmax(1)).all()
    assert len(model) < len(to_onnx(given))


@pytest.mark.parametrize("settings", [{"signed": True}, {"bits": 6}, {"reduce_range": True}, {"observer": "mse"}])
def test_other_settings_export_as_they_simulate(settings):
    small = quantized(network(Plain), first=True, **settings)
    batch = images(64, 3)
    simulated, real = small.module()(batch).detach().numpy(), runner(to_onnx(small))(batch.numpy())
    assert np.abs(simulated - real).max() < 1e-4


def test_skipped_layers_stay_float_in_onnx_runtime():
    given = network(Plain)
    module = given.module()
    fold = FoldBatchNorm(pairs=foldable_pairs(module, trace(module, images(2))))
    fold.apply(module)
    found = calibrate(module, [images(64)], skip=("features.4",), reduce_range=needs_reduced_range())
    attach = Quantizers(quantizers=found)
    small = given.with_module(attach.apply(module), fold, attach)
    model = to_onnx(small)
    assert fused_operations(model)["Conv"] == 1
    batch = images(64, 3)
    simulated, real = small.module()(batch).detach().numpy(), runner(model)(batch.numpy())
    assert np.abs(simulated - real).max() < 0.1 * simulated.std(0).mean()


@pytest.mark.slow
def test_convolutions_of_codes_pad_with_zeros_themselves():
    given = network(Padded)
    for candidate in (given, quantized(given, first=True)):
        model = onnx.load_from_string(to_onnx(candidate))
        kept = [node for node in model.graph.node if node.op_type == "Pad"]
        assert len(kept) == 1, "only what pads with ones is left"
        batch = images(64, 3)
        expected, real = candidate.module()(batch).detach().numpy(), runner(to_onnx(candidate))(batch.numpy())
        assert np.abs(expected - real).max() < 1e-4


@pytest.mark.parametrize("classes", [0, 5])
def test_a_head_put_on_afterwards_is_float(classes):
    small = quantized(network(Plain, classes=classes))
    module = small.module()
    module.classifier = nn.Linear(12, 5)
    with torch.no_grad():
        torch.testing.assert_close(module(images(4)), module.classifier(module.embed(images(4))), rtol=0, atol=0)

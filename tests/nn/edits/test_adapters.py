"""Few parameters beside a network's own: nothing changes until they are trained, only they are, and what can be is merged."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.foreign import Encoder, Noise
from tests.nn.edits.test_lora import context
from torch import nn

from mapsto import adapt, datasets, export, networks, prune, quantize
from mapsto.errors import DomainError, MissingExtra
from mapsto.kinds import Network
from mapsto.kinds.network import call_changed_parts
from mapsto.nn.adapt.adapter_places import blocks
from mapsto.nn.edits._adapted_layer import adapter_parameters
from mapsto.nn.edits.dora import Dora
from mapsto.nn.edits.fold_batch_norm import FoldBatchNorm, foldable_pairs
from mapsto.nn.edits.ia3 import Ia3
from mapsto.nn.edits.lora import Lora
from mapsto.nn.edits.low_rank import LowRank, Ranks
from mapsto.nn.network.call_sites import trace
from mapsto.nn.network.examples import example_inputs
from mapsto.store import Store

MERGED = ("lora", "dora", "ia3", "bitfit", "ssf")
METHODS = (*MERGED, "adapters", "prompts")
BERT = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def text() -> Network:
    pytest.importorskip("transformers")
    return networks.hf_text(configuration={"model_type": "bert", **BERT}, length=6, classes=3)(seed=0)


def efficientnet() -> Network:
    try:
        return networks.efficientnet_lite0(size=32, classes=3, pretrained=False)(seed=0)
    except MissingExtra as error:
        pytest.skip(str(error))


NETWORKS: dict[str, Callable[[], Network]] = {
    "conv4": lambda: networks.conv4(channels=1, size=16, width=6, blocks=3, classes=4)(seed=0),
    "resnet": lambda: networks.resnet_cifar(depth=8, classes=3)(seed=0),
    "vit": lambda: networks.vit(size=8, patch=4, channels=1, depth=2, width=8, heads=2, classes=3)(seed=0),
    "text": text,
    "efficientnet": efficientnet,
}


def adapted(method: str, network: Network) -> Network:
    return getattr(adapt, method)()(network, seed=0)


def moved(network: Network) -> Network:
    """What adapters have added, and running means, away from what they begin with."""
    generator = torch.Generator().manual_seed(0)
    names = adapter_parameters(network.module())
    tensors = {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
        if name in names or "running_mean" in name
        else tensor
        for name, tensor in network.tensors.items()
    }
    return dataclasses.replace(network, tensors=tensors)


def sample(network: Network) -> torch.Tensor:
    x = example_inputs(network.signature, 3)[0]
    return x if x.is_floating_point() else torch.tensor([[2, 3, 4, 5, 6, 7], [8, 9, 0, 0, 0, 0], [7, 3, 3, 1, 0, 0]])


def output(network: Network, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.module()(x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow if kind in ("resnet", "efficientnet") else ()) for kind in NETWORKS],
)
def test_nothing_changes_until_they_move_and_they_are_stored_and_merged(kind: str, method: str, tmp_path: Path) -> None:
    plain = NETWORKS[kind]()
    x = sample(plain)
    if method == "prompts" and kind not in ("vit", "text"):
        with pytest.raises(DomainError, match="takes tokens"):
            adapted(method, plain)
        return
    fresh = adapted(method, plain)
    assert torch.equal(output(fresh, x), output(plain, x)) == (method != "prompts")
    assert all(torch.equal(fresh.tensors[name], tensor) for name, tensor in plain.tensors.items())
    other = moved(fresh)
    assert not torch.allclose(output(other, x), output(plain, x), atol=1e-3)
    store = Store(tmp_path)
    loaded = store.load(store.save(other))
    assert torch.equal(output(loaded, x), output(other, x))
    merged = store.load(store.save(adapt.merge()(loaded)))
    torch.testing.assert_close(output(merged, x), output(other, x))
    if method in MERGED:
        assert not adapter_parameters(merged.module())
        assert {type(part) for part in merged.module().modules()} == {type(part) for part in plain.module().modules()}
        more = merged.tensors.keys() - plain.tensors.keys()
        assert all(name.endswith("bias") for name in more)
        assert method == "ssf" or not more
    else:
        assert adapter_parameters(merged.module()) == adapter_parameters(other.module())


@pytest.mark.parametrize("method", METHODS)
def test_finetune_trains_them_and_the_head_alone(method: str) -> None:
    data = datasets.subset(data=datasets.digits(size=8), per_class=2)
    network = networks.vit(data=data, patch=4, depth=1, width=8, heads=2, classes=10)(seed=0)
    before = adapted(method, network)
    names = adapter_parameters(before.module())
    after = adapt.finetune(data=data, epochs=1, folds=None, freeze="weights", learning_rate=0.1)(before, seed=0)
    changed = {name for name, tensor in after.tensors.items() if not torch.equal(tensor, before.tensors[name])}
    still = {
        name for name in names if name.endswith(("lora_a", "down.weight", "down.bias"))
    }  # behind zeros, at the first step
    assert set(names) - still <= changed <= {*names, "classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(each, marks=() if each in ("dora", "ssf", "adapters") else pytest.mark.slow)
        for each in (*MERGED, "adapters")
    ],
)
def test_pruned_and_quantized_once_they_are_merged(method: str) -> None:
    data = datasets.subset(data=datasets.digits(size=16), per_class=2)
    network = moved(adapted(method, networks.conv4(data=data, width=6, blocks=2, classes=10)(seed=0)))
    if method in ("dora", "ia3", "ssf"):
        with pytest.raises(DomainError, match=r"layers have adapters.*adapt\.merge"):
            prune.magnitude(macs=0.6)(network)
        with pytest.raises(DomainError, match=r"layers have adapters.*adapt\.merge"):
            quantize.static(data=data)(network)
    merged = adapt.merge()(network)
    small = prune.magnitude(macs=0.6)(merged)
    assert small.tensors["features.0.0.weight"].shape[0] < 6
    x = example_inputs(merged.signature, 8)[0]
    exact = output(small, x)
    rounded = output(quantize.static(data=data)(small), x)  # which folds batch norms first
    assert float((rounded - exact).abs().mean()) < 0.2 * float(exact.std())


def test_bottlenecks_are_behind_batch_norms_that_can_be_folded() -> None:
    network = moved(adapted("adapters", NETWORKS["resnet"]()))
    x, module = sample(network), network.module()
    pairs = foldable_pairs(module, trace(module, x))
    norms = [path for path, part in module.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert sorted(norm for _, norm in pairs) == sorted(norms)
    folded = network.edited(FoldBatchNorm(pairs=pairs))
    torch.testing.assert_close(output(folded, x), output(network, x), rtol=1e-4, atol=1e-4)


def test_blocks_of_networks() -> None:
    assert blocks(NETWORKS["conv4"]().module()) == ["features.0", "features.1", "features.2"]
    assert len(blocks(NETWORKS["resnet"]().module())) == 3
    assert blocks(NETWORKS["vit"]().module()) == ["blocks.0", "blocks.1"]
    with pytest.raises(DomainError, match="no blocks of layers"):
        adapted("adapters", networks.mlp(inputs=4, classes=2)(seed=0))


def test_prompts_do_not_see_how_far_texts_are_padded() -> None:
    network = moved(adapted("prompts", text()))
    ids = torch.tensor([[5, 6, 7, 0, 0, 0]])
    torch.testing.assert_close(output(network, ids), output(network, ids[:, :4]))


def test_a_pooler_that_is_not_read_gets_no_adapters() -> None:
    names = adapter_parameters(adapted("lora", text()).module())
    assert names
    assert not any("pooler" in name for name in names)


def test_ia3_scales_keys_values_and_hidden_features_of_transformers() -> None:
    names = adapter_parameters(adapted("ia3", text()).module())
    layer = "encoder.encoder.layer.0."
    assert [name.removeprefix(layer) for name in names if name.startswith(layer)] == [
        "attention.self.key.ia3_scale",
        "attention.self.value.ia3_scale",
        "output.dense.ia3_scale",
    ]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("distilbert", {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}),
        ("mpnet", {}),
    ],
)
def test_other_encoders_take_prompts_and_scales(kind: str, names: dict[str, str]) -> None:
    pytest.importorskip("transformers")
    fields = {**BERT, **{name: BERT[other] for name, other in names.items()}, "pad_token_id": 0}
    network = networks.hf_text(configuration={"model_type": kind, **fields}, length=6, classes=3)(seed=0)
    assert len(adapter_parameters(adapted("ia3", network).module())) == 6
    prompts = adapted("prompts", network)
    assert output(prompts, sample(network)).shape == (3, 3)
    assert len(adapter_parameters(prompts.module())) == 1


def test_dora_changes_direction_and_magnitude() -> None:
    network = moved(adapted("dora", NETWORKS["vit"]()))
    layer: Any = network.module().get_submodule("blocks.0.fc1")
    with torch.no_grad():
        changed = layer.adapted_weight()
        direction = layer.weight + layer.lora_b @ layer.lora_a
    torch.testing.assert_close(changed.norm(dim=1), layer.dora_magnitude.abs())
    cosine = nn.functional.cosine_similarity(changed, direction)
    torch.testing.assert_close(cosine.abs(), torch.ones_like(cosine))


def test_merging_says_what_stays() -> None:
    ctx = context()
    network = adapted("adapters", adapted("lora", NETWORKS["vit"]()))
    merged = ctx.apply(adapt.merge(), network)
    assert not any("lora" in name for name in merged.tensors)
    assert any("adapter.up" in name for name in merged.tensors)


def test_one_change_of_a_weight_at_a_time() -> None:
    network = adapted("lora", NETWORKS["conv4"]())
    with pytest.raises(DomainError, match="no layer that can be adapted"):
        adapted("dora", network)
    both = adapted("bitfit", network)  # which adds nothing, and goes with others
    assert {name.rpartition(".")[2] for name in adapter_parameters(both.module())} == {"lora_a", "lora_b", "bias"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("conv4", "ssf"),
        ("conv4", "adapters"),
        ("vit", "dora"),
        ("vit", "adapters"),
        ("vit", "prompts"),
        ("minilm", "prompts"),
    ],
)
def test_exported(kind: str, method: str) -> None:
    network = networks.minilm()(seed=0) if kind == "minilm" else NETWORKS[kind]()
    package = export.onnx(samples=16)(adapt.merge()(moved(adapted(method, network))))
    parity = package.manifest()["parity"]
    assert parity["max_abs_difference"] < 1e-4
    assert parity["output_std"] > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_the_same_as_peft_computes(method: str) -> None:
    """The same numbers in peft's layers give the same output."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    for layer, x in (
        (nn.Linear(6, 4), torch.randn(3, 6)),
        (nn.Conv2d(3, 4, 3, padding=1), torch.randn(2, 3, 5, 5)),
    ):
        net = nn.Sequential(copy.deepcopy(layer))
        edit = (
            Ia3(outputs=("0",))
            if method == "ia3"
            else (Lora if method == "lora" else Dora)(targets=("0",), rank=2, alpha=3.0)
        )
        edit.apply(net)
        names = adapter_parameters(net)
        with torch.no_grad():
            for name in names:
                net.get_parameter(name).add_(0.3 * torch.randn_like(net.get_parameter(name)))
        config = (
            peft.IA3Config(target_modules=["0"], feedforward_modules=[])
            if method == "ia3"
            else peft.LoraConfig(r=2, lora_alpha=3, target_modules=["0"], use_dora=method == "dora")
        )
        other = peft.get_peft_model(nn.Sequential(copy.deepcopy(layer)), config).eval()
        theirs = dict(other.named_parameters())
        with torch.no_grad():
            for name in names:
                part = {"lora_a": "lora_A", "lora_b": "lora_B", "dora_magnitude": "magnitude", "ia3_scale": "ia3_l"}
                target = next(each for key, each in theirs.items() if part[name.removeprefix("0.")] in key)
                target.copy_(net.get_parameter(name).reshape(target.shape))
            torch.testing.assert_close(net(x), other(x))


@pytest.mark.parametrize("method", MERGED)
def test_what_an_encoder_layer_of_torch_s_own_computes_has_its_adapters_in_it(method: str) -> None:
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))
    network = Network.from_module(Encoder(), x)
    changed = moved(adapted(method, network))
    step_by_step = changed.module()
    expected = step_by_step(x.requires_grad_()).detach()  # with gradients torch calls each part
    with torch.no_grad():
        answers = [each.module()(x) for each in (network, changed, adapt.merge()(changed))]
    assert all(torch.allclose(answer, expected, atol=1e-5) for answer in answers[1:])
    assert (answers[0] - expected).abs().max() > 1e-3
    assert (
        adapt.merge()(changed).module().get_submodule("encoder.layers.0").activation_relu_or_gelu == 1
    )  # as fast as it was


def test_encoder_layers_with_factors_in_the_place_of_a_layer_and_nested_tensors() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    stack = nn.TransformerEncoder(layer, 1)
    LowRank(layers=(Ranks(path="layers.0.linear1", outputs=4),)).apply(stack.eval())
    call_changed_parts(stack)
    x, hidden = torch.randn(2, 4, 8), torch.tensor([[False] * 4, [False, False, True, True]])
    with torch.no_grad():
        seen = stack(x, src_key_padding_mask=hidden)
    assert torch.allclose(seen[~hidden], stack(x.requires_grad_(), src_key_padding_mask=hidden)[~hidden], atol=1e-6)


class Shared(nn.Module):
    """Two layers of one weight, one whose weight is read in its place, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.read, self.head = (nn.Linear(8, 8) for _ in range(4))
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(torch.relu(self.first(x)))
        return self.head(torch.relu(nn.functional.linear(x, self.read.weight, self.read.bias)))


@pytest.mark.parametrize("method", MERGED)
def test_layers_of_one_weight_are_merged_each_by_itself(method: str, tmp_path: Path) -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    changed = moved(adapted(method, Network.from_module(Shared(), x)))
    merged = adapt.merge()(changed)
    assert torch.allclose(merged.module()(x), changed.module()(x), atol=1e-5)
    store = Store(tmp_path)
    assert torch.equal(store.load(store.save(merged)).module()(x), merged.module()(x))


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "ssf"])
def test_a_layer_whose_weight_others_read_has_no_adapters(method: str) -> None:
    network = Network.from_module(Shared(), torch.zeros(2, 8))
    assert {name.rpartition(".")[0] for name in adapted(method, network).tensors.keys() - network.tensors.keys()} == {
        "first",
        "second",
    }
    with pytest.raises(DomainError, match=r"'read' is never called.*call the layer"):
        getattr(adapt, method)(targets=("read",))(network)
    assert "read.lora_a" not in adapt.lora(targets=("*",))(network).tensors


@pytest.mark.parametrize("way", ["static", "dynamic"])
def test_a_transformer_is_quantized_after_its_adapters_are_merged(way: str) -> None:
    with pytest.raises(DomainError, match=r"have adapters.*adapt\.merge"):
        step = {"static": lambda: quantize.static(data=Noise(shape=(1, 8, 8))), "dynamic": quantize.dynamic}[way]()
        step(adapt.lora()(NETWORKS["vit"]()))

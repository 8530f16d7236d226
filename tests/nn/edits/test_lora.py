"""Low-rank adapters: nothing changes until they are trained, and from then on everything that follows knows of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mapsto import adapt, datasets, evaluate, export, meta, networks, prune, quantize
from mapsto.context import Context, Numerics
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.edits._adapted_layer import adapted_layers
from mapsto.nn.edits.lora import Lora
from mapsto.nn.edits.merge_lora import MergeLora
from mapsto.nn.prune.dependency_groups import find_groups
from mapsto.store import Store


def context() -> Context:
    return Context(seed=0, numerics=Numerics(threads=1))


def conv4() -> Network:
    return networks.conv4(channels=1, size=16, width=6, blocks=3, classes=4)(seed=0)


def moved(network: Network) -> Network:
    """Its adapters away from 0, and its batch norms away from what they begin with."""
    torch.manual_seed(0)
    tensors = dict(network.tensors)
    for name, tensor in tensors.items():
        if name.endswith("lora_b") or "running_mean" in name:
            tensors[name] = 0.3 * torch.randn_like(tensor)
    return dataclasses.replace(network, tensors=tensors)


def output(network: Network) -> torch.Tensor:
    x = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network.module()(x)


def test_the_output_is_the_same_until_they_move() -> None:
    plain = conv4()
    adapted = adapt.lora(rank=2)(plain)
    assert torch.equal(output(plain), output(adapted))
    assert set(plain.tensors) < set(adapted.tensors)
    new = set(adapted.tensors) - set(plain.tensors)
    assert new == {f"features.{block}.0.{name}" for block in range(3) for name in ("lora_a", "lora_b")}
    assert all(torch.equal(plain.tensors[name], adapted.tensors[name]) for name in plain.tensors)
    assert not torch.allclose(output(plain), output(moved(adapted)), atol=1e-3)


def test_the_change_is_alpha_over_r_times_b_a() -> None:
    for layer, x in (
        (nn.Linear(4, 3), torch.randn(2, 4)),
        (nn.Conv2d(2, 3, 3, stride=2, padding=1), torch.randn(2, 2, 5, 5)),
    ):
        net = nn.Sequential(layer)
        before = layer.weight.detach().clone()
        Lora(targets=("0",), rank=2, alpha=3.0).apply(net)
        adapted: Any = net[0]
        nn.init.normal_(adapted.lora_b)
        change = 1.5 * (adapted.lora_b @ adapted.lora_a.reshape(2, -1)).reshape(before.shape)
        given = net(x)
        with torch.no_grad():
            plain = nn.Linear(4, 3) if layer.weight.ndim == 2 else nn.Conv2d(2, 3, 3, stride=2, padding=1)
            plain.load_state_dict({"weight": before + change, "bias": layer.bias})
            torch.testing.assert_close(given, plain(x))
            merged = MergeLora(targets=("0",)).apply(net)
            torch.testing.assert_close(merged(x), given)
        assert type(net[0]) in (nn.Linear, nn.Conv2d)
        assert set(net.state_dict()) == {"0.weight", "0.bias"}


def test_saved_loaded_and_merged(tmp_path: Path) -> None:
    adapted = moved(adapt.lora(targets=("features.1.*", "classifier"))(conv4()))
    assert list(adapted_layers(adapted.module())) == ["features.1.0", "classifier"]
    store = Store(tmp_path)
    loaded = store.load(store.save(adapted))
    assert torch.equal(output(loaded), output(adapted))
    merged = adapt.merge_lora()(loaded)
    torch.testing.assert_close(output(merged), output(adapted), rtol=1e-4, atol=1e-5)
    assert set(merged.tensors) == set(conv4().tensors)
    again = store.load(store.save(merged))
    assert torch.equal(output(again), output(merged))


def test_adapters_are_pruned_with_their_layers() -> None:
    adapted = moved(adapt.lora(rank=2)(conv4()))
    found = find_groups(adapted.module(), torch.zeros(2, 1, 16, 16))
    assert [group.name for group in found.groups] == ["features.0.0", "features.1.0", "features.2.0"]
    small = prune.magnitude(macs=0.6, ranking="global")(adapted)
    out, inputs = small.tensors["features.1.0.weight"].shape[:2]
    assert out < 6
    assert small.tensors["features.1.0.lora_b"].shape == (out, 2)
    assert small.tensors["features.1.0.lora_a"].shape == (2, inputs, 3, 3)
    torch.testing.assert_close(output(adapt.merge_lora()(small)), output(small), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_adapters_are_exported() -> None:
    adapted = moved(adapt.lora(rank=2)(conv4()))
    manifest = export.onnx(samples=16)(adapted).manifest()
    assert manifest["parity"]["max_abs_difference"] < 1e-4
    assert manifest["parity"]["output_std"] > 0.01


def test_quantizing_asks_for_a_merge() -> None:
    data = datasets.digits(size=16)
    adapted = moved(adapt.lora(rank=2)(conv4()))
    with pytest.raises(DomainError, match=r"layers have adapters.*adapt\.merge"):
        quantize.static(data=data)(adapted)
    quantize.static(data=data)(adapt.merge_lora()(adapted))


def test_what_cannot_be_adapted_is_named() -> None:
    with pytest.raises(DomainError, match="is called 'feature'"):
        adapt.lora(targets=("feature",))(conv4())
    with pytest.raises(DomainError, match="no layer that can be adapted"):
        adapt.lora()(adapt.lora()(conv4()))
    with pytest.raises(DomainError, match="it is a ReLU"):
        Lora(targets=("0",), rank=1, alpha=1.0).apply(nn.Sequential(nn.ReLU()))
    with pytest.raises(DomainError, match="that has adapters"):
        edit = Lora(targets=("0",), rank=1, alpha=1.0)
        edit.apply(edit.apply(nn.Sequential(nn.Linear(2, 2))))
    with pytest.raises(DomainError, match="it has no adapters"):
        MergeLora(targets=("0",)).apply(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize("freeze", [True, False])
def test_maml_over_adapters(freeze: bool, tmp_path: Path) -> None:
    data = datasets.digits(size=16)
    tasks = datasets.episodes(data=data, ways=3, shots=2, queries=3)
    ctx, before = context(), moved(adapt.lora(rank=2)(conv4()))
    mapping = meta.maml(
        tasks=tasks,
        steps=3,
        inner_steps=2,
        inner_rate=0.1,
        adapts="adapters",
        freeze=freeze,
        learning_rate=0.01,
        engine="loop",
    )
    learner = ctx.apply(mapping, before)
    for name in before.tensors:
        if name.startswith("classifier") or "running" in name or "batches" in name:
            continue
        same = torch.equal(learner.tensors[name], before.tensors[name])
        assert same == (freeze and "lora" not in name), name
    module = learner.module()
    from mapsto.nn.meta.adaptation import gradient
    from mapsto.nn.meta.batch_norm import task_norms

    assert learner.adaptation is not None
    with task_norms(module):
        _, points = gradient.fit(module, torch.randn(6, 1, 16, 16), torch.tensor([0, 1, 2] * 2), 3, learner.adaptation)
    changed = {name for name in points[0] if not torch.equal(points[0][name], points[-1][name])}
    assert {name.rpartition(".")[2] for name in changed if not name.startswith("classifier")} == {"lora_a", "lora_b"}
    assert {"classifier.weight", "classifier.bias"} < changed
    store = Store(tmp_path)
    judge = evaluate.episodes(tasks=tasks, episodes=4)
    loaded = store.load(store.save(learner))
    wanted = ctx.apply(judge, learner).metrics["loss"].value
    assert ctx.apply(judge, loaded).metrics["loss"].value == wanted
    ctx.apply(judge, prune.magnitude(macs=0.6)(learner))
    with pytest.raises(DomainError, match="adapts to a task by its adapters"):
        adapt.merge_lora()(learner)


def test_engines_agree_over_adapters() -> None:
    data = datasets.digits(size=16)
    tasks = datasets.episodes(data=data, ways=3, shots=2, queries=3)
    value, found = moved(adapt.lora(rank=2)(conv4())), []
    for engine in ("loop", "vmap"):
        mapping = meta.maml(
            tasks=tasks, inner_steps=2, inner_rate=0.1, adapts="adapters", freeze=True, tasks_per_step=2
        )
        torch.manual_seed(0)
        ctx = context()
        learner, _, _ = mapping.learner(value, ctx)
        learner.double()
        task = mapping.items(value, ctx)[0]
        mapping._loss(learner, mapping._prepared(value, ctx)(task).double(), task, 0, engine).backward()  # pyright: ignore
        found.append({name: p.grad for name, p in learner.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert {name.rpartition(".")[2] for name in found[0]} == {"lora_a", "lora_b", "weight", "bias"}
    assert not any(name.startswith("network.features") and "lora" not in name for name in found[0])
    for name, value_ in found[0].items():
        torch.testing.assert_close(value_, found[1][name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["dora", "ssf"])
def test_maml_over_other_adapters(method: str) -> None:
    data = datasets.digits(size=16)
    tasks = datasets.episodes(data=data, ways=3, shots=1, queries=2)
    before = getattr(adapt, method)()(conv4(), seed=0)
    mapping = meta.maml(tasks=tasks, steps=1, inner_steps=1, adapts="adapters", freeze=True, learning_rate=0.01)
    after = context().apply(mapping, before)
    kept = [name for name in before.tensors if "features" in name and "running" not in name and "batches" not in name]
    changed = {name.rpartition(".")[2] for name in kept if not torch.equal(after.tensors[name], before.tensors[name])}
    assert changed <= ({"lora_a", "lora_b", "dora_magnitude"} if method == "dora" else {"ssf_scale", "ssf_shift"})
    assert changed

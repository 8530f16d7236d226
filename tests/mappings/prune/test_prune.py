"""Pruning by magnitude and by Taylor expansion: budgets, structure, learners, and networks rebuilt from what is stored."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.prunable import importance
from torch import nn

from mapsto.context import Context, Numerics
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.episodes import EpisodesOf
from mapsto.data.sets.subset import Subset
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Adaptation, Dataset, Network, Preprocessing, Samples
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.prune.taylor import Taylor
from mapsto.nn.edits.quantizers import Quantizer, Quantizers
from mapsto.nn.network.build import network_of
from mapsto.nn.network.serialization import decode_edit, encode_edit
from mapsto.nn.profile.counts import count_macs, count_parameters, state_bytes
from mapsto.nn.prune.budget import Budget
from mapsto.nn.prune.costs import Costs
from mapsto.nn.prune.dependency_groups import find_groups
from mapsto.nn.prune.structured import Ranked

DATA = Subset(data=Digits(), per_class=8)
SIZE = 16


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Layers this small are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def network(factory: str = "vgg", *, classes: int | None = 10, **arguments: Any) -> Network:
    """A network whose batch statistics are as random as its weights, so that no channel is like another."""
    defaults: dict[str, Any] = {
        "vgg": {"plan": [[16, 16], [32], [32]], "channels": 1, "size": SIZE, "classes": classes},
        "conv4": {"width": 16, "channels": 1, "size": 32, "classes": classes},
        "resnet_cifar": {"channels": 1, "width": 8, "classes": classes},
        "resnet12": {"channels": 1, "classes": classes},
    }[factory]
    torch.manual_seed(0)
    size = 32 if factory == "conv4" else SIZE
    made = network_of(
        f"mapsto.nn.networks.{factory}:{factory}",
        defaults | {key: list(map(list, value)) if key == "plan" else value for key, value in arguments.items()},
        Preprocessing(channels=1, size=(size, size)),
        classes=tuple(map(str, range(classes))) if classes else None,
    )
    module = made.module()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    adaptation = None if classes else Adaptation(method="centroid")
    return made.with_module(module, adaptation=adaptation)


def run(mapping: Any, value: Network, seed: int = 0) -> Network:
    return Context(seed=seed, numerics=Numerics(threads=1)).apply(mapping, value)


def inputs(of: Network, count: int = 3) -> torch.Tensor:
    return torch.randn(of.signature.input_shape(count), generator=torch.Generator().manual_seed(1))


def share(of: Network, whole: Network, cost: Any) -> float:
    return cost(of.module()) / cost(whole.module())


def macs(of: Network) -> int:
    return count_macs(of.module(), inputs(of))


def rebuilt(of: Network) -> Network:
    """The network from what is stored: the factory's name and arguments, edits as JSON, tensors by name."""
    edits = tuple(decode_edit(json.loads(json.dumps(encode_edit(edit)))) for edit in of.edits)
    tensors = {name: tensor.clone() for name, tensor in of.tensors.items()}
    return Network(arch=of.arch, edits=edits, tensors=tensors, signature=of.signature, adaptation=of.adaptation)


@pytest.mark.parametrize("mapping", [Magnitude(macs=0.25), Magnitude(macs=0.25, norm=1), Taylor(macs=0.25, data=DATA)])
def test_a_vgg_meets_its_budget_and_no_more(mapping: Any) -> None:
    whole = network()
    pruned = run(mapping, whole)
    assert 0.2 < macs(pruned) / macs(whole) <= 0.25
    assert pruned.signature == whole.signature
    assert pruned.module()(inputs(whole)).shape == (3, 10)


@pytest.mark.parametrize(
    ("factory", "arguments"),
    [("vgg", {}), ("resnet_cifar", {}), ("resnet_cifar", {"shortcut": "B"}), ("conv4", {})],
)
def test_a_pruned_network_is_rebuilt_from_json_and_tensors(factory: str, arguments: dict[str, Any]) -> None:
    whole = network(factory, **arguments)
    pruned = Magnitude(macs=0.4)(whole)
    assert 0.35 < macs(pruned) / macs(whole) <= 0.4
    again = rebuilt(pruned)
    assert again.edits == pruned.edits
    first, second = pruned.module(), again.module()
    torch.testing.assert_close(second(inputs(whole)), first(inputs(whole)), rtol=0, atol=0)
    assert first(inputs(whole)).std() > 0
    for part in first.modules():
        if isinstance(part, nn.Conv2d):
            assert part.weight.shape[:2] == (part.out_channels, part.in_channels // part.groups)
        if isinstance(part, nn.BatchNorm2d):
            assert part.num_features == len(part.weight)


def test_embedding_and_classifier_agree_after_pruning() -> None:
    module = Magnitude(macs=0.3, ranking="global")(network("conv4")).module()
    assert module.embedding == module.classifier.in_features == module.embed(inputs(network("conv4"))).shape[1]
    assert module.embedding < 16 * 4


@pytest.mark.slow
def test_a_resnet12_is_pruned() -> None:
    whole = network("resnet12", classes=4)
    pruned = Magnitude(parameters=0.05)(whole)
    assert 0.045 < share(pruned, whole, count_parameters) <= 0.05
    assert pruned.module()(inputs(whole)).shape == (3, 4)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_silent_channels_go_first_and_change_nothing(shortcut: str) -> None:
    whole = network("resnet_cifar", shortcut=shortcut)
    module = whole.module()
    with torch.no_grad():
        for name, part in module.named_modules():
            if name.endswith(".conv1"):
                norm = module.get_submodule(name.replace("conv1", "bn1"))
                readers = module.get_submodule(name.replace("conv1", "conv2"))
                for tensor in (norm.weight, norm.bias, part.weight):
                    tensor[::2] = 0
                readers.weight[:, ::2] = 0
    silent = whole.with_module(module)
    pruned = Magnitude(macs=0.55, max_prune=0.5)(silent)
    torch.testing.assert_close(pruned.module()(inputs(whole)), module(inputs(whole)), rtol=1e-4, atol=1e-5)
    assert macs(pruned) < 0.55 * macs(whole)


def test_every_budget() -> None:
    whole = network()
    assert share(Magnitude(parameters=0.3)(whole), whole, count_parameters) <= 0.3
    assert 0.45 < share(Magnitude(bytes=0.5)(whole), whole, state_bytes) <= 0.5
    absolute = Magnitude(bytes=20_000.0)(whole)
    assert 19_000 < state_bytes(absolute.module()) <= 20_000
    assert Magnitude(macs=1.0)(whole).edits == ()


def test_per_cost_asks_what_a_channel_saves() -> None:
    whole = network("resnet_cifar", depth=8)  # stages of as much work each, with 16, 32 and 64 channels
    groups = find_groups(whole.module(), inputs(whole)).groups
    prices = Costs(whole.module(), inputs(whole), groups, Budget("macs", 0.5)).of_a_channel(groups)
    for group in groups:
        first = {group.name: np.arange(group.channels) > 0}
        small = Ranked(network=whole, groups=groups, scores={}).shrunk(first)
        assert prices[group.name] == pytest.approx(1 - macs(small) / macs(whole))
    assert prices["layer1.0.conv1"] > 2 * prices["layer3.0.conv1"]
    left = {
        ranking: [len(small.tensors[f"layer{stage}.0.conv1.weight"]) for stage in (1, 3)]
        for ranking in ("global", "per_cost")
        for small in [Magnitude(macs=0.6, ranking=ranking, max_prune=0.9)(whole)]
    }
    assert left["per_cost"][0] < left["global"][0]
    assert left["per_cost"][1] > left["global"][1]


@pytest.mark.slow
def test_a_latency_is_met() -> None:
    whole = network("vgg", plan=((64, 64), (64,)))
    session_ms = _latency(whole)
    pruned = Magnitude(latency_ms=session_ms / 2, multiple_of=16)(whole)
    assert macs(pruned) < macs(whole)


def _latency(of: Network) -> float:
    from mapsto.nn.export.onnx import to_onnx
    from mapsto.nn.export.runtimes.onnxruntime import runner
    from mapsto.nn.network.examples import example_inputs
    from mapsto.nn.profile.timing import interleaved

    run = runner(to_onnx(of))
    batch = [tensor.numpy() for tensor in example_inputs(of.signature, 1)]
    return interleaved({"x": lambda: run(*batch)}, rounds=3, seconds=0.05)["x"].p50


@pytest.mark.parametrize("ranking", ["global", "per_peak", "per_layer", "per_cost"])
def test_limits_hold(ranking: Any) -> None:
    whole = network()
    pruned = Magnitude(macs=0.35, multiple_of=8, min_channels=8, ranking=ranking)(whole)
    widths = [part.out_channels for part in pruned.module().modules() if isinstance(part, nn.Conv2d)]
    assert all(width % 8 == 0 and width >= 8 for width in widths)
    assert 0.2 < macs(pruned) / macs(whole) <= 0.35


def test_a_learner_keeps_its_embedding_unless_told_otherwise() -> None:
    learner = network("conv4", classes=None)
    tasks = EpisodesOf(data=DATA, ways=3, shots=1, queries=3)
    whole = run(Taylor(macs=0.5, tasks=tasks, batches=3), learner)
    assert whole.signature.outputs[0].shape == ("N", 64)
    narrow = run(Taylor(macs=0.3, tasks=tasks, batches=3, prune_embedding=True, ranking="per_layer"), learner)
    width = narrow.signature.outputs[0].shape[1]
    assert width < 64
    assert narrow.module().embedding == width
    assert narrow.module()(inputs(learner)).shape == (3, width)
    assert narrow.adaptation == learner.adaptation


def test_an_adaptation_follows() -> None:
    learner = network("conv4", classes=None)
    rates = {name: tensor.clone() for name, tensor in learner.tensors.items() if name.endswith(".weight")}
    learner = dataclasses.replace(
        learner, adaptation=Adaptation(method="centroid", tensors={**rates, "~free": torch.ones(7)})
    )
    pruned = Magnitude(macs=0.4, prune_embedding=True)(learner)
    assert pruned.adaptation is not None
    assert len(pruned.adaptation.tensors["~free"]) == 7
    for name in rates:
        assert torch.equal(pruned.adaptation.tensors[name], pruned.tensors[name])


def test_taylor_finds_the_channels_that_the_loss_does_not_see() -> None:
    whole = network()
    module = whole.module()
    with torch.no_grad():
        reader = module.features[7]
        assert isinstance(reader, nn.Conv2d)
        reader.weight[:, ::2] = 0  # large weights make these channels, and nothing reads them
        module.features[3].weight[::2] *= 100
    unread = whole.with_module(module)
    settings: dict[str, Any] = {"macs": 0.5, "ranking": "per_layer"}
    kept = _kept(run(Taylor(data=DATA, batches=5, **settings), unread), "features.3.weight")
    by_norm = _kept(Magnitude(**settings)(unread), "features.3.weight")
    assert sum(index % 2 == 0 for index in kept) <= 4
    assert sum(index % 2 == 0 for index in by_norm) == 8


def _kept(of: Network, name: str) -> list[int]:
    (edit,) = of.edits
    return next(kept.numbers for kept in edit.kept if (name, 0) in kept.at)  # type: ignore[attr-defined]


def test_the_same_seed_gives_the_same_network_and_the_input_stays() -> None:
    whole = network()
    before = {name: tensor.clone() for name, tensor in whole.tensors.items()}
    mapping = Taylor(macs=0.3, data=DATA, batches=2, batch_size=16)
    first, second = run(mapping, whole, 3), run(mapping, whole, 3)
    assert first.edits == second.edits
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.tensors.items())
    one, other = (importance(mapping, whole, Context(seed=seed))["features.0"] for seed in (3, 4))
    assert (one != other).any()


def test_it_trains_on_and_is_pruned_again() -> None:
    pruned = Magnitude(macs=0.5)(network())
    module = pruned.module().train()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    samples = DATA.open()
    from mapsto.nn.network.preprocess import prepare

    batch, labels = prepare(samples.inputs, pruned.signature.preprocessing), torch.as_tensor(samples.labels)
    losses: list[float] = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(module(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    twice = Magnitude(macs=0.5)(pruned.with_module(module.eval()))
    assert len(twice.edits) == 2
    assert macs(twice) <= 0.25 * macs(network())
    x = inputs(twice)
    torch.testing.assert_close(rebuilt(twice).module()(x), twice.module()(x), rtol=0, atol=0)


@pytest.mark.slow
def test_it_exports() -> None:
    from mapsto.nn.export.onnx import to_onnx
    from mapsto.nn.export.runtimes.onnxruntime import runner

    again = rebuilt(Magnitude(macs=0.5)(network()))
    x = inputs(again, 2)
    output = again.module()(x).detach().numpy()
    np.testing.assert_allclose(runner(to_onnx(again))(x.numpy()), output, atol=1e-4)
    assert output.std() > 1e-3


def test_the_log_names_what_is_left_whole() -> None:
    lines: list[str] = []
    ctx = Context()
    ctx.log = lines.append  # type: ignore[method-assign]
    Magnitude(macs=0.6).apply(network("resnet_cifar"), ctx)
    assert lines[0].startswith("left whole: conv1, layer1.0.conv2, layer1.1.conv2 and 4 more (zeros are put beside")
    assert lines[0].endswith("padded=True lets them go: constant_pad_nd in 'layer2.0.shortcut')")
    assert lines[2] == "left whole: linear (its output is the output of the network)"
    assert lines[3].startswith("ranking: ")
    assert lines[4].endswith("channels stay in 9 groups")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"macs": 0}, "macs.*greater than 0"),
        ({"macs": 1.5}, "macs.*less than or equal to 1"),
        ({"macs": -0.1}, "macs"),
        ({"macs": float("nan")}, "macs"),
        ({"parameters": 2}, "parameters"),
        ({"bytes": 0}, "bytes"),
        ({"macs": 0.5, "parameters": 0.5}, "macs and parameters are given.*exactly one"),
        ({}, "no budget is given.*exactly one"),
        ({"macs": 0.5, "norm": 3}, "norm"),
        ({"macs": 0.5, "multiple_of": 0}, "multiple_of"),
        ({"macs": 0.5, "rank": "global"}, "rank"),
    ],
)
def test_a_wrong_field_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Magnitude(**fields)


def test_taylor_wants_data_or_tasks() -> None:
    with pytest.raises(SpecError, match="either data or tasks"):
        Taylor(macs=0.5)
    with pytest.raises(SpecError, match="either data or tasks"):
        Taylor(macs=0.5, data=DATA, tasks=EpisodesOf(data=DATA))
    with pytest.raises(SpecError, match="no budget"):
        Taylor(data=DATA)


def test_a_budget_out_of_reach_is_refused() -> None:
    with pytest.raises(DomainError, match=r"macs = 0.0001 is out of reach: the smallest is 0\.0"):
        Magnitude(macs=1e-4)(network())
    with pytest.raises(DomainError, match=r"the smallest is 0\.[5-9].*max_prune"):
        Magnitude(macs=0.1, max_prune=0.2)(network())


class Rated(Dataset):
    """Digits with a number instead of a class, or with classes of another count."""

    numbers: bool = True

    def fingerprint(self) -> str:
        return f"rated {self.numbers}"

    def open(self) -> Samples:
        samples = DATA.open()
        if self.numbers:
            return dataclasses.replace(samples, labels=samples.labels.astype(np.float32))
        return dataclasses.replace(samples, classes=("a", "b"), labels=samples.labels % 2)


def test_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="labelled with classes"):
        Taylor(macs=0.5, data=Rated())(network())
    with pytest.raises(DomainError, match="10 outputs, the data 2 classes"):
        Taylor(macs=0.5, data=Rated(numbers=False))(network())
    with pytest.raises(DomainError, match="give tasks, not data"):
        Taylor(macs=0.5, data=DATA)(network("conv4", classes=None))
    with pytest.raises(DomainError, match="give data, not tasks"):
        Taylor(macs=0.5, tasks=EpisodesOf(data=DATA))(network())


def test_networks_that_cannot_be_pruned_are_refused() -> None:
    whole = network("vgg", plan=((4,),), classes=None)
    with pytest.raises(
        DomainError, match=r"no layer of it can be pruned \(features.0: its channels are the embedding\)"
    ):
        Magnitude(macs=0.5)(whole)
    step = Quantizer(path="features.0", function="conv2d", scale=(1.0,), zero_point=(0,), quant_min=0, quant_max=255)
    with pytest.raises(DomainError, match="quantized"):
        Magnitude(macs=0.5)(network().edited(Quantizers(quantizers=(step,))))
    broken = network().module()
    with torch.no_grad():
        broken.features[0].weight[0] = float("nan")
    with pytest.raises(DomainError, match="not finite"):
        Magnitude(macs=0.5)(network().with_module(broken))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None, reason="the extra vision is not installed"
)
def test_an_efficientnet_lite0_is_pruned() -> None:
    whole = network_of(
        "mapsto.nn.networks.efficientnet_lite0:efficientnet_lite0",
        {"classes": 4},
        Preprocessing(channels=3, size=(64, 64), mean=(0.0,) * 3, std=(1.0,) * 3),
    )
    pruned = Magnitude(macs=0.3, multiple_of=8)(whole)
    assert 0.27 < macs(pruned) / macs(whole) <= 0.3
    x = inputs(whole)
    torch.testing.assert_close(rebuilt(pruned).module()(x), pruned.module()(x))

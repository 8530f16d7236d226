"""Each pruning criterion against a reference written by hand, its properties, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.mappings.prunable import DATA, TASKS, Odd, changed, context, groups_of, importance, vgg, widths
from tests.mappings.small import PREPROCESSING
from torch import Tensor, nn

from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Network
from mapsto.mappings.prune.activation import Activation
from mapsto.mappings.prune.bn_scale import BnScale
from mapsto.mappings.prune.geometric_median import GeometricMedian, _sums
from mapsto.mappings.prune.hessian import Hessian
from mapsto.mappings.prune.lamp import Lamp, _shares_of_the_rest
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.prune.random import Random
from mapsto.mappings.prune.taylor import Taylor
from mapsto.nn.edits.quantizers import Quantizer, Quantizers
from mapsto.nn.network.build import network_of
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.profile.counts import count_macs

FREE: list[type[Any]] = [Magnitude, Lamp, BnScale, GeometricMedian, Random]
LOOKING: list[type[Any]] = [Taylor, Hessian, Activation]


def built(cls: type[Any], **fields: Any) -> Any:
    return cls(**{"macs": 0.5, **({"data": DATA} if cls in LOOKING and "tasks" not in fields else {}), **fields})


def batch(network: Network) -> tuple[Tensor, Tensor]:
    samples = DATA.open()
    return prepare(samples.inputs, network.signature.preprocessing), torch.as_tensor(samples.labels)


def members(module: nn.Module) -> dict[str, list[tuple[Tensor, int]]]:
    """The parameters that each channel of `vgg()` runs through, and along which dimension."""
    own = dict(module.named_parameters())
    first, norm, second, last = (
        own[name] for name in ("features.0.weight", "features.1.weight", "features.4.weight", "features.5.weight")
    )
    return {
        "features.0": [(first, 0), (norm, 0), (own["features.1.bias"], 0), (second, 1)],
        "features.4": [(second, 0), (last, 0), (own["features.5.bias"], 0), (own["classifier.weight"], 1)],
    }  # fmt: skip


def by_channel(tensors: list[tuple[Tensor, int]]) -> list[Tensor]:
    """What belongs to each channel, one long vector a channel."""
    channels = tensors[0][0].shape[tensors[0][1]]
    return [
        torch.cat([tensor.detach().select(dim, c).flatten() for tensor, dim in tensors]).double()
        for c in range(channels)
    ]


def normalised(values: list[float]) -> list[float]:
    return [value / (sum(values) / len(values)) for value in values]


# --------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("norm", [1, 2])
def test_magnitude(norm: int) -> None:
    network = vgg()
    module, _ = groups_of(network)
    found = importance(Magnitude(macs=0.5, norm=norm), network)
    raw = importance(Magnitude(macs=0.5, norm=norm, normalise=False), network)
    for name, tensors in members(module).items():
        without_bias = [tensors[0], tensors[1], tensors[3]]
        norms = [float((part.abs() ** norm).sum()) for part in by_channel(without_bias)]
        np.testing.assert_allclose(raw[name], norms, rtol=1e-6)
        np.testing.assert_allclose(found[name], normalised(norms), rtol=1e-6)


def test_lamp() -> None:
    network = vgg()
    norms = importance(Magnitude(macs=0.5, normalise=False), network)
    for name, found in importance(Lamp(macs=0.5), network).items():
        expected = [n / sum(other for other in norms[name] if other >= n) for n in norms[name]]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_batch_norm_scales() -> None:
    network = changed(vgg(), features__1__weight=[1.0, -2.0, 0.5, 0.0])
    found = importance(BnScale(macs=0.5), network)
    assert found["features.0"].tolist() == [1.0, 2.0, 0.5, 0.0]
    np.testing.assert_allclose(found["features.4"], network.tensors["features.5.weight"].double(), rtol=1e-12)
    scaled = importance(BnScale(macs=0.5, normalise=True), network)
    assert scaled["features.0"].mean() == pytest.approx(1)


def test_batch_norm_scales_add_up_where_a_channel_has_several() -> None:
    torch.manual_seed(0)
    arguments = {"channels": 1, "width": 4, "classes": 10, "shortcut": "B"}
    network = network_of("mapsto.nn.networks.resnet_cifar:resnet_cifar", arguments, PREPROCESSING)
    module, groups = groups_of(network)
    norms = {f"{path}.weight" for path, part in module.named_modules() if isinstance(part, nn.BatchNorm2d)}
    most = max(groups, key=lambda group: len(group.members))
    scales = [network.tensors[member.name] for member in most.members if member.name in norms]
    assert len(scales) > 2
    found = importance(BnScale(macs=0.5), network)[most.name]
    np.testing.assert_allclose(found, sum(scale.abs().double().numpy() for scale in scales))


def test_layers_without_batch_norm_are_left_whole() -> None:
    ctx, lines = context(), list[str]()
    ctx.log = lines.append  # type: ignore[method-assign]
    torch.manual_seed(0)
    plain = network_of(
        "mapsto.nn.networks.mlp:mlp",
        {"inputs": 4, "widths": [6], "classes": 3},
        PREPROCESSING,
        example=torch.zeros(2, 4),
    )
    with pytest.raises(DomainError, match=r"has a batch norm.*prune.magnitude"):
        BnScale(macs=0.5).apply(plain, ctx)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_geometric_median(distance: Any) -> None:
    network = vgg()
    found = importance(GeometricMedian(macs=0.5, distance=distance, normalise=False), network)
    for name, path in (("features.0", "features.0.weight"), ("features.4", "features.4.weight")):
        filters = network.tensors[path].double().flatten(1)
        expected: list[float] = []
        for one in filters:
            if distance == "euclidean":
                expected.append(sum(float((one - other).norm()) for other in filters))
            else:
                expected.append(sum(1 - float(one @ other / one.norm() / other.norm()) for other in filters))
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-9)


def test_the_geometric_median_takes_all_that_makes_a_channel() -> None:
    torch.manual_seed(0)
    arguments = {"channels": 1, "width": 4, "classes": 10, "shortcut": "B"}
    network = network_of("mapsto.nn.networks.resnet_cifar:resnet_cifar", arguments, PREPROCESSING)
    _, groups = groups_of(network)
    group = max(groups, key=lambda group: len(group.members))
    makers = [m.name for m in group.members if m.role == "out" and network.tensors[m.name].ndim == 4]
    assert len(makers) > 1
    filters = torch.cat([network.tensors[name].double().flatten(1) for name in makers], 1)
    found = importance(GeometricMedian(macs=0.5, normalise=False), network)[group.name]
    np.testing.assert_allclose(found, torch.cdist(filters, filters).sum(1), rtol=1e-5)


def test_taylor() -> None:
    """What reads a channel is given zeros: of each sample the activations times their slopes, summed over places, squared."""
    network = vgg()
    module, _ = groups_of(network)
    inputs, labels = batch(network)
    first = module.features[:4](inputs)  # type: ignore[index]
    second = module.features[4:](first).mean((2, 3))  # type: ignore[index]
    loss = nn.functional.cross_entropy(module.classifier(second), labels, reduction="sum")  # type: ignore[operator]
    slopes = torch.autograd.grad(loss, [first, second])
    fields: dict[str, Any] = {"data": DATA, "batches": 3, "batch_size": -(-len(labels) // 3), "normalise": False}
    found = importance(Taylor(macs=0.5, **fields), network)
    for name, read, slope in zip(("features.0", "features.4"), (first, second), slopes, strict=True):
        expected = (read * slope).flatten(2).sum(2) if read.ndim > 2 else read * slope
        np.testing.assert_allclose(found[name], expected.square().mean(0).detach(), rtol=1e-3, atol=1e-9)


def test_taylor_adds_the_readers_of_a_residual_sum() -> None:
    torch.manual_seed(0)
    arguments = {"channels": 1, "width": 4, "classes": 10, "shortcut": "B"}
    network = network_of("mapsto.nn.networks.resnet_cifar:resnet_cifar", arguments, PREPROCESSING)
    module, groups = groups_of(network)
    group = next(group for group in groups if group.name == "conv1")
    assert sum(member.role == "in" for member in group.members) > 2
    inputs, labels = batch(network)
    found = importance(Taylor(macs=0.5, data=DATA, batches=len(labels), batch_size=1, normalise=False), network)
    readers = [member for member in group.members if member.role == "in"]
    weights = dict(module.named_parameters())
    expected = np.zeros(group.channels)
    for sample, label in zip(inputs, labels, strict=True):  # Σ w · ∂L/∂w of what reads a channel is its gate, too
        slopes = torch.autograd.grad(
            nn.functional.cross_entropy(module(sample[None]), label[None]), [weights[m.name] for m in readers]
        )
        gates = [(weights[m.name] * slope).sum((0, 2, 3)) for m, slope in zip(readers, slopes, strict=True)]
        expected += torch.stack(gates).sum(0).square().detach().double().numpy() / len(labels)
    np.testing.assert_allclose(found["conv1"], expected, rtol=1e-3)


def test_fisher_information() -> None:
    network = vgg()
    module, _ = groups_of(network)
    inputs, labels = batch(network)
    squares = {name: torch.zeros_like(tensor) for name, tensor in module.named_parameters()}
    for sample, label in zip(inputs, labels, strict=True):
        module.zero_grad()
        nn.functional.cross_entropy(module(sample[None]), label[None]).backward()
        for name, tensor in module.named_parameters():
            squares[name] += tensor.grad.square() / len(labels)  # type: ignore[union-attr]
    names = {id(tensor): name for name, tensor in module.named_parameters()}
    found = importance(Hessian(macs=0.5, data=DATA, batches=len(labels), batch_size=1, normalise=False), network)
    for name, tensors in members(module).items():
        saliency = [(0.5 * squares[names[id(tensor)]] * tensor.detach() ** 2, dim) for tensor, dim in tensors]
        expected = [float(part.sum()) / 4 for part in by_channel(saliency)]
        np.testing.assert_allclose(found[name], expected, rtol=1e-3)


@pytest.mark.slow
def test_hessian_by_random_signs() -> None:
    network = vgg((3,), (4,))
    module, _ = groups_of(network)
    inputs, labels = batch(network)
    loss = nn.functional.cross_entropy(module(inputs), labels)
    parameters = list(module.parameters())
    first = torch.autograd.grad(loss, parameters, create_graph=True)
    diagonal: list[Tensor] = []
    for gradient, tensor in zip(first, parameters, strict=True):
        rows = [
            torch.autograd.grad(g, tensor, retain_graph=True)[0].flatten()[i] for i, g in enumerate(gradient.flatten())
        ]
        diagonal.append(torch.stack(rows).view_as(tensor))
    names = {id(tensor): h for tensor, h in zip(parameters, diagonal, strict=True)}
    fields: dict[str, Any] = {"batches": 1, "batch_size": len(labels), "probes": 2000, "normalise": False}
    found = importance(Hessian(macs=0.5, data=DATA, curvature="hutchinson", **fields), network)
    for name, tensors in members(module).items():
        saliency = [(0.5 * names[id(tensor)] * tensor.detach() ** 2, dim) for tensor, dim in tensors]
        expected = np.array([max(float(part.sum()) / 4, 0.0) for part in by_channel(saliency)])
        np.testing.assert_allclose(found[name], expected, atol=0.25 * expected.max())


def test_activations() -> None:
    network = vgg()
    module, _ = groups_of(network)
    inputs, _ = batch(network)
    with torch.no_grad():
        first = module.features[:4](inputs)  # type: ignore[index]
        second = module.features(inputs).mean((2, 3))  # type: ignore[operator]
    mean = importance(Activation(macs=0.5, data=DATA, normalise=False), network)
    share = importance(Activation(macs=0.5, data=DATA, normalise=False, measure="nonzero", batch_size=7), network)
    np.testing.assert_allclose(mean["features.0"], first.abs().mean((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(mean["features.4"], second.abs().mean(0), rtol=1e-4)
    np.testing.assert_allclose(share["features.0"], (first != 0).double().mean((0, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(share["features.4"], (second != 0).double().mean(0), atol=1e-3)
    assert 0 < share["features.0"].min() < share["features.0"].max() <= 1


def test_activations_of_a_flattened_map_and_of_an_embedding() -> None:
    torch.manual_seed(0)
    arguments = {"channels": 1, "size": 8, "width": 3, "blocks": 2}
    learner = network_of("mapsto.nn.networks.conv4:conv4", arguments, PREPROCESSING)
    fields: dict[str, Any] = {"macs": 0.5, "data": DATA, "batches": 1, "batch_size": 80, "normalise": False}
    inputs, _ = batch(learner)
    with torch.no_grad():
        expected = learner.module()(inputs).unflatten(1, (3, 4)).abs().mean((0, 2))
    criterion = Activation(prune_embedding=True, **fields)
    seen: dict[str, Any] = {}

    def note(module: nn.Module, groups: Any) -> Any:
        seen.update(criterion.importance(learner, context())(module, groups))
        return seen

    from mapsto.nn.prune.structured import ranked

    ranked(learner, note, embedding=True)
    np.testing.assert_allclose(seen["features.1.0"], expected, rtol=1e-4)
    headed = network_of("mapsto.nn.networks.conv4:conv4", {**arguments, "classes": 10}, PREPROCESSING)
    with torch.no_grad():
        expected = headed.module().embed(inputs).unflatten(1, (3, 4)).abs().mean((0, 2))  # type: ignore[operator]
    np.testing.assert_allclose(importance(Activation(**fields), headed)["features.1.0"], expected, rtol=1e-4)


def test_random_draws_are_of_the_seed() -> None:
    first, again, other = (importance(Random(macs=0.5), vgg(), context(seed)) for seed in (1, 1, 2))
    assert all((first[name] == again[name]).all() and (first[name] != other[name]).all() for name in first)
    assert all(values.min() >= 0 and values.max() < 1 for values in first.values())


@pytest.mark.parametrize("cls", LOOKING)
def test_learners_are_pruned_on_tasks(cls: type[Any]) -> None:
    learner = vgg((8,), (8,), classes=None)
    small = built(cls, tasks=TASKS, macs=0.6, batches=3).apply(learner, context())
    assert widths(small)[0] < 8
    assert widths(small)[1] == 8
    assert small.adaptation == learner.adaptation


# ------------------------------------------------------------------------------------------------------------ properties


# Whole numbers, so that rounding after the scale makes no two of them change places.
norms_strategy = arrays(np.float64, st.integers(1, 30), elements=st.integers(0, 1_000_000).map(float))


@given(norms_strategy, st.floats(1e-3, 1e3))
def test_lamp_keeps_the_order_and_forgets_the_scale(norms: Any, scale: float) -> None:
    found = _shares_of_the_rest(norms)
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert found.max() == (1 if norms.max() > 0 else 0)
    order = np.argsort(norms, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    np.testing.assert_allclose(_shares_of_the_rest(norms * scale), found, rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=st.floats(-9, 9)),
    st.randoms(use_true_random=False),
)
def test_the_median_does_not_depend_on_order_or_place(filters: Any, random: Any) -> None:
    sums = _sums(torch.from_numpy(filters), "euclidean")
    order = random.sample(range(len(filters)), len(filters))
    np.testing.assert_allclose(_sums(torch.from_numpy(filters[order] + 3), "euclidean"), sums[order], atol=1e-6)
    assert (_sums(torch.from_numpy(filters), "cosine") >= 0).all()


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(FREE), st.floats(0.3, 1.0), st.sampled_from(["global", "per_layer", "per_cost"]), st.integers(1, 4)
)
def test_any_budget_is_met(cls: type[Any], budget: float, ranking: str, multiple: int) -> None:
    whole = vgg((8,), (12,))
    small = cls(macs=budget, ranking=ranking, multiple_of=multiple)(whole)
    x = torch.zeros(1, 1, 8, 8)
    assert count_macs(small.module(), x) <= budget * count_macs(whole.module(), x) + 1e-6
    assert all(width % multiple == 0 or width in (8, 12) for width in widths(small))


# --------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("cls", [*FREE, *LOOKING])
def test_what_cannot_be_pruned_is_refused(cls: type[Any]) -> None:
    criterion = built(cls)
    with pytest.raises(DomainError, match=r"macs = 0.001 is out of reach: the smallest is 0\.\d+"):
        built(cls, macs=0.001).apply(vgg(), context())
    step = Quantizer(path="features.0", function="conv2d", scale=(1.0,), zero_point=(0,), quant_min=0, quant_max=255)
    with pytest.raises(DomainError, match=r"quantized.*prune before"):
        criterion.apply(vgg().edited(Quantizers(quantizers=(step,))), context())
    with pytest.raises(DomainError, match=r"not finite: features.1.bias"):
        criterion.apply(changed(vgg(), features__1__bias=[0.0, float("nan"), 0.0, 0.0]), context())
    with pytest.raises(SpecError, match="no budget is given"):
        cls(**({"data": DATA} if cls in LOOKING else {}))


@pytest.mark.parametrize("cls", LOOKING)
def test_data_that_does_not_fit_is_refused(cls: type[Any]) -> None:
    where = rf"prune\.{cls.__name__.lower()}"
    with pytest.raises(DataError, match=f"{where}: data: row 3 holds nan"):
        built(cls, data=Odd(what="nan")).apply(vgg(), context())
    with pytest.raises(DataError, match=f"{where}: data.*(no samples|not one sample)"):
        built(cls, data=Odd(what="empty")).apply(vgg(), context())
    with pytest.raises(SpecError, match=f"{where}: give either data or tasks"):
        cls(macs=0.5)
    with pytest.raises(SpecError, match=f"{where}: give either data or tasks"):
        cls(macs=0.5, data=DATA, tasks=TASKS)
    if cls is not Activation:
        with pytest.raises(DataError, match="labelled with classes"):
            built(cls, data=Odd(what="numbers")).apply(vgg(), context())
        with pytest.raises(DomainError, match="10 outputs, the data 2 classes"):
            built(cls, data=Odd(what="two")).apply(vgg(), context())

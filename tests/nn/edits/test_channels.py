"""The edit that keeps channels, the groups of channels, and the budget."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from mapsto.errors import DomainError
from mapsto.nn.edits.channels import Channels, Kept
from mapsto.nn.network.serialization import decode_edit, encode_edit
from mapsto.nn.networks.conv4 import conv4
from mapsto.nn.networks.efficientnet_lite0 import efficientnet_lite0
from mapsto.nn.networks.resnet12 import resnet12
from mapsto.nn.networks.resnet_cifar import resnet_cifar
from mapsto.nn.networks.vgg import vgg
from mapsto.nn.prune.budget import Budget, Limits, search
from mapsto.nn.prune.dependency_groups import Group, Groups, channels_edit, find_groups


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Layers this small are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Shared(nn.Module):
    """One convolution used twice, by two streams."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 3), nn.Conv2d(1, 6, 3)
        self.shared = nn.Conv2d(6, 6, 3)
        self.classifier = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        left = self.shared(self.first(x).relu()).relu()
        right = self.shared(self.second(x).relu()).relu()
        return self.classifier(left.mean((2, 3)) - right.mean((2, 3)))


class Tied(nn.Module):
    """Two layers that hold the same parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(9, 6), nn.Linear(9, 6)
        self.right.weight = self.left.weight
        self.classifier = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :9]
        return self.classifier(self.left(x).relu() + self.right(x).tanh())


class Concatenated(nn.Module):
    """Two streams side by side, then a depthwise and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 6, 3)
        self.mix = nn.Conv2d(10, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], 1).relu()
        return self.classifier(self.grouped(self.depthwise(self.mix(x)).relu()).mean((2, 3)))


class Shuffled(nn.Module):
    """Channels that are dealt out anew between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3)
        self.classifier = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)
        return self.classifier(self.second(x).mean((2, 3)))


class Normed(nn.Module):
    """A feed-forward block between layer norms, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(64)
        self.up, self.down = nn.Linear(64, 10), nn.Linear(10, 64)
        self.scale = nn.Parameter(torch.ones(10))
        self.classifier = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :64]
        x = x + self.down(functional.gelu(self.up(self.norm(x))) * self.scale)
        return self.classifier(self.norm(x))


def small_vgg(classes: int | None = 5) -> nn.Module:
    return vgg(plan=[[8, 8], [16], [16]], channels=1, size=16, classes=classes)


MODULES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "vgg": (small_vgg, (1, 16, 16)),
    "conv4": (lambda: conv4(width=8, classes=5, size=32), (1, 32, 32)),
    "resnet A": (lambda: resnet_cifar(depth=20, width=4), (3, 16, 16)),
    "resnet B": (lambda: resnet_cifar(depth=20, width=4, shortcut="B"), (3, 16, 16)),
    "shared": (Shared, (1, 8, 8)),
    "tied": (Tied, (1, 4, 4)),
    "concatenated": (Concatenated, (1, 8, 8)),
    "normed": (Normed, (1, 8, 8)),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A module with random batch statistics, so that no channel is like another, and a batch."""
    torch.manual_seed(0)
    factory, shape = MODULES[name]
    module: nn.Module = factory().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return module.double(), torch.randn(3, *shape, dtype=torch.float64)


@cache
def groups_of(name: str) -> Groups:
    return find_groups(*made(name))


def silence(module: nn.Module, groups: tuple[Group, ...], kept: dict[str, Any]) -> nn.Module:
    """`module` with every dropped channel made zero where it is made and where it is scaled."""
    silent = copy.deepcopy(module)
    tensors = dict(silent.named_parameters()) | dict(silent.named_buffers())
    for group in groups:
        for member in group.members:
            if member.role != "in" and not member.name.endswith("running_var"):
                dropped = torch.from_numpy(np.flatnonzero(~member.mask(kept[group.name])))
                tensors[member.name].data.index_fill_(member.dim, dropped, 0.0)
    return silent


@pytest.mark.parametrize("name", MODULES)
def test_dropping_silent_channels_changes_nothing(name: str) -> None:
    module, x = made(name)
    found = groups_of(name)
    assert found.groups
    rng = np.random.default_rng(1)
    kept = {group.name: rng.permutation(group.channels) % 2 == 0 for group in found.groups}
    silent = silence(module, found.groups, kept)
    edit = channels_edit(module, found.groups, kept)
    pruned = edit.apply(copy.deepcopy(silent))
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in module.parameters())
    torch.testing.assert_close(pruned(x), silent(x), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(silent(x), module(x))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_channels_may_go(data: st.DataObject) -> None:
    module, x = made("conv4")
    found = groups_of("conv4")
    kept = {
        group.name: np.array(
            data.draw(st.lists(st.booleans(), min_size=group.channels, max_size=group.channels).filter(any))
        )
        for group in found.groups
    }
    silent = silence(module, found.groups, kept)
    edit = channels_edit(module, found.groups, kept)
    again = decode_edit(json.loads(json.dumps(encode_edit(edit))))
    assert again == edit
    torch.testing.assert_close(again.apply(copy.deepcopy(silent))(x), silent(x), rtol=1e-9, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(indices=st.sets(st.integers(0, 40), min_size=1))
def test_indices_are_written_as_runs_and_read_back(indices: set[int]) -> None:
    wanted = sorted(indices)
    edit = Channels.of({"weight": {0: wanted}}, sizes={"weight": {0: 41}}, attributes={})
    assert edit.kept[0].numbers == wanted
    tensor = torch.arange(41.0)
    followed = edit.follow("weight", tensor)
    assert followed is not None
    assert followed.tolist() == [float(index) for index in wanted]


def test_groups_of_a_residual_network_with_padded_shortcuts_stay_inside_its_blocks() -> None:
    found = groups_of("resnet A")
    assert [group.name for group in found.groups] == [f"layer{i}.{j}.conv1" for i in (1, 2, 3) for j in (0, 1, 2)]
    assert set(found.whole) == {"conv1", "linear", *(f"layer{i}.{j}.conv2" for i in (1, 2, 3) for j in (0, 1, 2))}


def test_groups_of_other_networks() -> None:
    names = {name: [g.name for g in groups_of(name).groups] for name in MODULES}
    assert len(names["resnet B"]) == 9 + 3
    assert names["shared"] == ["second", "shared"]
    assert names["normed"] == ["up"]
    assert names["concatenated"] == ["left", "right", "depthwise"]


def test_a_grouped_convolution_loses_whole_groups() -> None:
    """The depthwise convolution and the one with two groups share their channels, four of which are one of the group's."""
    found = groups_of("concatenated")
    assert found.whole == {"classifier": "its output is the output of the network"}
    group = found.groups[2]
    owners = {(member.name, member.dim): member.owner.tolist() for member in group.members}
    assert group.channels == 2
    assert owners["mix.weight", 0] == owners["grouped.weight", 0] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert owners["classifier.weight", 1] == [0, 0, 0, 0, 1, 1, 1, 1]
    module, x = made("concatenated")
    pruned = channels_edit(module, [group], {group.name: np.array([False, True])}).apply(module)
    assert (pruned.grouped.groups, pruned.grouped.in_channels, pruned.grouped.out_channels) == (1, 4, 4)
    assert (pruned.depthwise.groups, pruned.mix.out_channels) == (4, 4)
    assert pruned(x).shape == (3, 3)


def test_resnet12_loses_no_layer_but_the_output() -> None:
    found = find_groups(resnet12(classes=4), torch.zeros(2, 3, 16, 16))
    assert list(found.whole) == ["classifier"]
    assert len(found.groups) == 4 * 3


@pytest.mark.slow
def test_efficientnet_lite0_loses_no_layer_but_the_output() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    found = find_groups(efficientnet_lite0(classes=4), torch.zeros(2, 3, 64, 64))
    assert list(found.whole) == ["classifier"]


def test_an_embedding_goes_only_when_asked() -> None:
    module = conv4(width=4, size=32)
    x = torch.zeros(2, 1, 32, 32)
    assert module.embedding == 16
    assert find_groups(module, x).whole == {"features.3.0": "its channels are the embedding"}
    last = find_groups(module, x, embedding=True).groups[-1]
    assert (last.name, last.features) == ("features.3.0", 4)
    edit = channels_edit(module, [last], {last.name: np.array([True, False, True, False])})
    pruned = edit.apply(copy.deepcopy(module).eval())
    assert pruned.embedding == 8
    x = torch.randn(2, 1, 32, 32)
    wanted = module.eval()(x).unflatten(1, (4, 4))[:, [0, 2]].flatten(1)
    torch.testing.assert_close(pruned(x), wanted)


def test_untrained_zeros_hide_nothing() -> None:
    module = small_vgg()
    nn.init.zeros_(module.classifier.weight)
    assert len(find_groups(module, torch.zeros(2, 1, 16, 16)).groups) == 4


def test_the_module_is_left_as_it_is() -> None:
    module, x = made("vgg")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.train()
    find_groups(module, x)
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_gradients_types_and_ties_are_kept() -> None:
    module = Tied().half()
    module.left.weight.requires_grad_(False)
    edit = Channels.of(
        {
            "left.weight": {0: [0, 5]},
            "left.bias": {0: [0, 5]},
            "right.bias": {0: [0, 5]},
            "classifier.weight": {1: [0, 5]},
        },
        sizes={"left.weight": {0: 6}, "left.bias": {0: 6}, "right.bias": {0: 6}, "classifier.weight": {1: 6}},
        attributes={"left": {"out_features": 2}},
    )
    edit.apply(module)
    assert module.right.weight is module.left.weight
    assert module.left.weight.shape == (2, 9)
    assert not module.left.weight.requires_grad
    assert module.left.bias.requires_grad
    assert module.left.bias.dtype == torch.float16
    assert module.left.out_features == 2


def test_a_tensor_that_follows_is_sliced_and_a_broadcast_one_is_not() -> None:
    edit = Channels(kept=(Kept(of=4, indices="1,3", at=(("weight", 0),)),))
    assert edit.follow("weight", torch.arange(8.0).view(4, 2)).tolist() == [[2, 3], [6, 7]]  # pyright: ignore
    assert edit.follow("weight", torch.ones(1, 2)).shape == (1, 2)  # pyright: ignore
    assert edit.follow("weight", torch.tensor(0.1)).shape == ()  # pyright: ignore
    assert edit.follow("bias", torch.ones(4)).shape == (4,)  # pyright: ignore
    with pytest.raises(DomainError, match="follows it"):
        edit.follow("weight", torch.ones(3, 2))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Channels(kept=(Kept(of=6, indices="0", at=(("nothing", 0),)),)), "no such tensor"),
        (Channels(kept=(Kept(of=7, indices="0", at=(("left.bias", 0),)),)), "should have size 7"),
        (Channels(kept=(Kept(of=7, indices="0", at=(("left.bias", 1),)),)), "dimension 1"),
        (Channels(kept=(), attributes={"left": {"width": 3}}), "no size 'width'"),
        (Channels(kept=(), attributes={"middle": {"width": 3}}), "middle"),
    ],
)
def test_an_edit_that_does_not_fit_says_so(edit: Channels, message: str) -> None:
    with pytest.raises(DomainError, match=message):
        edit.apply(Tied())


@pytest.mark.parametrize("indices", ["3,1", "1,1", "0-9", "2-4,4-5"])
def test_indices_ascend_within_the_dimension(indices: str) -> None:
    with pytest.raises(DomainError, match="ascending"):
        Kept(of=9, indices=indices, at=(("weight", 0),))


def test_an_edit_is_compact() -> None:
    module = vgg(depth=16, width=16)
    found = find_groups(module, torch.zeros(2, 3, 32, 32))
    rng = np.random.default_rng(0)
    kept = {group.name: rng.random(group.channels) < 0.5 for group in found.groups}
    edit = channels_edit(module, found.groups, kept)
    text = json.dumps(pydantic.TypeAdapter(Channels).dump_python(edit, mode="json"))
    assert len(text) < 10_000, "3 characters for each of about 500 kept channels, and the tensors' names"


# ------------------------------------------------------------------------------------------------------------------- budget


def counted(masks: Any) -> float:
    return float(sum(mask.sum() for mask in masks.values()))


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_the_search_meets_its_budget_and_no_more(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    scores = {
        str(i): np.array(data.draw(st.lists(st.floats(0, 3), min_size=n, max_size=n))) for i, n in enumerate(sizes)
    }
    limits = Limits(min_channels=data.draw(st.integers(1, 3)), multiple_of=data.draw(st.sampled_from([1, 2, 4])))
    ranking = data.draw(st.sampled_from(["global", "per_layer"]))
    least = sum(limits.kept(0, n) for n in sizes)
    budget = data.draw(st.integers(least, sum(sizes)))
    kept = search(scores, counted, Budget("parameters", budget, "bytes"), ranking=ranking, limits=limits)
    assert least <= counted(kept) <= budget
    assert counted(kept) > budget - limits.multiple_of
    for name, mask in kept.items():
        count = int(mask.sum())
        assert count >= min(limits.min_channels, len(mask))
        assert count % limits.multiple_of == 0 or count == len(mask)
        if 0 < count < len(mask):
            assert scores[name][mask].min() >= scores[name][~mask].max()


def test_per_layer_takes_the_same_share_of_layers_of_any_scale() -> None:
    scores = {"small": np.linspace(1, 2, 10), "large": np.linspace(100, 200, 20)}
    kept = search(scores, counted, Budget("parameters", 15, "bytes"), ranking="per_layer")
    assert [int(mask.sum()) for mask in kept.values()] == [5, 10]
    assert [int(m.sum()) for m in search(scores, counted, Budget("parameters", 20, "bytes")).values()] == [1, 19]


def test_a_budget_out_of_reach_names_the_smallest() -> None:
    with pytest.raises(DomainError, match=r"out of reach: the smallest is 8 bytes"):
        search({"a": np.ones(16)}, counted, Budget("bytes", 5, "bytes"), limits=Limits(max_prune=0.5))

"""Channels that can only be dropped together: which index of which tensor belongs to which channel.

`channel_trace` follows every channel through the network; channels that run through the same places are a group. Each group is tried
before it is believed: a random half of its channels is sliced away from a copy in double precision, which must then compute what the
whole network computes once nothing reads those channels. What fails (sizes that a forward pass holds as numbers) is left whole, as
are channels that meet an operation which needs them all (norms over channels, attention); both are named.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.edits._adapted_layer import adapted_layers, without_adapters
from mapsto.nn.edits.channels import Channels
from mapsto.nn.network.head import head
from mapsto.nn.prune.channel_call import Role
from mapsto.nn.prune.channel_trace import OUTPUT, Flow, Place, follow

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Group", "Groups", "Member", "Mask", "channels_edit", "find_groups"]

Mask: TypeAlias = "NDArray[np.bool_]"
"""Which channels of a group stay, shape (channels,)."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """One dimension of one tensor that a group's channels run through."""

    name: str
    """The parameter's or buffer's name; for the zeros of a padded shortcut that of the attribute that counts them."""
    dim: int
    """A dimension of it, or `VALUES` for a buffer that holds indices of channels."""
    owner: NDArray[np.int64]
    """For each index of that dimension the channel it belongs to, or -1 for none of this group."""
    role: Role
    """Whether the tensor makes the channels, reads them, scales them one by one, or counts zeros that stand for them."""

    def mask(self, kept: Mask) -> Mask:
        """Which indices stay where the channels `kept` stay."""
        return np.where(self.owner < 0, True, kept[self.owner])


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Channels that run through the same tensors."""

    name: str
    """Path of the first layer that makes them; of several groups that it makes, the others with a number: ``conv (2)``."""
    channels: int
    members: tuple[Member, ...]
    features: int = 0
    """How many of the network's outputs each channel is (an embedding's); 0 where the outputs keep their shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """All that can be pruned in a network, and what can't."""

    groups: tuple[Group, ...]
    whole: Mapping[str, str]
    """Path of each layer whose outputs are left whole, and why."""


def find_groups(module: nn.Module, example: Tensor, *, embedding: bool = False, padded: bool = False) -> Groups:
    """The groups of a network.

    Parameters
    ----------
    module
        Is not changed.
    example
        A batch of input, shape (N, ...).
    embedding
        Whether the output's own dimension counts, where the output is an embedding (no head).
    padded
        Whether channels count that a shortcut pads with zeros.

    Raises
    ------
    DomainError
        The network does not run on the example in double precision.

    >>> net = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> found = find_groups(net, torch.ones(2, 2))
    >>> [(group.name, group.channels, [member.name for member in group.members]) for group in found.groups]
    [('0', 5, ['0.weight', '0.bias', '2.weight'])]
    >>> found.whole
    {'2': 'its output is the output of the network'}
    """
    trial = _Trial(module, example)
    plain = without_adapters(trial.module)
    flow = _flow(plain, trial.inputs, padded=padded)
    inner, ends, whole = _proposals(plain, flow)
    adapted = set(adapted_layers(module))
    accepted = list(trial.passing([_with_adapters(group, adapted) for group in inner]))
    outputs = [] if head(module) is not None else [_with_adapters(group, adapted) for group in ends]
    widths = {group.name: trial.output_features(group) for group in outputs}
    if embedding:
        accepted += [replace(group, features=widths[group.name]) for group in outputs if widths[group.name]]
    reasons = {group.name: OUTPUT for group in ends}
    reasons |= {name: _EMBEDDING if features else _PART for name, features in widths.items()}
    reasons = {group.name: _LOST for group in inner} | reasons
    taken = {group.name for group in accepted}
    made = {name for group in accepted for name in _makers(group)}
    for group in (*inner, *ends):
        if group.name not in taken:
            whole |= dict.fromkeys(_makers(group), reasons[group.name])
    order = {path: place for place, (path, _) in enumerate(module.named_modules())}
    accepted.sort(key=lambda group: order[_path_of(group)])
    return Groups(
        groups=tuple(accepted),
        whole={
            path: whole[weight] for path, weight in _layers(plain).items() if weight in whole and weight not in made
        },
    )


_EMBEDDING = "its channels are the embedding"
_PART = "its channels are a part of the embedding"
_LOST = "slicing its channels changes more than what reads them"
_UNREAD = "the output does not depend on it, or it is a part of another operation"
_ONE = "it has one channel only"


def channels_edit(module: nn.Module, groups: Sequence[Group], kept: Mapping[str, Mask]) -> Channels:
    """The edit that keeps the channels `kept` (by a group's name; a group that is not named stays whole) of `module`."""
    masks: dict[tuple[str, int], Mask] = {}
    zeros: set[tuple[str, int]] = set()
    for group in groups:
        for member in group.members if group.name in kept else ():
            place = member.name, member.dim
            mask = member.mask(kept[group.name])
            masks[place] = masks[place] & mask if place in masks else mask
            if member.role == "pad":
                zeros.add(place)
    masks = {place: mask for place, mask in masks.items() if not mask.all()}
    keep: dict[str, dict[int, list[int]]] = {}
    sizes: dict[str, dict[int, int]] = {}
    for (name, dim), mask in masks.items():
        if (name, dim) in zeros:
            continue
        keep.setdefault(name, {})[dim] = np.flatnonzero(mask).tolist()
        sizes.setdefault(name, {})[dim] = len(mask)
    attributes: dict[str, dict[str, int]] = {}
    for (name, dim), mask in masks.items():
        path, _, tensor = name.rpartition(".")
        size = int(mask.sum())
        values = {tensor: size} if (name, dim) in zeros else _attributes(module.get_submodule(path), tensor, dim, size)
        if values:
            attributes.setdefault(path, {}).update(values)
    width = _embedding_width(module, groups, kept, attributes)
    if width is not None:
        attributes.setdefault("", {})["embedding"] = width
    return Channels.of(keep, sizes=sizes, attributes=attributes)


def _attributes(module: nn.Module, tensor: str, dim: int, size: int) -> dict[str, int]:
    """The sizes that a module holds of a tensor's dimension."""
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return {"num_features": size}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": size, "num_groups": module.num_groups * size // module.num_channels}
    if isinstance(module, nn.RNNBase) and tensor.startswith("weight_ih_l0") and dim == 1:
        return {"input_size": size}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": size}
    if isinstance(module, nn.Embedding):
        return {"embedding_dim": size}
    if isinstance(module, nn.Linear):
        return {"out_features" if tensor == "bias" or dim == 0 else "in_features": size}
    if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)):
        transposed = isinstance(module, _TRANSPOSED)
        makes = tensor == "bias" or (dim == 1) == transposed
        if module.groups > 1:
            share = size / (module.out_channels if makes else module.in_channels)
            sizes = {"in_channels": module.in_channels, "out_channels": module.out_channels, "groups": module.groups}
            return {name: round(whole * share) for name, whole in sizes.items()}
        return {"out_channels" if makes else "in_channels": size}
    return {}


def _embedding_width(
    module: nn.Module, groups: Sequence[Group], kept: Mapping[str, Mask], attributes: Mapping[str, Mapping[str, int]]
) -> int | None:
    """The new value of the network's ``embedding``, None where it has none or keeps it."""
    width: Any = getattr(module, "embedding", None)
    if not isinstance(width, int):
        return None
    for group in groups:
        if group.features and group.name in kept:
            return int(kept[group.name].sum()) * group.features
    linear = head(module)
    return next(
        (values["in_features"] for path, values in attributes.items()
         if module.get_submodule(path) is linear and "in_features" in values),
        None,
    )  # fmt: skip


def _with_adapters(group: Group, adapted: set[str]) -> Group:
    """Low-rank adapters are sliced as the weights that they change."""
    more: list[Member] = []
    for member in group.members:
        path, _, name = member.name.rpartition(".")
        if path in adapted and name == "weight":
            adapter = "lora_b" if member.dim == 0 else "lora_a"
            more.append(replace(member, name=f"{path}.{adapter}" if path else adapter))
    return replace(group, members=(*group.members, *more))


def _makers(group: Group) -> list[str]:
    """Names of the tensors that make or scale a group's channels."""
    return [member.name for member in group.members if member.role != "in"]


def _path_of(group: Group) -> str:
    """Path of the layer that a group is named after."""
    return group.members[0].name.rpartition(".")[0]


# ---------------------------------------------------------------------------------------------------------------- proposals


def _flow(module: nn.Module, inputs: Tensor, *, padded: bool) -> Flow:
    try:
        return follow(module, inputs, padded=padded)
    except Exception as error:  # the network's own errors are of any class
        raise DomainError(
            f"it does not run in double precision on an example: {type(error).__name__}: {error}"[:300],
            where=type(module).__name__,
            hint="a network is pruned as plain PyTorch, before quantizers are attached",
        ) from error


def _proposals(module: nn.Module, flow: Flow) -> tuple[list[Group], list[Group], dict[str, str]]:
    """The groups inside, those that are the output, and the weights whose channels must stay, with the reason."""
    places: dict[int, list[Place]] = {}
    for place in flow.places:
        for channel in np.unique(flow.channels[place.nodes]).tolist():
            places.setdefault(channel, []).append(place)
    ends = set(flow.output[flow.output >= 0].tolist())
    whole = {weight: _UNREAD if _size(module, path) > 1 else _ONE for path, weight in _layers(module).items()}
    same: dict[tuple[tuple[int, ...], bool], list[int]] = {}
    for channel, found in places.items():
        roles = {place.role for place in found}
        if channel in flow.reasons:
            whole |= {place.name: flow.reasons[channel] for place in found if place.role == "out" or place.grouped}
        elif "out" in roles and ("in" in roles or channel in ends):
            key = tuple(place.start for place in found if place.role != "pad"), channel in ends
            same.setdefault(key, []).append(channel)
    groups: tuple[list[Group], list[Group]] = [], []
    names: dict[str, int] = {}
    for (_, end), channels in same.items():
        group = _group(channels, {place.start: place for channel in channels for place in places[channel]}, flow)
        if len(channels) < 2:
            whole |= dict.fromkeys(_makers(group), _ONE)
            continue
        count = names[group.name] = names.get(group.name, 0) + 1
        groups[end].append(group if count == 1 else replace(group, name=f"{group.name} ({count})"))
    return *groups, whole


def _group(channels: Sequence[int], places: Mapping[int, Place], flow: Flow) -> Group:
    """Channels that run through the same places, in the order of the layer that they are named after.

    Its places come first, then those behind it in the order of the forward pass, then what is left, backwards.
    """
    makers = [place for place in places.values() if place.role == "out"]
    grouped = [place for place in places.values() if place.grouped]
    root = min(makers, key=lambda at: (at.name.endswith("bias"), at.depth, -at.time))
    root = min(grouped, key=lambda at: at.time, default=root)
    path = root.name.rpartition(".")[0]

    def turn(place: Place) -> tuple[int, int, int]:
        if place.name.rpartition(".")[0] == path and place.role != "in":
            return 0, 0, place.start
        if place.time > root.time and place.role != "out":
            return 1, place.time, place.start
        return 2, -place.time, place.start

    along = flow.channels[root.nodes]
    mine = dict.fromkeys(along[np.isin(along, channels)].tolist())
    number = np.full(len(flow.channels), -1, np.int64)
    number[list(mine)] = np.arange(len(mine))
    members = tuple(
        Member(name=place.name, dim=place.dim, owner=number[flow.channels[place.nodes]], role=place.role)
        for place in sorted(places.values(), key=turn)
    )
    return Group(name=path, channels=len(channels), members=members)


def _layers(module: nn.Module) -> dict[str, str]:
    """Path of each layer that makes channels → name of its weight, which several may share."""
    names = {id(tensor): name for name, tensor in module.named_parameters()}
    weights: dict[str, str] = {}
    for path, part in module.named_modules():
        weight = getattr(part, "weight", None)
        if isinstance(part, _LAYERS) and not _is_depthwise(part):
            weights[path] = names.get(id(weight), f"{path}.weight".lstrip("."))
    return weights


def _size(module: nn.Module, path: str) -> int:
    """How many channels a layer makes."""
    part: Any = module.get_submodule(path)
    return int(part.out_features if isinstance(part, nn.Linear) else part.out_channels)


def _is_depthwise(part: nn.Module) -> bool:
    return isinstance(part, (*_CONVOLUTIONS, *_TRANSPOSED)) and part.groups == part.in_channels == part.out_channels > 1


# ------------------------------------------------------------------------------------------------------------------- trials


class _Trial:
    """Tries proposals on copies of a network."""

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self.module = copy.deepcopy(module).cpu().double().eval().requires_grad_(True)
        self._disturb()
        if example.is_floating_point():
            self.inputs = torch.randn(example.shape, generator=self._generator, dtype=torch.float64)
        else:  # two numbers that every vocabulary has, one of which may be padding, behind which nothing can be seen
            self.inputs = torch.randint(2, example.shape, generator=self._generator).to(example.dtype)

    def _disturb(self) -> None:
        """Noise on every parameter: weights that are all zero, or all alike, would hide what depends on what."""
        with torch.no_grad():
            for tensor in self.module.parameters():
                scale = float(tensor.std()) if tensor.numel() > 1 else 0.0
                noise = torch.randn(tensor.shape, generator=self._generator, dtype=tensor.dtype)
                tensor.add_(noise, alpha=0.1 * (scale or 1.0))

    def passing(self, groups: Sequence[Group]) -> tuple[Group, ...]:
        """The groups that stand the trial, all at once or else half by half."""
        if not groups or self._agrees(groups, lambda output, _: output):
            return tuple(groups)
        if len(groups) == 1:
            return ()
        middle = len(groups) // 2
        halves = *self.passing(groups[:middle]), *self.passing(groups[middle:])
        if len(halves) == len(groups) or self._agrees(halves, lambda output, _: output):
            return halves
        return _greedy(halves, lambda some: self._agrees(some, lambda output, _: output))

    def output_features(self, group: Group) -> int:
        """How many outputs each channel of a group is, 0 where the group is not the output."""
        width = self._output(self.module).shape[-1]
        features, rest = divmod(width, group.channels)

        def outputs_kept(output: Tensor, kept: Mask) -> Tensor:
            return output[..., torch.from_numpy(np.repeat(kept, features))]

        return features if features and not rest and self._agrees([group], outputs_kept) else 0

    def _agrees(self, groups: Sequence[Group], of_output: Callable[[Tensor, Mask], Tensor]) -> bool:
        """Whether slicing gives what the network gives whose readers ignore the dropped channels."""
        kept = {group.name: self._half(group.channels) for group in groups}
        unread = copy.deepcopy(self.module)
        tensors = dict(unread.named_parameters())
        for member, mask in ((m, m.mask(kept[g.name])) for g in groups for m in g.members if m.role == "in"):
            with torch.no_grad():
                dropped = torch.from_numpy(np.flatnonzero(~mask))
                tensors[member.name].index_fill_(member.dim, dropped, 0.0)
        try:
            sliced = channels_edit(self.module, groups, kept).apply(copy.deepcopy(self.module))
            given = self._output(sliced)
            wanted = of_output(self._output(unread), kept[groups[0].name])
        except (RuntimeError, ValueError, IndexError, DomainError):
            return False  # the shapes no longer fit
        return given.shape == wanted.shape and _alike(given, wanted)

    def _half(self, channels: int) -> Mask:
        kept = np.zeros(channels, np.bool_)
        kept[torch.randperm(channels, generator=self._generator)[: (channels + 1) // 2].numpy()] = True
        return kept

    def _output(self, module: nn.Module) -> Tensor:
        with torch.no_grad():
            output: Any = module(self.inputs)
        return cast("Tensor", output[0] if isinstance(output, (tuple, list)) else output)


def _alike(output: Tensor, wanted: Tensor) -> bool:
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    return 0 < scale < float("inf") and float((output - wanted).abs().max()) <= 1e-8 * scale


def _greedy(groups: Sequence[Group], agrees: Callable[[Sequence[Group]], bool]) -> tuple[Group, ...]:
    """Groups that stand the trial alone but not together: each is taken if it stands with those before it."""
    taken: list[Group] = []
    for group in groups:
        if agrees([*taken, group]):
            taken.append(group)
    return tuple(taken)

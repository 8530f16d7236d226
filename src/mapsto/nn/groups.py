"""Channels that can only be dropped together: which index of which tensor belongs to which channel.

torch-pruning's dependency graph proposes the groups (Fang et al., "DepGraph: Towards Any Structural Pruning", 2023). It
takes operations that it does not know for elementwise ones, so each proposal is tried before it is believed: a random half of
the channels is sliced away from a copy in double precision, which must then compute what the whole network computes once
nothing reads those channels. What fails (padded shortcuts, channel shuffles, attention heads, norms over channels) is left
whole, and named.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.edits.channels import Channels
from mapsto.nn.edits.lora import adapted_layers, without_adapters
from mapsto.nn.heads import head

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Group", "Groups", "Member", "Mask", "channels_edit", "find_groups"]

Mask: TypeAlias = "NDArray[np.bool_]"
"""Which channels of a group stay, shape (channels,)."""

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.PReLU)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """One dimension of one tensor that a group's channels run through."""

    name: str
    """The parameter's or buffer's name."""
    dim: int
    owner: NDArray[np.int64]
    """For each index of that dimension the channel it belongs to, or -1 for none of this group."""
    role: Literal["out", "in", "along"]
    """Whether the tensor makes the channels, reads them, or scales them one by one."""

    def mask(self, kept: Mask) -> Mask:
        """Which indices stay where the channels `kept` stay."""
        return np.where(self.owner < 0, True, kept[self.owner])


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Channels that run through the same tensors."""

    name: str
    """Path of the first layer that makes them."""
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


def find_groups(module: nn.Module, example: Tensor, *, embedding: bool = False) -> Groups:
    """The groups of a network.

    Parameters
    ----------
    module
        Is not changed.
    example
        A batch of input, shape (N, ...).
    embedding
        Whether the output's own dimension counts, where the output is an embedding (no head).

    Raises
    ------
    DomainError
        The network cannot be traced by autograd.

    >>> net = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> found = find_groups(net, torch.ones(2, 2))
    >>> [(group.name, group.channels, [member.name for member in group.members]) for group in found.groups]
    [('0', 5, ['0.weight', '0.bias', '2.weight'])]
    >>> found.whole
    {'2': 'its output is the output of the network'}
    """
    trial = _Trial(module, example)
    proposals, whole = _proposals(without_adapters(trial.module), trial.inputs)
    adapted = set(adapted_layers(module))
    proposals = [replace(group, members=(*group.members, *_of_adapters(group, adapted))) for group in proposals]
    paths = dict(module.named_modules(remove_duplicate=False))
    linear = head(module)
    inner = [
        group for group in proposals if linear is None or all(paths[path] is not linear for path in _makers(group))
    ]
    accepted = trial.passing(inner)
    outputs: list[Group] = []
    for group in proposals:
        if group in accepted:
            continue
        features = trial.output_features(group) if group in inner and linear is None else 0
        if features and embedding:
            outputs.append(replace(group, features=features))
            continue
        reason = _OUTPUT if group not in inner else _EMBEDDING if features else _LOST
        for path in _makers(group):
            whole.setdefault(path, reason)
    order = {path: place for place, (path, _) in enumerate(module.named_modules())}
    groups = sorted((*accepted, *outputs), key=lambda group: order[group.name])
    return Groups(groups=tuple(groups), whole=whole)


_OUTPUT = "its output is the output of the network"
_EMBEDDING = "its channels are the embedding"
_LOST = "its channels cannot be followed through the network"


def channels_edit(module: nn.Module, groups: Sequence[Group], kept: Mapping[str, Mask]) -> Channels:
    """The edit that keeps the channels `kept` (by a group's name; a group that is not named stays whole) of `module`."""
    masks: dict[tuple[str, int], Mask] = {}
    for group in groups:
        for member in group.members if group.name in kept else ():
            place = member.name, member.dim
            mask = member.mask(kept[group.name])
            masks[place] = masks[place] & mask if place in masks else mask
    masks = {place: mask for place, mask in masks.items() if not mask.all()}
    keep: dict[str, dict[int, list[int]]] = {}
    sizes: dict[str, dict[int, int]] = {}
    for (name, dim), mask in masks.items():
        keep.setdefault(name, {})[dim] = np.flatnonzero(mask).tolist()
        sizes.setdefault(name, {})[dim] = len(mask)
    attributes: dict[str, dict[str, int]] = {}
    for (name, dim), mask in masks.items():
        path, _, tensor = name.rpartition(".")
        values = _attributes(module.get_submodule(path), tensor, dim, int(mask.sum()))
        if values:
            attributes.setdefault(path, {}).update(values)
    width = _embedding_width(module, groups, kept, attributes)
    if width is not None:
        attributes.setdefault("", {})["embedding"] = width
    return Channels.of(keep, sizes=sizes, attributes=attributes)


def _attributes(module: nn.Module, tensor: str, dim: int, size: int) -> dict[str, int]:
    """The sizes that a module holds of a tensor's dimension."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return {"num_features": size}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": size}
    if isinstance(module, nn.Linear):
        return {"out_features" if dim == 0 else "in_features": size}
    if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)):
        if module.groups > 1:
            return {"in_channels": size, "out_channels": size, "groups": size}
        makes = tensor == "bias" or (dim == 1) == isinstance(module, _TRANSPOSED)
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


def _of_adapters(group: Group, adapted: set[str]) -> Iterator[Member]:
    """Low-rank adapters are sliced as the weights that they change."""
    for member in group.members:
        path, _, name = member.name.rpartition(".")
        if path in adapted and name == "weight":
            adapter = "lora_b" if member.dim == 0 else "lora_a"
            yield replace(member, name=f"{path}.{adapter}" if path else adapter)


def _makers(group: Group) -> list[str]:
    """Paths of the layers that make a group's channels."""
    return [m.name.rpartition(".")[0] for m in group.members if m.role == "out" and not m.name.endswith("bias")]


# ---------------------------------------------------------------------------------------------------------------- proposals


def _proposals(module: nn.Module, inputs: Tensor) -> tuple[list[Group], dict[str, str]]:
    """What torch-pruning finds, and the layers that are left whole without a trial."""
    graph: Any = torch_pruning.DependencyGraph()
    with torch.enable_grad():
        try:
            graph.build_dependency(module, example_inputs=(inputs,), verbose=False)
            found: list[Any] = list(graph.get_all_groups())
        except Exception as error:  # its own errors are of any class
            raise DomainError(
                f"torch-pruning cannot trace it: {type(error).__name__}: {error}"[:300],
                where=type(module).__name__,
                hint="a network is pruned as plain PyTorch, before quantizers are attached",
            ) from error
    names = _Names(module)
    groups: list[Group] = []
    whole: dict[str, str] = {}
    for proposal in found:
        root: Any = proposal[0].dep.target.module
        path, members, obstacle = names.modules[id(root)], list[Member](), ""
        for item in proposal.items:
            try:
                members += names.members(graph, item)
            except _CannotSliceError as reason:
                obstacle = str(reason)
        channels = 1 + max((int(member.owner.max()) for member in members), default=-1)
        if obstacle or channels < 2:
            reason = obstacle or "it has one channel only"
            whole |= dict.fromkeys((path, *names.makers(graph, proposal)), reason)
        else:
            groups.append(Group(name=path, channels=channels, members=tuple(_merged(members))))
    reached = {path for group in groups for path in (group.name, *_makers(group))} | whole.keys()
    for path, part in module.named_modules():
        if isinstance(part, _LAYERS) and path not in reached and not _is_depthwise(part):
            whole[path] = "the output does not depend on it, or it is a part of another operation"
    return groups, whole


class _CannotSliceError(Exception):
    """A module of a group has no rule for slicing here."""


class _Names:
    """From torch-pruning's nodes to names of tensors."""

    def __init__(self, module: nn.Module) -> None:
        self.modules = {id(part): path for path, part in module.named_modules()}
        self._tensors = {id(tensor): name for name, tensor in (*module.named_parameters(), *module.named_buffers())}

    def members(self, graph: Any, item: Any) -> Iterator[Member]:
        """The tensors that one entry of a group slices."""
        node: Any = item.dep.target
        part: Any = node.module
        indices, channels = np.asarray(item.idxs, np.int64), np.asarray(item.root_idxs, np.int64)
        if isinstance(part, nn.Parameter):
            yield self._member(part, int(node.pruning_dim), indices, channels, "along")
            return
        if id(part) not in self.modules:
            return  # an operation without tensors
        for tensor, dim, role in _dims(part, out=bool(graph.is_out_channel_pruning_fn(item.dep.handler))):
            yield self._member(tensor, dim, indices, channels, role)

    def makers(self, graph: Any, proposal: Any) -> list[str]:
        """Paths of the layers whose outputs a group slices."""
        nodes = [item.dep.target for item in proposal.items if graph.is_out_channel_pruning_fn(item.dep.handler)]
        return [self.modules[id(node.module)] for node in nodes if isinstance(node.module, _LAYERS)]

    def _member(
        self,
        tensor: Tensor,
        dim: int,
        indices: NDArray[np.int64],
        channels: NDArray[np.int64],
        role: Literal["out", "in", "along"],
    ) -> Member:
        owner = np.full(tensor.shape[dim], -1, np.int64)
        if len(indices) and indices.max() >= len(owner):
            raise _CannotSliceError("its channels are padded or repeated on their way")
        owner[indices] = channels
        return Member(name=self._tensors[id(tensor)], dim=dim, owner=owner, role=role)


def _dims(part: nn.Module, *, out: bool) -> Iterator[tuple[Tensor, int, Literal["out", "in", "along"]]]:
    """The tensors of a layer and the dimension in which its outputs (or inputs) are sliced."""
    if isinstance(part, _NORMS):
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            if tensor.ndim == 1:
                yield tensor, 0, "along"
    elif isinstance(part, _LAYERS):
        groups = 1 if isinstance(part, nn.Linear) else part.groups
        if groups > 1 and not _is_depthwise(part):
            raise _CannotSliceError("a grouped convolution takes part")
        transposed = isinstance(part, _TRANSPOSED)
        if groups > 1:
            yield part.weight, 0, "along"
        else:
            yield part.weight, int(out == transposed), "out" if out else "in"
        if part.bias is not None and (out or groups > 1):  # pyright: ignore[reportUnnecessaryComparison]
            yield part.bias, 0, "along" if groups > 1 else "out"
    else:
        raise _CannotSliceError(f"{type(part).__name__} takes part, which has no rule")


def _is_depthwise(part: nn.Module) -> bool:
    return isinstance(part, (*_CONVOLUTIONS, *_TRANSPOSED)) and part.groups == part.in_channels == part.out_channels > 1


def _merged(members: Iterable[Member]) -> Iterator[Member]:
    """Entries that name the same dimension as one: a depthwise convolution's inputs are its outputs."""
    found: dict[tuple[str, int], Member] = {}
    for member in members:
        place = member.name, member.dim
        if place in found:
            before = found[place]
            owner = np.where(before.owner < 0, member.owner, before.owner)
            found[place] = replace(before, owner=owner)
        else:
            found[place] = member
    yield from found.values()


# ------------------------------------------------------------------------------------------------------------------- trials


class _Trial:
    """Tries proposals on copies of a network."""

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self.module = copy.deepcopy(module).cpu().double().eval().requires_grad_(True)
        self._disturb()
        self.inputs = example.cpu()
        if example.is_floating_point():
            self.inputs = torch.randn(example.shape, generator=self._generator, dtype=torch.float64)

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


def _alike(given: Tensor, wanted: Tensor) -> bool:
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    return 0 < scale < float("inf") and float((given - wanted).abs().max()) <= 1e-8 * scale


def _greedy(groups: Sequence[Group], agrees: Callable[[Sequence[Group]], bool]) -> tuple[Group, ...]:
    """Groups that stand the trial alone but not together: each is taken if it stands with those before it."""
    taken: list[Group] = []
    for group in groups:
        if agrees([*taken, group]):
            taken.append(group)
    return tuple(taken)

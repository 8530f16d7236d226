"""Attention heads as groups of channels: which rows and columns of an attention's linear layers belong to which head.

An attention is known by its parts: a number of heads, and linear layers for query, key and value, or one for all three; the linear
layer that runs next on as many numbers reads the heads. Each finding is tried before it is believed: half of the heads are sliced
away from a copy in double precision, which must then compute what the whole network computes once nothing reads those heads.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Table
from mapsto.nn.edits.channels import Channels
from mapsto.nn.network.layer_calls import run_watched
from mapsto.nn.prune.dependency_groups import Group, Mask, Member, channels_edit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Attention", "Attentions", "find_attentions", "heads_edit", "table_of_heads"]

_COUNTS = ("num_attention_heads", "num_heads", "n_heads", "heads")
_WIDTHS = ("all_head_size", "attn_dim", "inner_dim")
"""Attributes that hold heads × size of a head, where a module has them."""
_SEPARATE = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("to_q", "to_k", "to_v"),
    ("q", "k", "v"),
)
_FUSED = ("qkv", "in_proj", "to_qkv", "Wqkv", "c_attn")


@dataclass(frozen=True, kw_only=True, eq=False)
class Attention:
    """One attention whose heads can go."""

    path: str
    count: str
    """The attribute that holds the number of heads."""
    size: int
    """Numbers of one head."""
    out: str
    """Path of the linear layer that reads the heads."""
    group: Group
    """The heads as channels, named as the attention."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attentions:
    """All attentions of a network whose heads can go, and those whose cannot."""

    found: tuple[Attention, ...]
    whole: Mapping[str, str]
    """Path of each other attention, and why."""


def find_attentions(module: nn.Module, example: Tensor) -> Attentions:
    """The attentions that run on `example`, shape (N, ...); `module` is not changed."""
    found: list[Attention] = []
    whole: dict[str, str] = {}
    order = _linear_calls(module, example)
    trial = _trial(module)
    for path, part in module.named_modules():
        count = next((name for name in _COUNTS if isinstance(getattr(part, name, None), int)), None)
        if count is None:
            continue
        if isinstance(part, nn.MultiheadAttention):
            whole[path] = "its query, key and value are no linear layers"
            continue
        options = list(_options(path, part, count, order))
        if not options:
            if any(isinstance(inner, nn.Linear) for inner in part.modules()):
                whole[path] = (
                    "its query, key and value, or what reads them, are not single linear layers of known names"
                )
            continue
        fitting = next((option for option in options if _agrees(trial, option, example)), None)
        if fitting is None:
            whole[path] = f"its forward pass does not go by its '{count}'"
        else:
            found.append(fitting)
    within = {attention.path for attention in found} | whole.keys()
    outer = {path for path in whole if any(path != other and other.startswith(f"{path}.") for other in within)}
    return Attentions(found=tuple(found), whole={path: why for path, why in whole.items() if path not in outer})


def heads_edit(module: nn.Module, attentions: Sequence[Attention], kept: Mapping[str, Mask]) -> Channels:
    """The edit that keeps the heads `kept`, by path of the attention; one that is not named stays whole."""
    edit = channels_edit(module, [attention.group for attention in attentions], kept)
    attributes = {path: dict(values) for path, values in edit.attributes.items()}
    for attention in attentions:
        mask = kept.get(attention.path)
        if mask is None or mask.all():
            continue
        part = module.get_submodule(attention.path)
        heads = int(mask.sum())
        sizes = {name: heads * attention.size for name in _WIDTHS if isinstance(getattr(part, name, None), int)}
        attributes.setdefault(attention.path, {}).update({attention.count: heads, **sizes})
    return dataclasses.replace(edit, attributes=attributes)


def _linear_calls(module: nn.Module, example: Tensor) -> list[str]:
    """Paths of linear layers in the order they run."""
    order: list[str] = []
    linear = {path: part for path, part in module.named_modules() if isinstance(part, nn.Linear)}

    def note(path: str, *_: Any) -> None:
        order.append(path)

    run_watched(module, linear, [example], note, before=True)
    return order


def _options(path: str, part: nn.Module, count: str, order: Sequence[str]) -> Iterator[Attention]:
    """What the attention may be; of a fused layer the order of its rows is found by trial."""
    heads: int = getattr(part, count)
    linear = {name: child for name, child in part.named_children() if isinstance(child, nn.Linear)}
    names = next((three for three in _SEPARATE if linear.keys() >= set(three)), None)
    fused = next((name for name in _FUSED if name in linear), None)
    made = names or ((fused,) if fused else ())
    layers = [f"{path}.{name}" if path else name for name in made]
    if not layers or heads < 1 or not set(layers) <= set(order):
        return
    rows = {linear[name].out_features for name in made}
    width = rows.pop() // (1 if names else 3)
    if rows or width % heads:
        return
    last = max(order.index(layer) for layer in layers)
    out = next((name for name in order[last + 1 :] if name not in layers), None)
    if out is None:
        return
    size = width // heads
    each = np.repeat(np.arange(heads), size)
    layouts = [each] if names else [np.tile(each, 3), np.repeat(np.arange(heads), 3 * size)]
    for owner in layouts:
        group = Group(
            name=path,
            channels=heads,
            members=tuple(_members([linear[name] for name in made], layers, owner, out, each)),
        )
        yield Attention(path=path, count=count, size=size, out=out, group=group)


def _members(
    parts: Sequence[nn.Linear],
    layers: Sequence[str],
    owner: NDArray[np.int64],
    out: str,
    each: NDArray[np.int64],
) -> Iterator[Member]:
    for part, layer in zip(parts, layers, strict=True):
        yield Member(name=f"{layer}.weight", dim=0, owner=owner, role="out")
        if part.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            yield Member(name=f"{layer}.bias", dim=0, owner=owner, role="out")
    yield Member(name=f"{out}.weight", dim=1, owner=each, role="in")


def _trial(module: nn.Module) -> nn.Module:
    """A copy in double precision, its parameters disturbed, so that no head is like another or all zero."""
    generator = torch.Generator().manual_seed(0)
    trial = copy.deepcopy(module).cpu().double().eval()
    with torch.no_grad():
        for tensor in trial.parameters():
            scale = float(tensor.std()) if tensor.numel() > 1 else 0.0
            tensor.add_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype), alpha=0.1 * (scale or 1.0))
    return trial


def table_of_heads(scores: Mapping[str, NDArray[np.float64]], kept: Mapping[str, Mask]) -> Table:
    """Each head with its importance and its rank within its layer, from 1, the least important; and whether it stays."""
    rows = tuple(
        (path, head, float(f"{values[head]:.6g}"), int((values < values[head]).sum()) + 1, "stays" if stays else "went")
        for path, values in scores.items()
        for head, stays in enumerate(kept[path].tolist())
    )
    return Table(columns=("layer", "head", "importance", "rank in its layer", "what became of it"), rows=rows)


def _agrees(trial: nn.Module, attention: Attention, example: Tensor) -> bool:
    """Whether slicing every other head away gives what the network gives where those are not read."""
    group = attention.group
    kept = np.arange(group.channels) % 2 == 0
    reader = group.members[-1]
    weight = dict(trial.named_parameters()).get(reader.name)
    if weight is None or weight.shape[1] != len(reader.owner):
        return False
    generator = torch.Generator().manual_seed(1)
    inputs = example.cpu()
    if inputs.is_floating_point():
        inputs = torch.randn(example.shape, generator=generator, dtype=torch.float64)
    columns = torch.from_numpy(np.flatnonzero(~reader.mask(kept)))
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            sliced = heads_edit(trial, [attention], {attention.path: kept}).apply(copy.deepcopy(trial))
            given: Tensor = sliced(inputs)
            weight.index_fill_(1, columns, 0.0)
            wanted: Tensor = trial(inputs)
    except (RuntimeError, ValueError, IndexError, DomainError):
        return False
    finally:
        with torch.no_grad():
            weight.copy_(before)
    scale = float(wanted.abs().max())
    return given.shape == wanted.shape and scale > 0 and float((given - wanted).abs().max()) <= 1e-8 * scale

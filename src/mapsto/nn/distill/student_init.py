"""A smaller network of the same family as another, its tensors chosen from the other's: θ → θ′.

Channels are chosen by importance, ``‖w_c‖ |γ_c|`` of the convolution and the batch norm that make channel c, and the tensors are
sliced along both sides. Of residual blocks some are chosen; of plain layers that are left out, the next one takes over both
kernels, ``W = W₂ ∗ diag(γ / σ) W₁`` without the ReLU between them.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mapsto.errors import DomainError, nearest
from mapsto.kinds import Json, Network, detached
from mapsto.nn.edits.head import Head
from mapsto.nn.network.build import network_of
from mapsto.nn.network.head import head, head_path
from mapsto.nn.networks.conv4 import widths
from mapsto.nn.networks.resnet_cifar import PaddedShortcut
from mapsto.nn.networks.vgg import CONVOLUTIONS

__all__ = ["derived"]

_WHERE = "distill.student"
_DEPTHS = (8, 20, 32, 44, 56, 110)


@dataclass
class _Copy:
    """Tensors of the smaller network, from those of a larger one."""

    source: Mapping[str, Tensor]
    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def conv(self, to: str, weight: Tensor, outputs: Tensor, inputs: Tensor) -> None:
        self.tensors[f"{to}.weight"] = weight[outputs][:, inputs]

    def norm(self, to: str, path: str, chosen: Tensor) -> None:
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.tensors[f"{to}.{name}"] = self.source[f"{path}.{name}"][chosen]
        self.tensors[f"{to}.num_batches_tracked"] = self.source[f"{path}.num_batches_tracked"]

    def importance(self, conv: str, norm: str) -> Tensor:
        """Of each output channel."""
        return self.source[f"{conv}.weight"].flatten(1).norm(dim=1) * self.source[f"{norm}.weight"].abs()

    def head(self, path: str, chosen: Tensor, places: int = 1) -> None:
        """The linear layer's columns of these channels, each of which takes `places` of them."""
        if f"{path}.weight" in self.source:
            weight = self.source[f"{path}.weight"]
            self.tensors[f"{path}.weight"] = weight.unflatten(1, (-1, places))[:, chosen].flatten(1)
            self.tensors[f"{path}.bias"] = self.source[f"{path}.bias"]


def derived(teacher: Network, *, width: float, depth: int | None) -> Network:
    """A network of `width` times the channels in each layer and of this depth, started from the teacher's tensors.

    Raises
    ------
    DomainError
        The teacher is of another family, was edited (but for its head), or is not so deep.
    """
    name = teacher.arch.name.partition(":")[2]
    if not teacher.arch.name.startswith("mapsto.nn.networks.") or name not in _FAMILIES:
        raise DomainError(
            f"a student cannot be derived from {teacher.arch.name}", where=_WHERE, hint=nearest(name, _FAMILIES)
        )
    other = [type(edit).__name__ for edit in teacher.edits if not isinstance(edit, Head)]
    if other:
        raise DomainError(
            f"the teacher was edited ({', '.join(dict.fromkeys(other))}), so its layers are not its factory's",
            where=_WHERE,
            hint="derive the student from the network before that; of a pruned one use the pruned copy itself",
        )
    if teacher.adaptation is not None and teacher.adaptation.tensors:
        raise DomainError(
            f"the learner has tensors of its own ({', '.join(list(teacher.adaptation.tensors)[:3])}, …)",
            where=_WHERE,
            hint="derive the student first, and train it as a learner then",
        )
    linear = head(teacher.module())
    defaults = _defaults(teacher)
    arguments = defaults | teacher.arch.arguments | {"classes": linear.out_features if linear is not None else None}
    copy = _Copy(_headed(teacher))
    arguments = _FAMILIES[name](copy, arguments, width, depth)
    fields = {key: value for key, value in arguments.items() if key in teacher.arch.arguments or value != defaults[key]}
    signature = teacher.signature
    student = network_of(teacher.arch.name, fields, signature.preprocessing, classes=signature.classes)
    return dataclasses.replace(
        student,
        tensors=detached({**student.tensors, **copy.tensors}),
        signature=dataclasses.replace(student.signature, answers=signature.answers),
        assets=teacher.assets,
        adaptation=teacher.adaptation,
    )


def _defaults(teacher: Network) -> dict[str, Any]:
    """What the factory takes for arguments that are not given."""
    return {name: parameter.default for name, parameter in inspect.signature(teacher.arch.load()).parameters.items()}


def _headed(teacher: Network) -> dict[str, Tensor]:
    """The tensors with the head's under the factory's name, whichever edit put it there."""
    module = teacher.module()
    path, linear = head_path(module), head(module)
    tensors = dict(teacher.tensors)
    if path is not None and linear is not None:
        tensors[f"{path}.weight"] = linear.weight.detach()
        tensors[f"{path}.bias"] = linear.bias.detach()
    return tensors


def _best(importance: Tensor, count: int) -> Tensor:
    """The `count` most important, in ascending order."""
    return importance.argsort(descending=True, stable=True)[:count].sort().values


def _scaled(width: float, channels: int) -> int:
    return max(1, round(width * channels))


def _too_deep(depth: int | None, allowed: Sequence[int]) -> DomainError:
    return DomainError(
        f"depth is {depth}, but the teacher allows {', '.join(map(str, allowed))}",
        where=_WHERE,
        hint="give one of these, or leave it out for the teacher's own",
    )


# ------------------------------------------------------------------------------------------------------------------ families


def _conv4(copy: _Copy, arguments: dict[str, Any], width: float, depth: int | None) -> dict[str, Json]:
    """The first blocks; with fewer of them the head begins anew, as its inputs are others."""
    blocks = depth or arguments["blocks"]
    if blocks > arguments["blocks"]:
        raise _too_deep(depth, range(1, arguments["blocks"] + 1))
    before = torch.arange(arguments["channels"])
    counts = [_scaled(width, count) for count in widths(arguments["width"], arguments["blocks"])][:blocks]
    for block, count in enumerate(counts):
        conv, norm = f"features.{block}.0", f"features.{block}.1"
        chosen = _best(copy.importance(conv, norm), count)
        copy.conv(conv, copy.source[f"{conv}.weight"], chosen, before)
        copy.norm(norm, norm, chosen)
        before = chosen
    halvings = None if arguments["halvings"] is None else min(blocks, arguments["halvings"])
    if blocks == arguments["blocks"]:
        halved = blocks if halvings is None else halvings
        places = (arguments["size"] // 2**halved) ** 2 if arguments["downsampling"] == "pool" else 1
        copy.head("classifier", before, places)
    narrow: Json = counts[0] if isinstance(arguments["width"], int) else [*counts]
    return {**arguments, "width": narrow, "blocks": blocks, "halvings": halvings}


def _vgg(copy: _Copy, arguments: dict[str, Any], width: float, depth: int | None) -> dict[str, Json]:
    """In each stage evenly spread convolutions, the last always; each takes over those left out before it."""
    plan: list[list[int]] | None = arguments["plan"]
    counts = CONVOLUTIONS[arguments["depth"]][: arguments["stages"]] if plan is None else [len(stage) for stage in plan]
    wanted = counts if depth is None else CONVOLUTIONS.get(depth, (99,) * 5)[: len(counts)]
    if len(wanted) != len(counts) or any(less > more for less, more in zip(wanted, counts, strict=True)):
        fits = [name for name, each in CONVOLUTIONS.items() if all(a <= b for a, b in zip(each, counts, strict=False))]
        raise _too_deep(depth, fits)
    stages: list[list[int]] = []
    old = new = 0
    before = torch.arange(arguments["channels"])
    for stage, (less, more) in enumerate(zip(wanted, counts, strict=True)):
        places = [old + 3 * number for number in range(more)]
        kept = [math.ceil((number + 1) * more / less) - 1 for number in range(less)]
        stages.append([])
        start = 0
        for last in kept:
            weight = _merged(copy, places[start : last + 1])
            conv, norm = f"features.{places[last]}", f"features.{places[last] + 1}"
            importance = copy.importance(conv, norm)
            chosen = _best(importance, _scaled(width, len(importance)))
            copy.conv(f"features.{new}", weight, chosen, before)
            copy.norm(f"features.{new + 1}", norm, chosen)
            stages[stage].append(len(chosen))
            before, new, start = chosen, new + 3, last + 1
        old, new = old + 3 * more + 1, new + 1
    copy.head("classifier", before)
    return {**arguments, "plan": [list(stage) for stage in stages]}


def _merged(copy: _Copy, places: Sequence[int]) -> Tensor:
    """One 3×3 kernel for convolutions one after another, each batch norm's scale but no ReLU between them."""
    weight = copy.source[f"features.{places[0]}.weight"]
    for before, place in pairwise(places):
        norm = f"features.{before + 1}"
        scale = copy.source[f"{norm}.weight"] / (copy.source[f"{norm}.running_var"] + 1e-5).sqrt()
        scaled = weight * scale[:, None, None, None]
        following = copy.source[f"features.{place}.weight"]
        weight = functional.conv2d(scaled.transpose(0, 1), following.flip(2, 3), padding=1).transpose(0, 1)
    return weight


def _resnet_cifar(copy: _Copy, arguments: dict[str, Any], width: float, depth: int | None) -> dict[str, Json]:
    """In each stage evenly spread blocks, the first always, since it changes the resolution."""
    depth = depth or arguments["depth"]
    if depth not in _DEPTHS or depth > arguments["depth"]:
        raise _too_deep(depth, [each for each in _DEPTHS if each <= arguments["depth"]])
    less, more = (depth - 2) // 6, (arguments["depth"] - 2) // 6
    kept = [number * more // less for number in range(less)]
    streams = _streams(copy, arguments, width, more)
    copy.conv("conv1", copy.source["conv1.weight"], streams[0], torch.arange(arguments["channels"]))
    copy.norm("bn1", "bn1", streams[0])
    before = streams[0]
    for stage, stream in enumerate(streams, 1):
        for number, block in enumerate(kept):
            old, new = f"layer{stage}.{block}", f"layer{stage}.{number}"
            inner = _best(copy.importance(f"{old}.conv1", f"{old}.bn1"), len(stream))
            copy.conv(f"{new}.conv1", copy.source[f"{old}.conv1.weight"], inner, before)
            copy.norm(f"{new}.bn1", f"{old}.bn1", inner)
            copy.conv(f"{new}.conv2", copy.source[f"{old}.conv2.weight"], stream, inner)
            copy.norm(f"{new}.bn2", f"{old}.bn2", stream)
            if f"{old}.shortcut.0.weight" in copy.source:
                copy.conv(f"{new}.shortcut.0", copy.source[f"{old}.shortcut.0.weight"], stream, before)
                copy.norm(f"{new}.shortcut.1", f"{old}.shortcut.1", stream)
            before = stream
    copy.head("linear", before)
    return {**arguments, "depth": depth, "width": len(streams[0])}


def _streams(copy: _Copy, arguments: dict[str, Any], width: float, blocks: int) -> list[Tensor]:
    """The channels of each stage's sum. A padded shortcut puts those of the stage before in the middle: there they stay."""
    count = _scaled(width, arguments["width"])
    streams: list[Tensor] = []
    for stage in (1, 2, 3):
        makers = [(f"layer{stage}.{block}.conv2", f"layer{stage}.{block}.bn2") for block in range(blocks)]
        makers += [("conv1", "bn1")] if stage == 1 else []
        importance = torch.stack([copy.importance(*maker) for maker in makers]).sum(0)
        wanted = count * 2 ** (stage - 1)
        if arguments["shortcut"] == "A" and stage > 1:
            inputs, outputs = len(importance) // 2, len(importance)
            wider, narrower = PaddedShortcut(inputs, outputs, 2), PaddedShortcut(wanted // 2, wanted, 2)
            low, high, few, rest = wider.before, wider.after, narrower.before, narrower.after
            ends = _best(importance[:low], few), outputs - high + _best(importance[outputs - high :], rest)
            streams.append(torch.cat([ends[0], low + streams[-1], ends[1]]))
        else:
            streams.append(_best(importance, wanted))
    return streams


_FAMILIES: dict[str, Callable[[_Copy, dict[str, Any], float, int | None], dict[str, Json]]] = {
    "conv4": _conv4,
    "resnet_cifar": _resnet_cifar,
    "vgg": _vgg,
}

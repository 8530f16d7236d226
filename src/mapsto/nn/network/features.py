"""What a network computes on its way to the answer: the outputs of its modules by path, and which of them to compare.

Two networks are matched by how often the image has been halved, ``round(log₂(input / map))``: the last map of each such
resolution that both have. ``embedding`` is a path too: what the head is given.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError, nearest
from mapsto.nn.network.head import head_path
from mapsto.nn.network.layer_calls import watching

__all__ = ["EMBEDDING", "Pair", "capturing", "last_of_each_resolution", "matched", "output_shapes", "require_layers"]

EMBEDDING = "embedding"
"""The path of what the head is given; of a network without a head, its output."""

Pair = tuple[str, str]
"""The student's path and the teacher's."""


@contextmanager
def capturing(module: nn.Module, paths: Iterable[str]) -> Generator[dict[str, Tensor]]:
    """Path → the output of its last call, filled while `module` runs within the block.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> with capturing(net, ["1", EMBEDDING]) as seen:
    ...     scores = net(torch.ones(2, 4))
    >>> {path: tuple(output.shape) for path, output in seen.items()}
    {'1': (2, 8), 'embedding': (2, 8)}
    """
    seen: dict[str, Tensor] = {}
    known = dict(module.named_modules())

    def keep(path: str, given: tuple[Any, ...], output: Any) -> None:
        value = given[0] if output is None else output
        if isinstance(value, Tensor):
            seen.pop(path, None)  # the last call stands at the end
            seen[path] = value

    with ExitStack() as stack:
        for path in paths:
            head = None if path in known else head_path(module)
            layer = known[path] if path in known else module if head is None else known[head]
            stack.enter_context(watching({path: layer}, keep, before=head is not None))
        yield seen


def output_shapes(module: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """Path → shape of its output, in the order in which the calls end; `embedding` among them.

    Modules whose output is no tensor, and the network as a whole, are left out. `module` should be in evaluation mode.
    """
    paths = [path for path, _ in module.named_modules() if path]
    with torch.no_grad(), capturing(module, dict.fromkeys((*paths, EMBEDDING))) as seen:
        module(example)
    return {path: tuple(output.shape) for path, output in seen.items()}


def last_of_each_resolution(shapes: Mapping[str, tuple[int, ...]], size: tuple[int, ...]) -> dict[int, str]:
    """How often an image of `size` has been halved → the path of the last map (N, C, H, W) that is so small.

    A map of one pixel stands for no place any more and is left out.

    >>> shapes = {"stem": (2, 8, 16, 16), "block": (2, 8, 16, 16), "pool": (2, 8, 8, 8), "deep": (2, 16, 8, 8)}
    >>> last_of_each_resolution(shapes, (16, 16))
    {0: 'block', 1: 'deep'}
    """
    found: dict[int, str] = {}
    for path, shape in shapes.items():
        if len(shape) == 4 and shape[-1] * shape[-2] > 1:
            found[round(math.log2(max(size[-1] / shape[-1], 1)))] = path
    return dict(sorted(found.items()))


def matched(
    student: nn.Module,
    teacher: nn.Module,
    examples: tuple[Tensor, Tensor],
    layers: Mapping[str, str] | None,
    *,
    where: str,
) -> list[Pair]:
    """The layers to compare: those named, else the last map of each resolution that both have, else the embeddings.

    Parameters
    ----------
    student, teacher
        In evaluation mode.
    examples
        A batch for each.
    layers
        The student's path → the teacher's.

    Raises
    ------
    DomainError
        A layer is not there, or gives no tensor; the message names the nearest.
    """
    ours, theirs = output_shapes(student, examples[0]), output_shapes(teacher, examples[1])
    if layers:
        require_layers(layers, ours, owner="student", where=where)
        require_layers(layers.values(), theirs, owner="teacher", where=where)
        return list(layers.items())
    chosen = [
        last_of_each_resolution(shapes, tuple(example.shape[2:])) if example.ndim == 4 else {}
        for shapes, example in zip((ours, theirs), examples, strict=True)
    ]
    both = [(chosen[0][key], chosen[1][key]) for key in chosen[0] if key in chosen[1]]
    return both or [(EMBEDDING, EMBEDDING)]


def require_layers(paths: Iterable[str], known: Iterable[str], *, owner: str, where: str) -> None:
    """Raises `DomainError` for the first path that is not among those known, with the nearest that is."""
    names = list(known)
    for path in paths:
        if path not in names:
            remedy = nearest(path, names)
            if remedy.startswith("known") and len(names) > 12:
                remedy = f"known: {', '.join(names[:12])} and {len(names) - 12} more"
            raise DomainError(f"the {owner} has no layer '{path}' that gives a tensor", where=where, hint=remedy)

"""Where adapters go in a network: its layers, its blocks, and the blocks that tokens run through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.edits.adapters import BlockOutput
from mapsto.nn.edits.quantizers import has_quantized_part
from mapsto.nn.network.call_sites import trace
from mapsto.nn.network.examples import example_batch
from mapsto.nn.network.head import head_path
from mapsto.nn.network.layer_calls import run_watched

__all__ = ["block_outputs", "blocks", "float_module", "places", "token_blocks"]

_ATTENTION = ("scaled_dot_product_attention", "softmax")


def float_module(network: Network, *, where: str) -> nn.Module:
    """A network's module. Raises `DomainError` where it is quantized."""
    module = network.module()
    if has_quantized_part(module):
        raise DomainError("the network is quantized", where=where, hint="add adapters before quantizing")
    return module


def places(
    network: Network,
    module: nn.Module,
    targets: Sequence[str],
    fits: Callable[[nn.Module], bool],
    *,
    where: str,
    what: str = "linear layer or convolution without adapters",
    default: Callable[[str], bool] = lambda path: True,
    called: bool = True,
) -> tuple[str, ...]:
    """Paths of the parts that fit and that a pattern of `targets` names.

    Without patterns: those that `default` takes, but the head and what the output does not depend on, such as an encoder's pooler that is
    not read. With `called` only those that are called: what computes with a layer's weight in its place knows nothing of its adapters.
    Raises `DomainError` for a pattern without a part that fits, and where nothing is left.
    """
    fitting = {path: part for path, part in module.named_modules() if fits(part)}
    silent = fitting.keys() - _called(network, module, fitting) if called else set[str]()
    known = [path for path in fitting if path not in silent]
    for pattern in targets:
        there = any(fnmatchcase(path, pattern) for path in known)
        unheard = sorted(path for path in silent if fnmatchcase(path, pattern))
        if unheard and not there:
            raise DomainError(
                f"'{unheard[0]}' is never called: others compute with its weight, and would miss what is added to it",
                where=f"{where}: targets",
                hint="name others; in a network of your own call the layer, as in self.layer(x)",
            )
        if not there:
            raise DomainError(
                f"no {what} is called '{pattern}'",
                where=f"{where}: targets",
                hint=f"such as {', '.join(known[:4]) or 'none at all'}",
            )
    if targets:
        return tuple(path for path in known if any(fnmatchcase(path, pattern) for pattern in targets))
    own, idle = head_path(module), _without_effect(network, module)
    found = tuple(path for path in known if path != own and path not in idle and default(path))
    if not found:
        raise DomainError(
            "the network has no layer that can be adapted", where=where, hint=f"that takes a {what}, besides the head"
        )
    return found


def _called(network: Network, module: nn.Module, layers: Mapping[str, nn.Module]) -> set[str]:
    """Paths of the layers that are called in a forward pass."""
    seen: set[str] = set()
    run_watched(module, layers, [example_batch(network)], lambda path, given, output: seen.add(path), before=True)
    return seen


def _without_effect(network: Network, module: nn.Module) -> set[str]:
    """Paths of the parts with parameters of their own on none of which the output depends."""
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.is_floating_point()}
    wanted = {name: parameter.requires_grad for name, parameter in named.items()}
    for parameter in named.values():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        output: Tensor = module(example_batch(network))
        given = torch.autograd.grad(output.sum(), list(named.values()), allow_unused=True)
    found = cast("tuple[Tensor | None, ...]", given)  # None where the output does not depend on it
    for name, parameter in named.items():
        parameter.requires_grad_(wanted[name])
    used = {name.rpartition(".")[0] for name, each in zip(named, found, strict=True) if each is not None}
    return {name.rpartition(".")[0] for name in named} - used


def blocks(module: nn.Module) -> list[str]:
    """Paths of a network's blocks: the members of its sequences and lists that hold layers; of a sequence of blocks those within.

    >>> layer = lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> blocks(nn.Sequential(layer(), nn.Sequential(layer(), layer()), nn.Linear(2, 1)))
    ['0', '1.0', '1.1']
    """
    found: list[str] = []
    for path, part in module.named_modules():
        if not isinstance(part, (nn.Sequential, nn.ModuleList)) or path.startswith(
            tuple(f"{block}." for block in found)
        ):
            continue
        members = [(f"{path}.{name}" if path else name, child) for name, child in part.named_children()]
        found += [
            place for place, child in members if _holds_layers(child) and not _is_stage(child) and place not in found
        ]
    return found


def _is_stage(module: nn.Module) -> bool:
    """Whether a module is a sequence of blocks."""
    return isinstance(module, (nn.Sequential, nn.ModuleList)) and all(map(_holds_layers, _parametric(module)))


def _parametric(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.children() if any(True for _ in child.parameters())]


def _holds_layers(module: nn.Module) -> bool:
    """Whether a module is more than a layer: it has children with parameters."""
    return bool(_parametric(module))


def block_outputs(network: Network, module: nn.Module, paths: Sequence[str], *, where: str) -> tuple[BlockOutput, ...]:
    """What the blocks give, seen in one forward pass. Raises `DomainError` where it is no tensor of features or channels."""
    seen: dict[str, Any] = {}
    layers = {path: module.get_submodule(path) for path in paths}
    run_watched(module, layers, [example_batch(network)], lambda path, given, output: seen.setdefault(path, output))
    found: list[BlockOutput] = []
    for path in paths:
        output = seen.get(path)
        output = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4) or not output.is_floating_point():
            raise DomainError(
                "it is not called" if output is None else "it gives no tensor of features or channels",
                where=f"{where}: {path}",
                hint="name blocks that give (N, C, H, W), (N, L, D) or (N, D)",
            )
        channels = output.ndim == 4
        found.append(
            BlockOutput(
                path=path, size=output.shape[1 if channels else -1], layout="channels" if channels else "features"
            )
        )
    return tuple(found)


def token_blocks(network: Network, module: nn.Module, *, where: str) -> tuple[str, int]:
    """Path of the blocks that tokens run through, and a token's size.

    They are the outermost part that takes (N, L, D) to (N, L, D) and in which attention is computed. Raises `DomainError` without one.
    """
    example = example_batch(network)
    seen: dict[str, int] = {}

    def watch(path: str, part: nn.Module) -> RemovableHandle:
        def note(part: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            tokens = given[0] if given else named.get("hidden_states")
            result = getattr(output, "last_hidden_state", output)
            result = result[0] if isinstance(result, tuple) and result else result
            if (
                isinstance(tokens, Tensor)
                and isinstance(result, Tensor)
                and tokens.ndim == 3
                and tokens.shape == result.shape
            ):
                seen.setdefault(path, tokens.shape[-1])

        return part.register_forward_hook(note, with_kwargs=True)

    handles = [watch(path, part) for path, part in module.named_modules() if path]
    with torch.no_grad():
        module(example)
    for handle in handles:
        handle.remove()
    attended = [call.site.path for call in trace(module, example).calls if call.site.operation in _ATTENTION]
    found = [path for path in seen if all(place.startswith(f"{path}.") for place in attended)] if attended else []
    if not found:
        raise DomainError(
            f"no part of a {type(module).__name__} takes tokens (N, L, D) through blocks of attention",
            where=where,
            hint="prompts go with transformers that have such a part; elsewhere use adapt.ssf, adapt.lora or adapt.adapters",
        )
    path = min(found, key=len)
    return path, seen[path]

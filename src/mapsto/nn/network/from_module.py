"""A PyTorch module of any origin as a `Network`: how it is built again, which of its outputs is taken, and what is refused and why.

A network has one input and one output, both tensors: everything after this door relies on it, so that what has more is refused here.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError, MapstoError, TrustError
from mapsto.kinds import (
    Factory,
    Json,
    Network,
    Preprocessing,
    Signature,
    TensorSpec,
    detached,
    load_strictly,
    vouched,
)
from mapsto.nn.edits.fold_parametrizations import FoldParametrizations, folded_state, parametrized
from mapsto.nn.network.vocabulary import with_ids
from mapsto.nn.networks.hf_model import is_masked, padding_mask

if TYPE_CHECKING:
    from mapsto.kinds import Edit

__all__ = [
    "called",
    "chosen_output",
    "folding",
    "network_of_module",
    "one_tensor",
    "require_names",
    "require_usable",
    "with_output_taken",
]

_HF = "mapsto.nn.networks.hf_model:hf_model"
_ONE_OUTPUT = "mapsto.nn.networks.one_output:one_output"
_ONE_INPUT = (
    "put it in a module of your own, in a file, whose forward takes one tensor and takes it apart, as in "
    "`return self.inner(x[:, :3], x[:, 3:])`, and give that"
)


def network_of_module(
    module: nn.Module,
    example: Any,
    *,
    factory: str | None = None,
    arguments: Mapping[str, Json] | None = None,
    output: str | int | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
) -> Network:
    """What `Network.from_module` gives; see there."""
    inputs = _inputs(example)
    with _evaluated(module):
        arch, given, classes = _rebuilding(module, inputs, factory, arguments, output, classes)
        built = arch.name
        where = str(arch.arguments["model"]) if built == _HF else built
        expected, chosen = one_tensor(
            called(module, _masked(module, inputs), where), output, where=where, how="pass output={}"
        )
        require_usable(expected, given, where)
        if chosen is not None:
            arch = with_output_taken(arch, chosen)
        tensors = detached(folded_state(module))
    if chosen is not None and output is None:
        logging.getLogger("mapsto").warning("%s: of its outputs %r is taken; pass output=… for another", where, chosen)
    rebuilt, edits = _rebuilt(arch, built, factory)
    remedy = "pass arguments={...} with what " + ("the factory" if factory else "its class") + " was called with"
    load_strictly(rebuilt, tensors, where=where, hint=remedy)
    with torch.no_grad():
        again = called(rebuilt, (given,), where)
    if again.shape != expected.shape or not torch.allclose(expected, again, rtol=1e-4, atol=1e-5):
        raise DomainError(
            "the rebuilt module's output differs",
            where=where,
            hint="pass arguments={...} with everything that decides its forward pass",
        )
    if classes is not None:
        require_names(classes, again, where)
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype=_dtype(given), shape=("N", *given.shape[1:])),),
        outputs=(TensorSpec(name="output", dtype=_dtype(again), shape=("N", *again.shape[1:])),),
        preprocessing=preprocessing or Preprocessing(kind="none"),
        classes=tuple(classes) if classes is not None else None,
    )
    return Network(arch=arch, edits=edits, tensors=tensors, signature=with_ids(signature, rebuilt))


def require_usable(output: Tensor, example: Tensor, where: str) -> None:
    """Refuse an output that is no batch of numbers. Raises `DomainError`."""
    if output.is_complex():
        raise DomainError(
            "its output is complex", where=where, hint="give its absolute value, or both parts as channels"
        )
    if not output.ndim or output.shape[0] != example.shape[0]:
        raise DomainError(
            f"for {example.shape[0]} samples its output has shape {tuple(output.shape)}, which holds nothing for each",
            where=where,
            hint="let its forward give one result a sample, in the first dimension",
        )


def require_names(classes: Sequence[str], output: Tensor, where: str) -> None:
    """Refuse class names that are not as many as the outputs, or name one twice. Raises `DomainError`."""
    if len(classes) != output.shape[1 if output.ndim > 2 else -1]:
        raise DomainError(
            f"it has outputs of shape {tuple(output.shape[1:])}, but there are {len(classes)} class names",
            where=where,
            hint="give as many class names as outputs",
        )
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise DomainError(f"two classes are named '{twice}'", where=where, hint="give each class a name of its own")


def folding(module: nn.Module, where: str, note: Callable[[str], object] | None = None) -> tuple[Edit, ...]:
    """The edit that makes each computed weight of `module` a plain one, applied to it and noted; none where there is none."""
    there = tuple(parametrized(module))
    if not there:
        return ()
    edit = FoldParametrizations(weights=there)
    edit.apply(module)
    some = f"{', '.join(there[:3])}{f' and {len(there) - 3} more' if len(there) > 3 else ''}"
    text = f"{where}: {some} came with a norm or another parametrization and is folded into a plain weight"
    (note or logging.getLogger("mapsto").info)(text)
    return (edit,)


def one_tensor(result: Any, output: str | int | None, *, where: str, how: str) -> tuple[Tensor, str | int | None]:
    """The tensor of a network's result, and which output it is; None where the result is that tensor itself.

    Parameters
    ----------
    output
        The one that is asked for. Without it the only tensor is taken, or ``logits`` where it is there.
    how
        What the user writes to take an output, with ``{}`` for it.

    Raises
    ------
    DomainError
        There are several tensors and none is asked for, no such one, or none at all.
    """
    if isinstance(result, Tensor):
        if output is None:
            return result, None
        raise DomainError(
            f"its output is one tensor, there is no {output!r} in it", where=where, hint="leave output out"
        )
    there = _tensors_of(result)
    if not there:
        raise DomainError(
            f"its output, a {type(result).__name__}, holds no tensor",
            where=where,
            hint="put it in a module of your own, in a file, whose forward returns one tensor, and give that",
        )
    choices = " or ".join(how.format(repr(name)) for name in list(there)[:4])
    chosen = output if output is not None else chosen_output(list(there))
    if chosen is None or chosen not in there:
        names = ", ".join(f"{name!r} {tuple(tensor.shape)}" for name, tensor in there.items())
        what = f"there is no {output!r} in" if output is not None else f"{len(there)} tensors are in"
        raise DomainError(f"{what} its output, a {type(result).__name__} of {names}", where=where, hint=choices)
    return there[chosen], chosen


def with_output_taken(arch: Factory, output: str | int) -> Factory:
    """The factory of the same module, which gives this output alone."""
    if arch.name == _HF:
        return Factory(name=_HF, arguments={**arch.arguments, "output": output})
    return Factory(name=_ONE_OUTPUT, arguments={"factory": arch.name, "arguments": arch.arguments, "output": output})


def chosen_output(names: Sequence[str | int]) -> str | int | None:
    """The obvious output: the only one, or ``logits``."""
    return names[0] if len(names) == 1 else "logits" if "logits" in names else None


def _tensors_of(result: Any) -> dict[str | int, Tensor]:
    items: Any = ()
    if isinstance(result, Mapping):
        items = cast("Mapping[Any, Any]", result).items()
    elif isinstance(result, (tuple, list)):
        items = enumerate(cast("Sequence[Any]", result))
    return {name: part for name, part in items if isinstance(part, Tensor) and part.ndim}


def _inputs(example: Any) -> Any:
    """A tensor's tuple, or a dict of a tokenizer; whole numbers as int64. Raises `DomainError` for anything else."""
    if isinstance(example, Mapping) or hasattr(example, "input_ids"):
        return {str(name): tensor for name, tensor in dict(example).items()}
    inputs = cast("tuple[Any, ...]", example if isinstance(example, tuple) else (example,))
    for tensor in inputs:
        if not isinstance(tensor, Tensor) or not tensor.ndim:
            raise DomainError(
                f"the example is a {type(tensor).__name__}",
                where="from_module",
                hint="give a batch of inputs as one tensor of shape (N, ...)",
            )
    if len(inputs) != 1:
        raise DomainError(
            f"{len(inputs)} inputs are given, and a network has one", where="from_module", hint=_ONE_INPUT
        )
    return tuple(x if x.is_floating_point() else x.long() for x in inputs)


def _masked(module: Any, inputs: Any) -> Any:
    """The inputs with the mask of the padding, where a model of transformers is given none: its network masks so."""
    if not type(module).__module__.startswith("transformers.") or not hasattr(module, "config"):
        return inputs
    main = str(module.main_input_name)
    named: dict[str, Any] = dict(inputs) if isinstance(inputs, dict) else {main: inputs[0]}
    return {**padding_mask(module.config, named[main]), **named} if main in named and is_masked(type(module)) else named


def _rebuilding(
    module: nn.Module,
    inputs: Any,
    factory: str | None,
    arguments: Mapping[str, Json] | None,
    output: str | int | None,
    classes: Sequence[str] | None,
) -> tuple[Factory, Tensor, Sequence[str] | None]:
    """What builds the module again, the one tensor that it is given then, and the class names that it knows itself."""
    cls = type(module)
    if factory is None and cls.__module__.startswith("transformers.") and hasattr(module, "config"):
        return _of_transformers(module, inputs, classes)
    if isinstance(inputs, dict):
        raise DomainError(
            f"{len(inputs)} inputs are given by name, and a network has one", where=cls.__qualname__, hint=_ONE_INPUT
        )
    if factory is not None:
        return Factory(name=factory, arguments=dict(arguments or {})), inputs[0], classes
    name = f"{cls.__module__}:{cls.__qualname__}"
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise TrustError(
            f"class {cls.__qualname__} cannot be imported by another process",
            where=name,
            hint="save the class to a file, say mynet.py, and import it from there",
        )
    given = dict(arguments) if arguments is not None else _constructor_arguments(module, name)
    return Factory(name=name, arguments=given), inputs[0], classes


def _of_transformers(
    module: Any, inputs: Any, classes: Sequence[str] | None
) -> tuple[Factory, Tensor, Sequence[str] | None]:
    """A model of transformers: its class and configuration; its main input; the names of its classes."""
    cls = type(module)
    config: dict[str, Any] = json.loads(module.config.to_json_string(use_diff=False))
    kept = {name: value for name, value in config.items() if name not in _OF_A_FILE and value is not None}
    main = str(cls.main_input_name)
    if isinstance(inputs, dict) and main not in inputs:
        raise DomainError(f"there is no {main} among the inputs", where=cls.__name__, hint=f"give {main}")
    tensor: Tensor = inputs[main] if isinstance(inputs, dict) else inputs[0]
    labels: dict[int, str] = module.config.id2label or {}
    named = [labels[key] for key in sorted(labels)]
    if classes is None and cls.__name__.endswith("Classification") and module.config.problem_type != "regression":
        classes = named if len(set(named)) == len(named) > 1 and "Token" not in cls.__name__ else None
    arch = Factory(name=_HF, arguments={"model": cls.__name__, "config": kept})
    return arch, tensor if tensor.is_floating_point() else tensor.long(), classes


_OF_A_FILE = frozenset({"architectures", "transformers_version", "torch_dtype", "dtype", "_name_or_path"})
"""Of a configuration: what says where it is from, not what it is."""


def called(
    module: nn.Module,
    inputs: Any,
    where: str,
    *,
    hint: str = "give an example of its own shape and type, on its own device",
) -> Any:
    """The module's result. Raises `DomainError` where it wants other inputs."""
    required = [
        parameter.name
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    if not isinstance(inputs, dict) and len(required) > len(inputs):
        raise DomainError(
            f"its forward takes {len(required)} inputs ({', '.join(required)}), and a network has one",
            where=where,
            hint=_ONE_INPUT,
        )
    try:
        with torch.no_grad():
            return module(**inputs) if isinstance(inputs, dict) else module(*inputs)
    except MapstoError:
        raise
    except Exception as error:  # whatever someone's forward raises for an input that is not its own
        shapes = [tuple(x.shape) for x in (inputs.values() if isinstance(inputs, dict) else inputs)]
        raise DomainError(
            f"it cannot take a batch of shape {', '.join(map(str, shapes))}: {(str(error).splitlines() or [''])[0]}",
            where=where,
            hint=hint,
        ) from error


def _rebuilt(arch: Factory, where: str, factory: str | None) -> tuple[nn.Module, tuple[Edit, ...]]:
    """A fresh module without computed weights, in evaluation mode, and the edits that made it so."""
    with vouched(where), torch.random.fork_rng(devices=[]):
        try:
            rebuilt = arch.build()
        except TrustError:
            raise
        except MapstoError as error:
            remedy = "pass arguments={...} with its JSON arguments" if factory is None else error.hint
            raise DomainError(error.what, where=where, hint=remedy) from error
        except Exception as error:  # whatever someone's constructor raises for arguments that are not its own
            raise DomainError(
                f"it cannot be built from {arch.arguments}: {error}",
                where=where,
                hint="pass arguments={...} with its JSON arguments",
            ) from error
    return rebuilt.eval(), folding(rebuilt, where)


class _evaluated:  # noqa: N801
    """Evaluation mode for a block; each part's own mode comes back."""

    def __init__(self, module: nn.Module) -> None:
        self._modes = [(part, part.training) for part in module.modules()]
        module.eval()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        for part, training in self._modes:
            part.training = training


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _constructor_arguments(module: nn.Module, name: str) -> dict[str, Json]:
    """What the constructor was called with, from ``hparams`` or attributes of the same name."""
    hparams: dict[str, Any] = dict(getattr(module, "hparams", {}))
    arguments: dict[str, Json] = {}
    for parameter in list(inspect.signature(type(module).__init__).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value: Any = hparams.get(parameter.name, getattr(module, parameter.name, parameter.default))
        if value is parameter.default and value is not inspect.Parameter.empty:
            continue
        try:
            json.dumps(value)
        except TypeError:
            if parameter.default is not inspect.Parameter.empty:
                continue
            raise DomainError(
                f"argument '{parameter.name}' of its constructor is not known as a JSON value",
                where=name,
                hint="pass arguments={...}, or factory='module:function' of a function that builds it",
            ) from None
        arguments[parameter.name] = cast("Json", value)
    return arguments

"""A network as a value: its factory, edits, tensors and signature; and who may name a factory."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from mapsto.errors import DomainError, SpecError, TrustError
from mapsto_runtime.preprocessing.texts import ASSET, digest
from mapsto_runtime.signature import Preprocessing, Signature

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
from mapsto.kinds.frozen import Frozen, Json

__all__ = [
    "Adaptation",
    "Edit",
    "Factory",
    "Network",
    "call_changed_parts",
    "detached",
    "load_strictly",
    "trusting",
    "vouched",
]


_trusted: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())
_ALLOWED = "mapsto.nn.networks."
_IMPORTED_HERE = ("mapsto", "mapsto_runtime", "torch")
"""Where mapsto's own factories live. Not the whole package: through its modules' imports a name would reach anything."""


@contextmanager
def trusting(*modules: str) -> Generator[None]:
    """Allow factories of these top-level modules to be imported within the block (the command line's ``--trust``).

    Within it a module may be a file of the working folder, which is looked through last, so that it hides no other.
    """
    token = _trusted.set(_trusted.get() | frozenset(modules))
    folder = os.getcwd()
    added = bool(modules) and folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        _trusted.reset(token)
        if added and folder in sys.path:
            sys.path.remove(folder)


@contextmanager
def vouched(factory: str) -> Generator[None]:
    """Within the block this very factory may be called where the caller has imported its module: who names it means it."""
    token = _vouched.set(_vouched.get() | {factory})
    try:
        yield
    finally:
        _vouched.reset(token)


_vouched: ContextVar[frozenset[str]] = ContextVar("vouched", default=frozenset())


class Factory(Frozen):
    """An importable callable and the JSON arguments that make it give a `torch.nn.Module`."""

    name: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    """``package.module:callable``."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments, JSON values only."""

    def load(self) -> Callable[..., nn.Module]:
        """The callable. Raises `TrustError` for a module the user has not named, `SpecError` where there is none."""
        path, _, attribute = self.name.partition(":")
        package = path.partition(".")[0]
        own = path.startswith(_ALLOWED) and "." not in attribute
        if not own and package not in _trusted.get() and not self._is_imported():
            raise TrustError(
                f"building this network would run code of '{path}', which is not on the list of trusted modules",
                where=self.name,
                hint=f"pass --trust {package} (or use mapsto.kinds.trusting('{package}')) if you trust it",
            )
        try:
            target: Any = importlib.import_module(path)
            for part in attribute.split("."):
                target = getattr(target, part)
        except (ImportError, AttributeError) as error:
            raise SpecError(
                f"no such factory: {error}", where=self.name, hint="check the module and the name"
            ) from error
        if own and getattr(target, "__module__", path) != path and package not in _trusted.get():
            raise TrustError(
                f"'{attribute}' is only imported by '{path}', it is no factory of mapsto",
                where=self.name,
                hint="name the module that defines it, and pass --trust if you trust it",
            )
        if not callable(target):
            raise SpecError(
                f"a {type(target).__name__} is no factory", where=self.name, hint="name a function or a class"
            )
        return cast("Callable[..., nn.Module]", target)

    def _is_imported(self) -> bool:
        """Whether it is there without importing anything, and may be called: the caller's class of modules, or what it vouches for.

        Of functions that are there the name alone does not tell what a call does, so that a stored name is not enough for them; nor is
        it for what mapsto has imported itself.
        """
        from torch import nn

        path, _, attribute = self.name.partition(":")
        target: Any = sys.modules.get(path)
        for part in attribute.split("."):
            target = getattr(target, "__dict__", {}).get(part)  # never a module's own __getattr__, which may import
        if target is None or self.name in _vouched.get():
            return target is not None
        return (
            path.partition(".")[0] not in _IMPORTED_HERE and isinstance(target, type) and issubclass(target, nn.Module)
        )

    def build(self) -> nn.Module:
        """A fresh module. Its initial weights are drawn from torch's global generator.

        Raises `SpecError` where the arguments are not the factory's, or what it gives is no module.
        """
        from torch import nn

        call = self.load()
        try:
            inspect.signature(call).bind(**self.arguments)
        except TypeError as error:
            raise SpecError(str(error), where=self.name, hint="check arguments against the factory's own") from error
        except ValueError:
            pass  # a callable written in C may have no signature to check
        module: Any = call(**self.arguments)
        if not isinstance(module, nn.Module):
            raise SpecError(
                f"it gives a {type(module).__name__}, not a torch.nn.Module",
                where=self.name,
                hint="name another factory",
            )
        return module


class Edit(Frozen):
    """A change of a module's structure that can be replayed: explicit indices and numbers, never a trace.

    One file in ``mapsto/nn/edits/`` each; the file's name is the edit's name. An edit addresses the factory's own names,
    adds, reshapes or drops tensors, and never renames them.
    """

    version: ClassVar[int] = 1

    @abstractmethod
    def apply(self, module: nn.Module) -> nn.Module:
        """Change `module` in place (tensors it holds are sliced, not redrawn) and return it."""

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        """How a tensor that follows parameter `name` changes with it; None where the parameter is dropped."""
        return tensor


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How a learner adapts: the method's name, its settings, and its own tensors.

    `method` is a file in ``mapsto/nn/meta/adaptation/``. A tensor named as a parameter or buffer follows it (pruning slices it too),
    as does one named so with ``@`` and something after it; one whose name starts with ``~`` is free.
    """

    method: str
    settings: Mapping[str, Json] = field(default_factory=dict[str, Json])
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A network as data: *call the factory → replay the edits → load the tensors strictly*. No pickle, ever."""

    arch: Factory
    edits: tuple[Edit, ...] = ()
    tensors: Mapping[str, Tensor]
    """Every parameter and buffer by its name in the edited module."""
    signature: Signature
    assets: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Named blobs that travel with the network, such as a tokenizer."""
    adaptation: Adaptation | None = None
    """Set on a learner: how it adapts to a new task."""

    def __post_init__(self) -> None:
        before = self.signature.preprocessing
        if before.kind == "text" and not before.tokenizer_json:
            tokenizer = self.assets.get(ASSET, b"")
            if digest(tokenizer) != before.tokenizer:
                raise DomainError(
                    f"its tokenizer is {'not the one of its signature' if tokenizer else 'missing'}",
                    where=self.arch.name,
                    hint=f"give it among the assets, as '{ASSET}'",
                )
            object.__setattr__(self, "signature", self.signature.reading(tokenizer))

    def module(self, *, device: str | torch.device = "cpu") -> nn.Module:
        """Plain PyTorch, in evaluation mode, with its own copy of the tensors.

        Raises `TrustError` for an untrusted factory and `DomainError` naming the tensors that do not fit.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            module = self.arch.build()
        for edit in self.edits:
            module = edit.apply(module)
        call_changed_parts(module)
        load_strictly(module, self.tensors, where=self.arch.name)
        object.__setattr__(
            module, "mapsto_origin", (self.arch, self.edits, self.signature, self.assets, self.adaptation)
        )
        return module.to(device).eval()

    def with_module(self, module: nn.Module, *edits: Edit, **changes: Any) -> Network:
        """This network with `module`'s tensors, `edits` added to the list (already applied to it) and fields replaced."""
        network = dataclasses.replace(
            self, edits=(*self.edits, *edits), tensors=detached(module.state_dict(keep_vars=False)), **changes
        )
        adaptation = network.adaptation
        if adaptation is not None and edits and "adaptation" not in changes:
            tensors: dict[str, Tensor] = {}
            for name, tensor in adaptation.tensors.items():
                kept: Tensor | None = tensor
                for edit in () if name.startswith("~") else edits:
                    kept = edit.follow(name.partition("@")[0], kept) if kept is not None else None
                if kept is not None:
                    tensors[name] = kept
            network = dataclasses.replace(network, adaptation=dataclasses.replace(adaptation, tensors=tensors))
        return network

    def edited(self, *edits: Edit, **changes: Any) -> Network:
        """This network with `edits` applied to its module."""
        module = self.module()
        for edit in edits:
            module = edit.apply(module)
        return self.with_module(module, *edits, **changes)

    @staticmethod
    def from_module(
        module: nn.Module,
        example: Tensor | tuple[Tensor] | Mapping[str, Tensor],
        *,
        factory: str | None = None,
        arguments: Mapping[str, Json] | None = None,
        output: str | int | None = None,
        preprocessing: Preprocessing | None = None,
        classes: Sequence[str] | None = None,
    ) -> Network:
        """A live module as a `Network`.

        Parameters
        ----------
        module
            Its class must be importable, unless `factory` builds it. A module that `Network.module` gave keeps its factory and
            edits; a model of transformers keeps its configuration and class names; a `LightningModule` that called
            ``save_hyperparameters`` gives its arguments itself. Weight, spectral and orthogonal norms are folded.
        example
            One batch of input, shape (N, ...); the first dimension is symbolic in the signature. For a model of transformers also
            what its tokenizer gives.
        factory
            ``package.module:callable`` that builds it, as ``resnet:resnet20``: a module that you have imported, or one of the
            working folder that is trusted. By default its class.
        arguments
            What the constructor or `factory` was called with, as JSON values; by default a constructor's are read from ``hparams``
            or from attributes of the same name, and the rebuilt module is checked against this one.
        output
            Which of its outputs is taken, where it gives several: a name, or a place from 0. By default the only one, or ``logits``.
        preprocessing, classes
            For the signature; by default none.

        Raises
        ------
        TrustError
            The class lives in a notebook or in ``__main__``: save it to a file that can be imported. Or `factory` would be imported
            and is not trusted.
        DomainError
            The module cannot be rebuilt from its arguments (the message names the tensors or arguments), it has several inputs, or
            several outputs of which none is named.
        """
        origin = getattr(module, "mapsto_origin", None)
        if origin is not None:
            arch, edits, signature, assets, adaptation = origin
            tensors = detached(module.state_dict())
            return Network(
                arch=arch, edits=edits, tensors=tensors, signature=signature, assets=assets, adaptation=adaptation
            )
        made: Any = importlib.import_module(
            "mapsto.nn.network.from_module"
        )  # above this file, which is read without torch
        return made.network_of_module(
            module,
            example,
            factory=factory,
            arguments=arguments,
            output=output,
            preprocessing=preprocessing,
            classes=classes,
        )


def call_changed_parts(module: nn.Module) -> None:
    """Let encoder layers of torch whose parts an edit has changed call these, as they do in training.

    In evaluation such a layer reads the weights of its parts and computes the whole of itself by one operation, as if none were changed.
    """
    from torch import nn

    for part in module.modules():
        if isinstance(part, nn.TransformerEncoderLayer) and not _is_as_torch_made_it(part):
            part.activation_relu_or_gelu = 0  # torch's own word for an activation that this operation does not know
        elif isinstance(part, nn.TransformerEncoder) and not all(map(_is_as_torch_made_it, part.layers)):
            part.use_nested_tensor = False  # which layers that call their parts do not take


def _is_as_torch_made_it(layer: nn.Module) -> bool:
    """Whether all parts are classes of torch, at the places where an encoder layer has them."""
    from torch import nn

    parts = [part for name, part in layer.named_modules() if name]
    linear = [getattr(layer, name, None) for name in ("linear1", "linear2")]
    return all(type(part).__module__.startswith("torch.") for part in parts) and all(
        type(each) is nn.Linear for each in linear
    )


def detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, contiguous, without gradients; tensors that share storage whole stay one tensor."""
    seen: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        alias = (tensor.data_ptr(), tuple(tensor.shape)) if tensor.numel() else (id(tensor), ())
        if alias not in seen:
            seen[alias] = tensor.detach().to("cpu", copy=True).contiguous()
        result[name] = seen[alias]
    return result


def load_strictly(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    hint: str = "check the factory's arguments against the checkpoint",
) -> None:
    """Copy `tensors` into `module`.

    Raises `DomainError` that names every missing, unknown or misshapen tensor, and one that is sparse or lazy.
    """
    import torch

    state = module.state_dict()
    for name, tensor in (*tensors.items(), *state.items()):
        if torch.nn.parameter.is_lazy(tensor):
            raise DomainError(
                f"tensor '{name}' is lazy: its shape is not known yet",
                where=where,
                hint="call the module once, and save it then",
            )
        if tensor.layout != torch.strided:
            raise DomainError(
                f"tensor '{name}' is sparse", where=where, hint="make it dense with .to_dense(), and save it again"
            )
    missing = sorted(state.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - state.keys())
    shapes = sorted(
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(state[name].shape)}"
        for name in state.keys() & tensors.keys()
        if tensors[name].shape != state[name].shape
    )
    findings = [
        f"{what}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
        for what, names in (("missing", missing), ("unknown", unknown), ("misshapen", shapes))
        if names
    ]
    if findings:
        raise DomainError(
            f"the tensors do not fit the network ({'; '.join(findings)})",
            where=where,
            hint=hint,
        )
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(tensors[name])

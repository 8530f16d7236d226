"""A network that trains on a stream: all of it, adapters (LoRA) or the head alone, with a head that has a row for each class so far.

A class that the network's own head knows brings its row from there; any other begins at zero, with a row of a meta-trained head, or, for
methods that ask for it, as the row of later classes: one more row that learns as if it were a class that never comes.
SGD and Adam (Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015) keep their averages here, so that they are part of the
state.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit, Network, Package
from mapsto.nn.edits._adapted_layer import adapted_layers, adapter_parameters, is_adaptable
from mapsto.nn.edits.head import Head
from mapsto.nn.edits.lora import Lora
from mapsto.nn.edits.merge_lora import MergeLora
from mapsto.nn.edits.quantizers import has_quantized_part
from mapsto.nn.edits.root_head import RootHead, takes_root
from mapsto.nn.meta.parameter_swap import Places
from mapsto.nn.network.build import with_output
from mapsto.nn.network.head import embed, embedding_size, example_batch, head, head_path, require_head_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BatchNorm", "FrozenCopy", "GrowingNetwork", "Held", "Part", "Training", "all_finite", "trainable"]

Part: TypeAlias = Literal["head", "lora", "all"]
BatchNorm: TypeAlias = Literal["auto", "stored", "running"]
_DECAYS = (0.9, 0.999)
_EPSILON = 1e-8
_CALMING = 0.9
"""By how much a raised rate falls with each step."""
_LEAST_MOMENTUM = 0.1
"""Of running statistics, as is usual."""
_LARGEST_RATE = 1e37
"""Of float32, with Adam's first correction of ten times."""
_HEAD = ("head.weight", "head.bias")
_LATER = ("later.weight", "later.bias")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How it trains."""

    part: Part = "all"
    rank: int = 8
    """Of adapters."""
    optimizer: Literal["sgd", "adam"] = "adam"
    rate: float = 1e-3
    momentum: float = 0.0
    """Of SGD."""
    batch_norm: BatchNorm = "auto"
    seed: int = 0
    """Of adapters, and of what is drawn in training."""


class GrowingNetwork:
    """The network at work.

    Parameters
    ----------
    base
        Where it begins.
    training
        How it trains.
    where
        Who asks, for errors.
    later
        Whether it has a row of later classes.

    Raises
    ------
    DomainError
        The network is quantized, has no place for a head, or no layer that can have adapters.
    """

    def __init__(self, base: Network, training: Training, *, where: str, later: bool = False) -> None:
        self._base, self.training = base, training
        self.module = base.module()
        if has_quantized_part(self.module):
            raise DomainError("the network is quantized, and cannot be trained", where=where, hint="train it before")
        self._path = head_path(self.module)
        self._edits: tuple[Edit, ...] = ()
        if training.part == "lora":
            self._edits = self._adapters(where)
        self.width = embedding_size(self.module, example_batch(base))
        self._own = _own_rows(base, self.module)
        """Class → the weights and the bias that the network's own head has for it."""
        parameters = {name: each for name, each in self.module.named_parameters() if not self._is_of_head(name)}
        few = set(adapter_parameters(self.module)) if training.part == "lora" else set[str]()
        self._body = {name: each for name, each in parameters.items() if training.part == "all" or name in few}
        for each in self.module.parameters():
            each.requires_grad_(False)
        for each in self._body.values():
            each.requires_grad_(True)
        self._places = Places(self.module)
        self._norms = [each for each in self.module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
        self.running = self._norms_run()
        """Whether batch norms take each mini-batch's statistics in training, and keep their averages for answers."""
        self.weight = nn.Parameter(torch.zeros(0, self.width))
        self.bias = nn.Parameter(torch.zeros(0))
        shapes = ((1, self.width), (1,)) if later else ()
        self._later = {name: nn.Parameter(torch.zeros(shape)) for name, shape in zip(_LATER, shapes, strict=False)}
        """The row of later classes, where there is one."""
        self._names: tuple[str, ...] = ()
        self._moments: dict[str, tuple[Tensor, ...]] = {}
        self.steps = 0
        """Of the optimiser."""
        self.boost = 1.0
        """By how much the rate is raised at present; it falls with each step."""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {**self._body, _HEAD[0]: self.weight, _HEAD[1]: self.bias, **self._later}

    @property
    def classes(self) -> int:
        """Rows of the head."""
        return len(self.bias)

    def grow(self, classes: Sequence[str]) -> None:
        """A row for each class that has none yet."""
        new = classes[self.classes :]
        self._names = tuple(classes)
        if not new:
            return
        with torch.no_grad():
            rows = [self._row(name, self.classes + number) for number, name in enumerate(new)]
            weight = torch.cat([self.weight, torch.stack([row for row, _ in rows])])
            bias = torch.cat([self.bias, torch.stack([each for _, each in rows])])
        self.weight, self.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        for name, parameter, later in zip(_HEAD, (self.weight, self.bias), _LATER, strict=True):
            if name in self._moments:
                of_later = self._moments.get(later, ())
                self._moments[name] = tuple(
                    _padded(each, parameter, of_later[place] if of_later else None)
                    for place, each in enumerate(self._moments[name])
                )

    def features(self, inputs: Tensor) -> Tensor:
        """Embeddings (N, D), as `answering` or `learning` has it."""
        return embed(self.module, inputs)

    def logits(self, features: Tensor) -> Tensor:
        """Scores (N, classes) of embeddings."""
        return nn.functional.linear(features, self.weight, self.bias)

    def logits_and_later(self, features: Tensor) -> Tensor:
        """Scores (N, classes + 1) of embeddings, the last that of any later class."""
        weight, bias = (self._later[name] for name in _LATER)
        return nn.functional.linear(features, torch.cat([self.weight, weight]), torch.cat([self.bias, bias]))

    def logits_with(self, point: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Scores (N, classes) with other values for what is trained."""
        body = {name: tensor for name, tensor in point.items() if name not in _HEAD}
        with self._places.holding(body):
            features = self.features(inputs)
        return nn.functional.linear(features, point[_HEAD[0]], point[_HEAD[1]])

    @contextmanager
    def answering(self) -> Generator[None]:
        """Within the block the network answers: nothing is recorded, dropped or averaged."""
        with torch.no_grad():
            yield

    @contextmanager
    def learning(self, draw: int) -> Generator[None]:
        """Within the block the network learns; what is dropped at random is drawn anew by `draw`."""
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed keeps a stack trace at each call for devices that may be used later
            torch.default_generator.manual_seed((self.training.seed * 0x9E3779B97F4A7C15 + draw + 1) % 2**63)
            self.module.train(self.training.part != "head")
            for each in self._norms:
                if self.running:
                    _count(each)
                else:
                    each.eval()
            try:
                yield
            finally:
                self.module.eval()

    def gradients(self, loss: Tensor, *, again: bool = False) -> dict[str, Tensor]:
        """Of what is trained, by name; zeros where the loss does not depend on it. With `again` more gradients of the same pass follow."""
        parameters = self.parameters
        found: Sequence[Tensor | None] = torch.autograd.grad(
            loss, list(parameters.values()), retain_graph=again, allow_unused=True
        )
        return {
            name: torch.zeros_like(parameter) if gradient is None else gradient  # pyright: ignore[reportUnnecessaryComparison]
            for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
        }

    @torch.no_grad()
    def descend(self, gradients: Mapping[str, Tensor], share: float = 1.0) -> None:
        """A step of the optimiser, at a share of its rate."""
        self.steps += 1
        rate = min(share * self.boost * self.training.rate, _LARGEST_RATE)
        self.boost = max(1.0, _CALMING * self.boost)
        for name, parameter in self.parameters.items():
            gradient = gradients[name]
            if self.training.optimizer == "adam":
                self._adam(name, parameter, gradient, rate)
            elif self.training.momentum:
                (mean,) = self._moments.setdefault(name, (torch.zeros_like(parameter),))
                mean.mul_(self.training.momentum).add_(gradient)
                parameter.sub_(mean, alpha=rate)
            else:
                parameter.sub_(gradient, alpha=rate)

    @torch.no_grad()
    def reset_head(self) -> None:
        """Let the head begin anew, at zero."""
        for name, parameter in [*zip(_HEAD, (self.weight, self.bias), strict=True), *self._later.items()]:
            parameter.zero_()
            for moment in self._moments.get(name, ()):
                moment.zero_()

    def held(self) -> Held:
        """All that training changes, as it is now."""
        tensors = [*self.parameters.values(), *self.module.buffers()]
        copies = [each.detach().clone() for each in tensors]
        moments = {name: tuple(each.clone() for each in own) for name, own in self._moments.items()}
        return Held(copies, moments, self.steps)

    @torch.no_grad()
    def put_back(self, held: Held) -> None:
        """Be as it was then; it may not have grown since."""
        for tensor, copied in zip([*self.parameters.values(), *self.module.buffers()], held.tensors, strict=True):
            tensor.copy_(copied)
        self._moments, self.steps = held.moments, held.steps

    @property
    def is_finite(self) -> bool:
        """Whether no weight, running statistic or average of the optimiser has become NaN or infinite."""
        moments = [each for own in self._moments.values() for each in own]
        return all_finite([*self.parameters.values(), *self._statistics().values(), *moments])

    def frozen(self) -> FrozenCopy:
        """The network as it is now."""
        return FrozenCopy(copy.deepcopy(self.module), self.weight.detach().clone(), self.bias.detach().clone())

    def begin_again(self) -> None:
        """As it was at first, with a row for each class."""
        fresh = GrowingNetwork(self._base, self.training, where="")
        self.module.load_state_dict(fresh.module.state_dict())
        self.weight, self.bias = fresh.weight, fresh.bias
        self._moments, self.steps = {}, 0
        self.grow(self._names)

    def network(self, classes: Sequence[str], point: Mapping[str, Tensor] | None = None) -> Network:
        """What it has become: adapters merged, and a head with a row for each of these classes.

        With `point` these are the values of what is trained.
        """
        values = self.parameters if point is None else point
        module, edits = self._base.module(), list(self._edits)
        for edit in edits:
            module = edit.apply(module)
        module.load_state_dict({**self.module.state_dict(), **{name: values[name].detach() for name in self._body}})
        adapted = tuple(adapted_layers(module))
        if adapted:
            edits.append(MergeLora(targets=adapted))
            module = edits[-1].apply(module)
        kind = RootHead if takes_root(head(module)) else Head
        edits.append(kind(path=require_head_path(module), inputs=self.width, outputs=len(classes)))
        module = edits[-1].apply(module)
        last = head(module)
        if last is None:
            raise DomainError("the network has no linear head", where=self._base.arch.name)
        with torch.no_grad():
            last.weight.copy_(values[_HEAD[0]])
            last.bias.copy_(values[_HEAD[1]])
        signature = with_output(self._base.signature, len(classes), classes)
        return self._base.with_module(module, *edits, signature=signature, adaptation=None)

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is trained, the running statistics, and the optimiser's averages."""
        found = {f"weights.{name}": _array(each) for name, each in self.parameters.items()}
        found |= {f"weights.{name}": _array(each) for name, each in self._statistics().items()}
        for name, moments in self._moments.items():
            found |= {f"moment{place}.{name}": _array(each) for place, each in enumerate(moments)}
        if self.boost > 1.0:
            found["boost"] = np.array([self.boost])
        return found

    @torch.no_grad()
    def restore(self, classes: Sequence[str], arrays: Mapping[str, NDArray[Any]], steps: int) -> None:
        """Go on from another's state. Raises `ValueError` or `LookupError` where it does not fit."""
        self.weight, self.bias = nn.Parameter(torch.zeros(0, self.width)), nn.Parameter(torch.zeros(0))
        self.grow(classes)
        self._moments = {}
        for name, tensor in {**self.parameters, **self._statistics()}.items():
            _put(tensor, arrays[f"weights.{name}"], name)
        adam = self.training.optimizer == "adam"
        count = (
            (2 if adam else int(self.training.momentum > 0)) if any(key.startswith("moment") for key in arrays) else 0
        )
        for name, tensor in self.parameters.items():
            moments: list[Tensor] = []
            for key in (f"moment{place}.{name}" for place in range(count)):
                moments.append(torch.zeros_like(tensor))
                _put(moments[-1], arrays[key], key)
            if moments:
                self._moments[name] = tuple(moments)
        self.steps = steps
        self.boost = float(arrays["boost"][0]) if "boost" in arrays else 1.0
        if not 1.0 <= self.boost < float("inf"):
            raise ValueError(f"a rate that is raised {self.boost} times")

    # -- private

    def _row(self, name: str, place: int) -> tuple[Tensor, Tensor]:
        """What a class begins with: its own row; of a meta-trained head, whose rows stand for any class, the next one; else that of later
        classes, or zeros.
        """
        if name in self._own:
            return self._own[name]
        if self._base.adaptation is not None and self._own:
            return list(self._own.values())[place % len(self._own)]
        if self._later:
            return self._later[_LATER[0]][0], self._later[_LATER[1]][0]
        return torch.zeros(self.width), torch.zeros(())

    def _statistics(self) -> dict[str, Tensor]:
        """Buffers that training changes."""
        return dict(self.module.named_buffers()) if self.running else {}

    def _adam(self, name: str, parameter: Tensor, gradient: Tensor, rate: float) -> None:
        slow, slower = _DECAYS
        if name not in self._moments:
            self._moments[name] = (torch.zeros_like(parameter), torch.zeros_like(parameter))
        mean, squares = self._moments[name]
        mean.lerp_(gradient, 1 - slow)
        squares.mul_(slower).addcmul_(gradient, gradient, value=1 - slower)
        size = squares.div(1 - slower**self.steps).sqrt_().add_(_EPSILON)
        parameter.addcdiv_(mean, size, value=-rate / (1 - slow**self.steps))

    def _is_of_head(self, name: str) -> bool:
        return self._path is not None and name.startswith(f"{self._path}.")

    def _adapters(self, where: str) -> tuple[Edit, ...]:
        """Adapters at every layer that can have some; none are added to a network that comes with its own, of whatever kind."""
        if adapter_parameters(self.module):
            return ()
        targets = tuple(path for path, each in self.module.named_modules() if is_adaptable(each) and path != self._path)
        if not targets:
            raise DomainError(
                "the network has no layer that can have adapters",
                where=f"{where}: part",
                hint="train all of it: part: all",
            )
        edit = Lora(targets=targets, rank=self.training.rank, alpha=float(self.training.rank))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.training.seed)
            edit.apply(self.module)
        return (edit,)

    def _norms_run(self) -> bool:
        if self.training.part == "head" or self.training.batch_norm == "stored" or not self._norms:
            return False
        return self.training.batch_norm == "running" or all(_is_fresh(each) for each in self._norms)


class Held(NamedTuple):
    """What of a network training changes."""

    tensors: list[Tensor]
    moments: dict[str, tuple[Tensor, ...]]
    steps: int


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether none holds NaN or infinity."""
    return all(bool(each.isfinite().all()) for each in tensors)


class FrozenCopy:
    """A network as it was: its answers do not change any more."""

    def __init__(self, module: nn.Module, weight: Tensor, bias: Tensor) -> None:
        self._module, self._weight, self._bias = module.eval(), weight, bias

    @property
    def classes(self) -> int:
        """Rows of its head."""
        return len(self._bias)

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """Scores (N, classes)."""
        return nn.functional.linear(embed(self._module, inputs), self._weight, self._bias)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its tensors; those that never change are among them."""
        own = {_HEAD[0]: self._weight, _HEAD[1]: self._bias}
        return {name: _array(each) for name, each in {**self._module.state_dict(), **own}.items()}

    @torch.no_grad()
    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from another's tensors. Raises `ValueError` or `LookupError` where these do not fit."""
        weight, bias = arrays[_HEAD[0]], arrays[_HEAD[1]]
        if weight.shape != (len(bias), self._weight.shape[1]):
            raise ValueError(f"a head of shape {weight.shape} with {len(bias)} biases")
        self._weight, self._bias = torch.tensor(weight), torch.tensor(bias)
        for name, tensor in self._module.state_dict().items():
            _put(tensor, arrays[name], name)


def trainable(base: Network | Package | None, *, where: str) -> Network:
    """What a learner that trains a network stands on. Raises `DomainError` for a package and for nothing."""
    if isinstance(base, Network):
        return base
    if base is None:
        raise DomainError("there is no network to train", where=where, hint="put a network before it")
    raise DomainError(
        "a package answers and cannot be trained", where=where, hint="give the network itself, before export"
    )


def _own_rows(base: Network, module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    own, classes = head(module), base.signature.classes
    if own is not None and classes is None and base.adaptation is not None:
        classes = tuple(f" {place}" for place in range(own.out_features))  # no class of a stream is called so
    if own is None or classes is None or len(classes) != own.out_features:
        return {}
    bias = torch.zeros(len(classes)) if own.bias is None else own.bias.detach()  # pyright: ignore[reportUnnecessaryComparison]
    return {name: (own.weight.detach()[place].clone(), bias[place].clone()) for place, name in enumerate(classes)}


def _is_fresh(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    """Whether a batch norm holds no statistics of a training."""
    if norm.running_mean is None or norm.running_var is None:
        return True
    return not bool(norm.running_mean.any()) and bool((norm.running_var == 1).all())


def _count(norm: nn.modules.batchnorm._BatchNorm) -> None:
    """Let a batch norm's first averages be those of what it has met, not of the 0 and 1 that it begins with."""
    if norm.num_batches_tracked is not None:
        norm.momentum = max(_LEAST_MOMENTUM, 1.0 / (int(norm.num_batches_tracked) + 1))


def _padded(moment: Tensor, like: Tensor, new: Tensor | None) -> Tensor:
    filled = torch.zeros_like(like) if new is None else new.expand_as(like).clone()
    filled[: len(moment)] = moment
    return filled.detach()


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().numpy().copy()


def _put(tensor: Tensor, array: NDArray[Any], name: str) -> None:
    if tuple(tensor.shape) != array.shape or not np.isfinite(array).all():
        raise ValueError(f"{name} of shape {array.shape} where {tuple(tensor.shape)} is needed, or NaN in it")
    tensor.copy_(torch.tensor(array))

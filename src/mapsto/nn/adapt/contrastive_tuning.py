"""Contrastive tuning put together: balanced batches, the training of the top layers, and the network with both branches and one head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.adapt import multinomial
from mapsto.nn.adapt.examples import Examples, with_linear_head
from mapsto.nn.adapt.label_names import with_names
from mapsto.nn.adapt.supervised_contrastive import supervised_contrastive
from mapsto.nn.adapt.top_layers import HiddenStates, TopLayers, path_of_layers
from mapsto.nn.edits.tuned_branch import TunedBranch
from mapsto.nn.train.language.encoder_parts import encoder_of
from mapsto.nn.train.loop import Load, Training, TrainingPlan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context
    from mapsto.mappings.adapt.contrastive import Contrastive
    from mapsto.nn.adapt.label_names import NamedClasses
    from mapsto.process import State

__all__ = ["BalancedBatches", "Places", "tuning"]


class Places(NamedTuple):
    """Which examples a step is made with, and the step."""

    places: NDArray[np.int64]
    step: int


@dataclass(frozen=True, kw_only=True)
class BalancedBatches:
    """Batches with so many examples of each class that is in them: without a second one nothing is drawn together.

    The classes come in a new order each time all have come; of a class with fewer examples all are taken.
    """

    labels: NDArray[np.int64]
    batch_size: int
    """Examples of a step, about."""
    of_class: int
    """Of each class."""
    generator: Callable[[int], np.random.Generator]
    """Step → what its examples are drawn with, and round → the order of the classes."""

    @property
    def per_epoch(self) -> int:
        """Steps in which as many examples are seen as there are."""
        return max(1, round(len(self.labels) / self.batch_size))

    def __getitem__(self, step: int) -> Places:
        members = [np.flatnonzero(self.labels == label) for label in np.unique(self.labels)]
        count = min(len(members), max(2, self.batch_size // self.of_class))
        start = step * count
        drawn = [self._class_at(start + number, len(members)) for number in range(count)]
        rng = self.generator(2 * step)
        places = [rng.permutation(members[number])[: self.of_class] for number in dict.fromkeys(drawn)]
        return Places(np.concatenate(places), step)

    def _class_at(self, number: int, classes: int) -> int:
        turn, place = divmod(number, classes)
        return int(self.generator(2 * turn + 1).permutation(classes)[place])


def tuning(
    fields: Contrastive,
    value: Network,
    examples: Examples,
    names: NamedClasses | None,
    batches: BalancedBatches,
    state: State | None,
    ctx: Context,
) -> Training:
    """The training of the top layers, from the beginning or a snapshot.

    Raises `DomainError` where the network is no encoder whose top layers can be trained alone, or the training diverges.
    """
    ids, labels = _texts(value, examples, names), batches.labels
    hidden = HiddenStates(value, ids, fields.layers, ctx.device, where=fields.name)
    targets = torch.as_tensor(labels, device=ctx.device)

    def loss(call: nn.Module, item: Places) -> Tensor:
        found = hidden.embedded(call, item.places)
        return supervised_contrastive(found, targets[torch.as_tensor(item.places)], fields.temperature)

    def result(load: Load) -> Network:
        top = cast("TopLayers", load(TopLayers(value, fields.layers, where=fields.name))).to(ctx.device)
        with torch.no_grad():
            tuned = hidden.embedded(top, np.arange(len(hidden))).cpu().numpy()
        return _assembled(fields, value, examples, names, top.cpu(), tuned, ctx)

    plan = TrainingPlan(
        optimisation=fields,
        rule=fields.update_rule(ctx),
        steps=fields.epochs * batches.per_epoch,
        epoch=batches.per_epoch,
    )
    module = TopLayers(value, fields.layers, where=fields.name)
    return Training(module, state, plan=plan, fabric=ctx.fabric, loss=loss, result=result, mode=_mode)


def _mode(module: nn.Module) -> None:
    """Without dropout: few steps are made, and what they learn from stands still."""
    module.eval()


def _texts(value: Network, examples: Examples, names: NamedClasses | None) -> NDArray[np.int64]:
    """Token ids (N + M, L) of the examples, then of the names of classes."""
    ids = np.asarray(examples.samples.inputs)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise DomainError(
            f"samples of shape {ids.shape[1:]} are no single texts",
            where="adapt.contrastive: data",
            hint="give datasets.text with one column of texts",
        )
    if names is None:
        return ids
    padding = value.signature.preprocessing.padding
    both = np.full((len(ids) + len(names.ids), max(ids.shape[1], names.ids.shape[1])), padding, np.int64)
    both[: len(ids), : ids.shape[1]] = ids
    both[len(ids) :, : names.ids.shape[1]] = names.ids
    return both


def _assembled(
    fields: Contrastive,
    value: Network,
    examples: Examples,
    names: NamedClasses | None,
    top: TopLayers,
    tuned: NDArray[np.float32],
    ctx: Context,
) -> Network:
    """The network: the tuned layers alone, or beside the frozen ones, with a head that averages what heads over both say."""
    features, labels, weights = with_names(examples, names)
    given = len(labels) - len(examples.labels)
    # what was tuned on these texts tells them apart all too well, so that they cannot choose a strength for it
    weight, bias = multinomial.fit(tuned, labels, examples.outputs, weights=weights)
    path = path_of_layers(encoder_of(value, where=fields.name))
    own = [dict(layer.named_parameters()) | dict(layer.named_buffers()) for layer in top.layers]
    if fields.answer == "tuned":
        module = encoder_of(value, where=fields.name)
        _fill([*_layers(module, path)[-fields.layers :]], own)
        return with_linear_head(value.with_module(module), examples, weight, bias)
    chosen = multinomial.chosen(
        features, labels, examples.outputs, ctx.random("frozen head"), weights=weights, given=given
    )
    frozen = multinomial.fit(features, labels, examples.outputs, strength=chosen.strength, weights=weights)
    share = fields.share
    both = np.concatenate([(1 - share) * chosen.scale * frozen.weight, share * weight], axis=1)
    edit = TunedBranch(path=path, count=fields.layers)
    module = edit.apply(value.module())
    _fill([layer.tuned for layer in _layers(module, path)[-fields.layers :]], own)
    bias = (1 - share) * chosen.scale * frozen.bias + share * bias
    return with_linear_head(value.with_module(module, edit, adaptation=None), examples, both, bias)


def _layers(module: nn.Module, path: str) -> list[Any]:
    return list(module.get_submodule(path).children())


def _fill(layers: list[nn.Module], tensors: list[dict[str, Tensor]]) -> None:
    """Give layers these tensors."""
    for layer, own in zip(layers, tensors, strict=True):
        layer.load_state_dict(own, strict=False)

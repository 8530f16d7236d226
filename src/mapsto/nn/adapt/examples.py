"""What every head is fitted to, labelled examples with their embeddings, and how a network gets the head."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mapsto.data.checks import require_classes, require_finite, require_some
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network, Samples
from mapsto.mapping import DataSource
from mapsto.nn.train.label_kinds import ANSWERS, Kind, kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context
    from mapsto.nn.adapt.cross_validation import Scorer
    from mapsto.nn.adapt.nearest import Nearest

__all__ = ["ClassWeights", "Examples", "examples_of", "with_head", "with_linear_head", "with_votes"]

ClassWeights = Literal["none", "balanced"]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Labelled examples and their embeddings."""

    samples: Samples
    features: NDArray[np.float32]
    """(N, D)."""
    kind: Kind
    weights: NDArray[np.float64] | None
    """Of the examples, (N,), where classes of unequal size count alike."""

    @staticmethod
    def of(samples: Samples, features: NDArray[np.float32], *, class_weights: ClassWeights = "none") -> Examples:
        """Samples with their embeddings (N, D)."""
        weights = None
        if class_weights == "balanced":
            counts = np.bincount(samples.labels, minlength=len(samples.classes))
            weights = (len(samples) / ((counts > 0).sum() * np.maximum(counts, 1)))[samples.labels]
        return Examples(samples=samples, features=features, kind=kind_of(samples.labels), weights=weights)

    @property
    def labels(self) -> NDArray[Any]:
        """Class numbers (N,), or targets (N, K)."""
        return self.samples.labels

    @property
    def outputs(self) -> int:
        """K."""
        return len(self.samples.classes)


def examples_of(
    value: Network,
    data: DataSource,
    ctx: Context,
    *,
    where: str,
    class_weights: ClassWeights = "none",
    kinds: tuple[Kind, ...] = ("classification",),
    told: bool = True,
) -> Examples:
    """The examples of a data field, checked, with the embeddings that `value` gives.

    That classes are very unequal in size is noted, unless `told` is false: not for a head on which it has no influence.

    Raises
    ------
    DataError
        Fewer than two classes, an empty class, NaN, or no sample.
    DomainError
        Labels of a kind that is not among `kinds`, class weights without classes, or a network without an embedding.
    """
    from mapsto.nn.adapt.features import features
    from mapsto.nn.network.dense_outputs import refuse_dense
    from mapsto.nn.train.class_weights import note_unequal

    refuse_dense(value.signature, where=where)
    samples = require_some(ctx.dataset(data), where=where)
    kind = kind_of(samples.labels)
    if "classification" in kinds and (kind == "classification" or kinds == ("classification",)):
        require_classes(samples, where=where)
        require_classes(samples, at_least=len(samples.classes), where=where)
    elif class_weights != "none":
        raise DomainError(
            f"class_weights: {class_weights}, but the labels are not one class each",
            where=where,
            hint="leave class_weights out",
        )
    require_finite(samples.labels, where=f"{where}: labels")
    require_finite(samples.inputs, where=f"{where}: data")
    if told and class_weights == "none" and kind == "classification":
        note_unequal(samples, ctx)
    return Examples.of(samples, features(value, samples.inputs, ctx), class_weights=class_weights)


def with_head(value: Network, examples: Examples, head: Scorer) -> Network:
    """The network with a head that `mapsto.nn.adapt.choice_of_head` picked: a `LinearHead` or a `Nearest`."""
    from mapsto.nn.adapt.linear_head import LinearHead
    from mapsto.nn.adapt.nearest import Nearest

    if isinstance(head, LinearHead):
        return with_linear_head(value, examples, head.weight, head.bias, root=head.root)
    if isinstance(head, Nearest):
        return with_votes(value, examples, head)
    raise DomainError(f"a {type(head).__name__} is no head of a network", hint="give a LinearHead or a Nearest")


def with_linear_head(
    value: Network, examples: Examples, weight: NDArray[Any], bias: NDArray[Any], *, root: bool = False
) -> Network:
    """The network with this head: weight (K, D) and bias (K,), on the root of the embedding with `root`.

    Raises `DataError` where the head's numbers are beyond those of 32 bits.
    """
    import torch

    from mapsto.nn.network.build import taking
    from mapsto.nn.network.head import headed, set_head

    with np.errstate(over="ignore"):
        if not all(np.isfinite(np.asarray(part, np.float32)).all() for part in (weight, bias)):
            raise DataError(
                "the embeddings are so large or so small that no head of 32-bit numbers fits them",
                where="the examples",
                hint="scale the inputs to about -1 to 1",
            )
    module = value.module()
    edit, signature = headed(value, module, examples.samples.classes, fresh=True, root=root)
    set_head(module, torch.as_tensor(weight).float(), torch.as_tensor(bias).float())
    signature = dataclasses.replace(taking(signature, examples.samples), answers=ANSWERS[examples.kind])
    return value.with_module(module, *([edit] if edit else []), signature=signature, adaptation=None)


def with_votes(value: Network, examples: Examples, found: Nearest) -> Network:
    """The network with the examples as its head."""
    import torch

    from mapsto.nn.adapt.nearest import FLOOR
    from mapsto.nn.edits.nearest_head import NearestHead
    from mapsto.nn.network.build import taking, with_output
    from mapsto.nn.network.head import require_head_path

    module = value.module()
    edit = NearestHead(
        path=require_head_path(module),
        inputs=examples.features.shape[1],
        examples=len(found.support),
        outputs=examples.outputs,
        neighbours=found.neighbours,
        temperature=found.temperature,
        floor=FLOOR,
    )
    edit.apply(module)
    state = module.state_dict()
    for name, array in {"likeness.weight": found.support, "centre": found.centre, "votes": found.votes}.items():
        state[f"{edit.path}.{name}"].copy_(torch.as_tensor(array))
    signature = with_output(value.signature, examples.outputs, examples.samples.classes)
    return value.with_module(module, edit, signature=taking(signature, examples.samples), adaptation=None)

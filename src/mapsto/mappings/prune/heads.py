"""Drop the attention heads that matter least; query, key, value and output layers become narrower by what belongs to them.

``I_h = mean_x |Σ A_h(x) · ∂L/∂A_h(x)|`` with A_h what head h gives to the output layer: to first order the change of the loss
without it (Michel et al., "Are Sixteen Heads Really Better than One?", 2019), in units of its layer's mean. Without classes what
changes is the embedding f: ``I_h² = mean_x E_v (Σ A_h · ∂(v·f)/∂A_h)²`` over random directions v. Without `data` I_h is the squared
norm of its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as AbcMapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.prune.budget import Kind, Limits, Sized, search

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mapsto.nn.prune.attention_heads import Attention

__all__ = ["Heads"]

_DIRECTIONS = 8


def _transformer() -> Network:
    """For the contract suite: a network that has heads."""
    from mapsto import discovery

    configuration = {
        "model_type": "bert",
        "vocab_size": 16,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 16,
    }
    return discovery.find("mappings", "networks.hf_text")(configuration=configuration, length=8)(seed=0)


class Heads(Sized, Mapping[Network, Network]):
    """The network with the least important heads dropped until the budget is met; every layer keeps `min_heads`.

    Raises `SpecError` unless exactly one budget is given, `DataError` for data without classes (where the network has some), without a
    sample or with values that are not finite, and `DomainError` for a network that is quantized or has adapters, in which no attention
    is found, that the data does not fit, or that cannot be made as small.

    >>> from mapsto.mappings.prune.heads import _transformer
    >>> net = _transformer()
    >>> for part in ("query", "key", "value"):  # the weights of head 2 are nearly none
    ...     _ = net.tensors[f"encoder.encoder.layer.0.attention.self.{part}.weight"][8:12].mul_(1e-3)
    >>> _ = net.tensors["encoder.encoder.layer.0.attention.output.dense.weight"][:, 8:12].mul_(1e-3)
    >>> small = Heads(heads=7 / 8)(net)
    >>> [kept.indices for kept in small.edits[0].kept], small.edits[0].attributes["encoder.encoder.layer.0.attention.self"]
    (['0-7,12-15'], {'num_attention_heads': 3, 'all_head_size': 12})
    """

    heads: float | None = Field(default=None, gt=0, le=1)
    """Attention heads, as a share of the original's, 0 to 1; give this or another budget."""
    data: DataSource | None = None
    """Samples that the loss is measured on, labelled where the network has classes. By default weights decide."""
    samples: int = Field(default=128, ge=1)
    """How many of them."""
    ranking: Literal["global", "per_layer"] = "global"
    """`global` compares heads of all layers; `per_layer` takes the same share of each."""
    normalise: bool = True
    """Importance in units of its layer's mean, as layers differ in scale."""
    min_heads: int = Field(default=1, ge=1)
    """Heads that every layer keeps."""

    contract: ClassVar[dict[str, Any]] = {"heads": 0.5}
    contract_input: ClassVar[Any] = staticmethod(_transformer)

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.network.examples import example_batch
        from mapsto.nn.prune.attention_heads import find_attentions, heads_edit, table_of_heads
        from mapsto.nn.prune.budget_check import told_reached
        from mapsto.nn.prune.checks import require_prunable
        from mapsto.nn.prune.importance import normalised

        module = require_prunable(value, where=self.name)
        known = find_attentions(module, example_batch(value))
        for path, reason in known.whole.items():
            ctx.log(f"left whole: {path} ({reason})")
        if not known.found:
            raise DomainError(self._nothing(module, known.whole), where=self.name, hint=_KNOWN)
        scores = normalised(self._scores(value, module, known.found, ctx), wanted=self.normalise)
        cost = self._cost(value, module, known.found)
        kept = search(
            scores,
            cost,
            self.budget,
            ranking=self.ranking,
            limits=Limits(min_channels=self.min_heads),
            where=self.name,
            hint="allow more, or lower min_heads",
            left=self._left(cost, scores),
        )
        ctx.log(f"{sum(int(mask.sum()) for mask in kept.values())} of {sum(map(len, kept.values()))} heads stay")
        if any(not mask.all() for mask in kept.values()):
            ctx.attach("pruned_heads", table_of_heads(scores, kept))
        edit = heads_edit(module, known.found, kept)
        small = value.with_module(edit.apply(module), edit) if edit.kept else value
        told_reached(value, small, self.budget, ctx)
        return small

    def _limits(self) -> dict[Kind, float | None]:
        return {**super()._limits(), "heads": self.heads}

    def _left(
        self, cost: Callable[[AbcMapping[str, NDArray[np.bool_]]], float], scores: AbcMapping[str, NDArray[np.float64]]
    ) -> str:
        """The share of the cost that belongs to no head, for the message where the budget is out of reach."""
        if self.heads is not None:
            return ""
        without, whole = (
            cost({path: values < limit for path, values in scores.items()}) for limit in (-1, float("inf"))
        )
        return f"{without / whole:.0%} of its {self.budget.kind} belong to no head, and stay"

    def _nothing(self, module: nn.Module, whole: AbcMapping[str, str]) -> str:
        """What there is instead of attention."""
        if whole:
            return f"no attention of it can lose heads ({'; '.join(f'{path}: {why}' for path, why in list(whole.items())[:3])})"
        kinds = sorted({type(part).__name__ for part in module.modules() if next(part.children(), None) is None})
        return f"the network has no attention, only {', '.join(kinds[:8])}"

    def _cost(
        self, value: Network, module: nn.Module, attentions: Sequence[Attention]
    ) -> Callable[[AbcMapping[str, NDArray[np.bool_]]], float]:
        """Masks → what the network costs; every head of a layer costs the same, which dropping one of them shows."""
        import copy

        import numpy as np

        from mapsto.nn.profile.cost import cost_of
        from mapsto.nn.prune.attention_heads import heads_edit

        budget = self.budget
        total = sum(attention.group.channels for attention in attentions)
        if budget.kind == "heads":
            return lambda kept: sum(int(mask.sum()) for mask in kept.values()) / total
        kind: Any = budget.kind
        whole = cost_of(value, kind)
        each: dict[str, float] = {}
        for attention in attentions:
            heads = attention.group.channels
            if heads > 1:
                edit = heads_edit(module, attentions, {attention.path: np.arange(heads) > 0})
                each[attention.path] = whole - cost_of(value.with_module(edit.apply(copy.deepcopy(module)), edit), kind)
        unit = whole if budget.unit == "share" else 1.0
        return lambda kept: (
            (whole - sum(float((~mask).sum()) * each.get(path, 0.0) for path, mask in kept.items())) / unit
        )

    def _scores(
        self, value: Network, module: nn.Module, attentions: Sequence[Attention], ctx: Context
    ) -> dict[str, NDArray[np.float64]]:
        from mapsto.nn.prune.importance import weight_norms
        from mapsto.nn.train.calibration_batches import inputs_of, labelled

        if self.data is None:
            return weight_norms(module, [attention.group for attention in attentions], 2)
        if value.signature.classes is not None:
            batches = labelled(value, self.data, self.samples, ctx, where=self.name)
            losses = (_loss(module, batch.inputs, batch.labels) for batch in batches)
            return _effects(module, attentions, ctx.track(losses, what="gradients"), power=1)
        inputs = inputs_of(value, self.data, self.samples, ctx, where=self.name)
        directions = (_directions(module, batch, ctx.seed_for("directions", at)) for at, batch in enumerate(inputs))
        return _effects(module, attentions, ctx.track(directions, what="gradients"), power=2)


_KNOWN = (
    "an attention has num_heads (or num_attention_heads) and linear layers query, key and value, or one called qkv, and its forward pass "
    "goes by them"
)


def _loss(module: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[], Iterator[Tensor]]:
    """What is differentiated of a batch: the sum of the samples' losses."""
    from torch.nn.functional import cross_entropy

    def values() -> Iterator[Tensor]:
        yield cross_entropy(module(inputs), labels, reduction="sum")

    return values


def _directions(module: nn.Module, inputs: Tensor, seed: int) -> Callable[[], Iterator[Tensor]]:
    """What is differentiated of a batch: its embeddings along random directions."""
    import torch

    def values() -> Iterator[Tensor]:
        output: Tensor = module(inputs)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(_DIRECTIONS):
            yield (output * torch.randn(output.shape, generator=generator)).sum()

    return values


def _effects(
    module: nn.Module,
    attentions: Sequence[Attention],
    batches: Iterable[Callable[[], Iterator[Tensor]]],
    *,
    power: int,
) -> dict[str, NDArray[np.float64]]:
    """Attention → ``(mean |Σ A_h · ∂L/∂A_h|^p)^(1/p)`` over samples, shape (heads,)."""
    import torch

    from mapsto.nn.network.layer_calls import watching

    module.requires_grad_(True)
    seen: dict[str, Tensor] = {}
    sums = {attention.path: torch.zeros(attention.group.channels, dtype=torch.float64) for attention in attentions}
    count = 0

    def keep(path: str, given: tuple[Tensor, ...], _: object) -> None:
        seen[path] = given[0]

    outputs = {each.path: module.get_submodule(each.out) for each in attentions}
    with watching(outputs, keep, before=True):
        for values in batches:
            for value in values():
                gradients = torch.autograd.grad(value, [seen[each.path] for each in attentions], retain_graph=True)
                for attention, gradient in zip(attentions, gradients, strict=True):
                    given = seen[attention.path]
                    effects = (given * gradient).detach().double().flatten(1, -2).sum(1)
                    heads = effects.unflatten(1, (attention.group.channels, attention.size)).sum(2)
                    sums[attention.path] += heads.abs().pow(power).sum(0)
                count += len(gradients[0])
    return {path: (total / max(count, 1)).pow(1 / power).numpy() for path, total in sums.items()}

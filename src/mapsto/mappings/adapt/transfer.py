"""From a labelled source to a target: try every way there is, and take the one that the target's own samples speak for.

Ways: the head of the source as it is, aligned moments (`adapt.coral`), embeddings trained to be alike (`adapt.deep_coral`, `adapt.mmd`,
`adapt.dann`), norm layers made to fit (`adapt.tent`), and the labelled samples of the target alone. The choice is by cross-validation on
labelled samples of the target where there are any, else by how far a way agrees with the others; `mapsto.nn.transfer.choice` has the rule.
Ben-David et al., "A Theory of Learning from Different Domains", 2010, on why the source's own figures say little.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations
from mapsto.errors import DomainError
from mapsto.kinds import Network, Table
from mapsto.mapping import Mapping
from mapsto.nn.transfer.domains import UNLABELLED, DomainFields

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.nn.transfer.domains import Domains
    from mapsto.nn.transfer.ways import Candidate

__all__ = ["Transfer"]

_Way = Literal["mmd", "deep_coral", "tent", "dann", "coral", "few", "source"]
_USUAL: tuple[_Way, ...] = ("mmd", "deep_coral", "tent", "dann", "coral", "few", "source")
"""In the order of their accuracy from handwritten to printed digits without labels; `few` and `source` are what to fall back on."""
_OTHER_CLASSES: tuple[_Way, ...] = ("few", "mmd", "deep_coral", "dann", "coral")
"""Where the target's classes are not the source's, what does without the source is first: the source has to show that it helps."""
_COLUMNS = (
    "way",
    "held-out accuracy",
    "behind the best",
    "± of that",
    "agrees with most",
    "answers spread over",
    "taken",
)


class Transfer(DomainFields, Mapping[Network, Network]):
    """A network for the target, by the way that is picked; the report has what each came to."""

    ways: Annotated[tuple[_Way, ...], Field(min_length=1)] | Literal["auto"] = "auto"
    """Which are tried, the one that is expected to do best first: `source` is a linear head on the source, `few` one on `labelled` alone.
    Ways that cannot be gone are left out, which is noted: `few` without `labelled`, `source` and `tent` where `labelled` has other classes,
    `tent` without norm layers. `auto`: mmd, deep_coral, tent, dann, coral, few, source; with other classes few comes first."""
    steps: int = Field(default=500, ge=1)
    """Gradient steps of each way that trains the embedding."""
    batch_size: int = Field(default=64, ge=2)
    """Samples of a step, as many of each domain."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """The highest rate of the ways that train the embedding."""
    augment: Augmentations = ()
    """Random changes of each sample of both domains in such a training, in order."""
    batch_norm: Literal["each", "keep"] = "each"
    """In such a training: batch norm sees each domain by itself, or keeps the statistics of the pretraining."""
    strength: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """C of the logistic regressions on the source; `auto`: by cross-validation."""

    contract: ClassVar[dict[str, Any]] = {
        "target": UNLABELLED,
        "ways": ["source", "coral", "mmd"],
        "strength": 0.1,
    }

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DataError` as `adapt.coral` does, `DomainError` where no way is left."""
        from mapsto.nn.transfer.choice import chosen, held_out
        from mapsto.nn.transfer.domains import domains_of
        from mapsto.nn.transfer.heads import with_head_of

        domains = domains_of(value, self, ctx, where=self.name)
        candidates = self._candidates(value, domains, ctx)
        right: dict[str, NDArray[Any]] = {}
        answers: dict[str, NDArray[Any]] = {}
        for name, each in candidates.items():
            if each.labels is not None:
                right[name] = held_out(
                    each.fit, each.few, each.labels, ctx.random("folds"), lone=domains.shared and name != "few"
                )
            answers[name] = each.whole()(each.target).argmax(1)
        outputs = next(iter(candidates.values())).samples.classes
        name, judged, why = chosen(right, answers, len(outputs))
        ctx.note(f"{name}: {why}")
        rows = tuple(
            (
                each.name,
                *(_shown(100 * figure) for figure in (each.accuracy, each.above, each.above_error)),
                100 * each.agreement,
                each.spread,
                "yes" if each.name == name else "",
            )
            for each in judged
        )
        units = {
            _COLUMNS[1]: "%",
            _COLUMNS[2]: "points",
            _COLUMNS[3]: "points",
            _COLUMNS[4]: "%",
            _COLUMNS[5]: "classes",
        }
        ctx.attach("ways", Table(columns=_COLUMNS, rows=rows, units=units))
        picked = candidates[name]
        return with_head_of(picked.network, picked.samples, picked.whole())

    def _candidates(self, value: Network, domains: Domains, ctx: Context) -> dict[str, Candidate]:
        from mapsto.nn.transfer.ways import candidate

        found: dict[str, Candidate] = {}
        usual = _USUAL if domains.shared else _OTHER_CLASSES
        for name in dict.fromkeys(usual if self.ways == "auto" else self.ways):
            if (why := self._impossible(name, domains)) is None:
                try:
                    network = self._network(name, value, ctx)
                except DomainError as error:
                    if name != "tent":
                        raise
                    why = error.what
                else:
                    found[name] = candidate(name, network, domains, ctx, strength=self.strength)
            if why is not None:
                ctx.note(f"{name} is left out: {why}")
        if not found:
            raise DomainError("no way is left", where=self.name, hint="give labelled, or leave ways out")
        return found

    def _impossible(self, name: str, domains: Domains) -> str | None:
        """Why a way cannot be gone; None where it can."""
        if name == "few" and domains.labelled is None:
            return "there are no labelled samples of the target"
        if name in ("source", "tent") and not domains.shared:
            return "the target's classes are not the source's"
        return None

    def _network(self, name: str, value: Network, ctx: Context) -> Network:
        """The network whose embedding a way has, made without the labelled samples of the target."""
        from mapsto.mappings.adapt.dann import Dann
        from mapsto.mappings.adapt.deep_coral import DeepCoral
        from mapsto.mappings.adapt.linear import Linear
        from mapsto.mappings.adapt.mmd import Mmd
        from mapsto.mappings.adapt.tent import Tent

        trained = {"deep_coral": DeepCoral, "mmd": Mmd, "dann": Dann}
        if name in trained:
            way = trained[name](
                source=self.source,
                target=self.target,
                steps=self.steps,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                augment=self.augment,
                batch_norm=self.batch_norm,
            )
            return ctx.apply(way, value)
        if name == "tent":
            known = ctx.apply(Linear(data=self.source, strength=self.strength), value)
            return ctx.apply(Tent(target=self.target, batch_size=self.batch_size), known)
        return value


def _shown(figure: float) -> float | str:
    return "" if math.isnan(figure) else figure

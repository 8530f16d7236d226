"""What methods share that guess a pool's labels from features and fit a head on both: reading, foreign samples, back-off, the head."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Frozen, Network, Samples
from mapsto.mapping import DataSource, Mapping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.nn.semi.back_off import Judgement

__all__ = ["Guess", "OnFeatures", "PoolFields", "POOL"]

Guess: TypeAlias = "Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]"
"""(places of the labelled examples whose labels are known, these labels) → shares (M, K) of the pool."""


POOL: Final = {"subset": {"data": {"digits": {"size": 16}}, "per_class": 12, "seed": 1}}
"""A pool for contract tests: digits, some of them among the labelled ones."""


class PoolFields(Frozen):
    """The fields of everything that learns from labelled examples and a pool."""

    data: DataSource = Field(description="The labelled examples, at least one of each class.")
    unlabelled: DataSource = Field(
        description=(
            "The pool: samples of the same kind, such as `images` or `table` with their field `unlabelled`. Labels that it has are "
            "never read."
        )
    )
    open_set: Literal["leave_out", "keep"] = Field(
        default="leave_out",
        description=(
            "What becomes of samples of the pool that are farther from every class's mean than 95 % of the labelled examples: most are of "
            "other classes."
        ),
    )
    back_off: Literal["cross_validation", "never"] = Field(
        default="cross_validation",
        description="Whether the pool is left unused where held-out labelled examples are answered right more often without it.",
    )


class OnFeatures(PoolFields, Mapping[Network, Network]):
    """A linear head on the frozen embedding, fitted to labelled examples and to a pool whose labels are guessed from features."""

    @property
    def shares_are_targets(self) -> bool:
        """Whether the head learns the shares of the guess, rather than the class of the largest."""
        return False

    @abstractmethod
    def guess(self, features: NDArray[Any], pool: NDArray[Any], samples: Samples, ctx: Context) -> Guess:
        """What guesses the labels of a pool's features (M, D) beside those (N, D) of `samples`; what labels do not decide is done here."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DataError` for what `labelled_and_pool` refuses, `DomainError` where there is no embedding."""
        import torch

        from mapsto.nn.adapt.features import features as features_of
        from mapsto.nn.network.build import taking
        from mapsto.nn.network.dense_outputs import refuse_dense
        from mapsto.nn.network.head import headed, set_head
        from mapsto.nn.semi.pool import labelled_and_pool

        refuse_dense(value.signature, where=self.name)
        samples, inputs = labelled_and_pool(self.data, self.unlabelled, ctx, where=self.name)
        known = features_of(value, samples.inputs, ctx)
        pool = features_of(value, inputs, ctx) if len(inputs) else known[:0]
        weight, bias = self.head(known, samples, pool, ctx)
        module = value.module()
        edit, signature = headed(value, module, samples.classes, fresh=True, root=True)
        set_head(module, torch.as_tensor(weight).float(), torch.as_tensor(bias).float())
        return value.with_module(
            module, *([edit] if edit else []), signature=taking(signature, samples), adaptation=None
        )

    def head(
        self, known: NDArray[Any], samples: Samples, pool: NDArray[Any], ctx: Context
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight (K, D) and bias (K,) on roots of features, from features of the labelled `samples` (N, D) and the pool (M, D)."""
        import numpy as np

        from mapsto.nn.adapt import ridge
        from mapsto.nn.semi.open_set import kept_of

        if self.open_set == "leave_out":
            pool = pool[kept_of(known, samples.labels, pool, ctx)]
        rooted, labels, classes = ridge.rooted(known), samples.labels, len(samples.classes)
        if not len(pool):
            return ridge.fit_rooted(known, labels, classes)
        judgement, fit = self._judged(known, rooted, samples, pool, ctx)
        if judgement is not None:
            judgement.say(ctx, pool=len(pool))
            if not judgement.helps:
                return ridge.fit_rooted(known, labels, classes)
        weight, bias = fit(np.arange(len(labels)))
        scale = ridge.SCALE if judgement is None or not judgement.answers else judgement.scale
        return weight * scale, bias * scale

    def _judged(
        self,
        known: NDArray[Any],
        rooted: NDArray[Any],
        samples: Samples,
        pool: NDArray[Any],
        ctx: Context,
    ) -> tuple[Judgement | None, Any]:
        """What cross-validation says, None where it is not asked; and what fits a head with the pool to some of the examples."""
        import numpy as np

        from mapsto.nn.adapt import ridge
        from mapsto.nn.adapt.cross_validation import scored
        from mapsto.nn.semi.back_off import judged
        from mapsto.nn.semi.ridge import PoolRidge

        labels, classes = samples.labels, len(samples.classes)
        guess = self.guess(known, pool, samples, ctx)
        both = PoolRidge(ridge.rooted(pool))
        targets = np.eye(classes)

        def fit(places: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            guessed = guess(places, labels[places])
            learnt = guessed if self.shares_are_targets else targets[guessed.argmax(1)]
            return both.fit(rooted[places], targets[labels[places]], learnt)

        def with_pool(places: NDArray[np.int64], asked: NDArray[np.int64]) -> NDArray[np.float64]:
            return scored(fit(places), rooted[asked])

        def without(places: NDArray[np.int64], asked: NDArray[np.int64]) -> NDArray[np.float64]:
            return scored(ridge.fit_rooted(known[places], labels[places], classes), rooted[asked])

        if self.back_off == "never":
            return None, fit
        return judged(labels, with_pool, without, ctx.random("folds")), fit

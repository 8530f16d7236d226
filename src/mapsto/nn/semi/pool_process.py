"""What every training with a pool shares: fields, data, the judgement whether the pool helps, and the result.

A mapping of this kind gives a `Rule` for the pool; the rest is here. Whether the pool helps is judged before the training proper: the
labelled examples are dealt to two folds, and each half is answered by a network that was trained on the other, with the pool and without
it, for a quarter of the steps. Where no class has two labelled examples, or `back_off` is `never`, nothing is judged and the pool is
used.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations
from mapsto.errors import DomainError
from mapsto.kinds import Network, Samples
from mapsto.nn.semi.on_features import POOL, PoolFields
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from mapsto.nn.edits.head import Head
    from mapsto.nn.semi.back_off import Judgement
    from mapsto.nn.semi.batches import BothBatches
    from mapsto.nn.semi.rules import Rule
    from mapsto.nn.semi.training import PoolTraining
    from mapsto.nn.train.loop import Load

__all__ = ["PoolProcess"]

_JUDGED = 0.25
"""Share of the steps after which it is judged whether the pool helps."""


class PoolProcess(Optimisation, PoolFields, Process[Network, Network]):
    """A network trained on a few labelled examples and a pool without labels."""

    steps: int = Field(default=1000, ge=1, description="Gradient steps.")
    batch_size: int = Field(default=64, ge=1, description="Labelled examples of a step, at most as many as there are.")
    ratio: float = Field(default=7.0, gt=0, description="μ: samples of the pool for each labelled one; 7 in FixMatch.")
    weight: float = Field(
        default=1.0, ge=0, description="λ: how much the pool's loss counts beside that of the labels."
    )
    weak: Augmentations = Field(
        default=(),
        description="Random changes of labelled examples, and of the copies of the pool whose answers are targets.",
    )
    strong: Augmentations = Field(
        default=(),
        description="Random changes of the copies of the pool that are trained on; as `weak` where there are none.",
    )
    learning_rate: float = Field(default=0.03, gt=0, description="The highest learning rate of the schedule.")
    ema: float = Field(
        default=0.99,
        ge=0,
        lt=1,
        description="Decay of an average of the weights over steps, which then is the result; 0 for none. 0.999 for long trainings.",
    )

    contract: ClassVar[dict[str, Any]] = {"unlabelled": POOL, "weak": ["noise"], "ratio": 2.0, "back_off": "never"}

    @abstractmethod
    def pool_rule(self, classes: int, pool: int) -> Rule:
        """The rule for a pool of that many samples and classes, without a memory yet."""

    def items(self, value: Network, ctx: Context) -> BothBatches:
        samples, pool = self._read(value, ctx)
        return self._items(samples, pool, ctx)

    def open(self, value: Network, state: State | None, ctx: Context) -> PoolTraining:
        samples, pool = self._read(value, ctx)
        helps = self._helps(value, samples, pool, ctx) if state is None else bool(state["chosen"]["pool helps"])
        return self._training(value, samples, pool, ctx, state=state, helps=helps, steps=self.steps)

    def _read(self, value: Network, ctx: Context) -> tuple[Samples, NDArray[Any]]:
        """The labelled examples and the pool without copies of them and, where that is asked for, without foreign samples."""
        from mapsto.data.augment import refuse_mixing
        from mapsto.data.augment._apply import require_fitting
        from mapsto.nn.adapt.features import features
        from mapsto.nn.semi.open_set import kept_of
        from mapsto.nn.semi.pool import labelled_and_pool

        if ctx.numerics.world_size > 1:
            raise DomainError(
                "a rule's memory of the pool is kept in one process", where=self.name, hint="run it in a single process"
            )
        samples, pool = labelled_and_pool(self.data, self.unlabelled, ctx, where=self.name)
        for name, operations in (("weak", self.weak), ("strong", self.strong)):
            refuse_mixing(operations, "each copy is answered by itself", where=self.name, field=name)
            require_fitting(operations, samples, where=f"{self.name}: {name}")
        if self.open_set == "leave_out" and len(pool):
            known, asked = features(value, samples.inputs, ctx), features(value, pool, ctx)
            pool = pool[kept_of(known, samples.labels, asked, ctx)]
        return samples, pool

    def _items(self, samples: Samples, pool: NDArray[Any], ctx: Context, *stream: object) -> BothBatches:
        from mapsto.nn.semi.batches import BothBatches

        def generator(*parts: object) -> np.random.Generator:
            return ctx.random(*stream, *parts)

        return BothBatches(samples, pool, self.batch_size, self.ratio, generator, ctx.fabric)

    def _training(
        self,
        value: Network,
        samples: Samples,
        pool: NDArray[Any],
        ctx: Context,
        *,
        state: State | None,
        helps: bool,
        steps: int,
        quiet: bool = False,
    ) -> PoolTraining:
        from mapsto.nn.semi.training import Objective, PoolTraining
        from mapsto.nn.train.loop import TrainingPlan

        def result(load: Load) -> Network:
            return self._result(value, load, samples)

        module, _ = self._headed(value, samples)
        epoch = self._items(samples, pool, ctx).per_epoch
        objective = Objective(
            self.pool_rule(len(samples.classes), len(pool)) if helps and len(pool) else None,
            self.weight,
            self.weak,
            self.strong,
            value.signature.preprocessing,
            samples.classes,
            steps,
            epoch,
            ctx,
            quiet=quiet,
        )
        return PoolTraining(
            module,
            state,
            objective=objective,
            plan=TrainingPlan(optimisation=self, rule=self.update_rule(ctx), steps=steps, epoch=epoch),
            fabric=ctx.fabric,
            result=result,
            fused=True,
            chosen={"pool helps": helps},
        )

    def _helps(self, value: Network, samples: Samples, pool: NDArray[Any], ctx: Context) -> bool:
        """What the folds say, noted with both figures."""
        import numpy as np

        from mapsto.nn.semi.back_off import judged

        if self.back_off == "never" or not len(pool):
            return bool(len(pool))
        most = int(np.bincount(samples.labels).max())
        if most < 2:
            return True

        def scores(known: NDArray[np.int64], asked: NDArray[np.int64], used: bool) -> NDArray[Any]:
            return self._briefly(value, samples.take(known), pool if used else pool[:0], samples.inputs[asked], ctx)

        judgement: Judgement = judged(
            samples.labels,
            lambda known, asked: scores(known, asked, True),
            lambda known, asked: scores(known, asked, False),
            ctx.random("folds"),
            folds=2,
            repeats=1,
        )
        judgement.say(ctx, pool=len(pool))
        return judgement.helps

    def _briefly(
        self, value: Network, samples: Samples, pool: NDArray[Any], asked: NDArray[Any], ctx: Context
    ) -> NDArray[Any]:
        """Scores (n, K) of the samples that are asked after a short training."""
        from mapsto.nn.network.inference import forward

        steps = max(1, round(_JUDGED * self.steps))
        live = self._training(value, samples, pool, ctx, state=None, helps=bool(len(pool)), steps=steps, quiet=True)
        items = self._items(samples, pool, ctx, "judged")
        while not live.done:
            ctx.seed_everything("judged", live.step)
            live.advance(items[live.step])
        module = live.result().module()
        return forward(module, asked, value.signature.preprocessing, device=ctx.device).numpy()

    def _result(self, value: Network, load: Load, samples: Samples) -> Network:
        from mapsto.nn.network.build import taking, with_output

        module, edit = self._headed(value, samples)
        signature = with_output(taking(value.signature, samples), len(samples.classes), samples.classes)
        return value.with_module(load(module), *([edit] if edit else []), signature=signature, adaptation=None)

    def _headed(self, value: Network, samples: Samples) -> tuple[nn.Module, Head | None]:
        from mapsto.nn.network.head import headed

        module = value.module()
        edit, _ = headed(value, module, samples.classes)
        return module, edit

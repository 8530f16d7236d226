"""Learn how to optimise: train an update rule on many small trainings, so that networks it has not seen are trained faster by it.

``min_θ E_tasks Σ_t t log(ℓ(w_t) / ℓ₀ + 0.001)`` with ``w_{t+1} = w_t + Δ_θ(∇ℓ(w_t), …)``, its gradient estimated by evolution strategies
over whole trainings or, persistent, over truncated ones (Metz et al., "Tasks, Stability, Architecture, and Compute: Training More
Effective Learned Optimizers, and Using Them to Train Themselves", 2020; Vicol, Metz and Sohl-Dickstein, "Unbiased Gradient Estimation in
Unrolled Computation Graphs with Persistent Evolution Strategies", 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import DataSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Items, Live, Process, Rows, State

if TYPE_CHECKING:
    from mapsto.nn.meta.learned_optimizer.evolution import Distribution, Population
    from mapsto.nn.networks.update_rule import UpdateRule
    from mapsto.nn.train.loop import Training

__all__ = ["Optimizer"]


class Optimizer(Optimisation, Process[Network, Network]):
    """An update rule (of `networks.update_rule`) trained on small networks; others run it as `optimizer: learned`.

    The tasks are classifiers of a few classes of `data`, some with noisy pixels or labels, and regressions of sinusoids, by perceptrons
    and convolutional networks of random depth, width, activation, first weights and batch size, at a rate that falls by half a cosine
    or, in a tenth of them, is constant.

    A rule whose steps are far too short learns to make longer ones, and then trains a network that it has not seen further:

    >>> from mapsto import datasets, evaluate, networks, train
    >>> few = datasets.subset(data=datasets.digits(size=8), per_class=16)
    >>> timid = networks.update_rule(hidden=4, rate=3e-3)()
    >>> small = {"horizon": 10, "unroll": 5, "groups": 3, "pairs": 3, "width": 8}
    >>> bold = Optimizer(data=few, steps=30, learning_rate=0.1, **small)(timid)
    >>> reader = networks.conv4(channels=1, size=8, blocks=3, width=8, classes=10)
    >>> def loss_by(rule):
    ...     trained = (reader >> train.supervised(data=few, epochs=4, batch_size=16, optimizer="learned", rule=rule))()
    ...     return evaluate.accuracy(data=few, pictures=0)(trained).metrics["loss"].value
    >>> loss_by(bold) < loss_by(timid) - 0.2
    True
    """

    data: DataSource | None = None
    """Images of the classes that tasks are made of; by default 300 printed characters, 12 pixels."""
    steps: int = Field(default=2000, ge=1)
    """Gradient steps of the rule; each is one truncation of one group."""
    epoch: int = Field(default=100, ge=1)
    """Steps over which metrics are averaged."""
    estimator: Literal["pes", "es", "backprop"] = "pes"
    """`pes`: persistent evolution strategies, unbiased; `es`: each truncation by itself; `backprop`: through the truncation."""
    unroll: int = Field(default=20, ge=1)
    """Steps of a truncation; Metz et al. use 20 and more. With `es` and at least `horizon`, whole trainings are compared."""
    horizon: int = Field(default=200, ge=1)
    """Steps of the longest tasks; others are down to a sixth of it."""
    groups: int = Field(default=8, ge=1)
    """Tasks that are at work in turn, each with its own network."""
    pairs: int = Field(default=4, ge=1)
    """Antithetic pairs of rules in a group, each with its own data and first weights; with `backprop` as many copies."""
    sigma: float = Field(default=0.01, gt=0)
    """Standard deviation of the rules' perturbations; 0.01 in Metz et al."""
    validations: int = Field(default=0, ge=0)
    """Trainings by which the rule is judged before it learns and after each epoch: of networks up to twice as wide as the widest of its
    tasks, up to twice as long as the longest. The best rule is the result, be it the untrained; with 0 it is the last."""
    measured_on: Literal["training", "validation"] = "training"
    """Whose loss the rule is judged by: that of the batches it is given, or of a quarter of the samples that are held out."""
    width: int = Field(default=64, ge=1)
    """The widest layer of the tasks' networks; convolutions are up to a quarter of it."""
    regression: float = Field(default=0.2, ge=0, le=1)
    """Share of tasks that are sinusoids."""
    convolutional: float = Field(default=0.4, ge=0, le=1)
    """Share of the classifiers that are convolutional."""
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = "adam"
    """By which the rule itself is trained."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """The highest learning rate of the schedule of the rule's own training."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty of the rule's weights."""
    clip: float | None = Field(default=1.0, gt=0)
    """Highest norm of the estimated gradient: a task that diverges shall not decide."""

    version: ClassVar[int] = 2

    contract: ClassVar[dict[str, Any]] = {
        "data": {"subset": {"data": {"digits": {"size": 8}}, "per_class": 8}},
        "steps": 5,
        "unroll": 2,
        "horizon": 5,
        "groups": 2,
        "pairs": 2,
        "width": 6,
    }

    @staticmethod
    def contract_input() -> Network:
        """An untrained rule, what this maps from."""
        from mapsto import discovery

        return discovery.find("mappings", "networks.update_rule")(hidden=4)(seed=0)

    def items(self, value: Network, ctx: Context) -> Items:
        return range(self.steps)

    def open(self, value: Network, state: State | None, ctx: Context) -> _Learning:
        """Raises `DomainError` where `value` is no update rule."""
        from mapsto.nn.meta.learned_optimizer.evolution import Population
        from mapsto.nn.train.loop import Training, TrainingPlan

        rule = self._rule(value).to(ctx.device)
        population = Population(
            rule,
            self._distribution(ctx),
            lambda group, episode: (
                ctx.random("task", group, episode) if group >= 0 else ctx.random("validation", episode)
            ),
            {} if state is None else state["groups"],
            groups=self.groups,
            unroll=self.unroll,
            sigma=self.sigma,
            estimator=self.estimator,
            held_out=self.measured_on == "validation",
            device=ctx.device,
        )
        judged = self.validations > 0
        plan = TrainingPlan(
            optimisation=self,
            rule=self.update_rule(ctx),
            steps=self.steps,
            epoch=self.epoch,
            stop_after=self.steps if judged else None,
            judge_start=judged,
        )
        wider = self._distribution(ctx, pairs=2, width=2 * self.width, horizon=2 * self.horizon) if judged else None
        training = Training(
            rule,
            state,
            plan=plan,
            fabric=ctx.fabric,
            loss=lambda _call, turn: population.loss(turn),
            validate=None
            if wider is None
            else lambda rule: {"val_loss": population.judge(cast("Any", rule), wider, self.validations)},
            result=lambda load: value.with_module(load(self._rule(value))),
        )
        return _Learning(training, population)

    def _rule(self, value: Network) -> UpdateRule:
        from mapsto.nn.meta.learned_optimizer.rule import updating_module

        return updating_module(value, where="meta.optimizer")

    def _distribution(self, ctx: Context, **changed: int) -> Distribution:
        from mapsto.data.checks import require_classes, require_finite
        from mapsto.data.sets.glyphs import Glyphs
        from mapsto.nn.meta.learned_optimizer.evolution import Distribution, Images

        source = self.data if self.data is not None else Glyphs(characters=300, size=12)
        samples = require_classes(ctx.dataset(source), where="meta.optimizer: data")
        require_finite(samples.inputs, where="meta.optimizer: data")
        sizes = {"pairs": self.pairs, "horizon": self.horizon, "width": self.width} | changed
        return Distribution(
            images=Images(samples), regression=self.regression, convolutional=self.convolutional, **sizes
        )


class _Learning(Live[Network]):
    """The training of the rule, and the tasks that it is in the midst of."""

    def __init__(self, training: Training, population: Population) -> None:
        self._training, self._population = training, population
        self.total = training.total

    @property
    def step(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps done."""
        return self._training.step

    @property
    def done(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all are."""
        return self._training.done

    def advance(self, item: int) -> Rows:
        return self._training.advance(item)

    def snapshot(self) -> State:
        return {**self._training.snapshot(), "groups": self._population.state()}

    def result(self) -> Network:
        return self._training.result()

"""What every mapping shares that meta-trains a learner which adapts by gradient descent: fields, engines, the outer loss.

``min_θ Σ_t L_query(θ_K(θ, support_t))`` with θ_K after K inner steps (Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast
Adaptation of Deep Networks", 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import SpecError
from mapsto.kinds import Adaptation, Episodes, Network, Signature
from mapsto.nn.meta.outer_loop import Episodic

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mapsto.kinds import Edit
    from mapsto.nn.kernels.task_threads import ThreadCopies
    from mapsto.nn.meta.batch_norm import Record
    from mapsto.nn.meta.inner_loop import Inner
    from mapsto.nn.meta.learner_module import Learner
    from mapsto.nn.meta.outer_gradient import Engine
    from mapsto.nn.train.batches import Task

__all__ = ["GradientBased"]


class GradientBased(Episodic):
    """The fields of learners that adapt by gradient descent."""

    inner_steps: int = Field(default=5, ge=1, description="Inner steps in training.")
    test_steps: int | None = Field(
        default=None, ge=1, description="Inner steps in use; None for as many as in training. MAML trains 5, tests 10."
    )
    inner_rate: float = Field(default=0.4, gt=0, description="α, the inner learning rate; MAML's is 0.4 on Omniglot.")
    head_rate: float | None = Field(
        default=None,
        gt=0,
        description=(
            "The head's own inner learning rate; None for `inner_rate`. A head that begins at 0 over an embedding that is good already "
            "wants a far higher one."
        ),
    )
    first_order: bool = Field(
        default=False,
        description="Whether inner gradients count as constants: a third cheaper, a little less accurate.",
    )
    adapts: Literal["all", "head", "body", "adapters"] = Field(
        default="all",
        description=(
            "What the inner steps change: `all`, the `head`, the `body` before it, or the `adapters` of an `adapt.lora` step "
            "before, with the head."
        ),
    )
    freeze: bool = Field(
        default=False,
        description="With `adapters`: whether all else keeps the weights it came with, in the outer steps too.",
    )
    head: Literal["learned", "zero"] = Field(
        default="learned",
        description="`learned`: trained, for one number of ways; `zero`: it begins at 0 in each task, for any number.",
    )
    batch_norm: Literal["transductive", "inductive", "per_step", "none"] = Field(
        default="transductive",
        description=(
            "`transductive`: queries are normalised among themselves, as in MAML; `inductive`: by the support set; "
            "`per_step`: by running statistics of each inner step; `none`: by what the network holds, for a fresh one 0 and 1."
        ),
    )
    engine: Literal["auto", "loop", "threads", "fused", "vmap", "graph"] = Field(
        default="auto",
        description=(
            "How the gradients of the tasks of a step are found. `loop`: one after another; `threads`: a task a core; `fused`: so, "
            "with convolution, batch norm, ReLU and pooling in one; `vmap`: all at once; `graph`: so, recorded as a CUDA graph, "
            "for an outer loss that stays the same; `auto`: by a rule, never by a clock: on a CPU `fused` where it can be had, else "
            "`threads`; `vmap` elsewhere and for networks without convolutions."
        ),
    )
    chunk_size: int | None = Field(
        default=None, ge=1, description="Tasks whose graphs or gradients are held at once; None for all of a step."
    )
    checkpointing: bool = Field(
        default=False, description="Whether inner steps are computed again on the way back: less memory, more time."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine in ("vmap", "graph") and (self.batch_norm == "per_step" or self.checkpointing):
            what = "checkpointing" if self.checkpointing else "batch_norm: per_step"
            raise SpecError(
                f"field 'engine': {self.engine} does not go with {what}",
                where=self.name,
                hint="set engine to auto or loop",
            )
        if self.head_rate is not None and self.inner().adapts == "body":
            raise SpecError(
                "field 'head_rate': the head does not adapt here",
                where=self.name,
                hint="leave it out, or use meta.maml",
            )
        if self.freeze and self.adapts != "adapters":
            raise SpecError(
                f"field 'freeze': there is nothing to freeze where '{self.adapts}' adapts",
                where=self.name,
                hint="set adapts: adapters, after an adapt.lora step",
            )

    # -- what a mapping may say otherwise

    def inner(self) -> Inner:
        """The settings of the inner loop."""
        from mapsto.nn.meta.inner_loop import Inner

        return Inner(
            steps=self.test_steps or self.inner_steps,
            rate=self.inner_rate,
            head_rate=self.head_rate,
            adapts=self.adapts,
            head=self.head,
            batch_norm=self.batch_norm,
        )

    def first_tensors(self, value: Network) -> dict[str, Tensor]:
        """The first values of the tensors that the adaptation holds and that are trained with the network."""
        return {}

    def weights(self, step: int) -> list[float]:
        """Weights, in the outer loss of a step, of the queries' loss before the first inner step and after each."""
        return [0.0] * self.inner_steps + [1.0]

    def second_order(self, step: int) -> bool:
        """Whether gradients flow through inner gradients, at a step."""
        return not self.first_order

    # -- what follows from it

    def ways(self, episodes: Episodes) -> int | None:
        if self.inner().head != "learned":
            return None
        return episodes.ways or episodes[0].outputs

    def predicts_values(self) -> bool:
        return self.inner().head != "prototype"

    def learner(self, value: Network, ctx: Context) -> tuple[Learner, tuple[Edit, ...], Signature]:
        from mapsto.nn.meta.inner_loop import moving_names

        learner, edits, signature = super().learner(value, ctx)
        network = learner.network
        moving = moving_names(network, self.inner(), dict(network.named_parameters()))
        if self.freeze:
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name in moving)
        return learner, edits, signature

    def moving(self, value: Network) -> dict[str, Tensor]:
        """The parameters that the inner steps change, by name in the order of the network, then a head's that begins at 0."""
        import torch

        from mapsto.nn.meta.inner_loop import HEAD, moving_names

        module, inner = value.module(), self.inner()
        point = {name: parameter.detach() for name, parameter in module.named_parameters()}
        if inner.head != "learned":
            point |= {name: torch.zeros(()) for name in HEAD}
        return {name: point[name] for name in moving_names(module, inner, point)}

    def first_rates(self, value: Network) -> dict[str, float]:
        """α of each of these parameters, with which rates that are learned begin."""
        from mapsto.nn.meta.inner_loop import inner_rates

        return inner_rates(value.module(), self.inner(), self.moving(value))

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        if learner is not None:
            return Adaptation(method="gradient", settings=self.inner().settings(), tensors=learner.detached())
        first = self.first_tensors(value)
        if self.batch_norm == "per_step":
            first |= self._first_statistics(value)
        return Adaptation(method="gradient", settings=self.inner().settings(), tensors=first)

    def chosen(self, learner: Learner, ctx: Context) -> dict[str, Any]:
        usable = self.engines(learner, ctx)
        if self.engine not in ("auto", *usable):
            raise SpecError(
                f"the engine '{self.engine}' does not go with these settings, this network or this device",
                where=self.name,
                hint=f"use {', '.join(usable)} or auto",
            )
        engine = self.engine
        if engine == "auto":
            engine = self.chosen_engine(learner, ctx)
            ctx.log(f"{self.name}: the engine is `{engine}`")
        return {"engine": engine}

    def loss(self, learner: Learner, inputs: Tensor, task: Task, step: int, ctx: Context) -> Tensor:
        return self._loss(learner, inputs, task, step, learner.chosen["engine"])

    def _loss(self, learner: Learner, inputs: Tensor, task: Task, step: int, engine: Engine) -> Tensor:
        import torch
        from torch import Tensor

        from mapsto.nn.kernels.memory_layout import channels_last
        from mapsto.nn.kernels.task_conv import task_convolutions
        from mapsto.nn.meta import batch_norm as norms
        from mapsto.nn.meta import outer_gradient

        support_labels = torch.as_tensor(task.support_labels, device=inputs.device)
        query_labels = torch.as_tensor(task.query_labels, device=inputs.device)
        shots, tasks = support_labels.shape[1], len(inputs)
        parts = (inputs[:, :shots], support_labels, inputs[:, shots:], query_labels)
        parameters = outer_gradient.trained(learner)
        record: norms.Record | None = {} if self.batch_norm == "per_step" else None

        def single(at: Mapping[str, Tensor], *tensors: Tensor, functional: bool = False) -> Tensor:
            return self.task_loss(learner, at, tensors, task.ways, step, functional=functional, record=record)

        copies = _copies(learner, engine)
        laid_out = channels_last if engine == "fused" and inputs.ndim == 5 else Tensor.contiguous
        with norms.task_norms(learner.network if copies is None else copies.module), learner.engaged(copies):
            if engine in ("vmap", "graph"):

                def several(at: Mapping[str, Tensor], chosen: Sequence[Tensor]) -> Tensor:
                    call: Callable[..., Tensor] = torch.func.vmap(
                        lambda *tensors: single(at, *cast("tuple[Tensor, ...]", tensors), functional=True),
                        randomness="different",
                    )
                    return call(*chosen).sum()

                recordings = learner.recordings if engine == "graph" else None
                key = (task.ways, tuple(self.weights(step)), self.second_order(step))
                with task_convolutions(learner.network):
                    mean = outer_gradient.by_chunks(
                        parameters, several, parts, self.chunk_size or tasks, recordings, key
                    )
                if not bool(mean.isfinite()):
                    return self._loss(learner, inputs, task, step, "loop")  # which says where it diverged
            else:

                def one(at: Mapping[str, Tensor], number: int) -> Tensor:
                    support, query = (laid_out(part[number]) for part in (parts[0], parts[2]))
                    return single(at, support, support_labels[number], query, query_labels[number])

                threads = None if copies is None or tasks == 1 else torch.get_num_threads()  # one alone gets all cores
                mean = outer_gradient.by_tasks(parameters, one, tasks, threads=threads, chunk=self.chunk_size)
        if record is not None:
            learner.keep(norms.averaged(record))
        return mean

    def task_loss(
        self,
        learner: Learner,
        at: Mapping[str, Tensor],
        task: Sequence[Tensor],
        ways: int,
        step: int,
        *,
        functional: bool = False,
        record: Record | None = None,
    ) -> Tensor:
        """The outer loss of one task: support (S, ...), its labels (S,), query (Q, ...), its labels (Q,).

        `at` holds the learner's parameters by their names in it, `record` takes the statistics that batch norms meet.
        """
        from mapsto.nn.meta import inner_loop

        point, tensors = learner.split(at)
        support, support_labels, query, query_labels = task
        return inner_loop.task_loss(
            inner_loop.FunctionalModule(learner.module, self.inner(), tensors, record=record, functional=functional),
            point,
            support,
            support_labels,
            query,
            query_labels,
            ways,
            weights=self.weights(step),
            second_order=self.second_order(step),
            functional=functional,
            checkpointed=self.checkpointing,
        )

    def chosen_engine(self, learner: Learner, ctx: Context) -> Engine:
        """What `auto` stands for: a rule on the network, the device and the kernels that are there, never on a clock.

        Engines differ in their last bits, so a choice by a trial gave other results under one key. On a CPU `fused` was the
        fastest in every setting of ``benchmarks/results/meta_speed.json``. Convolutions whose kernels differ from task to task
        are slow there, and vectorised hold everything at once (8 GB at 84 × 84); the short operations of other networks gain
        most from being vectorised. `graph`, which has not been measured on a device yet, is for those who ask for it.
        """
        usable = self.engines(learner, ctx)
        on_cpu = ctx.device.type == "cpu"
        vectorise = not on_cpu or not any(map(_convolves, learner.network.modules()))
        order: tuple[Engine, ...] = ("vmap", "loop") if vectorise else ("fused", "threads", "loop")
        return next(engine for engine in order if engine in usable)

    def engines(self, learner: Learner, ctx: Context) -> tuple[Engine, ...]:
        """Those that may be used here."""
        import torch

        from mapsto.nn.kernels.compiled import compiled_kernels
        from mapsto.nn.kernels.fuse import is_fusable

        names: list[Engine] = ["loop"]
        if self.batch_norm == "per_step" or self.checkpointing:
            return tuple(names)
        random = any(isinstance(part, torch.nn.modules.dropout._DropoutNd) for part in learner.network.modules())
        plain = ctx.numerics.precision in ("32-true", "64-true") and not self.feature_noise
        if ctx.device.type == "cpu" and plain and not random:
            names.append("threads")
            if self.batch_norm == "transductive" and is_fusable(learner.network) and compiled_kernels():
                names.append("fused")
        if any(map(_of_transformers, learner.network.modules())):
            return tuple(names)
        names.append("vmap")
        if ctx.device.type == "cuda" and plain and self._is_constant():
            names.append("graph")
        return tuple(names)

    def _is_constant(self) -> bool:
        """Whether the outer loss is the same function at every step, so that a recording of it can be replayed."""
        last = self.steps - 1
        return self.weights(0) == self.weights(last) and self.second_order(0) == self.second_order(last)

    def _first_statistics(self, value: Network) -> dict[str, Tensor]:
        """Mean 0 and variance 1 of every batch norm at every inner step and after the last."""
        from mapsto.nn.meta.batch_norm import norm_paths, statistics_names

        statistics: dict[str, Tensor] = {}
        for path in norm_paths(value.module()):
            for step in range(self.inner_steps + 1):
                for name in statistics_names(path):
                    statistics[f"{name}@{step}"] = value.tensors[name].clone()
        return statistics


def _of_transformers(module: torch.nn.Module) -> bool:
    """Whether it is of transformers, whose masks are made by what the ids hold, so that tasks cannot be vectorised over."""
    return type(module).__module__.startswith("transformers.")


def _convolves(module: torch.nn.Module) -> bool:
    import torch

    return isinstance(module, torch.nn.modules.conv._ConvNd)


def _copies(learner: Learner, engine: Engine) -> ThreadCopies | None:
    """Modules for the threads of an engine, made once and kept with the learner."""
    from mapsto.nn.kernels.fuse import fuse
    from mapsto.nn.kernels.task_threads import ThreadCopies

    if engine not in ("threads", "fused"):
        return None
    if learner.threads is None or learner.threads[0] != engine:
        learner.threads = (engine, ThreadCopies(fuse(learner.network) if engine == "fused" else learner.network))
    return learner.threads[1]

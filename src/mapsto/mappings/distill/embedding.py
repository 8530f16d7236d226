"""Teach a smaller network to give the embeddings of a larger one, on samples without labels.

``min Σ_x 1 − cos(r(g(x)), f(x))`` with r the identity where both embeddings have the same size, else a linear map that only training
needs (Reimers and Gurevych, "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation", 2020, with the
squared distance). A student made of the teacher's own layers (`prune.blocks`) starts close, and keeps the teacher's head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import DataSource, NetworkSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.kinds import Samples
    from mapsto.nn.distill.loop import NumberedBatch, NumberedBatches
    from mapsto.nn.train.loop import Load, Training

__all__ = ["Embedding"]


class Embedding(Optimisation, Process[Network, Network]):
    """The network trained to give `teacher`'s embeddings; what comes after its embedding stays as it is.

    The teacher embeds every sample once, without random changes. Texts are read by the student's tokenizer, which must be the teacher's.

    Raises `DomainError` where one of the two gives no embedding, `DataError` for data with NaN.

    >>> from mapsto import datasets, networks
    >>> from mapsto.context import Context
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher, student = (networks.conv4(data=digits, width=width, blocks=2)(seed=0) for width in (12, 4))
    >>> ctx, process = Context(), Embedding(data=digits, teacher=teacher, epochs=6, batch_size=50, learning_rate=0.01)
    >>> live, items = process.open(student, None, ctx), process.items(student, ctx)
    >>> losses = [live.advance(items[step])[0][1]["train_loss"] for step in range(live.total)]
    >>> losses[-1] < 0.7 * losses[0]
    True
    """

    data: DataSource
    """The samples, such as texts of a domain; labels are not used."""
    teacher: NetworkSource
    """The network to imitate."""
    epochs: int = Field(default=3, ge=1)
    """Passes over the data."""
    batch_size: int = Field(default=64, ge=1)
    """Samples of a step."""
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = "adamw"
    """The optimiser; transformers need an adaptive one."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """The highest learning rate of the schedule; 3e-4 suits layers taken from a trained encoder."""

    contract: ClassVar[dict[str, Any]] = {"epochs": 1}

    def items(self, value: Network, ctx: Context) -> NumberedBatches:
        from mapsto.nn.distill.loop import NumberedBatches

        return NumberedBatches(self._samples(ctx), self.batch_size, ctx)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        from torch.nn import functional

        from mapsto.nn.network.inference import embeddings
        from mapsto.nn.network.preprocess import prepare
        from mapsto.nn.train.loop import Training, TrainingPlan

        samples, teacher = self._samples(ctx), ctx.network(self.teacher)
        aims = embeddings(teacher.module(), samples.inputs, teacher.signature.preprocessing, device=ctx.device)
        aims = functional.normalize(aims.flatten(1), dim=1).to(ctx.device)
        student = self._student(value, aims.shape[1])
        epoch = self.items(value, ctx).per_epoch
        plan = TrainingPlan(optimisation=self, rule=self.update_rule(ctx), steps=self.epochs * epoch, epoch=epoch)

        def loss(call: nn.Module, item: NumberedBatch) -> Tensor:
            given: Tensor = call(prepare(item.inputs, value.signature.preprocessing, device=ctx.device))
            return (1 - functional.cosine_similarity(given, aims[item.places], dim=1)).mean()

        return Training(
            student,
            state,
            plan=plan,
            fabric=ctx.fabric,
            loss=loss,
            result=lambda load: self._result(value, load, aims.shape[1]),
        )

    def _student(self, value: Network, size: int) -> nn.Module:
        """The student's embedding, put through a linear map where the teacher's is of another size."""
        from torch import nn

        from mapsto.nn.network.examples import example_batch
        from mapsto.nn.network.head import Embedding as Embedded
        from mapsto.nn.network.head import embedding_size

        module = value.module()
        own = embedding_size(module, example_batch(value))
        return nn.Sequential(Embedded(module), nn.Identity() if own == size else nn.Linear(own, size))

    def _result(self, value: Network, load: Load, size: int) -> Network:
        trained: Any = load(self._student(value, size))
        return value.with_module(trained[0].module)

    def _samples(self, ctx: Context) -> Samples:
        from mapsto.data.checks import require_finite, require_some

        samples = require_some(ctx.dataset(self.data, also=[ctx.network(self.teacher)]), where=self.name)
        require_finite(samples.inputs, where=f"{self.name}: data")
        return samples

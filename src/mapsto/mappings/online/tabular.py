"""The default learner of tables: members of many kinds learn each event, and mixtures that learn whom to follow make one answer of theirs.

Nearest neighbours, rolling random forests (each event pays for a part of one tree, so that they answer to drift), softmax regressions,
recursive least squares, a small network, and tables of what label follows which. Mixtures are ``p ∝ exp Σ w_m log p_m`` with weights
learnt by gradient descent (Mattern, "Linear and Geometric Mixtures", 2013), and pools by discounted counts of right answers. One setting is
meant for every stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import ColumnType, Model, Network, Package
from mapsto.native.tabular import tabular_library
from mapsto.nn.online.loop import Online
from mapsto.process import Live, State

if TYPE_CHECKING:
    from mapsto.nn.online.learning import StreamLearner, Task

__all__ = ["Tabular"]


class Tabular(Online):
    """A learner of classes or values from the stream's columns, whose inputs and classes grow with what it meets.

    >>> from mapsto import streams
    >>> model = Tabular(stream=streams.sea(events=2000, noise=0.0))(None)
    >>> question = next(streams.sea(events=100, seed=5, noise=0.0).open())
    >>> answers = model.open().predict(question).argmax(1)
    >>> float((answers == [model.signature.classes.index(label) for label in question.y]).mean()) > 0.9
    True
    """

    preset: Literal["accurate", "fast"] = "accurate"
    """`fast` leaves the forests out, which take most of the time."""
    labels: bool = True
    """Whether two members look at the last labels alone: they help where labels come in runs, and know nothing of the features."""
    late_megabytes: float = Field(default=64.0, gt=0)
    """What is kept of questions for labels that come late, at most."""
    late_hours: float | None = Field(default=None, gt=0)
    """How long a question is kept, by the events' times; by default until there are too many."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of what the members draw."""

    tasks: ClassVar[tuple[Task, ...]] = ("classes", "values")
    contract: ClassVar[dict[str, Any]] = {"stream": {"sea": {"events": 300, "label_delay": 40}}, "every": 100}

    def open(self, value: Network | Package | Model | None, state: State | None, ctx: Context) -> Live[Model]:
        tabular_library(ctx.note)  # where it has to be compiled, which takes a while, that is said
        return super().open(value, state, ctx)

    @classmethod
    def cost(cls, fields: Mapping[str, Any], inputs: int, classes: int) -> float:
        if fields["preset"] == "fast":
            return 18.0 + 0.5 * inputs
        return 80.0 + 2.0 * inputs + 8.0 * classes

    @classmethod
    def _learner(cls, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task) -> StreamLearner:
        from mapsto.nn.online.tabular import TabularLearner

        hours = fields["late_hours"]
        return TabularLearner(
            types,
            task=task,
            forests=fields["preset"] == "accurate",
            labels=bool(fields["labels"]),
            most_categories=int(fields["categories"]),
            most_late=int(fields["late"]),
            late_bytes=float(fields["late_megabytes"]) * 2**20,
            late_seconds=None if hours is None else 3600.0 * float(hours),
            seed=int(fields["seed"]),
        )

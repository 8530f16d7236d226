"""The fields of every mapping that calibrates on samples without their labels, and its calibration batches.

This file imports torch only when there is work to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Frozen, Network
from mapsto.mapping import DataSource, TasksSource

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CalibrationFields"]

_BATCH = 64
_LEAST = 8


class CalibrationFields(Frozen):
    """The fields of every mapping that calibrates on samples: `data` or `tasks`, and how many."""

    data: DataSource | None = Field(
        default=None, description="Calibration data; its labels are not used. Give this or `tasks`."
    )
    tasks: TasksSource | None = Field(
        default=None, description="Episodes whose support and query samples are the calibration data, for a learner."
    )
    samples: int = Field(
        default=512,
        ge=1,
        description="How many samples are drawn, of the data at most all; 100 to 1000 do (Krishnamoorthi 2018).",
    )

    def __post_init__(self) -> None:
        if (self.data is None) == (self.tasks is None):
            raise SpecError(
                "give either data or tasks", where=type(self).__name__, hint="tasks for a learner, data otherwise"
            )

    def batches(self, value: Network, ctx: Context, *, where: str) -> list[Tensor]:
        """The drawn samples as inputs of the network, a few batches of shape (up to 64, ...).

        Raises `DataError` for fewer than 8 samples, `DomainError` where they are not inputs of the network.
        """
        import numpy as np

        from mapsto.data.checks import require_some
        from mapsto.nn.train.calibration_batches import as_inputs, chosen

        if self.data is not None:
            samples = require_some(ctx.dataset(self.data), where=where)
            raw: Any = samples.inputs[chosen(samples, self.samples, ctx, stream="calibration")]
        else:
            episodes, parts, count = ctx.tasks(self.tasks), [], 0
            while count < self.samples:
                episode = episodes[len(parts)]
                parts.append(np.concatenate([episode.support, episode.query]))
                count += len(parts[-1])
            raw = np.concatenate(parts)[: self.samples]
        if len(raw) < _LEAST:
            raise DataError(
                f"only {len(raw)} samples, at least {_LEAST} are needed",
                where=where,
                hint="give more samples: 100 to 1000 do",
            )
        return list(as_inputs(value, raw, where=where).split(_BATCH))

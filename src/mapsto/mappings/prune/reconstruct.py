"""Let what is left of a pruned network make up for what is gone: each layer in turn is fitted to its original by least squares.

``min_W Σ ‖y_l[K_l] − W x_l‖²`` with x_l what comes into layer l of the pruned network, whose earlier layers are fitted already, and
y_l[K_l] what the original's layer gives in the channels that are left. No labels, no training: seconds, a few hundred samples.

He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", 2017, section 3.1; Luo, Wu and Lin, "ThiNet: A
Filter Level Pruning Method for Deep Neural Network Compression", 2017.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping, NetworkSource
from mapsto.nn.train.calibration_fields import CalibrationFields

__all__ = ["Reconstruct"]


class Reconstruct(CalibrationFields, Mapping[Network, Network]):
    """The pruned network with weights fitted to `teacher`, from which it was pruned; put it right behind the pruning.

    Layers that run more than once, and those with neither a bias nor a batch norm behind them, stay as they are.

    Raises `DomainError` where the network was not made from the teacher by edits, or the data does not fit it; `DataError` for fewer
    than 8 samples; `SpecError` unless one of `data` and `tasks` is given.

    >>> from mapsto import datasets, evaluate, networks, prune, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher = networks.conv4(data=digits, width=12, blocks=2, classes="data")(seed=0)
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> small = prune.magnitude(macs=0.4)(teacher)
    >>> mended = Reconstruct(data=digits, teacher=teacher)(small)
    >>> before, after = (evaluate.accuracy(data=digits)(each).metrics["accuracy"].value for each in (small, mended))
    >>> before + 10 < after
    True
    """

    version: ClassVar[int] = 2

    teacher: NetworkSource = Field(description="The network before it was pruned.")
    places: int = Field(
        default=40,
        ge=1,
        description="Places of each sample's maps that are fitted to, all where there are not more; ThiNet takes 10.",
    )
    ridge: float = Field(
        default=0.1,
        ge=0,
        description=(
            "λ: how firmly weights stay as they are, in units of the inputs' mean square. On ResNet-20 with 64 samples 0.01, 0.1 and 1 "
            "gave 60, 65 and 60 % on held-out images without any training; with 1024, 0.001 and 0.01 gave the same."
        ),
    )

    contract: ClassVar[dict[str, Any]] = {"data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 8}}}

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.network.inference import evaluating
        from mapsto.nn.prune.checks import require_prunable
        from mapsto.nn.prune.kept_channels import kept_channels
        from mapsto.nn.prune.least_squares import fittable, refitted

        teacher = ctx.network(self.teacher)
        module = require_prunable(value, where=self.name).to(ctx.device)
        batches = [batch.to(ctx.device) for batch in self.batches(value, ctx, where=self.name)]
        original = require_prunable(teacher, where=f"{self.name}: teacher").to(ctx.device)
        with evaluating(module), evaluating(original):
            paths = fittable(module, batches[0][:2])
            kept = {path: kept_channels(value, teacher, path, where=self.name) for path in paths}
            if not kept:
                raise DomainError("it has no layer that runs once", where=self.name, hint="leave this step out")
            refitted(module, original, batches, kept, places=self.places, ridge=self.ridge)
        return value.with_module(module.cpu())

"""Drop the channels that are least active: lowest mean activation, or most often exactly zero.

``I_c = mean |a_c|`` over samples and positions, in units of the layer's mean (Molchanov et al., "Pruning Convolutional Neural Networks
for Resource Efficient Inference", 2017), or ``I_c = 1 − APoZ_c = mean [a_c ≠ 0]`` (Hu et al., "Network Trimming: A Data-Driven
Neuron Pruning Approach towards Efficient Deep Architectures", 2016). a_c is what the layers that read the channel are given: after
batch norm, nonlinearity and pooling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as AbcMapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.nn.prune.criterion import Criterion
from mapsto.nn.prune.data_driven import DataDriven

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mapsto.nn.network.layer_calls import CallNote
    from mapsto.nn.prune.dependency_groups import Group
    from mapsto.nn.prune.structured import Importance

__all__ = ["Activation"]


class Activation(DataDriven, Criterion):
    """The network with the least active channels dropped until the budget is met; labels are not used.

    Raises `SpecError` unless exactly one budget and one of `data` and `tasks` are given, `DataError` for data with NaN or
    without a sample, and `DomainError` for a network that is quantized, or that cannot be made as small.

    >>> from mapsto import datasets, networks
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=4, blocks=2, classes="data")(seed=0)
    >>> _ = net.tensors["features.0.1.bias"][:2].fill_(-9)  # two channels that are always zero after ReLU
    >>> small = Activation(macs=0.7, data=digits, measure="nonzero", max_prune=0.5, batches=2)(net)
    >>> small.tensors["features.0.1.bias"].tolist()
    [0.0, 0.0]
    """

    measure: Literal["mean", "nonzero"] = "mean"
    """`mean`: the mean of absolute activations; `nonzero`: the share of activations that are not zero (1 − APoZ), for
    networks with ReLU."""
    normalise: bool = True
    """Importance in units of its layer's mean. Without, activations are compared over all layers as they are."""

    def importance(self, value: Network, ctx: Context) -> Importance:
        import torch

        from mapsto.nn.network.inference import compact
        from mapsto.nn.prune.importance import normalised

        def importance(module: nn.Module, groups: Sequence[Group]) -> AbcMapping[str, NDArray[np.float64]]:
            activity = _Activity(compact(module.to(ctx.device)), groups, nonzero=self.measure == "nonzero")
            with torch.no_grad():
                activity.watch(ctx.track(self.inputs(value, ctx), what="activations"))
            return normalised(activity.means(), wanted=self.normalise)

        return importance


class _Activity:
    """Sums and counts of what the readers of each group's channels are given."""

    def __init__(self, module: nn.Module, groups: Sequence[Group], *, nonzero: bool) -> None:
        import numpy as np

        self._module, self._groups, self._nonzero = module, groups, nonzero
        self._sums = {group.name: np.zeros(group.channels) for group in groups}
        self._counts = {group.name: np.zeros(group.channels) for group in groups}

    def watch(self, batches: Iterable[Tensor]) -> None:
        """Run the module on each batch."""
        import numpy as np

        from mapsto.nn.network.layer_calls import watching

        with ExitStack() as stack:
            for group in self._groups:
                for member in group.members:
                    path, _, name = member.name.rpartition(".")
                    if member.role == "in" and name == "weight":
                        part = self._module.get_submodule(path)
                        note = self._reader(part, group, member.owner)
                        stack.enter_context(watching({path: part}, note, before=True))
                if group.features:
                    owner = np.repeat(np.arange(group.channels), group.features)
                    stack.enter_context(watching({"": self._module}, self._output(group, owner)))
            for batch in batches:
                self._module(batch)

    def means(self) -> dict[str, NDArray[np.float64]]:
        """Group → mean of each channel, shape (channels,); groups that no module reads (a functional call does) are not in it."""
        import numpy as np

        seen = {name: counts for name, counts in self._counts.items() if counts.any()}
        return {name: self._sums[name] / np.maximum(counts, 1) for name, counts in seen.items()}

    def _reader(self, part: nn.Module, group: Group, owner: NDArray[np.int64]) -> CallNote:
        from torch import nn

        dim = -1 if isinstance(part, nn.Linear) else 1
        return lambda path, given, output: self._add(group, given[0], dim, owner)

    def _output(self, group: Group, owner: NDArray[np.int64]) -> CallNote:
        return lambda path, given, output: self._add(group, output, -1, owner)

    def _add(self, group: Group, activations: Tensor, dim: int, owner: NDArray[np.int64]) -> None:
        import numpy as np

        values = (activations != 0) if self._nonzero else activations.abs()
        along = values.movedim(dim, 0).flatten(1).double()
        mine = owner >= 0
        sums = along.sum(1).cpu().numpy()[mine]
        self._sums[group.name] += np.bincount(owner[mine], weights=sums, minlength=group.channels)
        self._counts[group.name] += along.shape[1] * np.bincount(owner[mine], minlength=group.channels)

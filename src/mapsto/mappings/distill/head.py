"""Fit a network's last layer to what a teacher answers on samples without labels: one solution in closed form, no training.

``min_W,b  Σ_i ‖W z_i + b − t_i‖² + λ ‖W‖²`` with z_i the embedding of sample i and t_i the teacher's scores of it, in units of their
spread; λ is the one that is best on samples left out in turn (see `mapsto.nn.adapt.ridge`). The loss on the scores is the one of Ba and
Caruana, "Do Deep Nets Really Need to be Deep?", 2014.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network, Samples, Table
from mapsto.mapping import DataSource, Mapping, NetworkSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Head"]


class Head(Mapping[Network, Network]):
    """The network with a linear head that answers as `teacher` does; its embedding stays as it is.

    For a network that was pruned or quantized after it was adapted: a pool of samples without labels says more about its
    head than a few labelled examples do.

    >>> from mapsto import datasets, evaluate, networks, prune, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher = networks.conv4(data=digits, width=12, blocks=2, classes="data")(seed=0)
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> small = prune.magnitude(macs=0.5)(teacher)
    >>> mended = Head(data=digits, teacher=teacher)(small)
    >>> before, after = (evaluate.difference(teacher=teacher, data=digits)(each).metrics for each in (small, mended))
    >>> bool(before["agreement"].value + 10 < after["agreement"].value)
    True
    """

    teacher: NetworkSource
    """The network to imitate: a classifier."""
    data: DataSource
    """The samples; labels are not used."""
    root: bool | Literal["auto"] = "auto"
    """Whether the head is given the signed root of the embedding. `auto`: whichever is nearer to the teacher on left-out samples."""

    contract: ClassVar[dict[str, Any]] = {
        "data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 8}},
    }

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` where the teacher gives no scores of classes or one of the two no embedding, `DataError` for NaN."""
        import dataclasses

        import torch

        from mapsto.data.checks import require_finite, require_some
        from mapsto.nn.adapt import ridge
        from mapsto.nn.adapt.features import features
        from mapsto.nn.network.head import headed, set_head

        teacher = ctx.network(self.teacher)
        classes = teacher.signature.classes
        if classes is None or teacher.signature.answers != "classes" or teacher.signature.is_dense:
            raise DomainError(
                "the teacher gives no scores of classes",
                where=f"{self.name}: teacher",
                hint="give a classifier, or train the network with distill.logits",
            )
        samples = require_some(ctx.dataset(self.data, also=[teacher]), where=self.name)
        require_finite(samples.inputs, where=f"{self.name}: data")
        aims = self._scores(teacher, samples, ctx)
        rows = features(value, samples.inputs, ctx)
        tried = {
            root: ridge.fitted_values(ridge.rooted(rows) if root else rows, aims, normalise=root)
            for root in ((True, False) if self.root == "auto" else (self.root,))
        }
        root = min(tried, key=lambda each: float(tried[each].losses.mean()) if len(tried[each].losses) else 0.0)
        found = tried[root]
        same = 100 * float((found.left_out.argmax(1) == aims.argmax(1)).mean())
        ctx.note(f"the same class as the teacher for {same:.1f} % of {len(samples)} samples that are left out in turn")
        ctx.attach("agreement", Table(columns=("samples", "same class, %"), rows=((len(samples), same),)))
        module = value.module()
        edit, signature = headed(value, module, classes, fresh=True, root=root)
        set_head(module, torch.as_tensor(found.weight).float(), torch.as_tensor(found.bias).float())
        signature = dataclasses.replace(signature, answers="classes")
        return value.with_module(module, *([edit] if edit else []), signature=signature, adaptation=None)

    def _scores(self, teacher: Network, samples: Samples, ctx: Context) -> NDArray[np.float64]:
        """The teacher's scores (N, K), from its embeddings where its head is linear."""
        import numpy as np

        from mapsto.nn.adapt.features import features
        from mapsto.nn.adapt.ridge import rooted
        from mapsto.nn.edits.root_head import takes_root
        from mapsto.nn.network.head import head
        from mapsto.nn.network.inference import forward

        module = teacher.module()
        last = head(module)
        if last is None:
            before = teacher.signature.preprocessing
            return forward(module, samples.inputs, before, device=ctx.device).double().cpu().numpy()
        rows = np.asarray(features(teacher, samples.inputs, ctx), np.float64)
        rows = rooted(rows) if takes_root(last) else rows
        weight = last.weight.detach().double().numpy()
        bias: Tensor | None = getattr(last, "bias", None)
        return rows @ weight.T + (0.0 if bias is None else bias.detach().double().numpy())

"""Make a classifier from a few labelled examples in the learner's own way, whatever it was meta-trained to do.

``model = A(θ, support)``: class means, a ridge regression or a support vector machine on the embedding become its head; inner
gradient steps change its parameters (Hospedales et al., "Meta-Learning in Neural Networks: A Survey", 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mapsto.context import Context
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network, Samples
from mapsto.mapping import DataSource, Mapping

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Learner"]


class Learner(Mapping[Network, Network]):
    """A classifier for the classes of `data`; a network that is no learner takes the class means of its embedding.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits = datasets.digits(size=16)
    >>> few = datasets.subset(data=digits, per_class=5)
    >>> reader = Learner(data=few)(networks.conv4(data=digits, width=16)())
    >>> reader.signature.classes == few.open().classes
    True
    """

    version: ClassVar[int] = 2

    data: DataSource
    """The support set: labelled examples, at least one of each class."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DataError` for fewer than two classes, samples of another shape or NaN; `DomainError` for a learner of
        another number of ways, one whose result is no network, or a diverging inner loop.
        """
        import torch

        from mapsto.data.checks import require_classes, require_finite
        from mapsto.nn.meta.adaptation_methods import CENTROID, linear_method, tensor_method

        samples = require_classes(ctx.dataset(self.data), where=self.name)
        require_classes(samples, at_least=len(samples.classes), where=self.name)
        require_finite(samples.inputs, where=f"{self.name}: data")
        self._require_shape(value, samples)
        adaptation = value.adaptation or CENTROID
        labels, ways = torch.as_tensor(samples.labels), len(samples.classes)
        if (linear := linear_method(adaptation.method)) is not None:
            features = self._features(value, samples, ctx)
            return self._headed(value, samples, linear.head(features, labels, ways, adaptation))
        if (whole := tensor_method(adaptation.method)) is not None:
            from mapsto.nn.network.preprocess import prepare

            module = value.module(device=ctx.device)
            inputs = prepare(samples.inputs, value.signature.preprocessing, device=ctx.device)
            changed, head = whole.adapted(module, inputs, labels.to(ctx.device), ways, adaptation)
            module.load_state_dict(changed, strict=False)
            return self._headed(value.with_module(module.cpu()), samples, head)
        raise DomainError(
            f"what a learner with the method '{adaptation.method}' makes of examples is no network of its own",
            where=self.name,
            hint="evaluate it with evaluate.episodes, or use a learner whose result is a head (protonet, r2d2, maml, …)",
        )

    def _require_shape(self, value: Network, samples: Samples) -> None:
        wanted, given = tuple(value.signature.inputs[0].shape[1:]), samples.inputs.shape[1:]
        if value.signature.preprocessing.kind == "none" and wanted != given:
            raise DataError(
                f"the examples have shape {given}, the learner takes {wanted}",
                where=f"{self.name}: data",
                hint="give examples like those it was trained on",
            )

    def _features(self, value: Network, samples: Samples, ctx: Context) -> Tensor:
        import torch

        from mapsto.nn.adapt.features import features

        return torch.from_numpy(features(value, samples.inputs, ctx)).to(ctx.device)

    def _headed(self, value: Network, samples: Samples, head: tuple[Tensor, Tensor] | None) -> Network:
        """The network with that head, or with the one it has, for the classes of the samples."""
        from mapsto.nn.network.head import headed, set_head

        module = value.module()
        edit, signature = headed(value, module, samples.classes, fresh=head is not None)
        if head is not None:
            set_head(module, *head)
        return value.with_module(module, *([edit] if edit else []), signature=signature, adaptation=None)

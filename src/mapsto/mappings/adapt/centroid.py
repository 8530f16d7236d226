"""Make a classifier from a few labelled examples without training: a class is the mean of its examples' embeddings.

``score_k(x) = s · (2 c_k · f(x) − ‖c_k‖²)``, a linear layer on the frozen embedding that ranks as ``−s · ‖f(x) − c_k‖²`` does (Snell,
Swersky and Zemel, "Prototypical Networks for Few-shot Learning", 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import AugmentationsOrAuto
from mapsto.kinds import Adaptation, Network
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.adapt.augmented import embedded, refuse_mixed_embeddings

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Centroid"]


class Centroid(Mapping[Network, Network]):
    """A classifier for the classes of `data`; the embedding stays as it is, quantized or not."""

    version: ClassVar[int] = 3

    data: DataSource
    """The labelled examples, at least one of each class."""
    scale: float | None = Field(default=None, gt=0)
    """s: larger is surer. None: what makes held-out examples (each in turn) likeliest, or the learner's own with one a class."""
    distance: Literal["euclidean", "cosine"] | None = None
    """Which class mean is nearest: of squared distances, or of angles. None: the learner's own way, else `euclidean`."""
    augment: AugmentationsOrAuto = ()
    """Random changes, in order, of copies whose embeddings are in the class means too; `auto`: chosen by the examples, by
    cross-validation."""

    def __post_init__(self) -> None:
        refuse_mixed_embeddings(self.augment, where=self.name)

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DataError` for fewer than two classes, an empty class or NaN, `DomainError` where there is no embedding."""
        import torch

        from mapsto.nn.adapt.augment_policy import COPIES_WEIGH
        from mapsto.nn.adapt.examples import examples_of, with_linear_head
        from mapsto.nn.meta.adaptation import centroid

        examples = examples_of(value, self.data, ctx, where="adapt.centroid", told=False)
        found = examples.features
        if (copies := embedded(self.augment, value, examples, ctx, where=self.name)) is not None:
            found = (found + COPIES_WEIGH * copies.mean(0)) / (1 + COPIES_WEIGH)
        features, labels = torch.from_numpy(found), torch.as_tensor(examples.labels)
        own = value.adaptation.settings if value.adaptation and value.adaptation.method == "centroid" else {}
        distance = self.distance or ("cosine" if centroid.is_cosine(own) else "euclidean")
        scale = self._scale(centroid.scale_of(own), features, labels, cosine=distance == "cosine")
        learner = Adaptation(method="centroid", settings={"scale": scale, "distance": distance})
        weight, bias = centroid.head(features, labels, examples.outputs, learner)
        return with_linear_head(value, examples, weight.numpy(), bias.numpy())

    def _scale(self, own: float, features: Tensor, labels: Tensor, *, cosine: bool) -> float:
        if self.scale is not None:
            return self.scale
        if int(labels.bincount().min()) > 1:
            return _likeliest_scale(features, labels, cosine=cosine)
        return own


def _likeliest_scale(features: Tensor, labels: Tensor, *, cosine: bool) -> float:
    """The scale with the best likelihood of each example against the means without it: of 61, twelve a decade."""
    import torch

    from mapsto.nn.meta.adaptation.centroid import leave_one_out_scores

    scores = leave_one_out_scores(features, labels, int(labels.max()) + 1, cosine=cosine)
    typical = float(scores.abs().mean().clamp_min(1e-12))
    candidates = [10 ** (exponent / 12) / typical for exponent in range(-12, 49)]
    losses = [float(torch.nn.functional.cross_entropy(scale * scores, labels)) for scale in candidates]
    return candidates[losses.index(min(losses))]

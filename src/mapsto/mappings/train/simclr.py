"""SimCLR: two random changes of one sample must lie nearer to each other than to those of all other samples.

``−mean_i log exp(cos(z_i, z_j(i)) / τ) / Σ_{k ≠ i} exp(cos(z_i, z_k) / τ)`` over the 2N views of a batch, z = projector(embedding) (Chen et
al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020). What `augment` changes is what the embedding learns to
overlook: it decides the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.kinds import Network
from mapsto.nn.train.self_supervised import SelfSupervised

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.train.augmenter import Augmenter
    from mapsto.nn.train.batches import Batch

__all__ = ["Simclr"]


class Simclr(SelfSupervised):
    """The embedding of a network that tells samples apart and overlooks what `augment` changes, learnt without labels."""

    temperature: float = Field(default=0.5, gt=0)
    """τ: the smaller, the more only the nearest other views count; 0.5 in the paper for CIFAR-10."""
    projection: int = Field(default=128, ge=2)
    """Numbers of a view that the loss compares; the projector is not in the result."""

    fewest: ClassVar[int] = 2
    contract: ClassVar[dict[str, Any]] = {"augment": ["noise"], "projection": 8}

    def trained(self, network: nn.Module, value: Network) -> nn.Module:
        """Raises `DomainError` without `augment`: both views would be one."""
        from mapsto.errors import DomainError
        from mapsto.nn.network.head import embedding_size, example_batch
        from mapsto.nn.train.contrast import Projected

        if not self.augment:
            raise DomainError(
                "there are no random changes, so that a sample's two views are one",
                where=f"{self.name}: augment",
                hint="give what the embedding is to overlook, such as [crop: {padding: 4}, flip, color_jitter], of rows [noise]",
            )
        return Projected(network, embedding_size(network, example_batch(value)), self.projection)

    def loss(self, trained: nn.Module, item: Batch, augmenter: Augmenter, value: Network) -> Tensor:
        import torch

        from mapsto.nn.train.contrast import nt_xent

        before = value.signature.preprocessing
        views = [augmenter(item.inputs, item.labels, 2 * item.step + view, before).x for view in range(2)]
        first, second = trained(torch.cat(views)).chunk(2)
        return nt_xent(first, second, self.temperature)

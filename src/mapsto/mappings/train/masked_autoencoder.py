"""Masked autoencoding: a vision transformer reads a quarter of an image's patches, and a decoder paints the others from what it says.

``mean over hidden patches of ‖p̂ − (p − mean p) / std p‖²`` (He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022). No labels
and no augmentation are needed beyond crops and flips. A convolution reads what is hidden too: such a network has `train.simclr`.
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

__all__ = ["MaskedAutoencoder"]


def _small_vit() -> Network:
    """For the contract suite: a network that has patches."""
    from mapsto import discovery

    source = discovery.find("mappings", "networks.vit")
    return source(channels=1, size=16, patch=8, depth=1, width=8, heads=2, classes=10)(seed=0)


class MaskedAutoencoder(SelfSupervised):
    """The embedding of a vision transformer that knows what images look like, learnt without labels."""

    share: float = Field(default=0.75, gt=0, lt=1)
    """Of the patches that are hidden; 0.75 in the paper."""
    decoder_depth: int = Field(default=1, ge=1)
    """Blocks of the decoder, which is not in the result; 8 in the paper, for large networks. One was as good there for fine-tuning."""

    contract_input: ClassVar[Any] = staticmethod(_small_vit)

    def trained(self, network: nn.Module, value: Network) -> nn.Module:
        """Raises `DomainError` for anything but a vision transformer of this package, and for one patch."""
        from mapsto.errors import DomainError
        from mapsto.nn.networks.vit import VisionTransformer
        from mapsto.nn.train.masked_patches import MaskedAutoencoder as Masked

        if not isinstance(network, VisionTransformer):
            raise DomainError(
                f"{type(network).__name__} is no vision transformer: what reads no patches cannot leave them out",
                where=self.name,
                hint="use train.simclr, or networks.vit",
            )
        if network.positions.shape[1] < 2:
            raise DomainError(
                "the image is one patch, of which nothing can be hidden", where=self.name, hint="lower patch"
            )
        return Masked(network, share=self.share, depth=self.decoder_depth)

    def loss(self, trained: nn.Module, item: Batch, augmenter: Augmenter, value: Network) -> Tensor:
        return trained(augmenter(item.inputs, item.labels, item.step, value.signature.preprocessing).x)

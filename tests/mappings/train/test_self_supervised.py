"""Training an embedding without labels, before it is adapted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mapsto import adapt, datasets, evaluate, networks, train
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network
from mapsto.nn.networks.vit import VisionTransformer, vit
from mapsto.nn.train.masked_patches import MaskedAutoencoder

DIGITS = datasets.digits(size=16)


def test_simclr_asks_for_changes() -> None:
    with pytest.raises(DomainError, match="two views are one"):
        train.simclr(data=DIGITS)(networks.conv4(data=DIGITS, width=4)(seed=0))


def test_one_sample_alone_is_told_from_no_other(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", inputs=DIGITS.open().inputs[:1], labels=np.zeros(1, np.int64))
    with pytest.raises(DataError, match="there is one sample"):
        train.simclr(data=datasets.arrays(file=str(tmp_path / "one.npz")), augment=["noise"])(
            networks.conv4(data=DIGITS, width=4)(seed=0)
        )


def test_masked_autoencoding_is_for_patches() -> None:
    with pytest.raises(DomainError, match=r"Conv4 is no vision transformer.*train\.simclr"):
        train.masked_autoencoder(data=DIGITS)(networks.conv4(data=DIGITS, width=4)(seed=0))


def test_the_loss_is_of_hidden_patches_alone() -> None:
    torch.manual_seed(0)
    network = vit(size=8, patch=4, channels=1, depth=1, width=8, heads=2, classes=None)
    assert isinstance(network, VisionTransformer)
    masked = MaskedAutoencoder(network, share=0.5, depth=1)
    assert masked.visible == 2
    images = torch.rand(6, 1, 8, 8)
    masked(images).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    with (
        torch.no_grad()
    ):  # a decoder that says nothing is wrong by the variance of what it hides, which is 1 for each patch
        masked.pixels.weight.zero_()
        masked.pixels.bias.zero_()
    assert masked(images).item() == pytest.approx(15 / 16, abs=1e-3)


def judged(network: Network) -> float:
    few = datasets.subset(data=DIGITS, per_class=3)
    return evaluate.accuracy(data=DIGITS)(adapt.ridge(data=few)(network)).metrics["accuracy"].value


@pytest.mark.slow
def test_pretraining_helps_a_few_labels() -> None:
    fresh = networks.conv4(data=DIGITS, width=16)(seed=0)
    changes = ["affine", {"noise": {"std": 0.1}}]
    pretrained = train.simclr(data=DIGITS, augment=changes, epochs=10, batch_size=128)(fresh)
    assert pretrained.signature.classes is None
    assert judged(pretrained) > judged(fresh) + 5


@pytest.mark.slow
def test_masked_autoencoding_helps_a_few_labels() -> None:
    fresh = networks.vit(data=DIGITS, patch=4, depth=2, width=32, heads=2)(seed=0)
    pretrained = train.masked_autoencoder(data=DIGITS, epochs=20, batch_size=64)(fresh)
    assert judged(pretrained) > judged(fresh) + 3

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tests.mappings.small import PREPROCESSING, Corners, Small
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.interop.lightning import ApplyMapping
from mapsto.kinds import Network, trusting
from mapsto.mappings.adapt.centroid import Centroid


class Lit(lightning.LightningModule):
    """A user's own training of a network with 3 classes."""

    def __init__(self, width: int = 4, rate: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = Small(width=width, classes=3)
        self.net.width, self.net.classes = width, 3  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["rate"])


class Watch(Callback):
    def __init__(self) -> None:
        self.outputs: list[int] = []
        self.trained: list[bool] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.outputs.append(pl_module.net.classifier.out_features)
        own = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
        self.trained.append({id(p) for p in pl_module.parameters()} == own)


def fit(module: Lit, *callbacks: Callback) -> None:
    torch.manual_seed(0)
    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(8, 1, 8, 8), torch.arange(8) % 3), batch_size=4
    )
    lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    ).fit(module, batches)


@pytest.mark.usefixtures("trusted")
@pytest.mark.filterwarnings("ignore")
def test_a_mapping_is_applied_in_the_middle_of_a_users_training() -> None:
    module, watch = Lit(), Watch()
    apply = ApplyMapping(Centroid(data=Corners()), "net", torch.zeros(2, 1, 8, 8), epoch=1, preprocessing=PREPROCESSING)
    fit(module, apply, watch)
    assert watch.outputs == [3, 4, 4]
    assert watch.trained == [True, True, True]
    assert apply.network is not None
    again = Network.from_module(module.net, torch.zeros(2, 1, 8, 8))
    assert [type(edit).__name__ for edit in again.edits] == ["Head"]
    assert not torch.equal(again.tensors["classifier.weight"], apply.network.tensors["classifier.weight"])


@pytest.mark.filterwarnings("ignore")
def test_an_unknown_submodule_is_named() -> None:
    with pytest.raises(DomainError, match="backbone"):
        fit(Lit(), ApplyMapping(Centroid(data=Corners()), "backbone", torch.zeros(2, 1, 8, 8)))


@pytest.mark.filterwarnings("ignore")
def test_a_lightning_module_trained_elsewhere_goes_in() -> None:
    module = Lit(width=6)
    fit(module)
    network = Network.from_module(module, torch.zeros(2, 1, 8, 8))
    assert network.arch.arguments["width"] == 6
    x = torch.randn(2, 1, 8, 8)
    with trusting("tests"):
        assert torch.allclose(network.module()(x), module.eval()(x), atol=1e-6)

"""What a context says of a crash that the data explain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mapsto import datasets, networks
from mapsto.context import Context
from mapsto.errors import DataError
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping


class Careless(Mapping[Network, Network]):
    """Runs a network on data without looking at them."""

    data: DataSource

    def apply(self, value: Network, ctx: Context) -> Network:
        value.module()(torch.as_tensor(ctx.dataset(self.data).inputs[:2]).float())
        return value


def test_what_pytorch_says_of_data_that_do_not_fit_is_said_in_words(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", inputs=np.ones((4, 3), np.float32), labels=np.arange(4) % 2)
    rows = datasets.arrays(file=str(tmp_path / "rows.npz"))
    with pytest.raises(DataError, match="takes images, and the data are rows of 3 numbers; give images"):
        Careless(data=rows)(networks.conv4(data=datasets.digits(size=8), width=2, blocks=1)(seed=0))
    with pytest.raises(DataError, match=r"takes rows of 3 numbers.*shape 1 × 8 × 8; give rows"):
        Careless(data=datasets.digits(size=8))(networks.mlp(inputs=3, classes=10)(seed=0))


def test_another_crash_stays_what_it_is() -> None:
    class Broken(Careless):
        def apply(self, value: Network, ctx: Context) -> Network:
            raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        Broken(data=datasets.digits(size=8))(networks.mlp(inputs=3, classes=10)(seed=0))

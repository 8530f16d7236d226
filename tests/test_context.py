"""What a context says of a crash that the data explain."""

from __future__ import annotations

import pytest
import torch

from mapsto import datasets, networks
from mapsto.context import Context
from mapsto.errors import DataError
from mapsto.kinds import Dataset, Network
from mapsto.mapping import DataSource, Mapping
from tests.nets import Blobs


class Careless(Mapping[Network, Network]):
    """Runs a network on data without looking at them."""

    data: DataSource

    def apply(self, value: Network, ctx: Context) -> Network:
        value.module()(torch.as_tensor(ctx.dataset(self.data).inputs[:2]).float())
        return value


@pytest.mark.parametrize(
    ("network", "data", "message"),
    [
        (
            networks.mlp(inputs=3, classes=10),
            datasets.digits(size=8),
            r"takes rows of 3 numbers.*shape 1 × 8 × 8; give rows",
        ),
        (networks.conv4(size=8, width=2, blocks=1), Blobs(), "takes images, and the data are rows"),
    ],
    ids=["images", "rows"],
)
def test_what_pytorch_says_of_data_that_do_not_fit_is_said_in_words(
    network: Mapping[None, Network], data: Dataset, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Careless(data=data)(network(seed=0))


def test_another_crash_stays_what_it_is() -> None:
    class Broken(Careless):
        def apply(self, value: Network, ctx: Context) -> Network:
            raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        Broken(data=datasets.digits(size=8))(networks.mlp(inputs=3, classes=10)(seed=0))

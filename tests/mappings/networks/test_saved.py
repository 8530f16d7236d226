"""A network that was saved in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.mappings.small import context

from mapsto import datasets, networks
from mapsto.errors import DataError, StoreError
from mapsto.kinds import Network
from mapsto.nn.network import serialization


def saved(value: Network, folder: Path) -> Path:
    folder.mkdir()
    for name, content in serialization.saved(value).items():
        (folder / name).write_bytes(content)
    return folder


def test_it_is_the_network_that_was_saved(tmp_path: Path) -> None:
    value = networks.conv4(data=datasets.digits(size=16), width=4)(seed=3)
    again = context().apply(networks.saved(folder=str(saved(value, tmp_path / "a"))), None)
    assert again.arch == value.arch
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in value.tensors.items())


def test_its_key_is_by_content(tmp_path: Path) -> None:
    one = networks.conv4(data=datasets.digits(size=16), width=4)(seed=3)
    other = networks.conv4(data=datasets.digits(size=16), width=4)(seed=4)
    first, again, second = (
        networks.saved(folder=str(saved(value, tmp_path / name))).fingerprint()
        for name, value in (("a", one), ("b", one), ("c", other))
    )
    assert first == again != second


def test_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no network\.json"):
        context().apply(networks.saved(folder=str(tmp_path)), None)
    place = saved(networks.conv4(data=datasets.digits(size=16), width=4)(seed=3), tmp_path / "a")
    (place / "tensors.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(StoreError, match="no whole network is here"):
        context().apply(networks.saved(folder=str(place)), None)

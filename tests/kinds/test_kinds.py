from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.mynet import Hidden, MyNet

from mapsto import datasets, evaluate, networks, prune, ref, train
from mapsto.errors import DomainError, SpecError, TrustError
from mapsto.kinds import Factory, Network, trusting
from mapsto.store import Store, network_digest


def test_from_module_and_back() -> None:
    module = MyNet(width=5, bias=False)
    network = Network.from_module(module, torch.randn(2, 4), classes=("a", "b", "c"))
    assert network.arch.name == "tests.mynet:MyNet"
    assert network.arch.arguments == {"width": 5, "bias": False}
    assert network.signature.inputs[0].shape == ("N", 4)
    with trusting("tests"):
        again = network.module()
    x = torch.randn(3, 4)
    assert torch.equal(again(x), module(x))


def test_from_module_that_hides_its_arguments() -> None:
    module = Hidden(5)
    with pytest.raises(DomainError, match="arguments="):
        Network.from_module(module, torch.randn(2, 4))
    network = Network.from_module(module, torch.randn(2, 4), arguments={"width": 5})
    assert network.arch.arguments == {"width": 5}
    with pytest.raises(DomainError, match="misshapen"):
        Network.from_module(module, torch.randn(2, 4), arguments={"width": 6})


def test_a_local_class_is_refused_with_the_remedy() -> None:
    class Local(torch.nn.Linear):
        pass

    with pytest.raises(TrustError, match="save the class to a file"):
        Network.from_module(Local(2, 2), torch.randn(1, 2))


def test_untrusted_factory_is_refused() -> None:
    with pytest.raises(TrustError, match="--trust nobodys"):
        Factory(name="nobodys.net:Net", arguments={"width": 3}).build()
    with pytest.raises(TrustError, match="--trust os"):
        Factory(name="os:system", arguments={"command": "true"}).build()
    with pytest.raises(SpecError, match="pattern"):
        Factory(name="os.system")


def test_a_network_of_a_module_of_a_network_keeps_its_edits() -> None:
    source = networks.conv4(channels=1, size=16, width=8, classes=4)
    pruned = (source >> prune.magnitude(macs=0.5))()
    module = pruned.module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    again = Network.from_module(module, torch.randn(1, 1, 16, 16))
    assert again.edits == pruned.edits
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(again.module()(x), module(x))


def test_a_pruned_network_in_a_fresh_process(tmp_path: Path) -> None:
    pruned = (networks.conv4(channels=1, size=16, width=8, classes=4) >> prune.magnitude(macs=0.5))()
    store = Store(tmp_path)
    digest = store.save(pruned)
    assert digest == network_digest(pruned)
    x = torch.randn(2, 1, 16, 16)
    torch.save(x, tmp_path / "x.pt")
    code = f"""
import torch
from mapsto.store import Store
network = Store({str(tmp_path)!r}).load({digest!r})
torch.save(network.module()(torch.load({str(tmp_path / "x.pt")!r})), {str(tmp_path / "y.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert torch.allclose(torch.load(tmp_path / "y.pt"), pruned.module()(x), atol=1e-6)


def test_writing_to_a_loaded_tensor_never_reaches_the_store(tmp_path: Path) -> None:
    network = networks.conv4(channels=1, size=16, width=4)()
    store = Store(tmp_path)
    digest = store.save(network)
    loaded = store.load(digest)
    next(iter(loaded.tensors.values())).zero_()
    assert store.verify() == []
    assert network_digest(Store(tmp_path).load(digest)) == digest


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    network = networks.conv4(channels=1, size=16, width=4)()
    first = next(iter(network.tensors))
    import dataclasses

    tied = dataclasses.replace(network, tensors={**network.tensors, "twin": network.tensors[first]})
    loaded = Store(tmp_path).load(Store(tmp_path).save(tied))
    assert loaded.tensors["twin"] is loaded.tensors[first]


def test_a_message_holds_no_whole_array() -> None:
    with pytest.raises(SpecError) as caught:
        datasets.arrays(file=np.zeros((40, 40)))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("threads", [1, 3])
def test_a_mapping_in_memory_leaves_torch_s_threads_as_they_were(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        digits = datasets.subset(data=datasets.digits(size=8), per_class=2)
        network = networks.conv4(data=digits, width=2, blocks=1, classes="data")(seed=0)
        train.supervised(data=digits, epochs=1)(network)
        assert torch.get_num_threads() == threads
        with pytest.raises(SpecError):
            evaluate.accuracy(data=ref("nothing"))(network)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_list_with_a_wrong_member_is_not_called_too_short_as_well() -> None:
    with pytest.raises(SpecError) as refused:
        evaluate.corruptions(data="$d", corruptions=["fogg"])  # pyright: ignore[reportArgumentType]
    assert "corruptions.0" in str(refused.value)
    assert "at least 1 item" not in str(refused.value)

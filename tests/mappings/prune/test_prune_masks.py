from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.parts import elsewhere, in_onnx_runtime, outputs
from tests.mappings.prunable import DATA, Odd, context, vgg
from torch import nn

from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.mappings.adapt.lora import Lora
from mapsto.mappings.evaluate.sparsity import Sparsity
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.prune.n_m import NOfM
from mapsto.mappings.prune.unstructured import Unstructured
from mapsto.mappings.quantize.static import Static
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.edits.masks import Masks
from mapsto.nn.network.input_statistics import input_norms
from mapsto.nn.profile.counts import count_macs, count_parameters, layer_table


def applied(mapping: Mapping[Any, Any], network: Network | None = None) -> Any:
    return context().apply(mapping, network or vgg())


def zeros(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor == 0 for name, tensor in network.tensors.items() if tensor.ndim > 1 and (tensor == 0).any()}


BATCH = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_smallest_weights_of_the_network_of_a_layer_or_of_a_row_are_zero() -> None:
    big = vgg()
    weights = {name: tensor for name, tensor in big.tensors.items() if tensor.ndim > 1}
    every = torch.cat([tensor.flatten() for tensor in weights.values()]).abs()
    for compare in ("network", "layer", "row"):
        small = applied(Unstructured(share=0.5, compare=compare))
        for name, before in weights.items():
            after = small.tensors[name]
            limit: Any = every.sort().values[len(every) // 2]
            if compare == "layer":
                limit = before.flatten().abs().sort().values[before.numel() // 2]
            elif compare == "row":
                rows = before.flatten(1).abs().sort(1).values
                limit = rows[:, rows.shape[1] // 2].view(-1, *[1] * (before.ndim - 1))
            assert torch.equal(after, before * (before.abs() >= limit)), (compare, name)
    assert not zeros(big)


def test_wanda_weighs_by_the_inputs() -> None:
    """A weight whose input is always zero goes before any other, however large it is."""
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, dilation=1)
    grouped = nn.Conv2d(4, 6, (1, 3), groups=2, padding_mode="reflect", padding=(0, 1))
    net = nn.Sequential(conv, grouped)
    batches = [torch.randn(3, 2, 9, 7), torch.randn(2, 2, 9, 7)]
    found = input_norms(net, ["0", "1"], batches)
    columns = torch.cat(
        [nn.functional.unfold(batch, 3, padding=1, stride=2).movedim(1, 2).flatten(0, 1) for batch in batches]
    )
    assert torch.allclose(found["0"].flatten(1).float(), columns.norm(dim=0).expand(4, -1), rtol=1e-5)
    with torch.no_grad():
        middle = [nn.functional.pad(conv(batch), (1, 1, 0, 0), mode="reflect") for batch in batches]
    columns = torch.cat([nn.functional.unfold(part, (1, 3)).movedim(1, 2).flatten(0, 1) for part in middle])
    norms = columns.norm(dim=0).view(2, 6).repeat_interleave(3, 0)
    assert torch.allclose(found["1"].flatten(1).float(), norms, rtol=1e-5)

    dead = vgg((4,), (6,)).module()
    dead.get_parameter("features.1.weight").data[1] = 0
    dead.get_parameter("features.1.bias").data[1] = 0
    network = vgg((4,), (6,)).with_module(dead)
    small = applied(Unstructured(share=0.3, criterion="wanda", compare="row", data=DATA, samples=32), network)
    (name,) = (name for name, tensor in network.tensors.items() if tensor.ndim == 4 and tensor.shape[1] == 4)
    assert (small.tensors[name][:, 1] == 0).all()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2)])
def test_n_of_m_stay_along_the_inputs(n: int, m: int) -> None:
    big = vgg((8,), (8,))
    small = applied(NOfM(n=n, m=m), big)
    for name, tensor in small.tensors.items():
        if tensor.ndim < 2 or tensor.shape[1] % m:
            assert torch.equal(tensor, big.tensors[name])
            continue
        before = big.tensors[name].movedim(1, -1).reshape(-1, m)
        blocks = tensor.movedim(1, -1).reshape(-1, m)
        assert ((blocks != 0).sum(1) == n).all()
        assert torch.equal(blocks.abs().sum(1), before.abs().sort(1).values[:, m - n :].sum(1))


@pytest.mark.parametrize(
    "training",
    [
        {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.01},
        {"optimizer": "adamw", "learning_rate": 0.01, "ema": 0.9},
    ],
    ids=lambda training: training["optimizer"],
)
def test_zeros_survive_training_and_the_rest_moves(training: dict[str, Any]) -> None:
    small = applied(Unstructured(share=0.6))
    trained = applied(Supervised(data=DATA, epochs=2, batch_size=16, **training), small)
    for name, mask in zeros(small).items():
        after = trained.tensors[name]
        assert torch.equal(after == 0, mask)
        assert (after != small.tensors[name])[~mask].float().mean() > 0.9
    again = applied(Unstructured(share=0.8), trained)
    assert all((again.tensors[name] == 0)[mask].all() for name, mask in zeros(trained).items())


@pytest.mark.slow
def test_it_is_the_same_network_on_disk_in_onnx_and_quantized(tmp_path: Path) -> None:
    small = applied(Unstructured(share=0.5, compare="layer"))
    expected = outputs(small, BATCH)
    assert torch.equal(elsewhere(small, BATCH, tmp_path), expected)
    assert torch.allclose(in_onnx_runtime(small, BATCH), expected, atol=1e-5)
    quantized = applied(Static(data=DATA, samples=64), small)
    assert (outputs(quantized, BATCH) - expected).abs().mean() < 0.1 * expected.std()
    assert torch.allclose(
        in_onnx_runtime(quantized, BATCH), outputs(quantized, BATCH), atol=0.05 * float(expected.std())
    )


def test_channels_can_go_afterwards() -> None:
    small = applied(Magnitude(macs=0.5), applied(Unstructured(share=0.5, compare="layer")))
    assert torch.isfinite(outputs(small, BATCH)).all()
    trained = applied(Supervised(data=DATA, epochs=1, batch_size=16), small)
    assert all(torch.equal(trained.tensors[name] == 0, mask) for name, mask in zeros(small).items())


def test_a_masked_layer_counts_as_the_dense_one_that_it_is() -> None:
    big, example = vgg(), torch.zeros(2, 1, 8, 8)
    small = applied(Unstructured(share=0.5)).module()
    assert count_parameters(small) == count_parameters(big.module())
    assert count_macs(small, example) == count_macs(big.module(), example)
    assert [row.macs for row in layer_table(small, example)] == [row.macs for row in layer_table(big.module(), example)]


@pytest.mark.slow
def test_the_report_says_what_zeros_buy() -> None:
    report = applied(Sparsity(seconds=0.01, rounds=3), applied(NOfM(n=2, m=4), vgg((32,), (32, 32))))
    layers = {row[0]: row[3:] for row in report.tables["layers"].rows}
    assert [cells for cells in layers.values() if cells == (0.5, "2:4")]
    assert layers["features.0.weight"] == (0.0, "")
    assert report.metrics["file_ratio"].value == 1
    assert 1.2 < report.metrics["deflated_ratio"].value < 2.2
    assert next(row[-1] for row in report.tables["files"].rows) == "nothing"
    assert report.metrics["speedup"].measured
    assert report.tables["latency"].measured
    dense = applied(Sparsity(seconds=0.01, rounds=1))
    assert dense.metrics["zeros"].value == 0
    assert [row[-1] for row in dense.tables["files"].rows] == ["nothing", "nothing"]


def test_fields_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(SpecError, match="wanda needs data"):
        Unstructured(criterion="wanda")
    with pytest.raises(SpecError, match="of no use"):
        NOfM(data=DATA)
    with pytest.raises(SpecError, match="n = 4 of m = 4"):
        NOfM(n=4, m=4)
    with pytest.raises(SpecError, match="share"):
        Unstructured(share=1.0)


def test_what_cannot_be_masked_is_named() -> None:
    with pytest.raises(DomainError, match=r"multiple of 5.*features"):
        applied(NOfM(n=2, m=5))
    with pytest.raises(DomainError, match=r"all .* weights of 'features"):
        applied(Unstructured(share=0.99, compare="network"), _with_a_weak_layer())
    with pytest.raises(DomainError, match="quantized"):
        applied(Unstructured(), applied(Static(data=DATA, samples=64)))
    with pytest.raises(DomainError, match="adapters"):
        applied(Unstructured(), applied(Lora()))
    with pytest.raises(DomainError, match="no module of it"):
        applied(Unstructured(skip=("nothing",)))
    with pytest.raises(DomainError, match="skip fewer"):
        applied(Unstructured(skip=("features", "classifier")))
    with pytest.raises(DataError, match="holds nan"):
        applied(Unstructured(criterion="wanda", data=Odd(what="nan"), samples=64))
    with pytest.raises(DataError):
        applied(Unstructured(criterion="wanda", data=Odd(what="empty")))
    with pytest.raises(DomainError, match=r"features.1"):
        Masks(layers=("features.1",)).apply(vgg().module())


def _with_a_weak_layer() -> Network:
    network = vgg()
    module = network.module()
    with torch.no_grad():
        module.get_parameter("features.0.weight").mul_(1e-6)
    return network.with_module(module)


def test_the_share_is_exact_where_values_are_equal() -> None:
    network = vgg()
    module = network.module()
    with torch.no_grad():
        module.get_parameter("classifier.weight").fill_(0.5)
    small = applied(Unstructured(share=0.3, compare="layer"), network.with_module(module))
    gone = small.tensors["classifier.weight"] == 0
    assert int(gone.sum()) == int(np.floor(0.3 * gone.numel()))

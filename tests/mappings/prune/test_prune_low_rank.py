from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.mappings.parts import elsewhere, in_onnx_runtime, outputs
from tests.mappings.prunable import DATA, Odd, context, vgg
from torch import nn

from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.mappings.adapt.lora import Lora
from mapsto.mappings.evaluate.size import Size
from mapsto.mappings.prune.low_rank import LowRank
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.quantize.static import Static
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.edits.low_rank import LowRank as Edit
from mapsto.nn.edits.low_rank import Ranks
from mapsto.nn.network.call_sites import trace
from mapsto.nn.network.input_statistics import input_moments
from mapsto.nn.network.serialization import decode_edit, encode_edit
from mapsto.nn.profile.cost import cost_of
from mapsto.nn.profile.counts import count_macs, count_parameters, layer_table
from mapsto.nn.prune.budget import Budget
from mapsto.nn.prune.low_rank import allocated, positions, set_factors, spectrum

BATCH = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
WIDE = ((8,), (12, 12))


def applied(mapping: Mapping[Any, Any], network: Network | None = None) -> Any:
    return context().apply(mapping, network or vgg(*WIDE))


def factorised(layer: Any, ranks: Ranks, moments: torch.Tensor | None = None, sweeps: int = 3) -> nn.Module:
    made = Edit(layers=(ranks,)).apply(nn.Sequential(layer))
    set_factors(made[0], spectrum(ranks.path, layer, moments), ranks, sweeps=sweeps)
    return made.eval()


LAYERS: dict[str, tuple[Any, torch.Tensor, Ranks]] = {
    "linear": (nn.Linear(7, 5), torch.randn(3, 7), Ranks(path="0", outputs=5)),
    "tall": (nn.Linear(5, 7, bias=False), torch.randn(2, 3, 5), Ranks(path="0", outputs=5)),
    "square": (nn.Linear(6, 6), torch.randn(3, 6), Ranks(path="0", outputs=6)),
    "1x1": (nn.Conv2d(6, 4, 1, stride=2, padding=1), torch.randn(2, 6, 5, 5), Ranks(path="0", outputs=4)),
    "3x3": (
        nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=1, padding_mode="reflect"),
        torch.randn(2, 4, 7, 9),
        Ranks(path="0", outputs=6, inputs=4),
    ),
    "1d": (nn.Conv1d(3, 4, 5, padding="same"), torch.randn(2, 3, 9), Ranks(path="0", outputs=4, inputs=3)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("aware", [False, True])
def test_at_full_rank_a_layer_computes_what_it_did(name: str, aware: bool) -> None:
    layer, batch, ranks = LAYERS[name]
    moments = input_moments(nn.Sequential(layer), ["0"], [batch])["0"] if aware else None
    with torch.no_grad():
        assert torch.allclose(factorised(layer, ranks, moments)(batch), layer(batch), atol=1e-5)


def test_a_matrix_keeps_its_greatest_singular_values() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(9, 6)
    made = factorised(layer, Ranks(path="0", outputs=2))
    with torch.no_grad():
        product = made[0][1].weight @ made[0][0].weight
        left, values, right = torch.linalg.svd(layer.weight)
        assert torch.allclose(product, left[:, :2] * values[:2] @ right[:2], atol=1e-5)
        assert torch.allclose(made[0][0].weight.norm(dim=1), made[0][1].weight.norm(dim=0), rtol=1e-4)
        energies = spectrum("0", layer).energies[0]
        assert torch.allclose(energies.float(), values**2 / (values**2).sum(), atol=1e-5)


def test_with_samples_the_output_is_kept_rather_than_the_weight() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 8, bias=False)
    x = torch.randn(400, 12) @ torch.diag(torch.linspace(0.05, 3, 12)) @ torch.randn(12, 12)
    moments = input_moments(nn.Sequential(layer), ["0"], [x])["0"]

    def error(made: nn.Module) -> float:
        with torch.no_grad():
            return float((made(x) - layer(x)).square().mean())

    rank = Ranks(path="0", outputs=3)
    aware = error(factorised(layer, rank, moments))
    with torch.no_grad():  # the best that any rank 3 can do: truncate the outputs themselves
        left, values, right = torch.linalg.svd(layer(x), full_matrices=False)
        best = float((layer(x) - left[:, :3] * values[:3] @ right[:3]).square().mean())
    assert aware == pytest.approx(best, rel=0.02)
    assert aware < 0.8 * error(factorised(layer, rank))


def test_sweeps_bring_a_convolutions_factors_nearer() -> None:
    torch.manual_seed(0)
    layer, ranks = nn.Conv2d(8, 10, 3), Ranks(path="0", outputs=3, inputs=3)
    batch = torch.randn(8, 8, 6, 6)
    with torch.no_grad():
        errors = [
            float((factorised(layer, ranks, None, sweeps)(batch) - layer(batch)).square().mean())
            for sweeps in (0, 1, 10)
        ]
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize("budget", [{"macs": 0.6}, {"parameters": 0.5}, {"bytes": 0.5}, {"bytes": 7000.0}], ids=str)
def test_the_budget_is_met_and_nearly_spent(budget: dict[str, float]) -> None:
    big = vgg(*WIDE)
    small = applied(LowRank(**budget))
    ((kind, limit),) = budget.items()
    known: Any = kind
    cost, whole = cost_of(small, known), cost_of(big, known)
    wanted = limit if limit > 1 else limit * whole
    assert 0.9 * wanted < cost <= wanted
    assert outputs(small, BATCH).shape == (4, 10)
    assert not any("classifier.0" in name for name in small.tensors)


def test_a_component_goes_where_it_keeps_most_for_its_cost() -> None:
    """Of two layers of one size, the one whose energy is in few components gets few."""
    torch.manual_seed(0)
    flat, steep = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
    with torch.no_grad():
        nn.init.orthogonal_(flat.weight)
        steep.weight.copy_(torch.outer(torch.randn(16), torch.randn(16)) + 0.01 * torch.randn(16, 16))
    net = nn.Sequential(flat, steep)
    layers: dict[str, Any] = {"0": flat, "1": steep}
    places = positions(net, layers, torch.zeros(2, 16))
    spectra = [spectrum(path, layer) for path, layer in layers.items()]
    ranks = {r.path: r.outputs for r in allocated(spectra, places, 0, 270, budget=Budget("macs", 270 / 512), where="")}
    assert ranks["1"] == 1
    assert ranks["0"] == 7
    whole = allocated(spectra, places, 0, 300, budget=Budget("macs", 300 / 512), where="")
    assert [r.path for r in whole] == ["1"]  # the other is better whole than in factors


def test_it_is_counted_as_what_it_is() -> None:
    small = applied(LowRank(macs=0.5))
    module, example = small.module(), torch.zeros(2, 1, 8, 8)
    table = layer_table(module, example)
    (edit,) = small.edits
    for ranks in edit.layers:
        rows = [row for row in table if row.path.startswith(f"{ranks.path}.")]
        assert [row.kind for row in rows] == ["Conv2d"] * (2 if ranks.inputs is None else 3)
        assert all(row.macs == row.parameters * row.shape[1] * row.shape[2] for row in rows)
    assert sum(row.macs for row in table) == count_macs(module, example)
    assert sum(row.parameters for row in table) == count_parameters(module)
    report = applied(Size(baseline=vgg(*WIDE)), small)
    assert report.metrics["macs_ratio"].value == pytest.approx(2, rel=0.1)


@pytest.mark.slow
def test_it_is_the_same_network_on_disk_in_onnx_and_quantized(tmp_path: Path) -> None:
    small = applied(LowRank(macs=0.6, data=DATA, samples=64))
    expected = outputs(small, BATCH)
    assert torch.equal(elsewhere(small, BATCH, tmp_path), expected)
    assert decode_edit(encode_edit(small.edits[0])) == small.edits[0]
    assert torch.allclose(in_onnx_runtime(small, BATCH), expected, atol=1e-5)
    quantized = applied(Static(data=DATA, samples=64), small)
    paths = {quantizer.path for quantizer in quantized.edits[-1].quantizers}
    assert any(
        path.endswith(".2") and path.rpartition(".")[0] in {r.path for r in small.edits[0].layers} for path in paths
    )
    assert (outputs(quantized, BATCH) - expected).abs().mean() < 0.15 * expected.std()
    codes = outputs(quantized, BATCH)
    assert torch.allclose(in_onnx_runtime(quantized, BATCH), codes, atol=0.05 * float(expected.std()))


def test_training_goes_on_and_channels_can_go() -> None:
    small = applied(LowRank(macs=0.6))
    trained = applied(Supervised(data=DATA, epochs=1, batch_size=16), small)
    path = small.edits[0].layers[0].path
    assert not torch.equal(trained.tensors[f"{path}.0.weight"], small.tensors[f"{path}.0.weight"])
    pruned = applied(Magnitude(macs=0.7), trained)
    assert cost_of(pruned, "macs") <= 0.7 * cost_of(trained, "macs")
    assert torch.isfinite(outputs(pruned, BATCH)).all()


def test_every_factor_has_a_place_of_its_own() -> None:
    small = applied(LowRank(macs=0.6))
    places = {call.site.path for call in trace(small.module(), BATCH).calls if call.site.function == "conv2d"}
    assert all(f"{ranks.path}.0" in places and f"{ranks.path}.1" in places for ranks in small.edits[0].layers)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(DomainError, match=r"macs = 0.01 is out of reach: the smallest is 0\.\d+"):
        applied(LowRank(macs=0.01))
    with pytest.raises(DomainError, match=r"100 bytes is out of reach: the smallest is [\d,]+ bytes"):
        applied(LowRank(bytes=100))
    with pytest.raises(DomainError, match="no layer to factorise"):
        applied(LowRank(macs=0.5, skip=("features",)))
    with pytest.raises(DomainError, match="no module of it"):
        applied(LowRank(macs=0.5, skip=("nothing",)))
    with pytest.raises(DomainError, match="quantized"):
        applied(LowRank(macs=0.5), applied(Static(data=DATA, samples=64)))
    with pytest.raises(DomainError, match="adapters"):
        applied(LowRank(macs=0.5), applied(Lora()))
    with pytest.raises(SpecError, match=r"no budget is given.*macs, parameters, bytes,"):
        LowRank()
    with pytest.raises(SpecError, match="macs and bytes are given"):
        LowRank(macs=0.5, bytes=0.5)
    with pytest.raises(DataError, match="holds nan"):
        applied(LowRank(macs=0.5, data=Odd(what="nan"), samples=64))
    assert applied(LowRank(macs=1.0)).edits == ()


def test_an_edit_that_does_not_fit_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4))
    with pytest.raises(DomainError, match="has two ranks"):
        Edit(layers=(Ranks(path="0", outputs=2),)).apply(net)
    with pytest.raises(DomainError, match="it is a ReLU"):
        Edit(layers=(Ranks(path="1", outputs=2),)).apply(net)
    with pytest.raises(DomainError, match="low_rank: 2"):
        Edit(layers=(Ranks(path="2", outputs=2),)).apply(net)
    with pytest.raises(DomainError, match="low_rank: 7"):
        Edit(layers=(Ranks(path="7", outputs=2),)).apply(net)

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.parts import BERT, Sentences, elsewhere, in_onnx_runtime, outputs
from tests.mappings.prunable import DATA, Odd, context, vgg
from tests.mappings.transformer import vit
from torch.nn import functional

from mapsto.errors import DataError, DomainError, MissingExtra, SpecError
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.mappings.evaluate.accuracy import Accuracy
from mapsto.mappings.networks.hf_text import HfText
from mapsto.mappings.prune.heads import Heads
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.quantize.dynamic import Dynamic
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.network.examples import example_batch
from mapsto.nn.profile.cost import cost_of
from mapsto.nn.prune.attention_heads import find_attentions

pytestmark = pytest.mark.usefixtures("trusted")
IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
IDS = torch.from_numpy(Sentences().open().inputs[:4])


def applied(mapping: Mapping[Any, Any], network: Network | None = None) -> Any:
    return context().apply(mapping, network or vit())


@cache
def bert(classes: int | None = None, heads: int = 4) -> Network:
    try:
        return context().apply(
            HfText(configuration={**BERT, "num_attention_heads": heads}, length=8, classes=classes), None
        )
    except MissingExtra as error:
        pytest.skip(str(error))


def counts(network: Network) -> list[int]:
    found = find_attentions(network.module(), example_batch(network)).found
    return [attention.group.channels for attention in found]


@pytest.mark.parametrize("order", ["three first", "heads first"])
def test_the_rows_of_a_fused_layer_are_found_in_either_order(order: str) -> None:
    """Slicing a head away is to let nothing read it."""
    big = vit(order)
    module = big.module()
    small = applied(Heads(heads=0.75, ranking="per_layer"), big)
    assert counts(small) == [3, 3, 3]
    (edit,) = small.edits
    with torch.no_grad():
        for kept in edit.kept:
            for name, dim in kept.at:
                if name.endswith("proj.weight") and dim == 1:
                    gone = torch.tensor(sorted(set(range(16)) - set(kept.numbers)))
                    module.get_parameter(name)[:, gone] = 0
        assert torch.allclose(outputs(small, IMAGES), module(IMAGES), atol=1e-6)
    assert not torch.allclose(outputs(small, IMAGES), outputs(big, IMAGES), atol=1e-3)


@pytest.mark.parametrize("budget", [{"macs": 0.8}, {"parameters": 0.8}, {"bytes": 0.8}, {"heads": 0.5}], ids=str)
def test_the_budget_is_met(budget: dict[str, Any]) -> None:
    big = vit()
    small = applied(Heads(**budget), big)
    ((kind, limit),) = budget.items()
    assert min(counts(small)) >= 1
    if kind == "heads":
        assert sum(counts(small)) == 6
    else:
        assert limit - 0.06 < cost_of(small, kind) / cost_of(big, kind) <= limit


def test_the_effect_of_a_head_is_that_of_a_gate_on_it() -> None:
    """Michel et al.: the gradient of the loss in a factor before each head."""
    big = vit(depth=1)
    module = big.module()
    samples = DATA.open()
    inputs = torch.from_numpy(samples.inputs[:6]).float() / 255
    inputs = functional.interpolate(inputs, size=(8, 8), mode="bilinear", antialias=True)
    labels = torch.from_numpy(samples.labels[:6])
    found = find_attentions(module, example_batch(big)).found
    from mapsto.mappings.prune.heads import _effects, _loss  # pyright: ignore[reportPrivateUsage]

    given = _effects(module, found, [_loss(module, inputs, labels)], power=1)["blocks.0.attention"]
    wanted = torch.zeros(4)
    for at in range(6):
        gates = torch.ones(4, requires_grad=True)
        handle = module.get_submodule("blocks.0.attention.proj").register_forward_pre_hook(
            lambda _, args, gates=gates: (args[0] * gates.repeat_interleave(4),)
        )
        loss = functional.cross_entropy(module(inputs[at : at + 1]), labels[at : at + 1])
        handle.remove()
        wanted += torch.autograd.grad(loss, gates)[0].abs() / 6
    assert torch.allclose(torch.from_numpy(given).float(), wanted, rtol=1e-4)


def test_the_embedding_decides_where_there_are_no_classes() -> None:
    """The measure is the expected change: for one sample ‖J A_h‖, which finite differences give."""
    big = bert()
    module = big.module()
    found = find_attentions(module, example_batch(big)).found
    from mapsto.mappings.prune.heads import _directions, _effects  # pyright: ignore[reportPrivateUsage]

    given = _effects(module, found, [_directions(module, IDS[:1], seed) for seed in range(60)], power=2)[found[0].path]
    module.double()
    wanted: list[float] = []
    for head in range(4):
        scale = torch.ones(4, dtype=torch.float64)
        scale[head] -= 1e-4
        handle = module.get_submodule(found[0].out).register_forward_pre_hook(
            lambda _, args, scale=scale: (args[0] * scale.repeat_interleave(4),)
        )
        with torch.no_grad():
            changed = module(IDS[:1])
        handle.remove()
        with torch.no_grad():
            wanted.append(float((changed - module(IDS[:1])).norm() / 1e-4))
    assert given == pytest.approx(np.array(wanted), rel=0.15)


def test_a_trained_network_keeps_the_heads_that_it_needs() -> None:
    """Data tell heads that matter from one that was made loud but of no effect."""
    trained = applied(Supervised(data=DATA, epochs=30, batch_size=20, learning_rate=0.02))
    module = trained.module()
    with torch.no_grad():  # head 1 of the first block: large weights, but nothing reads it
        attention = module.get_submodule("blocks.0.attention")
        attention.get_parameter("proj.weight")[:, 4:8] = 0
        for part in range(3):
            attention.get_parameter("qkv.weight")[part * 16 + 4 : part * 16 + 8] *= 10
    loud = trained.with_module(module)
    small = applied(Heads(heads=11 / 12, data=DATA, normalise=False), loud)
    assert counts(small) == [3, 4, 4]
    assert torch.allclose(outputs(small, IMAGES), outputs(loud, IMAGES), atol=1e-5)
    assert counts(applied(Heads(heads=11 / 12, normalise=False), loud))[0] == 4
    accuracy = [applied(Accuracy(data=DATA), net).metrics["accuracy"].value for net in (loud, small)]
    assert accuracy[0] == accuracy[1] > 50


@pytest.mark.slow
def test_a_text_network_goes_on_disk_to_onnx_and_through_training(tmp_path: Path) -> None:
    small = applied(Heads(heads=0.5, data=Sentences()), bert())
    assert sum(counts(small)) == 6
    expected = outputs(small, IDS)
    assert torch.equal(elsewhere(small, IDS, tmp_path), expected)
    assert torch.allclose(in_onnx_runtime(small, IDS), expected, atol=1e-5)
    again = applied(Heads(heads=0.5), small)
    assert sum(counts(again)) == 3
    assert outputs(again, IDS).shape == expected.shape
    trained = applied(Supervised(data=Sentences(), epochs=8, batch_size=16, learning_rate=0.01), small)
    assert counts(trained) == counts(small)
    assert applied(Accuracy(data=Sentences()), trained).metrics["accuracy"].value > 90
    quantized = applied(Dynamic(), small)
    assert functional.cosine_similarity(outputs(quantized, IDS), expected).min() > 0.95


def test_perceptrons_of_a_text_network_become_narrower_by_magnitude() -> None:
    small = applied(Magnitude(parameters=0.9), bert())
    widths = [small.tensors[f"encoder.encoder.layer.{at}.intermediate.dense.weight"].shape[0] for at in range(3)]
    assert max(widths) < 24
    assert counts(small) == [4, 4, 4]
    assert torch.isfinite(outputs(small, IDS)).all()


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(DomainError, match=r"no attention, only .*Conv2d"):
        applied(Heads(heads=0.5), vgg())
    with pytest.raises(DomainError, match=r"blocks.0.attention: its forward pass does not go by its 'num_heads'"):
        applied(Heads(heads=0.5), vit("fixed"))
    with pytest.raises(DomainError, match=r"heads = 0.1 is out of reach: the smallest is 0.25"):
        applied(Heads(heads=0.1))
    with pytest.raises(DomainError, match=r"out of reach: the smallest is 0.5"):
        applied(Heads(heads=0.4, min_heads=2))
    with pytest.raises(DomainError, match="out of reach: the smallest is 1"):
        applied(Heads(heads=0.5), bert(heads=1))
    with pytest.raises(SpecError, match=r"no budget is given.*heads"):
        Heads()
    with pytest.raises(SpecError, match="macs and heads are given"):
        Heads(macs=0.5, heads=0.5)
    with pytest.raises(DataError, match="whole numbers, such as token ids"):
        applied(Heads(heads=0.5, data=Sentences(what="floats")), bert())
    with pytest.raises(DomainError, match="10 outputs, the data 2 classes"):
        applied(Heads(heads=0.5, data=Odd(what="two")))
    with pytest.raises(DataError, match="labelled with classes"):
        applied(Heads(heads=0.5, data=Odd(what="numbers")))
    with pytest.raises(DataError):
        applied(Heads(heads=0.5, data=Odd(what="empty")))
    assert applied(Heads(heads=1.0)).edits == ()


def test_the_step_keeps_which_heads_went() -> None:
    ctx = context()
    Heads(heads=0.5, ranking="per_layer").apply(vit(), ctx)
    rows = ctx.attached["pruned_heads"].rows
    whole = counts(vit())
    assert len(rows) == sum(whole)
    assert all((row[-1] == "went") == (row[3] <= whole[0] // 2) for row in rows), (
        "of each layer the less important half"
    )

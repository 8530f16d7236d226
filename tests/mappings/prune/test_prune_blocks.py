from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.mappings.parts import BERT, Sentences, elsewhere, in_onnx_runtime, outputs
from tests.mappings.prunable import DATA, Odd, context, vgg
from tests.mappings.transformer import vit
from torch import nn
from torch.nn import functional

from mapsto.errors import DataError, DomainError, MissingExtra, SpecError
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.mappings.networks.hf_text import HfText
from mapsto.mappings.networks.resnet_cifar import ResnetCifar
from mapsto.mappings.prune.blocks import Blocks
from mapsto.mappings.quantize.static import Static
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.edits.skipped_blocks import SkippedBlocks
from mapsto.nn.network.examples import example_batch
from mapsto.nn.profile.cost import cost_of
from mapsto.nn.prune.layer_drop import find_blocks, influences, losses_without
from mapsto.nn.train.calibration_batches import inputs_of, labelled

pytestmark = pytest.mark.usefixtures("trusted")
IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def applied(mapping: Mapping[Any, Any], network: Network | None = None) -> Any:
    try:
        return context().apply(mapping, network)
    except MissingExtra as error:
        pytest.skip(str(error))


def bert() -> Network:
    return applied(HfText(configuration=BERT, length=8))


def resnet() -> Network:
    return applied(ResnetCifar(depth=20, width=4, channels=1, classes=10))


def test_blocks_are_what_keeps_its_shape() -> None:
    net = resnet()
    found = find_blocks(net.module(), example_batch(net))
    assert found == ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]
    net = vit()
    assert find_blocks(net.module(), example_batch(net)) == ["blocks.0", "blocks.1", "blocks.2"]
    net = bert()
    assert find_blocks(net.module(), example_batch(net)) == [f"encoder.encoder.layer.{at}" for at in range(3)]


def test_influence_is_one_minus_the_cosine_without_padding() -> None:
    net = bert()
    module, path = net.module(), "encoder.encoder.layer.1"
    (batch, *_) = inputs_of(net, Sentences(), 8, context(), where="")
    seen: list[torch.Tensor] = []
    handle = module.get_submodule(path).register_forward_hook(
        lambda _, given, out: seen.extend((given[0].double(), out.double()))
    )
    with torch.no_grad():
        module(batch)
    handle.remove()
    wanted = 1 - functional.cosine_similarity(seen[0][batch != 0], seen[1][batch != 0], dim=-1).mean()
    assert influences(module, [path], [batch])[path] == pytest.approx(float(wanted), rel=1e-4)


def test_the_block_that_does_least_goes() -> None:
    net = vit()
    module = net.module()
    with torch.no_grad():
        for name in ("attention.proj", "fc2"):
            for tensor in ("weight", "bias"):
                module.get_parameter(f"blocks.1.{name}.{tensor}").mul_(1e-4)
    quiet = net.with_module(module)
    small = applied(Blocks(number=1, data=DATA), quiet)
    assert small.edits[0].blocks == ("blocks.1",)
    assert not any(name.startswith("blocks.1.") for name in small.tensors)
    assert torch.allclose(outputs(small, IMAGES), outputs(quiet, IMAGES), atol=1e-3)
    assert cost_of(small, "parameters") < 0.75 * cost_of(quiet, "parameters")
    assert applied(Blocks(share=0.67, data=DATA, skip=("blocks.1",)), quiet).edits[0].blocks == ("blocks.0", "blocks.2")


def test_the_loss_without_a_block_is_that_of_the_network_without_it() -> None:
    net = vit()
    batches = labelled(net, DATA, 40, context(), where="")
    found = losses_without(net.module(), ["blocks.0", "blocks.2"], batches)
    for path, loss in found.items():
        module = net.edited(SkippedBlocks(blocks=(path,))).module()
        with torch.no_grad():
            parts = [functional.cross_entropy(module(b.inputs), b.labels, reduction="sum") for b in batches]
        assert loss == pytest.approx(float(torch.stack(parts).sum()) / 40, rel=1e-4)
    worst = max(found, key=lambda path: found[path])
    assert worst not in applied(Blocks(number=1, data=DATA, measure="loss", samples=40), net).edits[0].blocks


@pytest.mark.slow
def test_it_is_the_same_network_on_disk_in_onnx_trained_and_quantized(tmp_path: Path) -> None:
    small = applied(Blocks(number=2, data=Sentences()), bert())
    ids = torch.from_numpy(Sentences().open().inputs[:4])
    assert torch.equal(elsewhere(small, ids, tmp_path), outputs(small, ids))
    assert torch.allclose(in_onnx_runtime(small, ids), outputs(small, ids), atol=1e-5)
    narrow = applied(Blocks(share=0.5, data=DATA), resnet())
    trained = applied(Supervised(data=DATA, epochs=1, batch_size=20), narrow)
    assert trained.edits == narrow.edits
    assert set(trained.tensors) == set(narrow.tensors)
    quantized = applied(Static(data=DATA, samples=64), trained)
    assert torch.isfinite(outputs(quantized, IMAGES)).all()


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(DomainError, match=r"no blocks.*Linear.*Sequential"):
        applied(Blocks(number=1, data=DATA), vgg())
    with pytest.raises(DomainError, match="3 of 3 blocks cannot go: at most 2"):
        applied(Blocks(number=3, data=DATA), vit())
    with pytest.raises(DomainError, match="1 of 3 blocks cannot go: at most 0"):
        applied(Blocks(number=1, data=DATA, skip=("blocks.0", "blocks.1", "blocks.2")), vit())
    with pytest.raises(DomainError, match=r"share 0.2 of 3 blocks is less than one.*0\.333"):
        applied(Blocks(share=0.2, data=DATA), vit())
    with pytest.raises(DomainError, match="no module of it"):
        applied(Blocks(number=1, data=DATA, skip=("blocks.9",)), vit())
    with pytest.raises(SpecError, match="either share or number"):
        Blocks(data=DATA)
    with pytest.raises(SpecError, match="either share or number"):
        Blocks(data=DATA, share=0.5, number=1)
    with pytest.raises(SpecError, match="data"):
        Blocks(number=1)  # type: ignore[call-arg]
    with pytest.raises(DataError):
        applied(Blocks(number=1, data=Odd(what="empty")), vit())
    with pytest.raises(DomainError, match="10 outputs, the data 2 classes"):
        applied(Blocks(number=1, data=Odd(what="two"), measure="loss"), vit())
    with pytest.raises(DomainError, match="skipped_blocks: 3"):
        SkippedBlocks(blocks=("3",)).apply(nn.Sequential(nn.ReLU()))

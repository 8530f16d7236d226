"""An encoder in int8: small tables, attention as one operation, and the same answers in a padded batch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mappings.evaluate.size import Size
from mapsto.mappings.networks.hf_text import HfText
from mapsto.mappings.quantize.dynamic import Dynamic
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import runner
from tests.text.tiny_encoder import WORDS, tiny_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return HfText(folder=str(tiny_encoder(tmp_path_factory.mktemp("encoder"))), length=32)()


@pytest.fixture(scope="module")
def int8(encoder: Network) -> Network:
    return Dynamic(reduce_range=True)(encoder)


def ids(texts: int = 5, length: int = 11) -> torch.Tensor:
    """Texts of different lengths."""
    found = torch.randint(1, len(WORDS), (texts, length), generator=torch.Generator().manual_seed(0))
    for place in range(1, texts):
        found[place, length - 2 * place :] = 0
    return found


def answers(network: Network, given: torch.Tensor) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        return network.module()(given).numpy()


def operations(network: Network) -> Counter[str]:
    model = onnx.load_from_string(to_onnx(network, fused=True))
    return Counter(str(node.op_type) for node in model.graph.node)


@pytest.mark.slow
def test_attention_of_a_package_is_one_operation_and_hides_padding(encoder: Network) -> None:
    found = operations(encoder)
    assert found["MultiHeadAttention"] == 2
    assert found["SkipLayerNormalization"] == 4
    assert found["Softmax"] == 0
    run = runner(to_onnx(encoder, fused=True))
    for given in (ids(), ids(1, 3), ids(7, 32)):
        assert np.allclose(run(given.numpy()), answers(encoder, given), atol=1e-5)
    alone = run(ids()[4:, :3].numpy())
    assert np.allclose(run(ids().numpy())[4:], alone, atol=1e-5)


@pytest.mark.slow
def test_int8_stores_rows_and_keeps_the_answers(encoder: Network, int8: Network) -> None:
    found = operations(int8)
    assert found["QAttention"] == 2
    model = onnx.load_from_string(to_onnx(int8, fused=True))
    stored = {item.name: item for item in model.graph.initializer}
    floats = [
        name for name, item in stored.items() if item.data_type == onnx.TensorProto.FLOAT and np.prod(item.dims) > 200
    ]
    assert floats == []
    run = runner(to_onnx(int8, fused=True))
    for given in (ids(), ids(1, 3), ids(7, 32)):
        assert np.allclose(run(given.numpy()), answers(int8, given), atol=0.02)
        assert np.allclose(answers(int8, given), answers(encoder, given), atol=0.1)
    sizes = [Context().apply(Size(), network).metrics["bytes"].value for network in (int8, encoder)]
    assert sizes[0] < 0.4 * sizes[1]


def test_rows_have_steps_of_their_own(encoder: Network) -> None:
    name = "encoder.embeddings.word_embeddings.weight"
    tensors = dict(encoder.tensors)
    tensors[name] = tensors[name].clone()
    tensors[name][7] *= 1000
    import dataclasses

    wild = dataclasses.replace(encoder, tensors=tensors)
    given = ids()
    given[given == 7] = 8
    assert np.allclose(answers(Dynamic()(wild), given), answers(Dynamic()(encoder), given), atol=1e-6)
    tables = Dynamic(tables=False)(encoder).edits[-1]
    assert tables.tables == ()  # pyright: ignore[reportAttributeAccessIssue]


def test_another_mask_leaves_attention_as_it_is(tmp_path: Path) -> None:
    from mapsto.nn.export.attention import masks_padding

    class Causal(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            heads = x.float()[:, None, :, None].expand(-1, 1, -1, 4)
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()[None, None]
            return torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)

    assert not masks_padding(Causal(), ids(), 0)
    assert not masks_padding(torch.nn.Embedding(len(WORDS), 4), ids(), 0)

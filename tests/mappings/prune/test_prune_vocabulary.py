"""A reduced tokenizer spells what it has lost, and leaves alone what it has kept."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.text.tiny_encoder import WORDS, tiny_encoder, tokenizer

from mapsto import datasets
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Dataset, Network, Preprocessing
from mapsto.mappings.export.onnx import Onnx
from mapsto.mappings.networks.hf_text import HfText
from mapsto.mappings.prune.vocabulary import Vocabulary
from mapsto.nn.prune.reduced_tokenizer import reduced
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.preprocessing.texts import encoded, tokenizer_of

TEXTS = [
    "where is my card?",
    "I lost the card, please help",
    "apples and pears: eat fruit",
    "pay the bank, transfer money",
    "is it red, green or blue",
    "lost keys are in the transferred cards",
]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def trained(kind: str) -> Any:
    """A tokenizer of some kind, trained on the texts, with every letter."""
    library = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if kind == "WordPiece":
        pieces = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
        return tokenizer([*WORDS, *(piece for piece in pieces if piece not in WORDS)])
    if kind == "bytes":
        made = library.Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=340,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind == "BPE":
        made = library.Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(
            vocab_size=120, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
        )
    else:
        made = library.Tokenizer(models.Unigram())
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=90,
            special_tokens=SPECIAL,
            unk_token="[UNK]",
            initial_alphabet=list(LETTERS),
            show_progress=False,
        )
    made.train_from_iterator([*TEXTS, *(f"{x}{y}" for x in LETTERS for y in LETTERS), LETTERS], trainer)
    return made


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "bytes", "Unigram"])
def test_dropped_words_are_spelled_and_kept_texts_stay(kind: str) -> None:
    before = trained(kind)
    content = before.to_str().encode()
    used = {number for text in TEXTS[:3] for number in before.encode(text).ids}
    small, former = reduced(content, used)
    assert former == sorted(former)
    assert used <= set(former)
    assert len(former) < before.get_vocab_size()
    after = tokenizer_of(Preprocessing(kind="text", tokenizer_json=small))
    assert after.get_vocab() == {before.id_to_token(old): new for new, old in enumerate(former)}
    unknown = after.token_to_id("[UNK]")
    drawn = np.random.default_rng(0)
    same = 0
    for _ in range(300):
        words = ["".join(drawn.choice([*LETTERS], drawn.integers(1, 9))) for _ in range(3)]
        text = " ".join([*drawn.choice(" ".join(TEXTS).replace(",", "").split(), 3), *words[: drawn.integers(0, 3)]])
        wanted, given = before.encode(text).ids, after.encode(text).ids
        if before.token_to_id("[UNK]") not in wanted:
            assert unknown not in given, text
        if set(wanted) <= set(former):
            same += 1
            assert [former[number] for number in given] == wanted, text
    assert same > 10
    for text in TEXTS[:3]:
        assert [former[number] for number in after.encode(text).ids] == before.encode(text).ids


def test_letters_of_other_scripts_go_and_signs_stay() -> None:
    words = [*WORDS, "ж", "##ж", "é", "##é", "%", "##%", "7", "##7"]
    content = tokenizer(words).to_str().encode()
    used = [WORDS.index("card"), words.index("é")]

    def left(**fields: Any) -> set[str]:
        return set(json.loads(reduced(content, used, **fields)[0])["model"]["vocab"])

    assert {"é", "##é", "%", "##%", "7", "##7", "##s", "?"} <= left()
    assert not {"ж", "##ж", "where"} & left()
    assert {"ж", "##ж"} <= left(characters="all")


def test_a_tokenizer_of_words_is_refused() -> None:
    library = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    words = library.Tokenizer(library.models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(DomainError, match=r"WordLevel.*embedding_rows"):
        reduced(words.to_str().encode(), [0])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return HfText(folder=str(tiny_encoder(tmp_path_factory.mktemp("encoder"))), length=12)()


def texts(folder: Path) -> Dataset:
    with (folder / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in TEXTS[:3])])
    return datasets.text(file=str(folder / "texts.csv"))


@pytest.mark.slow
def test_a_network_gives_what_it_gave_without_a_map(encoder: Network, tmp_path: Path) -> None:
    small = Context().apply(Vocabulary(data=texts(tmp_path)), encoder)
    rows = small.tensors["encoder.embeddings.word_embeddings.weight"].shape[0]
    assert rows < len(WORDS)
    assert [type(edit).__name__ for edit in small.edits] == ["Channels"]
    read, before = small.signature.preprocessing, encoder.signature.preprocessing
    given, wanted = (encoded(TEXTS[:3], each, "texts").ids for each in (read, before))
    assert given.max() < rows
    assert not np.array_equal(given, wanted)
    with torch.inference_mode():
        answers = [n.module()(torch.from_numpy(ids)) for n, ids in ((small, given), (encoder, wanted))]
    assert torch.allclose(*answers, atol=1e-6)
    for name, path in Context().apply(Onnx(), small).files.items():
        (tmp_path / name).write_bytes(path.read_bytes())
    assert np.allclose(Predictor(tmp_path).outputs(given), answers[0].numpy(), atol=1e-5)


def test_what_reads_no_texts_is_refused(tmp_path: Path) -> None:
    from mapsto.mappings.networks.mlp import Mlp

    with pytest.raises(DomainError, match="tokenizer"):
        Vocabulary(data=texts(tmp_path))(Mlp(inputs=4, classes=2)())

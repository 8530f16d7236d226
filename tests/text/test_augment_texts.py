"""Operations on texts: whole words move, go or are mistyped, by the network's own tokenizer; and `augment: auto` chooses among them."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mapsto import augment, datasets
from mapsto.context import Context
from mapsto.data.augment import Drawn
from mapsto.data.augment._words import text_words
from mapsto.data.augment.typing_errors import mistyped
from mapsto.errors import DomainError
from mapsto.kinds import Network, Preprocessing
from mapsto.mappings.adapt.best import Best
from mapsto.mappings.adapt.ridge import Ridge
from mapsto.mappings.networks.hf_text import HfText
from mapsto.mappings.train.masked_language import MaskedLanguage
from mapsto.nn.train.language.contract_encoder import contract_encoder
from mapsto.recipe.reader import parse_recipe
from mapsto.run.executor import execute
from mapsto.store import Store
from mapsto_runtime.preprocessing.texts import digest, encoded, tokenizer_of
from tests.text.tiny_encoder import tiny_encoder

BEFORE = dataclasses.replace(contract_encoder().signature.preprocessing, length=32)
SENTENCE = "where is my card now"


def changed(operation: Any, count: int = 400, seed: int = 0) -> list[str]:
    """The sentence, changed so many times."""
    ids = np.repeat(encoded([SENTENCE], BEFORE, "text").ids, count, 0)
    ids = np.pad(ids, ((0, 0), (0, 8)))
    drawn = Drawn(x=torch.as_tensor(ids), targets=torch.zeros(count), words=text_words(BEFORE))
    found = operation.draw(drawn, torch.Generator().manual_seed(seed)).x
    assert found.shape == ids.shape
    assert (found[:, 0] == ids[0, 0]).all()
    tokenizer = tokenizer_of(BEFORE)
    texts = [[tokenizer.id_to_token(each) for each in row if each] for row in found.tolist()]
    assert all(row.count("[SEP]") == 1 and row[-1] == "[SEP]" for row in texts)
    return [" ".join(row[1:-1]).replace(" ##", "") for row in texts]


def test_words_go_at_their_probability_and_one_stays() -> None:
    found = changed(augment.word_dropout(probability=0.3))
    kept = [text.split() for text in found]
    assert np.mean([len(words) for words in kept]) == pytest.approx(3.5, abs=0.2)
    assert all(set(words) <= set(SENTENCE.split()) for words in kept)
    assert min(map(len, [text.split() for text in changed(augment.word_dropout(probability=0.99))])) == 1


def test_swapped_words_are_the_same_words() -> None:
    found = changed(augment.word_swap(share=0.2))
    assert all(Counter(text.split()) == Counter(SENTENCE.split()) for text in found)
    assert SENTENCE not in found
    assert len(set(found)) == 10  # pairs of five places


def test_mistyped_words_are_near_and_short_ones_stay() -> None:
    found = changed(augment.typing_errors(probability=0.5))
    words = np.array([text.split() for text in found])
    assert (words[:, [1, 2]] == ["is", "my"]).all()
    assert (words[:, 3] != "card").mean() == pytest.approx(0.5, abs=0.1)
    rng = np.random.default_rng(0)
    made = {mistyped("card", rng) for _ in range(500)}
    assert {"crad", "cad", "carrd", "csrd", "xard"} <= made
    assert all(abs(len(each) - 4) <= 1 for each in made)


def test_ids_without_a_tokenizer_are_refused() -> None:
    with pytest.raises(DomainError, match="without their tokenizer"):
        augment.word_swap().draw(Drawn(x=torch.ones(2, 4).long(), targets=torch.zeros(2)), torch.Generator())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Network:
    return HfText(folder=str(folder), length=12)()


def test_a_head_takes_augmented_texts_and_auto_says_what_it_chose(encoder: Network, tmp_path: Path) -> None:
    rows = [(f"where is my {word} card {other}", "card") for word in ("red", "blue") for other in ("please", "it", "?")]
    rows += [(f"eat a {word} {other}", "fruit") for word in ("red", "green") for other in ("apple", "pear", "fruit")]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "intent"), *rows])
    data = datasets.text(file=str(tmp_path / "a.csv"), target="intent")
    plain = Ridge(data=data)(encoder)
    changed_so = Ridge(data=data, augment=[augment.word_dropout(probability=0.3)])(encoder)  # type: ignore[arg-type]
    assert not plain.tensors["classifier.weight"].equal(changed_so.tensors["classifier.weight"])
    ctx = Context()
    ctx.apply(Best(data=data, augment="auto"), encoder)
    assert "augment: auto chose" in "\n".join(ctx.notes)
    tried = ctx.attached["augmentation_candidates"]
    assert {str(row[0]).split(":")[0].strip("[]") for row in tried.rows} >= {"word_swap", "typing_errors"}  # type: ignore[union-attr]


def test_masked_words_are_drawn_by_a_language_model_of_the_same_tokenizer(encoder: Network, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(["where is my card", "where is my bank", "where is my money"] * 8))
    texts = datasets.text(file=str(tmp_path / "texts.txt"), repeated="keep")
    fields: dict[str, Any] = {"steps": 150, "batch_size": 12, "learning_rate": 3e-3, "masked": 0.3, "warmup": 0}
    model = MaskedLanguage(data=texts, keep_head=True, **fields)(encoder)
    before = encoder.signature.preprocessing
    ids = np.repeat(encoded(["where is my card"], before, "text").ids, 200, 0)
    drawn = Drawn(x=torch.as_tensor(ids), targets=torch.zeros(200), words=text_words(before))
    operation = augment.masked_words(probability=0.5, likeliest=4, network=model)
    tokenizer = tokenizer_of(before)
    rows = operation.draw(drawn, torch.Generator().manual_seed(0)).x.tolist()
    last = Counter(tokenizer.id_to_token(row[4]) for row in rows)
    assert {row[0] for row in rows} == {ids[0, 0]}
    assert last["card"] > 100
    assert last["bank"] + last["money"] > 0.6 * (200 - last["card"])
    for network, what in ((None, "there is none"), (encoder, "there is none")):
        with pytest.raises(DomainError, match=what):
            augment.masked_words(network=network).draw(drawn, torch.Generator())
    other = dataclasses.replace(drawn, words=text_words(BEFORE))
    with pytest.raises(DomainError, match="another tokenizer"):
        operation.draw(other, torch.Generator())


def test_a_recipe_names_the_language_model_by_its_label(encoder: Network, folder: Path, tmp_path: Path) -> None:
    rows = [f"where is my {word},card" for word in ("card", "bank")] + [
        f"eat a {word},fruit" for word in ("pear", "apple")
    ]
    (tmp_path / "a.csv").write_text("\n".join(["text,intent", *rows]))
    recipe = f"""
schema: 1
data:
  few: {{text: {{file: {tmp_path / "a.csv"}, target: intent}}}}
steps:
  - networks.hf_text: {{folder: {folder}, length: 12}}
    as: encoder
  - train.masked_language: {{data: $few, steps: 2, batch_size: 4, keep_head: true}}
    as: model
  - adapt.ridge: {{data: $few, augment: [masked_words: {{network: $model, probability: 0.9}}]}}
"""
    result = execute(parse_recipe(recipe), store=Store(tmp_path / "store"), seed=0)
    assert result.value().signature.classes == ("card", "fruit")


def of_bytes() -> Any:
    """A byte-level tokenizer, as that of RoBERTa."""
    library: Any = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    from tokenizers import decoders, pre_tokenizers, processors, trainers

    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [MARKED] * 3, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    )
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def of_spaces() -> Any:
    """A Unigram tokenizer, as that of XLM-R."""
    library: Any = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    from tokenizers import decoders, normalizers, pre_tokenizers, processors, trainers

    made = library.Tokenizer(library.models.Unigram())
    made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(
        [MARKED] * 3, trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>")
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made.decoder = decoders.Metaspace()
    return made


MARKED = "please cancel my café order now, or the card is lost"


def reading(made: Any) -> Preprocessing:
    content = made.to_str().encode()
    return Preprocessing(kind="text", tokenizer=digest(content), length=64, padding=1, tokenizer_json=content)


@pytest.mark.parametrize("make", [of_bytes, of_spaces])
def test_words_of_tokenizers_that_mark_spaces_stay_words(make: Any) -> None:
    before = reading(make())
    words = text_words(before)
    assert words is not None
    ids = np.pad(np.repeat(encoded([MARKED], before, "text").ids, 200, 0), ((0, 0), (0, 40)), constant_values=1)
    own = words.pieces.numbers(ids[:1])
    assert own.max() + 1 == len(MARKED.split()), "a word with its sign"

    def changed(operation: Any) -> list[str]:
        drawn = Drawn(x=torch.as_tensor(ids), targets=torch.zeros(200), words=words)
        rows = operation.draw(drawn, torch.Generator().manual_seed(0)).x.tolist()
        assert all(row[0] == 0 and row.count(2) == 1 for row in rows)
        return [words.tokenizer.decode(row) for row in rows]

    swapped = changed(augment.word_swap(share=0.3))
    assert all(Counter(text.split()) == Counter(MARKED.split()) for text in swapped)
    assert len(set(swapped)) > 50
    assert not any(text.startswith(" ") for text in swapped)
    assert len({text.split()[0] for text in swapped}) > 3, "the first word moves too"
    dropped = [text.split() for text in changed(augment.word_dropout(probability=0.3))]
    assert all(set(row) <= set(MARKED.split()) for row in dropped)
    mistaken = [text.split() for text in changed(augment.typing_errors(probability=1.0))]
    assert all(len(row) == len(MARKED.split()) for row in mistaken)
    for place, word in enumerate(MARKED.split()):
        found = {row[place] for row in mistaken}
        if len(word) < 3 or not word.isalpha():
            assert found == {word}
        else:
            assert len(found - {word}) > 3
            assert all(abs(len(each) - len(word)) <= 1 for each in found)


@pytest.mark.parametrize("make", [of_bytes, of_spaces])
def test_masked_words_of_such_tokenizers_are_whole_ones(make: Any, folder: Path, tmp_path: Path) -> None:
    made = make()
    config = json.loads((folder / "config.json").read_text())
    sizes = {"vocab_size": made.get_vocab_size(), "pad_token_id": 1}
    transformers: Any = pytest.importorskip("transformers", reason="the extra text is not installed")
    built = transformers.AutoModel.from_config(transformers.BertConfig(**{**config, **sizes}))
    built.save_pretrained(tmp_path / "encoder")
    made.save(str(tmp_path / "encoder" / "tokenizer.json"))
    network = HfText(folder=str(tmp_path / "encoder"))()
    (tmp_path / "texts.txt").write_text("\n".join([MARKED, "or is my card now"] * 4), encoding="utf-8")
    texts = datasets.text(file=str(tmp_path / "texts.txt"), repeated="keep")
    model = MaskedLanguage(data=texts, keep_head=True, steps=2, batch_size=4)(network)
    before = network.signature.preprocessing
    words = text_words(before)
    assert words is not None
    ids = torch.as_tensor(np.repeat(encoded([MARKED], before, "text").ids, 50, 0))
    operation = augment.masked_words(probability=1.0, network=model)
    found = operation.draw(Drawn(x=ids, targets=torch.zeros(50), words=words), torch.Generator().manual_seed(0)).x
    rows = [words.tokenizer.decode(row) for row in found.tolist()]
    assert len(set(rows)) > 1
    assert all(len(text.split()) == len(MARKED.split()) for text in rows)


def test_a_tokenizer_whose_words_are_not_known_is_refused() -> None:
    tree = json.loads(of_bytes().to_str())
    tree["model"]["end_of_word_suffix"] = "</w>"
    before = dataclasses.replace(BEFORE, tokenizer_json=json.dumps(tree).encode())
    with pytest.raises(DomainError, match="it is not known where words begin"):
        text_words(before)

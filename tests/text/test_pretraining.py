"""Further pretraining of an encoder on texts: what is masked and dropped, batches of like length, what is trained, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto import datasets
from mapsto.context import Context
from mapsto.data.text.word_pieces import drawn_words, kept_in_order, word_pieces
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.networks.hf_text import HfText
from mapsto.mappings.train.masked_language import MaskedLanguage
from mapsto.mappings.train.simcse import Simcse
from mapsto.mappings.train.tsdae import Tsdae
from mapsto.nn.train.language.length_batches import LengthBatches
from tests.text.tiny_encoder import WORDS, tiny_encoder

TEXTS = [
    "where is my card",
    "my card is lost",
    "please help my bank card",
    "I like the red apple",
    "eat a green pear",
    "like the blue fruit",
    "pay my bank please",
    "transfer the money",
]
ALL = (MaskedLanguage, Tsdae, Simcse)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return HfText(folder=str(tiny_encoder(tmp_path_factory.mktemp("encoder"))), length=12)()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("texts") / "pool.txt"
    file.write_text("\n".join(TEXTS))
    return datasets.text(file=str(file))


def ids_of(*words: str) -> list[int]:
    return [WORDS.index(word) for word in words]


def test_pieces_of_a_word_are_of_one_number_and_special_tokens_of_none(encoder: Network) -> None:
    pieces = word_pieces(encoder.signature.preprocessing)
    ids = np.array([ids_of("[CLS]", "apple", "##s", "pay", "##ing", "##s", "it", "[SEP]", "[PAD]")])
    assert pieces.numbers(ids).tolist() == [[-1, 0, 0, 1, 1, 1, 2, -1, -1]]
    assert pieces.mask == WORDS.index("[MASK]")


def test_words_are_drawn_whole_and_at_their_share() -> None:
    rng = np.random.default_rng(0)
    numbers = np.tile([-1, *np.repeat(np.arange(20), 2), -1], (500, 1))
    drawn = drawn_words(numbers, 0.3, rng)
    assert not drawn[:, [0, -1]].any()
    assert (drawn[:, 1:-1:2] == drawn[:, 2:-1:2]).all()
    assert drawn[:, 1:-1].mean() == pytest.approx(0.3, abs=0.02)
    short = drawn_words(np.array([[-1, 0, 1, -1]] * 50), 0.01, rng)
    assert (short.sum(1) >= 1).all()


def test_tokens_that_are_not_kept_leave_no_gap() -> None:
    ids = np.array([[2, 5, 6, 7, 3, 0], [2, 8, 9, 3, 0, 0]])
    keep = np.array([[1, 0, 1, 0, 1, 0], [1, 1, 0, 1, 0, 0]], bool)
    assert kept_in_order(ids, keep, 0).tolist() == [[2, 6, 3], [2, 8, 3]]


def test_masked_tokens_are_mostly_hidden_and_others_stay(encoder: Network) -> None:
    rows = np.tile(
        ids_of("[CLS]", *["where", "is", "my", "card", "money", "bank", "lost", "red", "green"], "[SEP]"), (4000, 1)
    )
    same, shown, drawn = MaskedLanguage(data=datasets.digits()).inputs(rows, encoder, np.random.default_rng(0))
    assert (same == rows).all()
    assert (shown[~drawn] == rows[~drawn]).all()
    hidden = (shown == WORDS.index("[MASK]"))[drawn].mean()
    assert hidden == pytest.approx(0.8, abs=0.02)
    assert (shown == rows)[drawn].mean() == pytest.approx(0.1 + 0.1 / 9, abs=0.02)
    assert drawn[:, 1:-1].mean() == pytest.approx(0.15, abs=0.05)


def test_tsdae_shows_the_encoder_two_fifths_of_the_words(encoder: Network) -> None:
    rows = np.tile(
        ids_of("[CLS]", *["where", "is", "my", "card", "money", "bank", "lost", "red", "green", "blue"], "[SEP]"),
        (2000, 1),
    )
    _, noisy = Tsdae(data=datasets.digits()).inputs(rows, encoder, np.random.default_rng(0))
    assert (noisy[:, 0] == WORDS.index("[CLS]")).all()
    assert ((noisy != 0).sum(1) - 2).mean() == pytest.approx(4, abs=0.15)
    assert ((noisy == WORDS.index("[SEP]")).sum(1) == 1).all()


def test_batches_are_of_like_length_and_go_once_through_the_texts() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 320)
    ids = np.where(np.arange(40) < lengths[:, None], np.arange(320)[:, None] + 1, 0)
    batches = LengthBatches(ids, 0, 16, np.random.default_rng, Context().fabric)
    made = [batches[step].ids for step in range(batches.per_epoch)]
    assert sorted(np.concatenate([part[:, 0] for part in made]).tolist()) == list(range(1, 321))
    assert sum(part.size for part in made) < 1.2 * lengths.sum()
    assert (batches[3].ids == made[3]).all()
    assert not (batches[20].ids.shape == made[0].shape and (batches[20].ids == made[0]).all())


@pytest.mark.parametrize("cls", ALL)
def test_only_the_top_layers_are_trained_and_the_head_is_thrown_away(cls: Any, encoder: Network, data: Any) -> None:
    after = cls(data=data, steps=3, batch_size=4, layers=1, learning_rate=1e-2, warmup=0)(encoder)
    assert after.tensors.keys() == encoder.tensors.keys()
    assert (after.arch, after.signature) == (encoder.arch, encoder.signature)
    changed = {name for name in after.tensors if not after.tensors[name].equal(encoder.tensors[name])}
    assert changed
    assert all("layer.1." in name for name in changed)
    every = cls(data=data, steps=3, batch_size=4, learning_rate=1e-2, warmup=0)(encoder)
    assert not every.tensors["encoder.embeddings.word_embeddings.weight"].equal(
        encoder.tensors["encoder.embeddings.word_embeddings.weight"]
    )


@pytest.mark.parametrize("cls", ALL)
def test_the_loss_falls(cls: Any, encoder: Network, data: Any) -> None:
    made = cls(data=data, steps=120, batch_size=8, learning_rate=3e-3, warmup=0)
    ctx = Context()
    with ctx.giving(encoder):
        live, items = made.open(encoder, None, ctx), made.items(encoder, ctx)
        losses: list[float] = []
        while not live.done:
            ctx.seed_everything(live.step)
            ((_, row),) = live.advance(items[live.step])
            losses.append(row["train_loss"])
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:10])


def test_what_is_no_encoder_or_no_text_is_refused(encoder: Network, data: Any, tmp_path: Path) -> None:
    digits = datasets.digits(size=16)
    with pytest.raises(DomainError, match="takes an encoder"):
        Simcse(data=data)(Conv4(data=digits, width=4)())
    with pytest.raises(DataError, match="are no texts"):
        Tsdae(data=digits)(encoder)
    (tmp_path / "one.txt").write_text("my card")
    with pytest.raises(DataError, match="1 text is too little"):
        Tsdae(data=datasets.text(file=str(tmp_path / "one.txt")))(encoder)


def test_an_encoder_of_pairs_is_trained_on_their_single_texts(
    encoder: Network, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("pairs")
    pairs = HfText(folder=str(tiny_encoder(place / "encoder")), length=12, texts=2)()
    rows = "\n".join(f"{one},{other}" for one, other in zip(TEXTS, reversed(TEXTS), strict=True))
    (place / "pairs.csv").write_text(f"a,b\n{rows}\n")
    data = datasets.text(file=str(place / "pairs.csv"), text=("a", "b"))
    for cls in ALL:
        after = cls(data=data, steps=2, batch_size=4, learning_rate=1e-2, warmup=0)(pairs)
        assert after.signature == pairs.signature
        assert any(not after.tensors[name].equal(pairs.tensors[name]) for name in after.tensors)

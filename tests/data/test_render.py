from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from mapsto.data.glyphs import render as module
from mapsto.data.glyphs.alphabet import SPLITS, alphabet, split
from mapsto.data.glyphs.render import RENDER_VERSION, prototypes, render, source_digest
from mapsto.errors import DomainError, SpecError


@pytest.mark.slow
def test_thousands_of_characters_of_twenty_scripts() -> None:
    characters = alphabet()
    assert len(characters) >= 3000
    assert len({c.script for c in characters}) >= 20
    assert sum(len(c.faces) >= 4 for c in characters) >= 2000
    assert [c.code_point for c in characters] == sorted({c.code_point for c in characters})


def test_splits_cover_the_scripts_and_share_none() -> None:
    named = [script for scripts in SPLITS.values() for script in scripts]
    assert len(named) == len(set(named))
    assert set(named) == {c.script for c in alphabet()}
    assert sum(len(split(name)) for name in SPLITS) == len(alphabet())
    assert all(len(split(name)) >= 100 for name in SPLITS)


@pytest.mark.slow
def test_no_reference_glyph_is_in_two_splits() -> None:
    seen = {name: {p.tobytes() for p in prototypes(split(name))} for name in SPLITS}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]


def test_train_has_no_digit() -> None:
    for character in split("train"):
        compatible = unicodedata.normalize("NFKD", str(character))
        assert not any(part.isdigit() or part.isdecimal() for part in compatible), character
        assert str(character) not in "Ol"
    assert {str(c) for c in split("test")} >= set("0123456789")


def test_no_glyph_is_blank_or_a_missing_glyph_box() -> None:
    images = prototypes(alphabet())
    assert images.shape == (len(alphabet()), 1, 28, 28)
    assert (images.max((1, 2, 3)) >= 160).all()
    assert len({image.tobytes() for image in images}) >= 0.995 * len(images)


def test_images_are_deterministic_and_depend_on_nothing_but_their_key() -> None:
    characters = split("test")[5:45]
    whole = render(characters, 6, seed=7)
    assert whole.shape == (240, 1, 28, 28)
    assert whole.dtype == np.uint8
    assert (whole == render(characters, 6, seed=7)).all()
    turned = render(characters[::-1], 6, seed=7).reshape(40, 6, 28, 28)[::-1]
    assert (whole.reshape(40, 6, 28, 28) == turned).all()
    assert (
        whole.reshape(40, 6, 28, 28)[3:5, 2:] == render(characters[3:5], 4, seed=7, first=2).reshape(2, 4, 28, 28)
    ).all()
    assert (whole != render(characters, 6, seed=8)).any((1, 2, 3)).all()


def test_ink_is_light_on_dark_and_spans_the_range() -> None:
    images = render(split("validation"), 4, seed=0)
    assert images.max() == 255
    assert images.min() == 0
    assert (images.max((1, 2, 3)) >= 60).mean() > 0.99
    border = np.concatenate([images[..., 0, :].ravel(), images[..., :, 0].ravel()])
    assert border.mean() < 12
    assert 20 < images.mean() < 80


def test_without_distortion_only_the_face_varies() -> None:
    one = tuple(c for c in split("test") if str(c) == "4")
    images = render(one, 64, seed=0, distortion=0.0)
    assert 1 < len({image.tobytes() for image in images}) <= len(one[0].faces)


@pytest.mark.parametrize("size", [8, 20, 32, 64])
def test_any_size(size: int) -> None:
    assert render(split("test")[:2], 3, size=size, seed=0).shape == (6, 1, size, size)


def test_source_digest_changes_with_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_digest()
    assert len(before) == 64
    assert before == source_digest()
    monkeypatch.setattr(module, "RENDER_VERSION", RENDER_VERSION + 1)
    assert before != source_digest()


@pytest.mark.parametrize("bad", [{"per_class": 0}, {"size": 4}, {"seed": -1}, {"distortion": 3.0}, {"first": -1}])
def test_numbers_outside_their_range_are_named(bad: dict[str, float]) -> None:
    with pytest.raises(DomainError, match=next(iter(bad))):
        render(split("test")[:1], **{"per_class": 1, "seed": 0, **bad})  # pyright: ignore[reportArgumentType]


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(SpecError, match="did you mean 'train'"):
        split("trian")

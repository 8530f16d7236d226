"""Embeddings are made once, by the engine that the rule names, and read back whole or made again."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.mappings.small import PREPROCESSING, Corners, context, network

from mapsto.nn.adapt import features as room
from mapsto.nn.adapt.features import features
from mapsto.nn.network.build import network_of
from mapsto.nn.network.inference import embeddings

pytestmark = pytest.mark.usefixtures("trusted")

IMAGES = Corners(per_class=10).open().inputs


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path))
    return tmp_path / "features"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which engine computed, in order."""
    engines: list[str] = []
    for name in ("_by_pytorch", "_by_onnxruntime"):
        make = getattr(room, name)

        def made(*args: object, make: object = make, name: str = name) -> object:
            engines.append(name.removeprefix("_by_"))
            return make(*args)  # type: ignore[operator]

        monkeypatch.setattr(room, name, made)
    return engines


def test_both_engines_give_what_the_head_would_be_given(monkeypatch: pytest.MonkeyPatch, computed: list[str]) -> None:
    value = network(classes=3)
    wanted = embeddings(value.module(), IMAGES, PREPROCESSING).numpy()
    assert np.array_equal(features(value, IMAGES, context()), wanted)
    monkeypatch.setattr(room, "FROM", len(IMAGES))
    assert np.allclose(features(value, IMAGES, context()), wanted, atol=1e-5)
    assert computed[:2] == ["pytorch", "onnxruntime"]


def test_what_is_before_the_head_and_the_samples_make_the_key(computed: list[str]) -> None:
    value = network(classes=3)
    first = features(value, IMAGES, context())
    other_head = network(classes=5).tensors
    same = dataclasses.replace(
        network(classes=3), tensors={**value.tensors, "classifier.bias": other_head["classifier.bias"][:3]}
    )
    assert np.array_equal(features(same, IMAGES, context()), first)
    assert len(computed) == 1
    features(network(classes=3, seed=1), IMAGES, context())
    features(value, IMAGES[1:], context())
    brighter = dataclasses.replace(PREPROCESSING, mean=(0.4,))
    features(
        dataclasses.replace(value, signature=dataclasses.replace(value.signature, preprocessing=brighter)),
        IMAGES,
        context(),
    )
    assert len(computed) == 4


def test_a_damaged_file_is_made_again(cache: Path, computed: list[str]) -> None:
    first = np.array(features(network(), IMAGES, context()))
    (file,) = cache.glob("*.npy")
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(data)
    assert np.array_equal(features(network(), IMAGES, context()), first)
    assert len(computed) == 2


def test_a_network_that_does_not_export_runs_in_pytorch_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from mapsto.errors import DomainError
    from mapsto.nn.export import onnx

    def refused(_: object) -> bytes:
        raise DomainError("torch cannot export this network")

    monkeypatch.setattr(onnx, "to_onnx", refused)
    monkeypatch.setattr(room, "FROM", 1)
    ctx = context()
    found = features(network(), IMAGES, ctx)
    assert np.array_equal(found, embeddings(network().module(), IMAGES, PREPROCESSING).numpy())
    assert ctx.notes == ["the embeddings are computed in PyTorch, which takes longer: torch cannot export this network"]


def test_embeddings_of_another_engine_that_differ_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from mapsto.nn.export.runtimes import onnxruntime

    runner = onnxruntime.runner

    def off(model: bytes, *, threads: int) -> Callable[..., NDArray[Any]]:
        run = runner(model, threads=threads)
        return lambda *inputs: 1.01 * run(*inputs)

    monkeypatch.setattr(onnxruntime, "runner", off)
    monkeypatch.setattr(room, "FROM", 1)
    ctx = context()
    found = features(network(), IMAGES, ctx)
    assert np.array_equal(found, embeddings(network().module(), IMAGES, PREPROCESSING).numpy())
    assert "differ from PyTorch's by" in ctx.notes[0]


def test_the_folder_is_bounded_and_what_was_used_last_stays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FILES", 3)
    value = network()
    features(value, IMAGES[:1], context())
    (oldest,) = cache.glob("*.npy")
    os.utime(oldest, (0, 0))
    for count in range(2, 5):
        features(value, IMAGES[:count], context())
    kept = set(cache.glob("*.npy"))
    assert len(kept) == 3
    assert oldest not in kept
    monkeypatch.setattr(room, "BYTES", 1)
    features(value, IMAGES[:9], context())
    assert len(list(cache.glob("*.npy"))) == 1


def test_two_at_once_give_the_same(computed: list[str]) -> None:
    found: list[np.ndarray] = []
    value = network()
    both = [threading.Thread(target=lambda: found.append(features(value, IMAGES, context()))) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert np.array_equal(found[0], found[1])


def test_without_a_cache_folder_it_still_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path / "file"))
    assert features(network(), IMAGES, context()).shape == (40, 32)


def test_a_module_without_embed_gives_what_its_last_layer_is_given() -> None:
    value = network_of("tests.mappings.small:Plain", {}, PREPROCESSING)
    assert np.array_equal(features(value, IMAGES, context()), embeddings(value.module(), IMAGES, PREPROCESSING).numpy())

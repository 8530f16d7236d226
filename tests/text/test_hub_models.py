"""An encoder by its name on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mapsto.data.io import model_hub
from mapsto.data.io.model_hub import model_folder
from mapsto.errors import DataError, SpecError
from mapsto.mappings.networks.hf_text import HfText
from tests.command import mapsto
from tests.text.hub import COMMIT, hub, in_cache
from tests.text.packages import write_table
from tests.text.tiny_encoder import tiny_encoder, with_modules

MODEL = "someone/tiny-encoder"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's library, in which this process looks alone."""
    constants: Any = pytest.importorskip("huggingface_hub.constants", reason="the extra text is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    model_hub.forget()
    return tmp_path / "cache"


def at(address: str, patch: pytest.MonkeyPatch) -> None:
    """As ``HF_ENDPOINT``, which is read once a process."""
    patch.setattr("huggingface_hub.constants.ENDPOINT", address)
    patch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    model_hub.forget()


def test_a_model_is_fetched_once_without_its_code_and_then_found_without_a_connection(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = with_modules(tiny_encoder(tmp_path / "encoder"), pooling_mode="cls")
    with hub(MODEL, encoder) as (address, asked):
        at(address, monkeypatch)
        folder = model_folder(MODEL)
        fetched = {path.partition(f"/resolve/{COMMIT}/")[2] for path in asked if "/resolve/" in path}
        assert fetched == {path.relative_to(encoder).as_posix() for path in encoder.rglob("*") if path.is_file()}, (
            "neither pickles nor code nor other formats"
        )
        assert (folder / "1_Pooling" / "config.json").is_file()
        asked.clear()
        assert model_folder(MODEL) == folder
        assert asked == [], "asked once a process"
        with pytest.raises(DataError, match="the hub has no model someone/else"):
            model_folder("someone/else")
        with pytest.raises(DataError, match=f"{MODEL} has no revision v9"):
            model_folder(MODEL, "v9")
    monkeypatch.setenv("MAPSTO_OFFLINE", "1")
    model_hub.forget()
    assert model_folder(MODEL) == folder == model_folder(MODEL, COMMIT)
    with pytest.raises(DataError, match="was not fetched before") as caught:
        model_folder("someone/other")
    assert "hf download someone/other" in str(caught.value)


def test_a_model_of_the_hub_is_what_its_folder_is(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_modules(tiny_encoder(tmp_path / "encoder", seed=1), pooling_mode="cls")
    in_cache(cache, MODEL, folder)
    monkeypatch.setenv("MAPSTO_OFFLINE", "1")
    by_name, by_folder = HfText(model=MODEL)(), HfText(folder=str(folder))()
    assert by_name.signature == by_folder.signature
    assert by_name.arch.arguments["pooling"] == "cls"
    assert by_name.signature.preprocessing.length == 64, "as many tokens as the encoder has positions"
    assert all(torch.equal(tensor, by_folder.tensors[name]) for name, tensor in by_name.tensors.items())
    assert HfText(model=MODEL).fingerprint() == HfText(folder=str(folder)).fingerprint()


@pytest.mark.slow
def test_adapt_takes_a_model_of_the_hub(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_cache(cache, MODEL, tiny_encoder(tmp_path / "encoder", seed=1))
    monkeypatch.setenv("MAPSTO_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "kept"))
    write_table(tmp_path / "intents.csv")
    given = ("--text", "text", "--target", "intent", "--minutes", 0)
    mapsto("adapt", f"hf:{MODEL}", "intents.csv", *given, "--out", "out", code=0)
    assert f"model: {MODEL}" in (tmp_path / "out" / "recipe.yaml").read_text(encoding="utf-8")
    refused = mapsto("adapt", "hf:someone/other", "intents.csv", *given, "--out", "other", code=2)
    assert "was not fetched before" in refused.err
    assert not (tmp_path / "other").exists()


def test_what_is_wrong_with_a_name_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_OFFLINE", "1")
    with pytest.raises(DataError, match="is no name of a model"):
        HfText(model="a/b/c")()
    with pytest.raises(SpecError, match="one of configuration, folder and model"):
        HfText(model="a/b", folder="c")
    with pytest.raises(SpecError, match="one of a model of the hub"):
        HfText(folder="c", revision="main")

"""Folders of encoders: pooling and reading as their makers meant, and what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mapsto.context import Context
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network
from mapsto.mappings.networks.hf_text import HfText
from mapsto.nn.network.inference import forward
from mapsto.nn.networks.hf import hf_text
from mapsto_runtime.preprocessing.texts import encoded, tokenizer_of
from tests.text.tiny_encoder import WORDS, tiny_encoder, tokenizer, with_modules

TEXTS = ["where is my card", "money lost", "eat the red apple please ?"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "encoder"))


def embedded(network: Network, texts: list[str] = TEXTS) -> np.ndarray[Any, Any]:
    before = network.signature.preprocessing
    return forward(network.module(), encoded(texts, before, "texts").ids, before).numpy()


def configure(folder: Path, **fields: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    return folder


def told(folder: Path, **fields: Any) -> tuple[Network, str]:
    """The network and its notes."""
    ctx = Context()
    network = ctx.apply(HfText(folder=str(folder), **fields), None)
    return network, "\n".join(ctx.notes)


@pytest.mark.parametrize("mode", ["cls", "mean", "lasttoken"])
def test_embeddings_are_those_of_sentence_transformers(saved: Path, tmp_path: Path, mode: str) -> None:
    library: Any = pytest.importorskip("sentence_transformers", reason="the bench group is not installed")
    modules: Any = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    base: Any = pytest.importorskip("sentence_transformers.base.modules")
    steps = [base.Transformer(str(saved), max_seq_length=9), modules.Pooling(16, mode), base.Normalize()]
    model = library.SentenceTransformer(modules=steps, device="cpu")
    model.save(str(tmp_path / "model"))
    network = HfText(folder=str(tmp_path / "model"))()
    assert network.signature.preprocessing.length == 9
    texts = [*TEXTS, "where is my card and my money, is it lost or is it in the bank"]
    assert np.abs(embedded(network, texts) - model.encode(texts)).max() < 1e-5


def test_old_names_of_poolings_and_what_is_read_are_followed(folder: Path) -> None:
    mean = embedded(HfText(folder=str(with_modules(folder, pooling_mode_mean_tokens=True)))())
    print_of_mean = HfText(folder=str(folder)).fingerprint()
    with_modules(folder, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    assert HfText(folder=str(folder)).fingerprint() != print_of_mean
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12, "do_lower_case": False}))
    network, notes = told(folder)
    assert notes == ""
    assert network.arch.arguments["pooling"] == "cls"
    assert network.signature.preprocessing.length == 12
    module: Any = network.module()
    ids = torch.as_tensor(encoded(TEXTS, network.signature.preprocessing, "texts").ids)
    first = torch.nn.functional.normalize(module.hidden(ids)[:, 0], dim=1)
    assert torch.allclose(module.embed(ids), first)
    assert np.abs(embedded(network) - mean).max() > 0.1
    assert np.abs(embedded(HfText(folder=str(folder), pooling="mean")()) - mean).max() < 1e-6


@pytest.mark.parametrize(
    ("more", "pooling", "message"),
    [
        (("Dense",), {"pooling_mode": "cls"}, "sentence_transformers.models.Dense too, which is not supported"),
        (("Pooling",), {"pooling_mode": "cls"}, "supported are Transformer, Pooling, Normalize in this order"),
        ((), {"pooling_mode": "max"}, "pooled by max, and supported is one of mean, cls, lasttoken"),
        ((), {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "pooled by cls and mean"),
    ],
)
def test_what_makes_another_embedding_is_refused(
    folder: Path, more: tuple[str, ...], pooling: dict[str, Any], message: str
) -> None:
    with_modules(folder, *more, **pooling)
    with pytest.raises(DataError, match=message):
        HfText(folder=str(folder))()


def test_without_modules_the_mean_is_taken_and_said(folder: Path) -> None:
    (folder / "modules.json").unlink()
    network, notes = told(folder)
    assert "their mean is taken (set pooling for another)" in notes
    assert "pooling" not in network.arch.arguments, "networks that were stored before stay valid"
    with pytest.raises(DomainError, match="no pooling 'max'"):
        hf_text(folder=str(folder), pooling="max")  # type: ignore[arg-type]


def test_lower_case_is_read_as_transformers_and_sentence_transformers_do(folder: Path) -> None:
    from tokenizers import normalizers

    cased = tokenizer()
    cased.normalizer = normalizers.BertNormalizer(lowercase=False)
    cased.save(str(folder / "tokenizer.json"))

    with_modules(folder, pooling_mode="mean")

    def tokens() -> tuple[list[str], str]:
        network, notes = told(folder)
        return tokenizer_of(network.signature.preprocessing).encode("Card LOST").tokens[1:-1], notes

    assert tokens()[0] == ["[UNK]", "[UNK]"]
    assert "transformers would read texts otherwise" in tokens()[1]
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert tokens() == (["[UNK]", "[UNK]"], "")
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "do_lower_case": True}))
    assert tokens()[0] == ["card", "lost"]
    assert "transformers does with tokenizer_config.json" in tokens()[1]
    (folder / "tokenizer_config.json").unlink()
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    assert tokens()[0] == ["card", "lost"]


def test_weights_that_do_not_match_are_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    whole = load_file(path)

    def keep(tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, path, metadata={"format": "pt"})

    without_pooler = {name: each for name, each in whole.items() if "pooler" not in name}
    keep({**without_pooler, "cls.predictions.bias": torch.zeros(3)})
    assert "1 tensors of model.safetensors belong to no layer of the encoder" in told(folder)[1]
    keep({name: each for name, each in whole.items() if "layer.1." not in name})
    with pytest.raises(DataError, match=r"nothing for 16 of the encoder's tensors, such as encoder\.layer\.1"):
        HfText(folder=str(folder))()
    keep({f"foo.{name}": each for name, each in whole.items()})
    with pytest.raises(DataError, match=r"has others, such as foo\."):
        HfText(folder=str(folder))()
    keep({**whole, "embeddings.LayerNorm.bias": torch.full((16,), torch.nan)})
    with pytest.raises(DataError, match=r"not finite, such as embeddings\.LayerNorm\.bias"):
        HfText(folder=str(folder))()
    keep(whole)
    configure(folder, intermediate_size=24)
    with pytest.raises(DataError, match=r"of other shapes than config\.json says.*\(32,\), not \(24,\)"):
        HfText(folder=str(folder))()
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match="the encoder cannot be read"):
        HfText(folder=str(folder))()
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("padding", "message"),
    [
        (WORDS.index("card"), "'card', a word of texts"),
        (WORDS.index("[SEP]"), r"'\[SEP\]', which the tokenizer puts into every text"),
        (WORDS.index("[UNK]"), r"'\[UNK\]', which stands for unknown words"),
        (len(WORDS), f"has ids from 0 to {len(WORDS) - 1}"),
        (-1, "has ids from 0"),
        ([0], "a list, not a number"),
    ],
)
def test_padding_is_no_word(folder: Path, padding: Any, message: str) -> None:
    configure(folder, pad_token_id=padding)
    with pytest.raises(DataError, match=rf"{message}.*set pad_token_id in config\.json to 0, \[PAD\]"):
        HfText(folder=str(folder))()


@pytest.mark.parametrize("kind", ["roberta", "mpnet"])
def test_positions_begin_behind_padding(tmp_path: Path, kind: str) -> None:
    transformers: Any = pytest.importorskip("transformers", reason="the extra text is not installed")
    words = ["<s>", "<pad>", "</s>", "[UNK]", "[CLS]", "[SEP]", "card"]
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=len(words), max_position_embeddings=20, pad_token_id=1, **sizes
    )
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer(words).save(str(tmp_path / "tokenizer.json"))
    network = HfText(folder=str(tmp_path))()
    assert network.signature.preprocessing.length == 18
    assert embedded(network, ["card " * 30]).shape == (1, 16)
    with pytest.raises(DataError, match="at most 18 tokens, not 19; set length: 18"):
        HfText(folder=str(tmp_path), length=19)()


def test_what_is_no_configuration_is_said(folder: Path) -> None:
    configure(folder, model_type="foo", auto_map={"AutoModel": "code.Own"})
    with pytest.raises(DataError, match="'foo', is code of the model's own"):
        HfText(folder=str(folder))()
    configure(folder, model_type="bert")
    assert "read as transformers' own 'bert'" in told(folder)[1]
    for content, message in (("[]", "is a JSON list, not an object"), ("{bad", "cannot be read as JSON")):
        (folder / "config.json").write_text(content)
        with pytest.raises(DataError, match=message):
            HfText(folder=str(folder))()

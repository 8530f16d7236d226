"""Adapters that peft trained, merged into the encoder that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mapsto.context import Context
from mapsto.errors import DataError, SpecError
from mapsto.mappings.networks.hf_text import HfText
from tests.text.tiny_encoder import tiny_encoder

peft: Any = pytest.importorskip("peft", reason="the extra text is not installed")
transformers: Any = pytest.importorskip("transformers", reason="the extra text is not installed")

IDS = torch.tensor([[2, 7, 8, 11, 3, 0, 0], [2, 20, 9, 5, 6, 21, 3]])


def trained(kind: Any, folder: Path, out: Path, **fields: Any) -> Any:
    """A model with an adapter whose numbers are not those that it begins with, saved."""
    model = peft.get_peft_model(kind.from_pretrained(folder), fields.pop("config")(**fields))
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad:
                tensor.add_(torch.randn_like(tensor))
    model.save_pretrained(out)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny") / "encoder")


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (peft.LoraConfig, {"r": 2, "target_modules": ["query", "value"]}),
        (peft.LoraConfig, {"r": 2, "target_modules": ["value"], "use_dora": True}),
        (peft.IA3Config, {"target_modules": ["key", "output.dense"], "feedforward_modules": ["output.dense"]}),
    ],
)
def test_the_encoder_answers_as_peft_does(config: Any, fields: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    theirs = trained(transformers.AutoModel, folder, tmp_path / "adapter", config=config, **fields)
    with torch.inference_mode():
        mask = (IDS != 0).long()
        hidden = theirs(input_ids=IDS, attention_mask=mask).last_hidden_state
        wanted = torch.nn.functional.normalize((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1)
        ours = HfText(folder=str(folder), adapter=str(tmp_path / "adapter"))().module()(IDS)
        plain = HfText(folder=str(folder))().module()(IDS)
    assert torch.allclose(ours, wanted, atol=1e-5)
    assert not torch.allclose(plain, wanted, atol=1e-3), "the adapter changes something"


def test_of_a_classifiers_adapter_the_encoder_takes_its_part_and_says_what_is_left(
    folder: Path, tmp_path: Path
) -> None:
    fields = {"r": 2, "target_modules": ["query"], "task_type": "SEQ_CLS"}
    theirs = trained(
        transformers.AutoModelForSequenceClassification, folder, tmp_path / "adapter", config=peft.LoraConfig, **fields
    )
    ctx = Context()
    ours: Any = ctx.apply(HfText(folder=str(folder), adapter=str(tmp_path / "adapter")), None).module()
    with torch.inference_mode():
        mask = (IDS != 0).long()
        wanted = theirs.base_model.model.bert(input_ids=IDS, attention_mask=mask).last_hidden_state
        assert torch.allclose(ours.hidden(IDS), wanted, atol=1e-5)
    assert any("are left out" in note and "classifier" in note for note in ctx.notes), ctx.notes


def test_an_adapter_that_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    wide = tiny_encoder(tmp_path / "wide", size=32)
    deep = tiny_encoder(tmp_path / "deep", layers=3)
    for name, other in (("of_wide", wide), ("of_deep", deep)):
        trained(transformers.AutoModel, other, tmp_path / name, config=peft.LoraConfig, r=2, target_modules=["query"])
        with pytest.raises(DataError, match="cannot be merged into this encoder") as caught:
            HfText(folder=str(folder), adapter=str(tmp_path / name))()
        assert "trained on" in str(caught.value)
    shallow = tmp_path / "of_shallow"
    trained(transformers.AutoModel, folder, shallow, config=peft.LoraConfig, r=2, target_modules=["query"])
    with pytest.raises(DataError, match="nothing for 2 of 6"):
        HfText(folder=str(deep), adapter=str(shallow))()
    prompts = tmp_path / "prompts"
    made = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=2)
    peft.get_peft_model(transformers.AutoModel.from_pretrained(folder), made).save_pretrained(prompts)
    with pytest.raises(DataError, match="cannot be merged into this encoder"):
        HfText(folder=str(folder), adapter=str(prompts))()
    with pytest.raises(DataError, match=r"no adapter_config\.json"):
        HfText(folder=str(folder), adapter=str(folder))()
    with pytest.raises(SpecError, match="trained weights"):
        HfText(configuration={"model_type": "bert"}, adapter="x")

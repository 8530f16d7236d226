"""Live modules of others as networks: what is taken, how it is built again elsewhere, what is refused, and remedies that work."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from mapsto import datasets, export, networks, prune, quantize
from mapsto.context import Context
from mapsto.errors import DataError, DomainError, TrustError
from mapsto.kinds import Factory, Network, load_strictly, trusting
from mapsto.mappings.networks.checkpoint import Checkpoint
from mapsto.nn.edits.fold_parametrizations import FoldParametrizations, folded_state, parametrized
from mapsto.nn.network.from_module import require_usable
from mapsto.nn.profile.counts import count_parameters
from mapsto.search import compress
from mapsto.store import Store
from tests.foreign import Noise, Tokens
from tests.mynet import Answers, Hidden, MyNet, Normed, TwoInputs, small

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def elsewhere(network: Network, x: Tensor, folder: Path, *, before: str = "", cwd: Path | None = None) -> Tensor:
    """The network's answer in another process, which loads it from a store."""
    digest = Store(folder / "store").save(network)
    torch.save(x, folder / "x.pt")
    code = f"""
import torch
from mapsto.store import Store
from mapsto.kinds import trusting
{before or "with trusting():"}
    network = Store({str(folder / "store")!r}).load({digest!r})
    torch.save(network.module()(torch.load({str(folder / "x.pt")!r})), {str(folder / "y.pt")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)
    assert not done.returncode, done.stderr
    return torch.load(folder / "y.pt")


# -- factories


RESNET = """
import torch
from torch import nn

def net(width=3, bias=True):
    return nn.Sequential(nn.Linear(4, width, bias=bias), nn.ReLU(), nn.Linear(width, 2))

def other():
    return 3
"""


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module in the working folder, which nobody has imported; its name."""
    name = f"someones_{abs(hash(request.node.name)) % 10**8}"
    (tmp_path / f"{name}.py").write_text(RESNET)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_factory_of_the_working_folder(working_folder: str, tmp_path: Path) -> None:
    name, arguments = f"{working_folder}:net", {"width": 5, "bias": False}
    with trusting(working_folder):
        module = Factory(name=name, arguments=arguments).build().eval()
    del sys.modules[working_folder]
    with pytest.raises(TrustError, match=f"--trust {working_folder}"):
        Network.from_module(module, X, factory=name, arguments=arguments)
    with trusting(working_folder):
        network = Network.from_module(module, X, factory=name, arguments=arguments)
    assert network.arch == Factory(name=name, arguments=arguments)
    again = elsewhere(network, X, tmp_path, before=f"with trusting({working_folder!r}):", cwd=tmp_path)
    assert torch.equal(again, module(X))
    assert str(tmp_path) not in sys.path


def test_a_factory_that_the_caller_imported_needs_no_trust(
    working_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(".")
    module = __import__(working_folder).net(7)
    network = Network.from_module(module, X, factory=f"{working_folder}:net", arguments={"width": 7})
    with pytest.raises(TrustError, match="--trust"):
        network.module()  # a stored name of a function may be anybody's
    with trusting(working_folder):
        assert torch.equal(network.module()(X), module(X))
    with pytest.raises(DomainError, match=r"arguments=\{\.\.\.\} with what the factory was called with"):
        Network.from_module(module, X, factory=f"{working_folder}:net")
    with pytest.raises(DomainError, match="gives a int"):
        Network.from_module(module, X, factory=f"{working_folder}:other")


def test_what_is_stored_calls_no_function_that_happens_to_be_there() -> None:
    linear = ("torch.nn:Linear", {"in_features": 1, "out_features": 1})  # which mapsto has imported, not the caller
    for name, arguments in (
        ("os:system", {"command": "true"}),
        ("torch.hub:load", {}),
        ("tests.mynet:small", {}),
        linear,
    ):
        with pytest.raises(TrustError, match="--trust"):
            Factory(name=name, arguments=arguments).build()
    assert isinstance(Factory(name="tests.mynet:MyNet", arguments={"width": 2}).build(), MyNet)


def test_a_function_with_arguments_builds_a_class_that_hides_them() -> None:
    network = Network.from_module(small(5), X, factory="tests.mynet:small", arguments={"width": 5})
    assert network.arch.name == "tests.mynet:small"
    with pytest.raises(DomainError, match=r"factory='module:function'"):
        Network.from_module(Hidden(5), X)


# -- inputs and outputs


@pytest.mark.parametrize("kind", ["dict", "tuple", "list"])
def test_several_outputs_are_refused_and_the_remedy_works(kind: str) -> None:
    module = Answers(kind).eval()
    with pytest.raises(DomainError, match="2 tensors are in its output") as error:
        Network.from_module(module, X)
    remedies = re.findall(r"pass (output=\S+)", str(error.value))
    assert len(remedies) == 2
    for remedy in remedies:
        network: Network = eval(f"Network.from_module(module, X, {remedy})", {**globals(), "module": module})
        expected = module(X)[network.arch.arguments["output"]]
        assert torch.equal(network.module()(X), expected)
        small = quantize.weight_only()(prune.magnitude(macs=0.8)(network))
        assert small.module()(X).shape == expected.shape
        if remedy == "output='two'":
            outputs = export.onnx(samples=8)(small).manifest()["signature"]["outputs"]
            assert outputs[0]["shape"] == ["N", 3]
    with pytest.raises(DomainError, match="there is no 'none' in"):
        Network.from_module(module, X, output="none")


def test_the_obvious_output_is_taken_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mapsto"):
        for kind, taken in (("logits", "logits"), ("single", 0)):
            module = Answers(kind).eval()
            network = Network.from_module(module, X)
            assert torch.equal(network.module()(X), module(X)[taken])
            assert f"of its outputs {taken!r} is taken" in caplog.text


@pytest.mark.parametrize(
    ("example", "what"),
    [((X, X), "2 inputs are given"), ({"a": X, "b": X}, "2 inputs are given by name"), (X, r"takes 2 inputs \(a, b\)")],
)
def test_two_inputs_are_refused_and_the_remedy_works(
    example: Any, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DomainError, match=what) as error:
        Network.from_module(TwoInputs(), example)
    remedy = re.search(r"`(return .*?)`", str(error.value))
    assert remedy is not None
    (tmp_path / "one_input.py").write_text(
        "from torch import nn\nfrom tests.mynet import TwoInputs\nclass One(nn.Module):\n    def __init__(self):\n"
        f"        super().__init__()\n        self.inner = TwoInputs()\n    def forward(self, x):\n        {remedy[1]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("one_input", None)
    x = torch.randn(2, 7)
    module = __import__("one_input").One().eval()
    network = Network.from_module(module, x)
    assert torch.equal(network.module()(x), module.inner(x[:, :3], x[:, 3:]))
    assert prune.magnitude(macs=0.9)(network).module()(x).shape == (2, 2)


@pytest.mark.parametrize(
    ("module", "example", "what"),
    [
        (Answers("boxes"), X, "holds no tensor"),
        (MyNet(3), "x", "the example is a str"),
        (MyNet(3), torch.randn(2, 9), r"cannot take a batch of shape \(2, 9\)"),
        (nn.Identity(), X, None),
    ],
)
def test_what_gives_no_tensor_or_takes_no_such_input(module: nn.Module, example: Any, what: str | None) -> None:
    if what is None:
        assert Network.from_module(module, example).signature.outputs[0].shape == ("N", 4)
        return
    with pytest.raises(DomainError, match=what):
        Network.from_module(module, example)


def test_the_mode_of_each_part_comes_back() -> None:
    module = MyNet(3).train()
    module.head.eval()
    Network.from_module(module, X)
    assert (module.training, module.body.training, module.head.training) == (True, True, False)


# -- computed weights


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("where", ["in the constructor", "afterwards"])
@pytest.mark.parametrize(
    "norm",
    [
        weight_norm,
        parametrizations.weight_norm,
        spectral_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
    ],
)
def test_norms_of_weights_are_folded(norm: Any, where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    module = Normed(f"{norm.__module__}:{norm.__name__}" if where == "in the constructor" else None)
    if where == "afterwards":
        norm(module.first)
        norm(module.conv)
    module(torch.randn(8, 4))
    module.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with caplog.at_level(logging.INFO, "mapsto"):
        network = Network.from_module(module, X)
    assert ("folded" in caplog.text) is (where == "in the constructor")
    assert sorted(network.tensors) == [
        "conv.bias",
        "conv.weight",
        "first.bias",
        "first.weight",
        "head.bias",
        "head.weight",
    ]
    assert (network.module()(X) - module(X)).abs().max() < 1e-5
    assert count_parameters(network.module()) == count_parameters(Normed(None))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    again = Store(tmp_path).load(Store(tmp_path).save(network))
    assert torch.equal(again.module()(X), network.module()(X))
    smaller = prune.magnitude(macs=0.6)(network)
    assert smaller.module()(X).shape == (6, 3)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kinds=st.lists(st.sampled_from(["weight", "spectral", "none"]), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_folding_keeps_what_a_module_computes(sizes: tuple[int, int], kinds: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    inner, outer = sizes
    layers = [nn.Linear(inner if at else 4, inner) for at in range(len(kinds))] + [nn.Linear(inner, outer)]
    norms = {
        "weight": parametrizations.weight_norm,
        "spectral": parametrizations.spectral_norm,
        "none": lambda layer: layer,
    }
    module = nn.Sequential(*(norms[kind](layer) for kind, layer in zip(kinds, layers, strict=False)), layers[-1]).eval()
    x = torch.randn(3, 4)
    module.requires_grad_(seed % 2 == 0)
    expected, state, weights = module(x), folded_state(module), tuple(parametrized(module))
    assert len(weights) == sum(kind != "none" for kind in kinds)
    if weights:
        FoldParametrizations(weights=weights).apply(module)
    assert list(parametrized(module)) == []
    assert state.keys() == dict(module.named_parameters()).keys()
    assert (module(x) - expected).abs().max() < 1e-5
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())


# -- transformers


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def bert(library: Any) -> Any:
    torch.manual_seed(0)
    config = library.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, num_labels=3, id2label={0: "red", 1: "green", 2: "blue"},
    )  # fmt: skip
    return library.BertForSequenceClassification(config).eval()


IDS = torch.tensor([[2, 5, 9, 3, 0, 0], [2, 7, 7, 8, 9, 3]])


def test_a_text_model_is_built_again_from_its_configuration_without_trust(bert: Any, tmp_path: Path) -> None:
    mask = (IDS != 0).long()
    expected = bert(input_ids=IDS, attention_mask=mask).logits
    network = Network.from_module(bert, {"input_ids": IDS, "attention_mask": mask, "token_type_ids": 0 * IDS})
    assert network.signature.classes == ("red", "green", "blue")
    assert network.signature.inputs[0].dtype == "int64"
    assert torch.allclose(network.module()(IDS), expected, atol=1e-6)
    assert sorted(network.tensors) == sorted(bert.state_dict())
    kept = Store(tmp_path / "store")
    assert torch.allclose(kept.load(kept.save(network)).module()(IDS), expected, atol=1e-6)


@pytest.mark.slow
def test_a_text_model_in_another_process(bert: Any, tmp_path: Path) -> None:
    network = Network.from_module(bert, IDS)
    assert torch.allclose(elsewhere(network, IDS, tmp_path), network.module()(IDS), atol=1e-6)


def test_a_model_without_a_head_says_which_outputs_it_has(bert: Any) -> None:
    with pytest.raises(DomainError, match="'last_hidden_state'") as error:
        Network.from_module(bert.bert, IDS[1:])
    remedies = re.findall(r"pass (output=\S+)", str(error.value))
    shapes = [
        eval(f"Network.from_module(module, x, {remedy})", {"Network": Network, "module": bert.bert, "x": IDS[1:]})
        .signature.outputs[0]
        .shape
        for remedy in remedies
    ]
    assert shapes == [("N", 6, 16), ("N", 16)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_an_image_model_goes_all_the_way(library: Any, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if kind == "vit":
        config = library.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=4, num_labels=4
        )  # fmt: skip
        module = library.ViTForImageClassification(config).eval()
    else:
        config = library.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=4
        )
        module = library.ResNetForImageClassification(config).eval()
    x = torch.randn(2, 3, 16, 16)
    network = Network.from_module(module, x)
    assert torch.allclose(network.module()(x), module(x).logits, atol=1e-6)
    small = quantize.static(data=Noise(shape=(3, 16, 16)))(prune.magnitude(macs=0.9)(network))
    assert export.onnx(samples=8)(small).manifest()["parity"]["samples"] == 8


def test_models_that_take_two_things_are_refused(library: Any) -> None:
    config = library.T5Config(
        vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    with pytest.raises(DomainError, match="decoder_input_ids"):
        Network.from_module(
            library.T5ForConditionalGeneration(config).eval(), {"input_ids": IDS, "decoder_input_ids": IDS}
        )


# -- checkpoints and the command line


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of the weights of `Answers`, and one of `Normed`'s, whose weights are computed."""
    torch.save(Answers("dict").state_dict(), tmp_path / "answers.pt")
    torch.save(Normed("torch.nn.utils.parametrizations:weight_norm").state_dict(), tmp_path / "normed.pt")
    torch.save(Tokens().state_dict(), tmp_path / "tokens.pt")
    return tmp_path


def test_a_checkpoint_with_several_outputs_is_refused_at_once_and_the_remedy_works(weights: Path) -> None:
    fields = {
        "factory": "tests.mynet:Answers",
        "arguments": {"kind": "dict"},
        "file": str(weights / "answers.pt"),
        "input": (4,),
    }
    with pytest.raises(DomainError, match="2 tensors are in its output") as error:
        networks.checkpoint(**fields)()
    remedies = re.findall(r"set output: '(\w+)'", str(error.value))
    assert remedies == ["one", "two"]
    outputs = [networks.checkpoint(**fields, output=name)().signature.outputs[0].shape for name in remedies]
    assert outputs == [("N", 2), ("N", 3)]
    assert compress.checkpoint_fields(output="two") == {"output": "two"}
    assert compress.checkpoint_fields(output="1") == {"output": 1}


def test_a_checkpoint_of_computed_weights_is_folded_and_noted(weights: Path) -> None:
    ctx = Context(seed=0)
    norm = "torch.nn.utils.parametrizations:weight_norm"
    mapping = networks.checkpoint(
        factory="tests.mynet:Normed", arguments={"norm": norm}, file=str(weights / "normed.pt"), input=(4,)
    )
    network = ctx.apply(mapping, None)
    assert any("folded into a plain weight" in note for note in ctx.notes)
    assert count_parameters(network.module()) == count_parameters(Normed(None))
    module = Normed(norm).eval()
    module.load_state_dict(torch.load(weights / "normed.pt"))
    assert (network.module()(X) - module(X)).abs().max() < 1e-5


def test_a_checkpoint_takes_token_ids(weights: Path) -> None:
    np.savez(weights / "ids.npz", inputs=np.ones((6, 8), np.int16), labels=np.arange(6) % 2)
    fields = {"factory": "tests.foreign:Tokens", "file": str(weights / "tokens.pt")}
    for given_as in ({"input": (8,)}, {"data": datasets.arrays(file=str(weights / "ids.npz"))}):
        assert networks.checkpoint(**fields, **given_as)().signature.inputs[0].dtype == "int64"


def test_a_model_of_transformers_from_its_own_file(bert: Any, tmp_path: Path) -> None:
    bert.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    network = networks.checkpoint(
        factory="mapsto.nn.networks.hf_model:hf_model",
        arguments={"model": "BertForSequenceClassification", "config": config},
        file=str(tmp_path / "model.safetensors"),
        input=(6,),
        classes=("red", "green", "blue"),
    )()
    mask = (IDS != 0).long()
    assert torch.allclose(network.module()(IDS), bert(input_ids=IDS, attention_mask=mask).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda x: torch.complex(x, x), "its output is complex"),
        (lambda x: x.sum(), r"shape \(\), which holds nothing for each"),
        (lambda x: x[:1], r"shape \(1, 3\), which holds nothing for each"),
    ],
)
def test_outputs_that_are_no_batch_of_numbers_are_refused(broken, message):
    class Odd(nn.Linear):
        def forward(self, x):
            return broken(super().forward(x))

    with pytest.raises(DomainError, match=message):
        require_usable(Odd(3, 3)(torch.randn(2, 3)), torch.randn(2, 3), "odd")


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(DomainError, match="two classes are named 'a'"):
        Network.from_module(nn.Linear(3, 3), torch.randn(2, 3), classes=("a", "a", "b"))


def test_lazy_sparse_and_diverged_tensors_are_refused(tmp_path):
    with pytest.raises(DomainError, match="'weight' is lazy"):
        load_strictly(nn.LazyLinear(2), {}, where="lazy")
    with pytest.raises(DomainError, match="'weight' is sparse"):
        load_strictly(nn.Linear(2, 2), {"weight": torch.eye(2).to_sparse(), "bias": torch.zeros(2)}, where="sparse")
    torch.save({"weight": torch.full((2, 2), float("nan")), "bias": torch.zeros(2)}, tmp_path / "nan.pt")
    with pytest.raises(DataError, match="'weight' holds NaN"):
        Context().apply(Checkpoint(factory="torch.nn:Linear", file=str(tmp_path / "nan.pt"), input=(2,)), None)

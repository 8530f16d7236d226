"""Exporting for further runtimes: parity, int8 kernels, missing extras, and the choice of the fastest."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from tests.nets import Blobs, Eigen, Joined, OneAxis, Plain, Residual, images, network

from mapsto import discovery
from mapsto.context import Context
from mapsto.errors import DomainError, MissingExtra, SpecError, StoreError
from mapsto.kinds import Network, Package, trusting
from mapsto.mappings.evaluate.latency import Latency
from mapsto.mappings.export.best import Best
from mapsto.mappings.export.executorch import Executorch
from mapsto.mappings.export.litert import Litert
from mapsto.mappings.export.onnx import Onnx
from mapsto.mappings.export.openvino import Openvino
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.quantize.bf16 import Bf16
from mapsto.mappings.quantize.static import Static
from mapsto.mappings.quantize.weight_only import WeightOnly
from mapsto.nn.export import registry
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import runner
from mapsto.report.build import save_package
from mapsto.store import Store, measured_of
from mapsto_runtime.predictor import Predictor

pytestmark = pytest.mark.usefixtures("trusted", "one_thread")


@pytest.fixture(scope="module")
def float_network() -> Network:
    with trusting("tests"):
        return network(Plain)


@pytest.fixture(scope="module")
def small(float_network) -> Network:
    with trusting("tests"):
        return Static(data=Blobs(), samples=64)(float_network)


def unpacked(package: Package, folder: Path) -> Path:
    save_package(package, folder)
    return folder


# ------------------------------------------------------------------------------------------------------ without the extra


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As where these are not installed."""
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)


def test_a_missing_extra_is_named_with_its_command(monkeypatch, float_network):
    without(monkeypatch, "openvino")
    with pytest.raises(MissingExtra, match=r"openvino is not installed; install it with: pip install 'mapsto\[edge\]'"):
        Openvino(samples=2)(float_network)
    with pytest.raises(MissingExtra, match="openvino"):
        Best(exporters=("onnx", "openvino"), samples=2, rounds=1, seconds=0.01)(float_network)


def test_the_package_of_another_runtime_says_what_is_missing(monkeypatch, float_network, tmp_path):
    folder = unpacked(Onnx(samples=2)(float_network), tmp_path / "package")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "runtime": "openvino", "format": 2}))
    without(monkeypatch, "openvino")
    with pytest.raises(MissingExtra, match="pip install"):
        Predictor(folder)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "runtime": "../evil", "format": 2}))
    with pytest.raises(StoreError, match="which this mapsto does not know; upgrade"):
        Predictor(folder)


def test_onnx_packages_stay_readable_for_every_mapsto(float_network):
    manifest = Onnx(samples=2)(float_network).manifest()
    assert manifest["format"] == 1
    assert "runtime" not in manifest


def test_the_only_runtime_there_is_the_best(monkeypatch, small, tmp_path):
    without(monkeypatch, "openvino", "executorch", "litert_torch", "ai_edge_litert")
    package = Best(data=Blobs(), samples=32, rounds=2, seconds=0.01)(small)
    manifest = package.manifest()
    assert manifest["chosen"] == "onnx"
    assert set(manifest["candidates"]) == set(runtime_exporters())
    assert "left_out" not in manifest["candidates"]["onnx"]
    assert manifest["candidates"]["onnx"]["parity"]["top1_agreement"] == 1
    assert "pip install 'mapsto[edge]'" in manifest["candidates"]["openvino"]["left_out"]
    (row,) = package.measured["latency"].rows
    assert row[0] == "onnx"
    assert 0 < row[2] <= row[1] <= row[3]
    folder = unpacked(package, tmp_path / "package")
    assert [row[0] for row in json.loads((folder / "measured.json").read_text())["latency"]["rows"]] == ["onnx"]
    assert Predictor(folder).predict([np.zeros((16, 16), np.uint8)])[0].label in "abcde"


def test_a_field_takes_the_name_of_any_runtime_there_is():
    assert sorted(get_args(registry.RuntimeName)) == sorted(registry.names())


def runtime_exporters() -> list[str]:
    names = [name.removeprefix("export.") for name in discovery.entries("mappings") if name.startswith("export.")]
    return [name for name in names if name not in ("best", "mapsto")]  # the latter of models


def test_a_runtime_that_fails_at_work_is_left_out_with_its_reason(monkeypatch, small):
    """ExecuTorch makes a program of some operators, opens it, and fails only when it runs."""

    class Program:
        def method_names(self) -> list[str]:
            return ["forward"]

        def forward(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
            raise RuntimeError("Failed to execute method forward, error: 0x12 in quantized_decomposed::cat.out")

    exir, native = types.ModuleType("exir"), types.ModuleType("portable_lib")
    program = types.SimpleNamespace(buffer=b"a program")
    edge = types.SimpleNamespace(to_executorch=lambda: program)
    monkeypatch.setattr(exir, "to_edge_transform_and_lower", lambda exported, partitioner: edge, raising=False)
    monkeypatch.setattr(native, "_unsafe_reset_threadpool", lambda threads: None, raising=False)
    monkeypatch.setattr(native, "_load_for_executorch", lambda path: Program(), raising=False)
    partition = types.SimpleNamespace(XnnpackPartitioner=object)
    for name, module in (
        ("executorch.backends.xnnpack.partition.xnnpack_partitioner", partition),
        ("executorch.exir", exir),
        ("executorch.extension.pybindings.portable_lib", native),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(
        DomainError, match="ExecuTorch cannot run this network, for its operator quantized_decomposed::cat"
    ):
        Executorch(samples=2)(small)
    ctx = Context()
    package = ctx.apply(Best(exporters=("onnx", "executorch"), samples=8, rounds=1, seconds=0.01), small)
    manifest = package.manifest()
    assert manifest["chosen"] == "onnx"
    assert "Failed to execute method forward" in manifest["candidates"]["executorch"]["left_out"]
    assert any("executorch is left out" in note for note in ctx.notes)


def test_times_are_kept_but_are_no_part_of_the_digest(float_network, tmp_path):
    package = Best(exporters=("onnx",), samples=8, rounds=1, seconds=0.01)(float_network)
    store = Store(tmp_path)
    digest = store.save(package)
    assert digest == store.save(dataclasses.replace(package, measured={}))
    loaded = store.load(digest, measured=json.loads(json.dumps(measured_of(package))))
    assert loaded.measured["latency"] == package.measured["latency"]


def test_the_best_refuses_what_it_cannot_know_or_trust(float_network, small):
    with pytest.raises(SpecError, match=r"exporters has no exporter 'onx'; did you mean 'onnx'\?"):
        Best(exporters=("onx",))
    # nothing agrees to better than a float's last bits
    given = dataclasses.replace(small, signature=dataclasses.replace(small.signature, classes=None))
    with pytest.raises(DomainError, match=r"onnx: its outputs differ by .* of their spread, at most 1e-12 are wanted"):
        Best(exporters=("onnx",), samples=64, relative_difference=1e-12, rounds=1, seconds=0.01)(given)


def test_a_latency_budget_in_a_runtime_that_is_not_here(monkeypatch, float_network):
    without(monkeypatch, "openvino")
    with pytest.raises(MissingExtra, match="openvino is not installed"):
        Magnitude(latency_ms=1, runtime="openvino")(float_network)


def test_an_unknown_runtime_is_refused():
    with pytest.raises(SpecError, match="did you mean 'openvino'"):
        registry.find("openvin")


# ---------------------------------------------------------------------------------------------------------------- openvino


def test_openvino_agrees_and_predicts(float_network, small, tmp_path):
    pytest.importorskip("openvino", reason="needs the extra edge: openvino")
    for given, limit in ((float_network, 1e-4), (small, 0.1)):
        package = Openvino(data=Blobs(), samples=64)(given)
        manifest = package.manifest()
        assert manifest["runtime"] == "openvino"
        assert manifest["format"] == 2
        assert manifest["parity"]["top1_agreement"] == 1
        assert manifest["parity"]["relative_difference"] < limit
    folder = unpacked(package, tmp_path / "package")
    pixels = Blobs(count=9).open().inputs[:, 0]
    found = [p.label for p in Predictor(folder).predict(list(pixels))]
    expected = [p.label for p in Predictor(unpacked(Onnx(samples=2)(small), tmp_path / "onnx")).predict(list(pixels))]
    assert found == expected


def test_openvino_takes_any_batch_and_gives_the_same_bytes_again(float_network, tmp_path):
    pytest.importorskip("openvino", reason="needs the extra edge: openvino")
    engine = registry.find("openvino")
    assert engine.lowered(float_network) == engine.lowered(float_network)
    run = registry.run_network("openvino", float_network, tmp_path)
    whole = run(images(7).numpy())
    np.testing.assert_allclose(runner(to_onnx(float_network))(images(7).numpy()), whole, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([run(images(7).numpy()[i : i + 1]) for i in range(7)]), whole, atol=1e-5)


def test_openvino_computes_with_integers(tmp_path):
    openvino = pytest.importorskip("openvino", reason="needs the extra edge: openvino")
    given = Static(data=Blobs(), samples=64)(network(Residual))
    files = registry.find("openvino").lowered(given)
    core = openvino.Core()
    if "INT8" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("OpenVINO has no int8 kernels for this processor")
    compiled = core.compile_model(core.read_model(files["model.xml"], files["model.bin"]), "CPU")
    kinds = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    convolutions = [str(kind["runtimePrecision"].get()) for kind in kinds if kind["layerType"].get() == "Convolution"]
    integer = [kind for kind in convolutions if kind in ("i8", "u8")]
    assert len(integer) >= len(convolutions) - 1, f"all but the thin first one: {convolutions}"


def test_the_best_of_two_is_the_faster_of_its_own_table(small):
    pytest.importorskip("openvino", reason="needs the extra edge: openvino")
    package = Best(exporters=("onnx", "openvino"), data=Blobs(), samples=32, rounds=2, seconds=0.02)(small)
    times = {row[0]: row[1] for row in package.measured["latency"].rows}
    assert package.manifest()["chosen"] == min(times, key=lambda name: times[name])
    assert set(package.manifest()["candidates"]) == {"onnx", "openvino"}


def test_latency_of_a_network_and_a_package_in_openvino(small):
    pytest.importorskip("openvino", reason="needs the extra edge: openvino")
    for given in (small, Openvino(samples=2)(small)):
        report = Latency(runtime="openvino", rounds=1, seconds=0.005, all_threads=False)(given)
        assert report.metrics["p50"].value > 0


def test_a_latency_budget_is_measured_in_the_runtime_that_is_named(monkeypatch, float_network):
    pytest.importorskip("openvino", reason="needs the extra edge: openvino")
    asked: list[str] = []
    real = registry.find
    monkeypatch.setattr(registry, "find", lambda name: asked.append(name) or real(name))
    pruned = Magnitude(latency_ms=1e4, runtime="openvino")(float_network)
    assert set(asked) == {"openvino"}
    assert pruned.edits == (), "ten seconds are enough for all of it"


# ---------------------------------------------------------------------------------------------------- executorch and litert

FIXED = (("executorch", Executorch, ("executorch",)), ("litert", Litert, ("litert_torch", "ai_edge_litert")))
"""Runtimes whose files are for one sample at a time: name, exporter, modules."""


def needs(*modules: str) -> None:
    for name in modules:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs the extra edge: {name}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exporter", "modules"), [(Onnx, ()), (Openvino, ("openvino",)), *(entry[1:] for entry in FIXED)]
)
def test_an_operator_that_a_runtime_lacks_is_named(exporter, modules):
    needs(*modules)
    with pytest.raises(DomainError, match=r"for its operator .*eigh"):
        exporter(samples=2)(network(Eigen))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter", "modules"), FIXED)
def test_fixed_runtimes_agree_and_predict(name, exporter, modules, small, tmp_path):
    needs(*modules)
    package = exporter(data=Blobs(), samples=16)(small)
    manifest = package.manifest()
    assert (manifest["runtime"], manifest["batch"], manifest["format"]) == (name, 1, 2)
    assert manifest["parity"]["top1_agreement"] == 1
    assert manifest["parity"]["relative_difference"] < 0.1
    pixels = Blobs(count=5).open().inputs[:, 0]
    found = [p.label for p in Predictor(unpacked(package, tmp_path / "package")).predict(list(pixels))]
    expected = [p.label for p in Predictor(unpacked(Onnx(samples=2)(small), tmp_path / "onnx")).predict(list(pixels))]
    assert found == expected
    engine = registry.find(name)
    assert engine.lowered(small) == {engine.MODEL: package.files[engine.MODEL].read_bytes()}, "the same bytes again"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter", "modules"), FIXED)
def test_fixed_runtimes_take_and_give_numbers_where_both_ends_are_of_codes(name, exporter, modules):
    needs(*modules)
    embedding = Static(data=Blobs(), samples=64, first="int")(network(Plain, classes=0))
    assert exporter(data=Blobs(), samples=16)(embedding).manifest()["parity"]["relative_difference"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter", "modules"), FIXED)
def test_fixed_runtimes_run_float_networks_with_shortcuts(name, exporter, modules):
    needs(*modules)
    parity = exporter(samples=8)(network(Residual)).manifest()["parity"]
    assert parity["relative_difference"] < 1e-4


@pytest.mark.slow
def test_litert_computes_with_integers(small, tmp_path):
    needs("litert_torch", "ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    (content,) = registry.find("litert").lowered(small).values()
    interpreter = Interpreter(model_content=content)
    kinds = {item["index"]: item["dtype"] for item in interpreter.get_tensor_details()}
    layers = [
        item for item in interpreter._get_ops_details() if item["op_name"].endswith("CONV_2D")
    ]  # of one channel: by depth
    integer = [layer for layer in layers if all(kinds[i] is np.int8 for i in layer["outputs"])]
    assert len(layers) == 3
    assert len(integer) == 2, "all but the thin first one"


def test_the_decomposed_graph_computes_what_the_network_does(small):
    from mapsto.nn.export.pt2e import decomposed

    for codes in (False, True):
        graph, inputs = decomposed(small, codes=codes, where="here")
        names = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        assert sum("dequantize_per_channel" in name for name in names) == 2, "the last layer's weight stays float"
        assert sum(name == "quantized_decomposed.quantize_per_channel.default" for name in names) == 2 * (not codes)
        assert not any("fake_quantize" in name for name in names)
        sample = images(1)
        assert inputs[0].shape == sample.shape
        torch.testing.assert_close(graph(sample), small.module()(sample), atol=1e-6, rtol=0)


def test_the_decomposed_graph_joins_codes_of_one_scale_and_pads_by_numbers():
    from mapsto.nn.export.pt2e import decomposed

    given = Static(data=Blobs(), samples=64)(network(Joined))
    graph, _ = decomposed(given, codes=True, where="here")
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    assert not any("padding" in str(node.target) for node in nodes)
    (joined,) = (node for node in nodes if node.target == torch.ops.aten.cat.default)
    (result,) = joined.users
    assert {part.args[1:] for part in joined.args[0]} == {result.args[1:]}, (
        "the scale of what is joined is the result's"
    )
    x = images(1)
    torch.testing.assert_close(graph(x), given.module()(x), atol=1e-6, rtol=0)


def test_an_int8_convolution_over_one_axis_is_refused_by_name_for_executorch_alone():
    from mapsto.nn.export.pt2e import decomposed

    given = Static(data=Blobs(), samples=64)(network(OneAxis))
    with pytest.raises(DomainError, match=r"no int8 kernel for a convolution over one axis \('conv1d.*', conv1d\)"):
        decomposed(given, codes=True, where="here")
    x = images(1)
    for network_, codes in ((given, False), (network(OneAxis), True)):
        graph, _ = decomposed(network_, codes=codes, where="here")
        torch.testing.assert_close(graph(x), network_.module()(x), atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("name", "mapping", "modules"), FIXED)
def test_concatenations_and_padding_by_a_word_run(name, mapping, modules, int8):
    needs(*modules)
    given = network(Joined)
    given = Static(data=Blobs(), samples=64)(given) if int8 else given
    parity = mapping(data=Blobs(), samples=16)(given).manifest()["parity"]
    assert parity["relative_difference"] < (0.1 if int8 else 1e-4)


def test_the_decomposed_graph_refuses_what_it_would_change(float_network):
    from mapsto.nn.export.pt2e import decomposed

    for given, kind in ((WeightOnly()(float_network), "GroupedWeights"), (Bf16()(float_network), "HalfWeights")):
        with pytest.raises(
            DomainError, match=rf"no kernels for how it is quantized \(.*{kind}\); quantize by quantize.static"
        ):
            decomposed(given, codes=True, where="here")
    (spec,) = float_network.signature.inputs
    varying = dataclasses.replace(
        float_network.signature, inputs=(dataclasses.replace(spec, shape=("N", 1, "height", 16)),)
    )
    with pytest.raises(DomainError, match="its inputs vary in height, this runtime's files have fixed sizes"):
        decomposed(dataclasses.replace(float_network, signature=varying), codes=True, where="here")

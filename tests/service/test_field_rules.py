"""What a service keeps of a table's rows is kept to the rules for its fields; what it answers is not touched by them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from mapsto.data.privacy.field_rules import FieldRules, require_fields
from mapsto.data.privacy.pseudonyms import Pseudonyms
from mapsto.data.privacy.settings import Privacy
from mapsto.errors import SpecError
from mapsto.service.fitting import Support
from mapsto.service.inference_protocol import decode
from mapsto.service.keys import Caller
from mapsto.service.served_model import ServedModel
from mapsto.service.service import Answered, Feedback, Service
from mapsto.service.state import State
from mapsto_runtime.signature import Column, Preprocessing, Signature, TensorSpec
from tests.cli.packages import write_package
from tests.command import mapsto

COLUMNS = (
    Column(name="age", mean=40.0, std=10.0),
    Column(name="home_city", type="words", categories=("Bonn", "Kiel", "Ulm"), fill=(0.2, 0.3, 0.5)),
    Column(name="born", type="words", categories=("2001-01-05", "2001-01-20", "2001-03-01"), encode="ordinal", std=2.0),
)
ROW = {"age": ("FP64", 47.0), "home_city": ("BYTES", "Kiel"), "born": ("BYTES", "2001-01-20")}
PREPARED = [0.7, 0.0, 1.0, 0.0, 0.5]


def package(folder: Path, *, adapts: bool = True) -> Path:
    """Two classes from a row; its features are the row as it is prepared."""
    weight = np.array([[1, 1, 1, 1, 1], [-1, -1, -1, -1, -1]], np.float32)
    constants = (
        onnx.numpy_helper.from_array(weight, "weight"),
        onnx.numpy_helper.from_array(np.zeros(2, np.float32), "bias"),
    )
    nodes = [
        helper.make_node("Identity", ["input"], ["features"]),
        helper.make_node("Gemm", ["features", "weight", "bias"], ["output" if adapts else "scores"], transB=1),
    ]
    if not adapts:
        nodes.append(helper.make_node("Sigmoid", ["scores"], ["output"]))
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 5)),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=("N", 2)),),
        preprocessing=Preprocessing(kind="none", columns=COLUMNS),
        classes=("low", "high"),
    )
    return write_package(folder, nodes, signature, constants)


def rules(tree: dict[str, Any]) -> Any:
    fields = Privacy.of({"fields": tree}, where="test").fields
    assert Privacy.of(Privacy.of({"fields": tree}, where="test").plain(), where="test").fields == fields, (
        "as JSON it is the same"
    )
    return fields


def inputs() -> list[dict[str, Any]]:
    return [{"name": name, "datatype": kind, "shape": [1], "data": [value]} for name, (kind, value) in ROW.items()]


def kept(folder: Path, fields: Any, *, adapts: bool = True) -> tuple[Answered, list[float], list[list[float]]]:
    """The answer to a row, what is kept of it, and the features of labels by request, with input, and what was adapted to."""
    state = State(folder / "state.sqlite")
    model = ServedModel("m", package(folder / "m", adapts=adapts), fields=fields, pseudonyms=Pseudonyms(b"k" * 32))
    service = Service([model], state, folder)
    caller = Caller(name="ann", tenant="ann", scopes=frozenset())

    async def run() -> Answered:
        asked = decode(json.dumps({"inputs": inputs()}).encode())
        found = await service.answer("m", "", asked, caller)
        given = [Feedback(label="low", request_id=found.parameters["request_id"])]
        if adapts:
            given.append(Feedback(label="low", inputs=asked.inputs))
        await service.feedback("m", given, caller)
        if adapts:
            way = {"way": "logistic", "labels": ["low", "high"]}
            two = [each | {"shape": [2], "data": each["data"] * 2} for each in inputs()]
            both = decode(json.dumps({"inputs": two, "parameters": way}).encode())
            await service.adapt("m", both, caller)
        return found

    found = asyncio.run(run())
    rings = service.kept("m")
    assert rings is not None
    stored = [np.frombuffer(row.features, np.float32).tolist() for row in state.feedback("m")]
    job = service.jobs.claim("test", 60)
    assert (job is not None) is adapts
    if job is not None:
        support = msgspec.msgpack.decode(job.content, type=Support)
        stored += np.frombuffer(support.features, np.float32).reshape(-1, support.width).tolist()
    return found, rings.latest(9)["features"][0].tolist(), stored


def test_features_are_of_the_row_as_the_rules_leave_it(tmp_path: Path) -> None:
    whole, row, stored = kept(tmp_path / "none", rules({}))
    assert row == pytest.approx(PREPARED)
    assert len(stored) == 4
    fields = rules({"age": {"coarsen": 20}, "*_city": "drop", "born": {"coarsen": "month"}})
    found, row, stored = kept(tmp_path / "ruled", fields)
    assert found.outputs[0].array.tolist() == whole.outputs[0].array.tolist(), "the answer is of the whole row"
    ruled = pytest.approx([0.0, 0.2, 0.3, 0.5, 0.0])  # 40 years, the average city, the first of January's days
    assert row == ruled
    assert stored == [ruled] * 4


def test_columns_that_are_kept_of_models_that_do_not_adapt(tmp_path: Path) -> None:
    found, row, stored = kept(tmp_path, rules({"*": "drop", "age": {"coarsen": 1}}), adapts=False)
    assert row[:5] == pytest.approx([0.0, 0.2, 0.3, 0.5, 0.0]), "the first pattern counts"
    assert row[5:] == pytest.approx(found.outputs[0].array[0].tolist())
    assert stored == [[]]


def test_categories_are_exchanged_under_a_key() -> None:
    fields = rules({"home_city": "hash"})
    prepared = np.array(
        [PREPARED, [0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0.2, 0.3, 0.5, 0], [0, np.nan] + [np.nan] * 2 + [0]]
    )
    made_by = {key: FieldRules(fields, COLUMNS, Pseudonyms(bytes([key]) * 32)).applied(prepared) for key in range(20)}
    for found in made_by.values():
        assert sorted(found[:3, 1:4].argmax(1).tolist()) == [0, 1, 2], "different ones stay different"
        assert found[3:, 1:4] == pytest.approx(prepared[3:, 1:4], nan_ok=True)
        assert (found[:, [0, 4]] == prepared[:, [0, 4]]).all()
    assert len({found.tobytes() for found in made_by.values()}) > 3


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"name": "drop"}, "'name' names no field of 'm'"),
        ({"age": "hash"}, "a number has no pseudonym"),
        ({"age": {"coarsen": "month"}}, "holds numbers"),
        ({"home_city": {"coarsen": 10}}, "holds words"),
        ({"home_city": {"coarsen": "year"}}, "none of the field's words is a date"),
        ({"age": {"coarsen": 0}}, "fields.age"),
        ({"age": "mask"}, "'drop' or 'hash'"),
        ({"born": "hash"}, "would learn from other categories"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(tmp_path: Path, tree: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        own = rules(tree)
        model = ServedModel("m", package(tmp_path / "m"), fields=own, pseudonyms=Pseudonyms(b"k" * 32))
        require_fields(own, {"m": model.signature.preprocessing.columns})


def test_a_package_that_loses_a_field_is_not_loaded_again(tmp_path: Path) -> None:
    place = package(tmp_path / "m")
    model = ServedModel("m", place, fields=rules({"born": "drop"}))
    other = (place / "manifest.json").read_text().replace('"born"', '"since"')
    (place / "manifest.json").write_text(other)
    with pytest.raises(SpecError, match="the new package has no field 'born'"):
        model.reloaded(most_wait=1.0)


def test_a_service_with_a_rule_for_nothing_does_not_start(tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer")
    (tmp_path / "privacy.yaml").write_text("entities: {}\nfields: {street: drop}\n")
    place = package(tmp_path / "m")
    said = mapsto("serve", place, "--privacy", tmp_path / "privacy.yaml", code=2).err
    assert "'street' names no field" in said
    assert "age, home_city, born" in said.replace("'", "")

"""The Open Inference Protocol over gRPC, asked by tritonclient and by grpc's own channel in the event loop of the service."""

from __future__ import annotations

import asyncio
import json
import runpy
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("grpc", reason="the extra grpc is not installed")

import grpc.aio
import tritonclient.grpc.aio as triton
from google.protobuf import descriptor_pb2
from tritonclient.utils import InferenceServerException

from mapsto.errors import StoreError
from mapsto.service.access import Access
from mapsto.service.batching import Batcher
from mapsto.service.grpc_protocol import message
from mapsto.service.grpc_server import GrpcServer
from mapsto.service.grpc_tensors import FIELDS, answer_of, asked_of
from mapsto.service.inference_protocol import DATATYPES, Asked, Output, tensor
from mapsto.service.overload import Overload
from mapsto.service.refusal import Refusal
from mapsto.service.requests_in_flight import RequestsInFlight
from tests.service.in_process import InProcess, started

FOLDER = Path(__file__).parents[2] / "src/mapsto/service/grpc_protocol"

ROWS = np.array([[2.0, 0, 0], [-3e-7, 1e30, 0.1], [np.nan, 0, 0]], np.float32)
INFER = "/inference.GRPCInferenceService/ModelInfer"


class Both:
    """A service in process, over HTTP and over gRPC."""

    def __init__(self, service: InProcess) -> None:
        self.rest, self.key = service, service.key()
        self.told: list[tuple[Any, ...]] = []
        self.overload = Overload(1.0)
        self.server = GrpcServer(
            service.service,
            Access(service.service.keys).caller,
            "127.0.0.1:0",
            observe=self._observe,
            overload=self.overload,
            write=service.log.append,
        )

    def _observe(self, *told: Any) -> None:
        self.told.append(told)

    def run(self, work: Callable[[str], Awaitable[Any]]) -> Any:
        """What is done with the address of the server."""

        async def whole() -> Any:
            address = f"127.0.0.1:{await self.server.start()}"
            try:
                return await work(address)
            finally:
                await self.server.stop(5.0)

        return self.rest._runner.run(whole())

    def with_client(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """What is done with a client of tritonclient's."""

        async def opened(address: str) -> Any:
            async with triton.InferenceServerClient(address) as client:
                return await work(client)

        return self.run(opened)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    with started(tmp_path) as service:
        yield Both(service)


def given(rows: np.ndarray[Any, Any] = ROWS) -> list[Any]:
    item = triton.InferInput("input", list(rows.shape), "FP32")
    item.set_data_from_numpy(rows)
    return [item]


def typed(rows: list[list[float]], **more: Any) -> Any:
    """A request whose elements are typed."""
    request = message("inference.ModelInferRequest")(model_name="signs", **more)
    item = request.inputs.add(name="input", datatype="FP32", shape=[len(rows), len(rows[0])])
    item.contents.fp32_contents.extend([value for row in rows for value in row])
    return request


async def asked(address: str, request: Any, key: str, path: str = INFER, extra: Any = (), **more: Any) -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        return await channel.unary_unary(path)(
            request if isinstance(request, bytes) else request.SerializeToString(),
            metadata=(("authorization", f"Bearer {key}"), *extra),
            **more,
        )


def refused(both: Both, request: Any, path: str = INFER, **more: Any) -> grpc.aio.AioRpcError:
    key = more.pop("key", both.key)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        both.run(lambda address: asked(address, request, key, path, **more))
    return caught.value


# --------------------------------------------------------------------------------------------------------------- answers


def test_answers_are_those_of_http_to_the_bit(both: Both) -> None:
    support = {"name": "input", "datatype": "FP32", "shape": [4, 3], "data": [0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 0, 2]}
    body = {"inputs": [support], "parameters": {"labels": ["y", "y", "z", "z"]}}
    adapting = both.rest.key(scopes=["adapt"])
    made_version = both.rest.ask("/v2/models/signs/adapt", body, key=adapting).json()["model_version"]
    for version in ("", "1", made_version):
        place = f"/versions/{version}" if version else ""
        head = json.dumps(
            {
                "inputs": [
                    {"name": "input", "datatype": "FP32", "shape": [3, 3], "parameters": {"binary_data_size": 36}}
                ],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        http = both.rest.ask(
            f"/v2/models/signs{place}/infer",
            head + ROWS.tobytes(),
            key=both.key,
            inference_header_content_length=str(len(head)),
        )
        assert http.status == 200, http.body
        length = int(http.headers["inference-header-content-length"])
        tree, content = json.loads(http.body[:length]), http.body[length:]

        async def work(client: Any, version: str = version) -> Any:
            return await client.infer("signs", given(), model_version=version, request_id="mine", headers=both.headers)

        over = both.with_client(work).get_response()
        assert b"".join(over.raw_output_contents) == content
        assert [(each.name, each.datatype, list(each.shape)) for each in over.outputs] == [
            (each["name"], each["datatype"], each["shape"]) for each in tree["outputs"]
        ]
        assert (over.model_name, over.model_version, over.id) == ("signs", tree["model_version"], "mine")
        assert len(over.parameters["request_id"].string_param) == len(tree["parameters"]["request_id"])


def test_typed_elements_are_answered_typed(both: Both) -> None:
    found = both.run(lambda address: asked(address, typed([[2.0, 0, 0]]), both.key))
    answer = message("inference.ModelInferResponse").FromString(found)
    assert not answer.raw_output_contents
    assert list(answer.outputs[0].contents.fp32_contents) == [2, -2]
    assert list(answer.outputs[1].contents.bytes_contents) == [b"low"]
    wanted = typed([[2.0, 0, 0]])
    wanted.outputs.add(name="label")
    found = both.run(lambda address: asked(address, wanted, both.key))
    assert [each.name for each in message("inference.ModelInferResponse").FromString(found).outputs] == ["label"]


def test_a_label_may_be_given_for_an_answer(both: Both) -> None:
    async def work(client: Any) -> Any:
        return await client.infer("signs", given(), headers=both.headers)

    request = both.with_client(work).get_response().parameters["request_id"].string_param
    body = {"feedback": [{"request_id": request, "row": 0, "label": "high"}]}
    answer = both.rest.ask("/v2/models/signs/feedback", body, key=both.rest.key(scopes=["learn"]))
    assert (answer.status, answer.json()["feedback"][0]["stored"]) == (200, True)


def test_what_is_there_is_told(both: Both) -> None:
    async def work(client: Any) -> Any:
        server = await client.get_server_metadata(headers=both.headers)
        model = await client.get_model_metadata("signs", headers=both.headers, as_json=True)
        ready = await client.is_model_ready("signs", headers=both.headers)
        return await client.is_server_live(), await client.is_server_ready(), ready, server, model

    live, ready, model_ready, server, model = both.with_client(work)
    assert (live, ready, model_ready, server.name) == (True, True, True, "mapsto")
    http = both.rest.ask("/v2/models/signs", key=both.key).json()
    assert (model["platform"], model["versions"]) == (http["platform"], http["versions"])
    shapes = [[int(size) for size in each["shape"]] for each in model["inputs"] + model["outputs"]]
    assert shapes == [each["shape"] for each in http["inputs"] + http["outputs"]]


@pytest.mark.parametrize("datatype", [*FIELDS])
def test_every_type_is_read_typed_and_raw_alike(datatype: str) -> None:
    values: list[Any] = [b"", b"\xffab"] if datatype == "BYTES" else [True, False] if datatype == "BOOL" else [0, 100]
    request = message("inference.ModelInferRequest")()
    item = request.inputs.add(name="x", datatype=datatype, shape=[2])
    getattr(item.contents, FIELDS[datatype]).extend(values)
    found = tensor(asked_of(request).inputs[0])
    assert found.tolist() == values
    array = np.array(values, DATATYPES[datatype])
    outputs = [Output("y", datatype, array)]
    for raw in (True, False):
        wants = Asked(id=None, inputs=[], outputs=None, binary=frozenset(), all_binary=raw, parameters={})
        content = answer_of(model="m", version="1", asked=wants, outputs=outputs, parameters={})
        answer = message("inference.ModelInferResponse").FromString(content)
        again = message("inference.ModelInferRequest")(raw_input_contents=answer.raw_output_contents)
        again.inputs.add(name="x", datatype=datatype, shape=[2])
        if not raw:
            again.inputs[0].contents.MergeFromString(answer.outputs[0].contents.SerializeToString())
        assert tensor(asked_of(again).inputs[0]).tolist() == values


def test_half_floats_are_raw() -> None:
    wants = Asked(id=None, inputs=[], outputs=None, binary=frozenset(), all_binary=False, parameters={})
    outputs = [Output("y", "FP16", np.array([0.5], np.float16)), Output("z", "FP32", np.array([1.0], np.float32))]
    content = answer_of(model="m", version="1", asked=wants, outputs=outputs, parameters={})
    answer = message("inference.ModelInferResponse").FromString(content)
    assert [len(each) for each in answer.raw_output_contents] == [2, 4]


# -------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"datatype": "FP16"}, "is sent in raw_input_contents"),
        ({"datatype": "COMPLEX"}, "the types are BOOL"),
        ({"datatype": "FP64"}, "is sent in fp64_contents, not in fp32_contents"),
        ({"shape": [2, 3]}, "has 3 elements in fp32_contents"),
        ({"shape": [-1, 3]}, "no possible shape"),
        ({"name": "other"}, "the model takes"),
        ({"name": "x" * 100_000}, "the model takes"),
    ],
)
def test_an_input_that_does_not_fit_is_said(both: Both, change: dict[str, Any], said: str) -> None:
    item = {"name": "input", "datatype": "FP32", "shape": [1, 3]} | change
    request = message("inference.ModelInferRequest")(model_name="signs", inputs=[item])
    request.inputs[0].contents.fp32_contents.extend([1.0, 2.0, 3.0])
    error = refused(both, request)
    assert (error.code(), said in str(error.details())) == (grpc.StatusCode.INVALID_ARGUMENT, True), error.details()


def test_raw_tensors_that_do_not_fit_are_said() -> None:
    def request(*raw: bytes) -> Any:
        found = message("inference.ModelInferRequest")(raw_input_contents=raw)
        found.inputs.add(name="x", datatype="FP32", shape=[2])
        return found

    with pytest.raises(Refusal, match="holds 2 tensors, and the request has 1 inputs"):
        asked_of(request(b"", b""))
    with pytest.raises(Refusal, match=r"of shape \[2\] and type FP32 has 8 bytes, not 7"):
        asked_of(request(bytes(7)))
    double = request(bytes(8))
    double.inputs[0].contents.fp32_contents.append(1.0)
    with pytest.raises(Refusal, match="both contents and raw_input_contents"):
        asked_of(double)
    twice = request(bytes(8), bytes(8))
    twice.inputs.add(name="x", datatype="FP32", shape=[2])
    with pytest.raises(Refusal, match="an input is given twice: x"):
        asked_of(twice)
    narrow = message("inference.ModelInferRequest")(inputs=[{"name": "x", "datatype": "INT8", "shape": [1]}])
    narrow.inputs[0].contents.int_contents.append(128)
    with pytest.raises(Refusal, match="beyond -128 to 127"):
        asked_of(narrow)


def test_refusals_have_the_status_of_grpc(both: Both) -> None:
    question = typed([[1.0, 0, 0]])
    assert refused(both, question, key="mapsto_wrong").code() is grpc.StatusCode.UNAUTHENTICATED
    learns = both.rest.key(scopes=["learn"])
    assert refused(both, question, key=learns).code() is grpc.StatusCode.PERMISSION_DENIED
    assert refused(both, typed([[1.0, 0, 0]], model_version="7")).code() is grpc.StatusCode.NOT_FOUND
    assert refused(both, b"\xff" * 9).code() is grpc.StatusCode.INVALID_ARGUMENT
    nothing = refused(both, b"", INFER.replace("Infer", "Train", 1).replace("ModelInfer", "ModelTrain"))
    assert nothing.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [told[3] for told in both.told] == [401, 403, 404, 400]
    lines = [json.loads(each) for each in both.rest.log]
    assert [each["status"] for each in lines] == [401, 403, 404, 400]
    assert {each["method"] for each in lines} == {"gRPC"}
    assert (lines[1]["key"] is not None, lines[2]["model"], lines[3]["model"]) == (True, "signs", "")


def test_a_caller_who_asks_too_often_is_told_when_to_come_again(both: Both) -> None:
    both.key = both.rest.key(rate=0.5, burst=1)

    async def work(address: str) -> Any:
        await asked(address, typed([[1.0, 0, 0]]), both.key)
        await asked(address, typed([[1.0, 0, 0]]), both.key)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        both.run(work)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(caught.value.trailing_metadata() or ())
    assert 0 < int(trailing["grpc-retry-pushback-ms"]) <= 2000
    assert int(trailing["retry-after"]) >= 1


def test_a_message_that_is_too_long_is_refused(both: Both) -> None:
    most = both.rest.service.limits.body
    error = refused(both, bytes(most + 1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in str(error.details())


def test_who_is_not_known_is_refused_before_the_message_is_read(both: Both) -> None:
    taken = list[int]()

    async def work(address: str) -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.stream_unary(INFER)(metadata=(("x-api-key", "mapsto_wrong"),))
            status = await asyncio.wait_for(call.code(), 10)  # nothing was sent yet
            taken.append(len(both.told))
            return status

    assert both.run(work) is grpc.StatusCode.UNAUTHENTICATED
    assert taken == [1]


def test_what_fails_is_said_without_what_it_failed_on(both: Both, capfd: pytest.CaptureFixture[str]) -> None:
    async def broken(*args: Any, **more: Any) -> Any:
        raise ZeroDivisionError("se" + "cret")

    both.rest.service.answer = broken  # pyright: ignore[reportAttributeAccessIssue]
    error = refused(both, typed([[1.0, 0, 0]]))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error.details()) + capfd.readouterr().err

    async def away(*args: Any, **more: Any) -> Any:
        raise StoreError("the state cannot be read", where="/secret")

    both.rest.service.answer = away  # pyright: ignore[reportAttributeAccessIssue]
    error = refused(both, typed([[1.0, 0, 0]]))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "the state cannot be read")


# ------------------------------------------------------------------------------------------------- deadlines, load, health


class _Slow:
    """A model that takes its time."""

    def __init__(self, both: Both, seconds: float) -> None:
        model = both.rest.service.model("signs")
        self.ran, self._run, self._seconds = list[int](), model._run, seconds
        model.batcher = Batcher(self, seconds=0.002, most=1)

    def __call__(self, samples: Any) -> Any:
        self.ran.append(len(samples))
        time.sleep(self._seconds)
        return self._run(samples)


def test_nothing_is_done_for_a_request_whose_deadline_has_passed(both: Both) -> None:
    slow = _Slow(both, 0.2)

    async def work(address: str) -> Any:
        first = asyncio.create_task(asked(address, typed([[1.0, 0, 0]]), both.key))
        await asyncio.sleep(0.1)
        late = asked(address, typed([[1.0, 0, 0]] * 3), both.key, timeout=0.05)
        found = await asyncio.gather(first, late, return_exceptions=True)
        await asyncio.sleep(0.2)
        return found

    first, late = both.run(work)
    assert isinstance(first, bytes)
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert slow.ran == [1], "the second did not run"
    assert sorted(told[3] for told in both.told)[0] == 200
    assert sorted(told[3] for told in both.told)[1] in (499, 504)


def test_a_client_that_gives_up_costs_nothing_more(both: Both) -> None:
    slow = _Slow(both, 0.2)

    async def work(address: str) -> None:
        first = asyncio.create_task(asked(address, typed([[1.0, 0, 0]]), both.key))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(asked(address, typed([[1.0, 0, 0]] * 3), both.key))
        await asyncio.sleep(0.05)
        second.cancel()
        await first
        await asyncio.sleep(0.1)

    both.run(work)
    assert slow.ran == [1]
    assert {told[3] for told in both.told} == {200, 499}


def test_what_was_begun_is_answered_when_it_ends(both: Both) -> None:
    _Slow(both, 0.3)

    async def work(address: str) -> Any:
        begun = asyncio.create_task(asked(address, typed([[1.0, 0, 0]]), both.key))
        await asyncio.sleep(0.1)
        await both.server.stop(5.0)
        return await begun

    assert both.run(work)


def test_more_than_can_be_answered_is_refused_at_once() -> None:
    now = [0.0]
    requests = RequestsInFlight(1.0, clock=lambda: now[0])
    for _ in range(100):  # sixteen or so a second
        assert requests.begin("a")
        now[0] += 0.06
        requests.end("a")
    assert [requests.begin("a") for _ in range(100)].count(True) == 17
    assert [requests.begin("b") for _ in range(100)].count(True) == 9, "another has its share"
    for name in ["a"] * 17 + ["b"] * 9:
        requests.end(name)
    assert requests.count == 0


def test_a_round_that_is_full_refuses(both: Both) -> None:
    both.overload.admits = lambda key: False  # pyright: ignore[reportAttributeAccessIssue]
    error = refused(both, typed([[1.0, 0, 0]]))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert both.told[-1][3:] == (429, both.told[-1][4], "overload")


def test_health_is_told_to_anyone_and_when_it_changes(both: Both) -> None:
    health = message("grpc.health.v1.HealthCheckResponse")

    async def work(address: str) -> tuple[list[int], Any]:
        async with grpc.aio.insecure_channel(address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check", response_deserializer=health.FromString)
            found = [(await check(b"")).status]
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch", response_deserializer=health.FromString)
            stream: Any = watch(b"")
            found.append((await stream.read()).status)
            both.rest.service.ready = False
            found += [(await stream.read()).status, (await check(b"")).status]
            unknown = message("grpc.health.v1.HealthCheckRequest")(service="signs").SerializeToString()
            other: Any = watch(unknown)
            found.append((await other.read()).status)
            try:
                await check(unknown)
            except grpc.aio.AioRpcError as error:
                return found, error.code()
        return found, None

    assert both.run(work) == ([1, 1, 2, 2, 3], grpc.StatusCode.NOT_FOUND)


# --------------------------------------------------------------------------------------------------------------- protocol


def test_the_descriptors_are_those_of_the_proto_files() -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts/grpc_descriptors.py"))
    assert (FOLDER / "descriptors.binpb").read_bytes() == script["made"](), "run: python scripts/grpc_descriptors.py"


def test_the_messages_are_those_of_tritonclient() -> None:
    from tritonclient.grpc import service_pb2

    def fields(descriptor: Any) -> dict[str, tuple[int, int, int]]:
        plain = descriptor_pb2.DescriptorProto()
        descriptor.CopyToProto(plain)
        return {each.name: (each.number, each.type, each.label) for each in plain.field}

    theirs = service_pb2.DESCRIPTOR.message_types_by_name
    for file in descriptor_pb2.FileDescriptorSet.FromString((FOLDER / "descriptors.binpb").read_bytes()).file:
        for each in file.message_type if file.package == "inference" else ():
            own = fields(message(f"inference.{each.name}").DESCRIPTOR)
            other = fields(theirs[each.name])
            assert {name: other[name] for name in own} == own, each.name
            for nested in each.nested_type:
                ours = fields(message(f"inference.{each.name}").DESCRIPTOR.nested_types_by_name[nested.name])
                assert ours == fields(theirs[each.name].nested_types_by_name[nested.name])


def test_tritonclient_says_what_is_wrong(both: Both) -> None:
    async def work(client: Any) -> Any:
        return await client.infer("none", given(), headers=both.headers)

    with pytest.raises(InferenceServerException, match="there is no model 'none'"):
        both.with_client(work)

"""The chain of `whole` as a good engineer writes it in an afternoon, with PyTorch, torch-pruning, ONNX Runtime, FastAPI and river.

mapsto bench whole_by_separate_libraries

Same images, same steps of training, same stream. What this service lacks: keys that end and tenants, labels that outlive a kill, batches, a
version kept for each change, rules for Prometheus; its alarm is its own counter of drifts.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from pydantic import BaseModel

KEY = "an afternoon's only key"
WAYS, SIZE = 64, 28


# ------------------------------------------------------------------------------------------------------------- training


def conv4() -> Any:
    from torch import nn

    layers: list[Any] = []
    for number in range(4):
        layers += [nn.Conv2d(64 if number else 1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten())


def augmented(x: Any) -> Any:
    """Each image turned, scaled, sheared and moved a little."""
    import torch
    from torch.nn import functional as f

    n = len(x)

    def uniform(width: float) -> Any:
        return (2 * torch.rand(n) - 1) * width

    angle, scale, shear = uniform(np.pi * 11.5 / 180), 1 + uniform(0.15), uniform(0.15)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [torch.stack([cos, shear - sin, uniform(0.1)], 1), torch.stack([sin, cos, uniform(0.1)], 1)]
    grid = f.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return f.grid_sample(x, grid, align_corners=False)


def task(images: Any, queries: int) -> tuple[Any, Any, Any]:
    """A shot of each of 64 characters, and queries of them: tensors (64, 1, 28, 28), (64 q, 1, 28, 28) and labels."""
    import torch

    classes = torch.randperm(len(images))[:WAYS]
    chosen = torch.stack([images[c, torch.randperm(images.shape[1])[: 1 + queries]] for c in classes]).float() / 255
    labels = torch.arange(WAYS).repeat_interleave(queries)
    return augmented(chosen[:, 0]), augmented(chosen[:, 1:].reshape(-1, 1, SIZE, SIZE)), labels


def scores(net: Any, support: Any, query: Any) -> Any:
    import torch

    features = net(torch.cat([support, query]))
    return -torch.cdist(features[WAYS:], features[:WAYS]).square()


def meta_trained(net: Any, images: Any, steps: int) -> Any:
    import torch

    optimizer = torch.optim.AdamW(net.parameters(), lr=0.002, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.002, total_steps=steps)
    for _ in range(steps):
        support, query, labels = task(images, 3)
        loss = torch.nn.functional.cross_entropy(scores(net, support, query), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


def pruned(net: Any, images: Any, batches: int, share: float = 0.15) -> Any:
    """By Taylor's criterion, in eights, the smallest ratio that leaves a share of the multiply-accumulates; the embedding stays."""
    import torch
    import torch_pruning as tp

    example = torch.zeros(1, 1, SIZE, SIZE)
    most = share * tp.utils.count_ops_and_params(net, example)[0]
    net.zero_grad()
    for _ in range(batches):
        support, query, labels = task(images, 3)
        torch.nn.functional.cross_entropy(scores(net, support, query), labels).backward()
    for ratio in np.arange(0.4, 0.9, 0.05):
        student = copy.deepcopy(net)
        for mine, gradient in zip(student.parameters(), net.parameters(), strict=True):
            mine.grad = None if gradient.grad is None else gradient.grad.clone()
        pruner = tp.pruner.MetaPruner(
            student, example, importance=tp.importance.TaylorImportance(), pruning_ratio=float(ratio), round_to=8,
            ignored_layers=[student[12]],
        )  # fmt: skip
        pruner.step()
        if tp.utils.count_ops_and_params(student, example)[0] <= most:
            return student
    raise RuntimeError("no ratio is small enough")


def distilled(student: Any, teacher: Any, images: Any, steps: int, alpha: float = 0.2, temperature: float = 4) -> Any:
    import torch
    from torch.nn import functional as f

    optimizer = torch.optim.AdamW(student.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=steps)
    teacher.eval()
    for _ in range(steps):
        support, query, labels = task(images, 2)
        with torch.no_grad():
            wanted = scores(teacher, support, query)
        given = scores(student, support, query)
        soft = f.kl_div(
            f.log_softmax(given / temperature, 1), f.softmax(wanted / temperature, 1), reduction="batchmean"
        )
        loss = alpha * f.cross_entropy(given, labels) + (1 - alpha) * temperature**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return student


def exported(net: Any, folder: Path, images: Any) -> Path:
    """As int8 for ONNX Runtime."""
    import torch
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            flat = images.reshape(-1, 1, SIZE, SIZE).numpy()
            self.batches = iter(flat[rng.permutation(len(flat))[:256]].astype(np.float32)[:, None] / 255)

        def get_next(self) -> Any:
            x = next(self.batches, None)
            return None if x is None else {"x": x}

    torch.onnx.export(
        net.eval(), (torch.zeros(1, 1, SIZE, SIZE),), str(folder / "float.onnx"), input_names=["x"],
        output_names=["features"], dynamic_axes={"x": {0: "n"}, "features": {0: "n"}}, dynamo=False,
    )  # fmt: skip
    quant_pre_process(str(folder / "float.onnx"), str(folder / "prepared.onnx"))
    quantize_static(
        str(folder / "prepared.onnx"), str(folder / "int8.onnx"), Reader(), quant_format=QuantFormat.QDQ,
        per_channel=True, reduce_range=True,
    )  # fmt: skip
    return folder / "int8.onnx"


def opened(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options)


def accuracy(embed: Any, episodes: int) -> float:
    """Ten ways, five shots, fifteen queries of the handwritten digits, by the nearest class mean."""
    from mapsto import datasets

    digits = datasets.digits(size=SIZE).open()
    x, rng, right = embed(digits.inputs.astype(np.float32) / 255), np.random.default_rng(0), []
    for _ in range(episodes):
        parts = [rng.permutation(np.flatnonzero(digits.labels == label))[:20] for label in range(10)]
        means = np.stack([x[part[:5]].mean(0) for part in parts])
        queries = np.concatenate([x[part[5:]] for part in parts])
        distances = ((queries[:, None] - means) ** 2).sum(2)
        right.append((distances.argmin(1) == np.repeat(np.arange(10), 15)).mean())
    return 100 * float(np.mean(right))


# -------------------------------------------------------------------------------------------------------------- service


class Images(BaseModel):
    images: list[str]
    labels: list[str] = []
    learns: bool = True


class Labels(BaseModel):
    ids: list[int]
    labels: list[str]


def application(file: Path) -> Any:
    """A head by ridge regression; nearest neighbours that learn on the job, begun anew at drift, answer once they are right more often."""
    import base64
    import io

    import prometheus_client as prometheus
    from fastapi import FastAPI, Header, HTTPException, Response
    from PIL import Image
    from river import drift, neighbors

    session, app = opened(file), FastAPI()
    kept: dict[int, tuple[Any, str, str]] = {}
    state: dict[str, Any] = {"head": None, "learner": neighbors.KNNClassifier(n_neighbors=5), "next": 0}
    detector, lately = drift.ADWIN(), {name: deque[bool](maxlen=50) for name in ("head", "learner")}
    drifts = prometheus.Counter("drifts", "Changes of the error rate")
    right = prometheus.Gauge("accuracy", "Of the last fifty labels")

    def allowed(key: str) -> None:
        if key != KEY:
            raise HTTPException(401, "no such key")

    def features(images: list[str]) -> Any:
        try:
            pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("L")) for one in images]
            return session.run(None, {"x": np.stack(pixels).astype(np.float32)[:, None] / 255})[0]
        except (ValueError, OSError) as error:
            raise HTTPException(400, f"not {SIZE} pixels of an image: {error}") from error

    @app.post("/adapt")
    def adapt(given: Images, x_key: str = Header("")) -> dict[str, int]:
        allowed(x_key)
        x = features(given.images)
        mean, classes = x.mean(0), sorted(set(given.labels))
        targets = np.array([[label == name for name in classes] for label in given.labels], float)
        centred = x - mean
        kernel = centred @ centred.T
        dual = np.linalg.solve(kernel + 0.1 * np.trace(kernel) / len(x) * np.eye(len(x)), targets - targets.mean(0))
        state["head"] = (mean, centred.T @ dual, targets.mean(0), classes)
        for row, label in zip(x, given.labels, strict=True):
            state["learner"].learn_one(dict(enumerate(row.tolist())), label)
        return {"classes": len(classes)}

    @app.post("/infer")
    def infer(given: Images, x_key: str = Header("")) -> dict[str, Any]:
        allowed(x_key)
        if state["head"] is None:
            raise HTTPException(409, "adapt first")
        x = features(given.images)
        mean, weights, bias, classes = state["head"]
        heads = [classes[place] for place in ((x - mean) @ weights + bias).argmax(1)]
        if not given.learns:
            return {"labels": heads, "ids": []}
        answers, ids = [], []
        for row, head in zip(x, heads, strict=True):
            event = dict(enumerate(row.tolist()))
            learner = state["learner"].predict_one(event) or head
            better = sum(lately["learner"]) > sum(lately["head"])
            answers.append(learner if better else head)
            ids.append(state["next"])
            kept[state["next"]] = (event, head, learner)
            kept.pop(state["next"] - 10_000, None)
            state["next"] += 1
        return {"labels": answers, "ids": ids}

    @app.post("/feedback")
    def feedback(given: Labels, x_key: str = Header("")) -> dict[str, int]:
        allowed(x_key)
        for number, label in zip(given.ids, given.labels, strict=True):
            if number not in kept:
                raise HTTPException(410, f"answer {number} is no longer kept")
            event, head, learner = kept.pop(number)
            lately["head"].append(head == label)
            lately["learner"].append(learner == label)
            detector.update(float(head != label))
            if detector.drift_detected:
                drifts.inc()
                state["learner"] = neighbors.KNNClassifier(n_neighbors=5)
            state["learner"].learn_one(event, label)
            right.set(max(map(statistics.mean, lately.values())))
        return {"stored": len(given.ids)}

    @app.get("/metrics")
    def metrics(x_key: str = Header("")) -> Any:
        allowed(x_key)
        return Response(prometheus.generate_latest(), media_type="text/plain")

    return app


def serve(file: Path, port: int) -> None:
    import uvicorn

    uvicorn.run(application(file), host="127.0.0.1", port=port, log_level="warning")


class Client:
    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"x-key": KEY, "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=30) as answer:
            text = answer.read().decode()
        return text if path == "/metrics" else json.loads(text)

    def infer(self, events: list[tuple[bytes, str]], *, learns: bool = True) -> tuple[list[bool], list[int]]:
        """Whether each was answered right, and the names of the answers."""
        found = self.call("/infer", {"images": images_of(events), "learns": learns})
        return [given == label for given, (_, label) in zip(found["labels"], events, strict=True)], found["ids"]

    def taught(self, events: list[tuple[bytes, str]]) -> list[bool]:
        """As `infer`, ten by ten, with labels fifty events late."""
        right: list[bool] = []
        waiting: deque[dict[str, Any]] = deque()
        for start in range(0, len(events), 10):
            part = events[start : start + 10]
            answered, ids = self.infer(part)
            right += answered
            waiting.append({"ids": ids, "labels": [label for _, label in part]})
            if len(waiting) > 5:
                self.call("/feedback", waiting.popleft())
        while waiting:
            self.call("/feedback", waiting.popleft())
        return right


def images_of(events: list[tuple[bytes, str]]) -> list[str]:
    import base64

    return [base64.b64encode(png).decode() for png, _ in events]


def used(file: Path, quick: bool) -> dict[str, float]:
    """The service, from its start to the last label."""
    from _alarms import free_address, until
    from _digits_that_turn import QUICK, Counts, events

    counts = QUICK if quick else Counts()
    digits, address = events(counts), free_address()
    process = subprocess.Popen([sys.executable, __file__, "--serve", str(file), address.split(":")[1]])
    try:
        client = Client(f"http://{address}")
        until(lambda: _answers(client), "it serves")
        began = time.perf_counter()
        client.call("/adapt", {"images": images_of(digits.support), "labels": [label for _, label in digits.support]})
        adapting = time.perf_counter() - began
        for start in range(0, counts.upright - counts.labelled, 50):
            client.infer(digits.upright[start : min(start + 50, counts.upright - counts.labelled)])
        before = client.taught(digits.upright[-counts.labelled :])
        after = client.taught(digits.turned)[-counts.judged :]
        without, _ = client.infer(digits.turned[-counts.judged :], learns=False)
        drifts = float(client.call("/metrics").partition("\ndrifts_total ")[2].partition("\n")[0])
        times = []
        for event in digits.upright[:100]:
            began = time.perf_counter()
            client.infer([event])
            times.append(time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait(timeout=30)
    return {
        "before the drift %": 100 * statistics.mean(before),
        "after, without learning %": 100 * statistics.mean(without),
        "after, with learning %": 100 * statistics.mean(after),
        "ms a request": 1e3 * statistics.median(times),
        "ms to adapt": 1e3 * adapting,
        "drifts that were detected": drifts,
    }


def _answers(client: Client) -> bool:
    try:
        return bool(client.call("/metrics"))
    except OSError:
        return False


def chain(folder: Path, quick: bool) -> dict[str, Any]:
    """Everything, and what it came to."""
    import torch

    from mapsto import datasets

    began = time.monotonic()
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    printed = datasets.glyphs(split="train", per_class=20, **({"characters": 200} if quick else {})).open()
    images = torch.as_tensor(printed.inputs[np.argsort(printed.labels, kind="stable")])
    images = images.reshape(len(printed.classes), -1, 1, SIZE, SIZE)
    episodes = 4 if quick else 600
    teacher = meta_trained(conv4(), images, 4 if quick else 300)
    student = distilled(pruned(teacher, images, 2 if quick else 20), teacher, images, 4 if quick else 600)
    file = exported(student, folder, images)
    session, one = opened(file), np.zeros((1, 1, SIZE, SIZE), np.float32)
    times = []
    for _ in range(300):
        start = time.perf_counter()
        session.run(None, {"x": one})
        times.append(time.perf_counter() - start)
    with torch.inference_mode():
        whole = accuracy(lambda x: teacher.eval()(torch.as_tensor(x)).numpy(), episodes)
    found = {
        "int8 accuracy %": accuracy(lambda x: session.run(None, {"x": x})[0], episodes),
        "teacher accuracy %": whole,
        "bytes of the ONNX file": file.stat().st_size,
        "ms in ONNX Runtime": 1e3 * statistics.median(times),
    }
    found |= used(file, quick)
    return found | {"minutes": (time.monotonic() - began) / 60}


def main(quick: bool = False) -> dict[str, Any]:
    place = Path(os.environ.get("MAPSTO_BENCH", "runs/bench")).resolve() / "whole_by_separate_libraries"
    found = chain(place, quick)
    print(json.dumps(found))
    return {"rows": [found]}


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        print(json.dumps(chain(Path(sys.argv[1]), "--quick" in sys.argv)))

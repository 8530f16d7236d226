"""Seconds and memory of one outer gradient over a batch of tasks: mapsto's engines beside other people's MAML, in one run.

mapsto bench meta_speed
mapsto bench meta_speed --device cuda

Every candidate lives in a process of its own, as its users would run it, and they take turns. The peers are looked for in the
folder `MAPSTO_PEERS`; one that is not there is printed as "not run":

    pip install --no-deps --target PEERS higher parallel-metalearn
    pip download --no-deps --no-binary :all: --no-build-isolation -d PEERS learn2learn==0.2.0   # then unpack it there

learn2learn is imported without its package's own ``__init__``, which asks for a compiled module that no current Python builds. Each row
says whether the candidate's gradient is that of the plain loop.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import common
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from mapsto.nn.meta.outer_gradient import Engine

RATE = 0.1
QUERIES = 15


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A batch of tasks for Conv4-64."""

    tasks: int
    shots: int = 1
    size: int = 28
    channels: int = 1
    steps: int = 1
    second_order: bool = True
    ways: int = 5
    downsampling: str = "pool"
    device: str = "cpu"

    def __str__(self) -> str:
        order = "second" if self.second_order else "first"
        form = f"{self.ways}w{self.shots}s, {self.size} × {self.size} × {self.channels}"
        by = ", strides" if self.downsampling == "stride" else ""
        return f"{form}, {self.tasks} tasks, {self.steps} inner steps, {order} order{by}"


SETTINGS = [
    Setting(tasks=32),
    Setting(tasks=32, second_order=False),
    Setting(tasks=32, shots=5),
    Setting(tasks=4),
    Setting(tasks=4, steps=5),
    Setting(tasks=32, downsampling="stride"),
    Setting(tasks=1),
    Setting(tasks=4, size=84, channels=3),
]
PEERS = ("loop", "learn2learn", "higher", "parallel-metalearn sequential", "parallel-metalearn vmap")
OURS = {"cpu": ("mapsto auto", "mapsto loop"), "cuda": ("mapsto auto", "mapsto loop", "mapsto vmap", "mapsto graph")}


def main(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    for setting in [Setting(tasks=2)] if quick else SETTINGS:
        found = measured(replace(setting, device=device), rounds=2 if quick else 5)
        rows += found
        targets += goals(setting, found, device)
    if device == "cpu":
        targets.append(common.target("times faster than the per-task loop on a GPU", ">= 8", None))
    common.show(rows)
    common.show(targets)
    conditions = {
        "network": "Conv4-64, batch norm by each pass's own statistics, cross-entropy",
        "queries": QUERIES,
        "allocator": "each process its own: the peers' by default, ours keeps its pages",
        "precision": "PyTorch's defaults: on a GPU convolutions of the peers in TF32, products of matrices, ours among them, in float32",
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "quick": quick,
    }
    name = "meta_speed" if device == "cpu" else "meta_speed_gpu"
    tree = common.result(name, conditions=conditions, rows=rows, targets=targets)
    if not quick:
        common.save(tree)
    return tree


def goals(setting: Setting, rows: list[dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """Ours against the best peer, on a GPU against the loop, round by round."""
    times = {row["candidate"]: row["rounds"] for row in rows if row["rounds"]}
    own = times.get("mapsto auto")
    peers = {name: times[name] for name in PEERS if name in times}
    if own is None or not peers:
        return []
    if device != "cpu":
        against = common.ratio(peers["loop"], own)["ratio"]
        return [common.target(f"times faster than the per-task loop on a GPU, {setting}", ">= 8", round(against, 2))]
    best = min(peers, key=lambda name: statistics.median(peers[name]))
    against = common.ratio(peers[best], own)["ratio"]
    return [common.target(f"times faster than the best peer ({best}), {setting}", ">= 2", round(against, 2))]


def measured(setting: Setting, *, rounds: int) -> list[dict[str, Any]]:
    """Each candidate's seconds in turn, its peak memory, and whether its gradient is the loop's."""
    with_vmap = setting.device != "cpu" or (setting.tasks <= 4 and setting.size < 84)
    names = [name for name in (*PEERS, *OURS[setting.device.partition(":")[0]]) if with_vmap or "vmap" not in name]
    workers = {name: start(name, setting) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, worker in workers.items():
            answer = ask(worker)
            if answer is not None:
                times[name].append(answer["seconds"])
    ends = {name: finish(worker) for name, worker in workers.items()}
    base = ends["loop"]["gradient"] if ends["loop"] else None
    rows: list[dict[str, Any]] = []
    for name in names:
        seconds, end = times[name], ends[name]
        row: dict[str, Any] = {"setting": str(setting), "candidate": name, **asdict(setting), "rounds": seconds}
        if seconds and end is not None and base is not None:
            ratio = common.ratio(times["loop"], seconds)
            row |= {
                "seconds": statistics.median(seconds),
                "low": min(seconds),
                "high": max(seconds),
                "tasks per second": setting.tasks / statistics.median(seconds),
                "times the loop": ratio["ratio"],
                "ratio low": ratio["low"],
                "ratio high": ratio["high"],
                "peak memory, MiB": end["memory"],
                "same gradient": abs(end["gradient"] / base - 1) < 1e-3,
                "engine": end["engine"],
            }
        rows.append(row)
    return rows


def start(name: str, setting: Setting) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--worker", name, json.dumps(asdict(setting))]
    folders = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": folders},
    )


def ask(worker: subprocess.Popen[str]) -> dict[str, Any] | None:
    """One gradient; None from a worker that has ended, because its peer is not there."""
    if worker.stdin is None or worker.stdout is None or worker.poll() is not None:
        return None
    try:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    except BrokenPipeError:
        return None
    line = worker.stdout.readline()
    while line and not line.startswith("{"):  # a peer that prints
        line = worker.stdout.readline()
    return json.loads(line) if line else None


def finish(worker: subprocess.Popen[str]) -> dict[str, Any] | None:
    out, _ = worker.communicate("", timeout=60) if worker.poll() is None else ("", "")
    lines = [line for line in out.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else None


# ------------------------------------------------------------------------------------------------------------------ workers


def work(name: str, setting: Setting) -> None:
    """Answer each line of standard input with the seconds of a gradient; at its end, with memory and the gradient's size."""
    torch.manual_seed(0)
    from mapsto.nn.networks.conv4 import conv4

    network = conv4(
        channels=setting.channels,
        size=setting.size,
        width=64,
        classes=setting.ways,
        downsampling=setting.downsampling,  # type: ignore[arg-type]
    ).train()
    network.to(setting.device)
    images = (setting.channels, setting.size, setting.size)
    support = torch.rand(setting.tasks, setting.ways * setting.shots, *images)
    query = torch.rand(setting.tasks, setting.ways * QUERIES, *images)
    labels = (
        torch.arange(setting.ways).repeat_interleave(setting.shots),
        torch.arange(setting.ways).repeat_interleave(QUERIES),
    )
    support, query = support.to(setting.device), query.to(setting.device)
    engine = ""
    if name.startswith("mapsto"):
        step, engine = _mapsto(name, setting, network, support, query, labels)
    else:
        there = (labels[0].to(setting.device), labels[1].to(setting.device))
        step = CANDIDATES[name](setting, network, support, query, there)
    on_gpu = setting.device != "cpu"
    gradient = step()
    for _ in range(2 if on_gpu else 0):
        step()
    for _ in sys.stdin:
        _wait(on_gpu)
        began = time.perf_counter()
        step()
        _wait(on_gpu)
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
    size = sum(float(part.double().abs().sum()) for part in gradient)
    memory = (
        torch.cuda.max_memory_reserved() / 2**20
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    print(json.dumps({"memory": round(memory), "gradient": size, "engine": engine}), flush=True)


def _wait(on_gpu: bool) -> None:
    """Until a GPU has done what it was given."""
    if on_gpu:
        torch.cuda.synchronize()


Labels = tuple[Tensor, Tensor]
Step = Callable[[], list[Tensor]]


def _untracked(network: nn.Module) -> nn.Module:
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.track_running_stats = False
            part.running_mean = part.running_var = part.num_batches_tracked = None
    return network


def _grads(parameters: Any, scale: float = 1.0) -> list[Tensor]:
    return [parameter.grad * scale for parameter in parameters]


def _loop(setting: Setting, network: nn.Module, support: Tensor, query: Tensor, labels: Labels) -> Step:
    """A task after another, as one writes it with nothing but PyTorch."""
    _untracked(network)

    def step() -> list[Tensor]:
        network.zero_grad()
        for number in range(setting.tasks):
            point = dict(network.named_parameters())
            for _ in range(setting.steps):
                loss = cross_entropy(torch.func.functional_call(network, point, (support[number],)), labels[0])
                found = torch.autograd.grad(loss, list(point.values()), create_graph=setting.second_order)
                point = {name: value - RATE * part for (name, value), part in zip(point.items(), found, strict=True)}
            cross_entropy(torch.func.functional_call(network, point, (query[number],)), labels[1]).backward()
        return _grads(network.parameters())

    return step


def _higher(setting: Setting, network: nn.Module, support: Tensor, query: Tensor, labels: Labels) -> Step:
    sys.path.insert(0, os.environ["MAPSTO_PEERS"])
    import higher

    _untracked(network)
    inner = torch.optim.SGD(network.parameters(), lr=RATE)

    def step() -> list[Tensor]:
        network.zero_grad()
        for number in range(setting.tasks):
            with higher.innerloop_ctx(
                network, inner, copy_initial_weights=False, track_higher_grads=setting.second_order
            ) as (fast, update):
                for _ in range(setting.steps):
                    update.step(cross_entropy(fast(support[number]), labels[0]))
                cross_entropy(fast(query[number]), labels[1]).backward()
        return _grads(network.parameters())

    return step


def _learn2learn(setting: Setting, network: nn.Module, support: Tensor, query: Tensor, labels: Labels) -> Step:
    root = next(Path(os.environ["MAPSTO_PEERS"]).glob("learn2learn-*/learn2learn"))
    for name in ("learn2learn", "learn2learn.algorithms"):
        package = types.ModuleType(name)
        package.__path__ = [str(root.parent / name.replace(".", "/"))]
        sys.modules[name] = package
    from learn2learn.algorithms.maml import MAML

    maml = MAML(_untracked(network), lr=RATE, first_order=not setting.second_order)

    def step() -> list[Tensor]:
        network.zero_grad()
        for number in range(setting.tasks):
            fast = maml.clone()
            for _ in range(setting.steps):
                fast.adapt(cross_entropy(fast(support[number]), labels[0]))
            cross_entropy(fast(query[number]), labels[1]).backward()
        return _grads(network.parameters())

    return step


def _parallel(backend: str) -> Callable[[Setting, nn.Module, Tensor, Tensor, Labels], Step]:
    def build(setting: Setting, network: nn.Module, support: Tensor, query: Tensor, labels: Labels) -> Step:
        sys.path.insert(0, os.environ["MAPSTO_PEERS"])
        from metalearn.algorithms.MAML import MAML
        from metalearn.inner_optimizers.optimizers import InnerSGD
        from metalearn.loss import CategoricalAccuracy, CrossEntropy
        from metalearn.model_wrappers import MAML_Model

        _untracked(network)

        class Backbone(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.features = network.features

            def forward(self, x: Tensor, **_: Any) -> Tensor:
                return self.features(x).flatten(1)

        class Head(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = network.classifier

            def forward(self, x: Tensor, **_: Any) -> Tensor:
                return self.linear(x)

        model = MAML_Model(backbone=Backbone(), head=Head())
        inner = InnerSGD(
            initial_fast_weights=model.get_fast_weights(),
            inner_lr=RATE,
            first_order=not setting.second_order,
            learn_lr=False,
            max_inner_steps=setting.steps,
        )
        algorithm = MAML(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            inner_optimizer=inner,
            support_loss_fn=CrossEntropy(metric_fn=CategoricalAccuracy()),
            inner_steps=setting.steps,
            chunk_size=setting.tasks,
            backend=backend,
        )
        given = [{"labels": part.expand(setting.tasks, -1).contiguous()} for part in labels]

        def step() -> list[Tensor]:
            algorithm.step(iter([(support, given[0], query, given[1])]), training=True)
            return _grads(model.parameters(), setting.tasks)

        return step

    return build


CANDIDATES: dict[str, Callable[[Setting, nn.Module, Tensor, Tensor, Labels], Step]] = {
    "loop": _loop,
    "higher": _higher,
    "learn2learn": _learn2learn,
    "parallel-metalearn sequential": _parallel("sequential"),
    "parallel-metalearn vmap": _parallel("vmap"),
}


def _mapsto(
    name: str, setting: Setting, network: nn.Module, support: Tensor, query: Tensor, labels: Labels
) -> tuple[Step, str]:
    """What `meta.maml` does at each step of its training."""
    from mapsto import datasets, meta
    from mapsto.context import Context, Numerics
    from mapsto.nn.kernels.malloc import keep_pages
    from mapsto.nn.meta.learner_module import Learner
    from mapsto.nn.network.inference import compact
    from mapsto.nn.train.batches import Task

    keep_pages()
    unused = datasets.episodes(data=datasets.digits())
    train = meta.maml(
        tasks=unused, inner_steps=setting.steps, inner_rate=RATE, first_order=not setting.second_order, engine="auto"
    )
    learner = Learner(compact(network), train.adaptation(None, None))  # type: ignore[arg-type]
    inputs = torch.cat([support, query], 1)
    given = [part.cpu().expand(setting.tasks, -1).numpy() for part in labels]
    task = Task(inputs=inputs.numpy(), support_labels=given[0], query_labels=given[1], ways=setting.ways)
    engine = cast("Engine", name.partition(" ")[2])
    if name == "mapsto auto":
        engine = train.chosen_engine(learner, Context(numerics=Numerics(device=setting.device)))

    def step() -> list[Tensor]:
        network.zero_grad()
        train._loss(learner, inputs, task, 0, engine).backward()
        return _grads(network.parameters(), setting.tasks)

    return step, engine


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], Setting(**json.loads(sys.argv[3])))
    else:
        main("--quick" in sys.argv)

"""The whole point in one table: a pretrained network, twenty labels a class and a pool without, to a small network that learns on the job.

mapsto bench mission
mapsto bench mission --seeds 0

EfficientNet-Lite0 with its ImageNet weights (extra `vision`), CIFAR-10 read at 112 pixels, from image files as a user has them: ``mapsto
adapt`` makes the adapted network and the small one, whose file is limited to a quarter of the bytes; then `online.ridge` learns on the
int8 package and on the float one from a stream whose camera changes (images become darker and noisy) and whose classes shift. Beside it the
same by separate tools: scikit-learn's logistic regression on PyTorch's features, ONNX Runtime's quantizer, river's softmax regression.
Each side's answers are those of its files in ONNX Runtime on 1,500 test images that nothing was chosen on. ImageNet has the classes of
CIFAR-10: no clean few-shot figure. What was made lies in ``$MAPSTO_BENCH/mission``, and the same command goes on there.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "streams"))

import common
import numpy as np
from _separate_tools import separate_tools
from numpy.typing import NDArray
from PIL import Image

from mapsto import datasets
from mapsto.data.io.download import locate
from mapsto.kinds import Samples
from mapsto_runtime.predictor import Predictor

LABELS, POOL, TEST, EVENTS = 20, 250, 150, 300
"""Images of a class."""
SEEDS = range(3)
SIZE = 112
DARKER, NOISE = 0.5, 15.0
"""What becomes of the images in the second half of the stream: bytes times this, with Gaussian noise of this deviation."""
ROUNDS = 40
Labels = NDArray[np.int64]


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    place = Path(os.environ.get("MAPSTO_BENCH", "runs/bench")).resolve() / ("mission_quick" if quick else "mission")
    counts = (3, 4, 3, 4) if quick else (LABELS, POOL, TEST, EVENTS)
    for seed in seeds or (SEEDS[:1] if quick else SEEDS):
        file = place / f"seed-{seed}" / "measured.json"
        if not file.is_file():
            found = measured(file.parent, seed, counts)
            file.write_text(json.dumps(found), encoding="utf-8")
    kept = {seed: place / f"seed-{seed}" / "measured.json" for seed in SEEDS}
    trials = [json.loads(file.read_text(encoding="utf-8")) for file in kept.values() if file.is_file()]
    sides = ("teacher", "small", "separate tools")
    rows = [row_of(side, [trial[side] for trial in trials if side in trial]) for side in sides]
    differences = [difference(trial) for trial in trials]
    tree = common.result(
        "mission",
        conditions={
            "labels a class": counts[0],
            "unlabelled a class": counts[1],
            "test images": 10 * counts[2],
            "events": 10 * counts[3],
            "pixels": SIZE,
            "drift": "in the second half of the stream images are darker and noisy, and the first five classes are five times as frequent",
            "teacher": "adapted by mapsto adapt, float; latency in PyTorch (as it comes) and in ONNX Runtime, one image, one thread",
            "seeds": len(trials),
            "quick": quick,
        },
        rows=rows,
        targets=goals(differences),
    )
    return common.finished(tree, quick=quick)


def goals(differences: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    def mean(name: str) -> float | None:
        return statistics.mean(each[name] for each in differences) if differences else None

    return [
        common.target("bytes of the small package / of the adapted teacher's", "<= 0.25", mean("bytes")),
        common.target("latency of the small package / of the teacher in PyTorch", "<= 0.25", mean("latency, PyTorch")),
        common.target(
            "latency of the small package / of the teacher in ONNX Runtime", "<= 0.25", mean("latency, ONNX Runtime")
        ),
        common.target("points of accuracy below the adapted teacher", "<= 2", mean("points below")),
        common.target("points of online accuracy below the float encoder's", "<= 0.5", mean("online points below")),
    ]


def difference(trial: Mapping[str, Any]) -> dict[str, float]:
    teacher, small = trial["teacher"], trial["small"]
    return {
        "bytes": small["bytes"] / teacher["bytes"],
        "latency, PyTorch": small["ms"] / teacher["ms in PyTorch"],
        "latency, ONNX Runtime": small["ms"] / teacher["ms"],
        "points below": teacher["accuracy"] - small["accuracy"],
        "online points below": teacher["online accuracy"] - small["online accuracy"],
    }


def row_of(side: str, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds."""
    if not trials:
        return {"side": side, "accuracy": "not run"}
    names = dict.fromkeys(name for trial in trials for name in trial)
    means = {name: statistics.mean(trial[name] for trial in trials if name in trial) for name in names}
    return {"side": side, **means, "seeds": len(trials)}


# ---------------------------------------------------------------------------------------------------------------- one seed


def measured(place: Path, seed: int, counts: tuple[int, int, int, int]) -> dict[str, Any]:
    """Everything for one draw of the images."""
    parts = drawn(seed, counts)
    for name, samples in parts.items():
        if name != "stream":
            written(samples, place / name, labelled=name != "pool")
    limits = place / "teacher" / "package"
    spent = {"teacher": adapted(place, seed, "teacher", [])}
    whole = model_bytes(limits)
    spent["small"] = adapted(place, seed, "small", ["--limit", f"bytes={0.25 * whole:.0f}"])
    found: dict[str, Any] = {}
    test = sorted((place / "test").glob("*/*.png"))
    predictors = {side: Predictor(place / side / "package", threads=1) for side in ("teacher", "small")}
    for side, predictor in predictors.items():
        answers = predictor.answers(test).predictions
        right = [answer.label == path.parent.name for answer, path in zip(answers, test, strict=True)]
        found[side] = {
            "accuracy": 100 * statistics.mean(right),
            "bytes": model_bytes(place / side / "package"),
            "CPU minutes to adapt": spent[side] / 60,
        }
    images = [image_of(path) for path in test[:4]]
    calls: dict[str, Callable[[], Any]] = {
        side: runner(place / side / "package", images[0]) for side, _ in predictors.items()
    }
    calls["PyTorch"] = in_pytorch(images[0])
    times = common.side_by_side(calls, rounds=ROUNDS)
    for side in predictors:
        found[side]["ms"] = 1e3 * statistics.median(times[side])
    found["teacher"]["ms in PyTorch"] = 1e3 * statistics.median(times["PyTorch"])
    for side in predictors:
        found[side] |= online(place / side / "package", seed, counts)
    found["separate tools"] = separate_tools(place, parts, seed, rounds=ROUNDS)
    return found


def drawn(seed: int, counts: tuple[int, int, int, int]) -> dict[str, Samples]:
    """Disjoint images of each class: labelled ones, a pool, events; and test images."""
    locate("cifar-10-batches-bin", what="CIFAR-10")
    train, test = (datasets.cifar10(split=split).open() for split in ("train", "test"))  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    labels, pool, tests, events = counts
    found: dict[str, list[Labels]] = {"photos": [], "pool": [], "stream": []}
    for label in range(10):
        order = rng.permutation(np.flatnonzero(train.labels == label))
        found["photos"].append(order[:labels])
        found["pool"].append(order[labels : labels + pool])
        found["stream"].append(order[labels + pool : labels + pool + events])
    chosen = np.concatenate([np.flatnonzero(test.labels == label)[:tests] for label in range(10)])
    return {name: train.take(np.concatenate(parts)) for name, parts in found.items()} | {"test": test.take(chosen)}


def written(samples: Samples, folder: Path, *, labelled: bool) -> None:
    """Samples as files: in a folder for each class, or all in one."""
    for number, (image, label) in enumerate(zip(samples.inputs, samples.labels.tolist(), strict=True)):
        path = folder / (samples.classes[label] if labelled else "") / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)


def adapted(place: Path, seed: int, side: str, more: Sequence[str]) -> float:
    """CPU seconds of ``mapsto adapt``; what is made already is found in its store."""
    command = [sys.executable, "-m", "mapsto", "adapt", str(place / "photos"), "--unlabelled", str(place / "pool")]
    command += ["--minutes", "0", "--seed", str(seed), "--out", str(place / side), "--store", str(place / "store")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, *more, "--json"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def model_bytes(package: Path) -> int:
    return sum(file.stat().st_size for file in package.glob("*.onnx*"))


def image_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE)))


def runner(package: Path, image: NDArray[np.uint8]) -> Callable[[], Any]:
    """One image through a package's model, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(next(package.glob("*.onnx"))), options)
    given = session.get_inputs()[0]
    x = (image.transpose(2, 0, 1)[None] / 255).astype(np.float32)
    return lambda: session.run(None, {given.name: x})


def in_pytorch(image: NDArray[np.uint8]) -> Callable[[], Any]:
    """One image through the pretrained network as PyTorch runs it, on one thread."""
    import torch

    from mapsto import networks

    torch.set_num_threads(1)
    module = networks.efficientnet_lite0(size=SIZE)(seed=0).module().eval()
    x = torch.as_tensor(image.transpose(2, 0, 1)[None] / 255, dtype=torch.float32)

    def call() -> Any:
        with torch.inference_mode():
            return module(x)

    return call


def online(package: Path, seed: int, counts: tuple[int, int, int, int]) -> dict[str, float]:
    """Answering first and learning after over the stream, in a process of its own: its accuracy, ms an event and peak memory."""
    script = Path(__file__).parent / "_online_worker.py"
    command = [sys.executable, str(script), str(package), str(seed), ",".join(map(str, counts))]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    return json.loads(done.stdout.splitlines()[-1])


def events_of(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """The stream before and after the camera changes: there the first five classes are five times as frequent."""
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(samples))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    weights = np.where(samples.labels[second] < 5, 5.0, 1.0)
    second = rng.choice(second, len(second), replace=True, p=weights / weights.sum())
    return samples.take(first), samples.take(second)


def seen(before: Samples, after: Samples, seed: int) -> tuple[NDArray[np.uint8], Labels]:
    """The stream's images and labels as the camera gives them."""
    noise = np.random.default_rng([seed, 2]).normal(0, NOISE, after.inputs.shape)
    darker = (DARKER * after.inputs + noise).round().clip(0, 255).astype(np.uint8)
    return np.concatenate([before.inputs, darker]), np.concatenate([before.labels, after.labels])


if __name__ == "__main__":
    main()

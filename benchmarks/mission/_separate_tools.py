"""The job of `mission` by tools that are put together by hand: PyTorch, scikit-learn, ONNX Runtime's quantizer, river.

Logistic regression with C chosen by scikit-learn's own cross-validation on PyTorch's features; the whole as ONNX, quantized statically
with images of the pool as ONNX Runtime's documentation advises (QDQ, one scale a channel, weights of 7 bits); river's softmax regression
on the features that the quantized file gives.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import common
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mapsto.kinds import Samples

SIZE = 112
CALIBRATION = 128
_MEAN, _STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
Rows = NDArray[np.float32]


def separate_tools(place: Path, parts: Mapping[str, Samples], seed: int, *, rounds: int) -> dict[str, float]:
    """What the side came to; its files go into ``place/separate``."""
    import onnxruntime
    import torch
    from mission import events_of, seen
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folder = place / "separate"
    folder.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    body = _body()
    photos = parts["photos"]
    features = _features(body, photos.inputs)
    folds = int(min(5, np.bincount(photos.labels).min()))
    head = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=5, cv=folds, max_iter=1000))
    head.fit(features, photos.labels)
    scaler, linear = head[0], head[1]
    weight = linear.coef_ / scaler.scale_
    bias = linear.intercept_ - weight @ scaler.mean_
    last = torch.nn.Linear(weight.shape[1], len(weight))
    last.weight.data, last.bias.data = torch.as_tensor(weight).float(), torch.as_tensor(bias).float()
    whole = _WithFeatures(body, last).eval()
    example = torch.zeros(1, 3, SIZE, SIZE)
    torch.onnx.export(
        whole, (example,), str(folder / "float.onnx"), input_names=["x"], output_names=["scores", "features"],
        dynamo=False,
    )  # fmt: skip
    _quantized(folder, parts["pool"])
    spent = time.process_time() - began
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "int8.onnx"), options)
    test = parts["test"]
    answers = np.array([session.run(["scores"], {"x": x})[0].argmax() for x in _inputs(test.inputs)])
    one = next(_inputs(test.inputs[:1]))
    times = common.side_by_side({"int8": lambda: session.run(["scores"], {"x": one})}, rounds=rounds)
    found = {
        "accuracy": 100 * float((answers == test.labels).mean()),
        "bytes": float((folder / "int8.onnx").stat().st_size),
        "ms": 1e3 * statistics.median(times["int8"]),
        "CPU minutes to adapt": spent / 60,
    }
    images, labels = seen(*events_of(parts["stream"], seed), seed)
    return found | _online(session, images, labels)


def _body() -> Any:
    """The network without its last layer, from the same weights."""
    from mapsto import networks
    from mapsto.nn.network.head import headless

    network = networks.efficientnet_lite0(size=SIZE)(seed=0)
    module = network.module()
    headless(network, module)
    return module.eval()


def _inputs(images: NDArray[np.uint8]) -> Iterator[Rows]:
    """Each image at 112 pixels, normalised, (1, 3, 112, 112)."""
    for image in images:
        large = Image.fromarray(image.transpose(1, 2, 0)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        x = (np.asarray(large, np.float32) / 255 - _MEAN) / _STD
        yield np.ascontiguousarray(x.transpose(2, 0, 1)[None])


def _features(body: Any, images: NDArray[np.uint8]) -> Rows:
    import torch

    with torch.inference_mode():
        return np.concatenate([body(torch.as_tensor(x)).numpy() for x in _inputs(images)])


def _quantized(folder: Path, pool: Samples) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            chosen = np.random.default_rng(0).permutation(len(pool))[:CALIBRATION]
            self._inputs = _inputs(pool.inputs[chosen])

        def get_next(self) -> Any:
            x = next(self._inputs, None)
            return None if x is None else {"x": x}

    quant_pre_process(str(folder / "float.onnx"), str(folder / "prepared.onnx"))
    quantize_static(
        str(folder / "prepared.onnx"), str(folder / "int8.onnx"), Reader(), quant_format=QuantFormat.QDQ,
        per_channel=True, reduce_range=True,  # as advised where there are no integer dot products
    )  # fmt: skip


def _online(session: Any, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, float]:
    from river import linear_model, preprocessing

    learner = preprocessing.StandardScaler() | linear_model.SoftmaxRegression()
    right, began = 0, time.process_time()
    for x, label in zip(_inputs(images), labels.tolist(), strict=True):
        (features,) = session.run(["features"], {"x": x})
        event = dict(enumerate(features[0].tolist()))
        right += learner.predict_one(event) == label
        learner.learn_one(event, label)
    spent = time.process_time() - began
    return {
        "online accuracy": 100 * right / len(labels),
        "online ms an event": 1e3 * spent / len(labels),
        "online MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _WithFeatures(body: Any, last: Any) -> Any:  # noqa: N802 - stands for a class of PyTorch, which is imported late
    import torch

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.last = body, last

        def forward(self, x: Any) -> Any:
            features = self.body(x)
            return self.last(features), features

    return Both()

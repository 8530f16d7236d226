"""A peer: BentoML with ONNX Runtime; the model's path is in ``MODEL``. `bentoml serve _bentoml_service:Student`"""

import os
from typing import Any

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Student:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api(route="/infer")
    def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        given = inputs[0]
        x = np.array(given["data"], np.float32).reshape(given["shape"])
        y = self.session.run(None, {"input": x})[0]
        return {"outputs": [{"name": "output", "shape": list(y.shape), "data": y.ravel().tolist()}]}

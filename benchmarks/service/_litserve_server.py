"""A peer: LitServe with ONNX Runtime. `python _litserve_server.py PORT MODEL`"""

import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Request


class Student(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[2], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: Request) -> Any:  # which gives the body's JSON
        given: Any = request["inputs"][0]
        return np.array(given["data"], np.float32).reshape(given["shape"])

    def predict(self, x: Any) -> Any:
        return self.session.run(None, {"input": x})[0]

    def encode_response(self, output: Any) -> Any:
        return {"outputs": [{"name": "output", "shape": list(output.shape), "data": output.ravel().tolist()}]}


if __name__ == "__main__":
    server = litserve.LitServer(Student(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning", access_log=False)

"""A peer: FastAPI with a pydantic body and ONNX Runtime. `python _fastapi_pydantic.py PORT MODEL`"""

import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]


class Answer(BaseModel):
    model_name: str
    outputs: list[Tensor]


def application(model: str) -> FastAPI:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    app = FastAPI()

    @app.post("/v2/models/student/infer")
    async def infer(request: Request) -> Answer:
        given = request.inputs[0]
        x = np.array(given.data, np.float32).reshape(given.shape)
        y = session.run(None, {"input": x})[0]
        output = Tensor(name="output", datatype="FP32", shape=list(y.shape), data=y.ravel().tolist())
        return Answer(model_name="student", outputs=[output])

    return app


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )

"""A Hugging Face hub of one model on loopback, as far as fetching an encoder asks it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["COMMIT", "hub", "in_cache"]

_UNWANTED = (
    "pytorch_model.bin",
    "modeling.py",
    "onnx/model.onnx",
    "openvino/openvino_model.bin",
    "onnx/model.safetensors",
)
"""Named by the hub, and not to be asked for."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def in_cache(cache: Path, model: str, folder: Path) -> None:
    """The model's files as ``huggingface_hub`` keeps what it fetched."""
    place = cache / f"models--{model.replace('/', '--')}"
    kept = place / "snapshots" / COMMIT
    kept.mkdir(parents=True)
    for path in _files(folder):
        place_of = kept / path.relative_to(folder)
        place_of.parent.mkdir(exist_ok=True)
        place_of.write_bytes(path.read_bytes())
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@contextmanager
def hub(model: str, folder: Path) -> Generator[tuple[str, list[str]]]:
    """Its address, and the paths that it was asked for, while the block runs."""
    asked: list[str] = []
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in _files(folder)}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            name = path.removeprefix(f"/{model}/resolve/{COMMIT}/")
            if name in files:
                return self.answer(files[name])
            if path in (f"/api/models/{model}", f"/api/models/{model}/revision/main"):
                names = [{"rfilename": name} for name in [*files, *_UNWANTED]]
                tree = {"_id": "1", "id": model, "sha": COMMIT, "siblings": names, "private": False, "tags": []}
                return self.answer(json.dumps(tree).encode())
            if path.startswith(f"/api/models/{model}/tree/"):
                entries = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
                return self.answer(json.dumps(entries).encode())
            missing = "RepoNotFound" if model not in path else "RevisionNotFound"
            return self.answer(b"{}", status=404, code=missing)

        def answer(self, content: bytes, *, status: int = 200, code: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if code:
                self.send_header("X-Error-Code", code)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()

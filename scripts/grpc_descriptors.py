"""Make the descriptors of the service's gRPC messages anew from their .proto files: `python scripts/grpc_descriptors.py`."""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "src/mapsto/service/grpc_protocol"


def made() -> bytes:
    """A `FileDescriptorSet` of all .proto files, serialized."""
    from grpc_tools import protoc

    names = sorted(path.name for path in FOLDER.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors.binpb"
        common = str(files("grpc_tools") / "_proto")
        code = protoc.main(["protoc", f"-I{FOLDER}", f"-I{common}", f"--descriptor_set_out={out}", *names])
        if code:
            raise SystemExit(code)
        return out.read_bytes()


if __name__ == "__main__":
    (FOLDER / "descriptors.binpb").write_bytes(made())

"""Messages of the gRPC services: classes made from ``descriptors.binpb``, which protoc makes from the .proto files beside it.

They stand in a pool of their own. Generated modules would stand in the pool of the process, where a client's messages have the same names
(those of tritonclient do), and which refuses a name that it knows. And they would be bound to the versions of protobuf that their
generator knows.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["message"]

_POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString((files(__name__) / "descriptors.binpb").read_bytes()).file:
    _POOL.Add(_file)


def message(name: str) -> Any:
    r"""The class of a message by its full name.

    >>> message("inference.ServerLiveResponse")(live=True).SerializeToString()
    b'\x08\x01'
    """
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))

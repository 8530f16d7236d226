"""A network of its own for a test: what listens there on any address is reached from nowhere else."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Generator
from contextlib import contextmanager

import pytest

__all__ = ["network_namespace"]

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_UP_AND_RUNNING = 0x1 | 0x40


@contextmanager
def network_namespace() -> Generator[None]:
    """This thread, the threads and processes that it starts, are in a network with nothing but a loopback.

    Skips the test, with the reason, where that is not allowed: it takes CAP_SYS_ADMIN, on Linux.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "unshare"):
        pytest.skip("there are no network namespaces here")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if library.unshare(_CLONE_NEWNET):
            pytest.skip(f"a network namespace cannot be made ({os.strerror(ctypes.get_errno())})")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_:
                fcntl.ioctl(any_, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))
            yield
        finally:
            assert library.setns(before, _CLONE_NEWNET) == 0
    finally:
        os.close(before)

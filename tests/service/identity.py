"""An identity provider for tests: it signs tokens, and publishes its keys over HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

__all__ = ["AUDIENCE", "ISSUER", "Provider", "published"]

AUDIENCE, ISSUER = "mapsto", "https://identity.example"


class Provider:
    """Signs with ES256 by keys that are named ``1``, ``2``, …; `status` other than 200 is an outage of its key set."""

    def __init__(self) -> None:
        self.keys = {"1": ec.generate_private_key(ec.SECP256R1())}
        self.status, self.asked = 200, 0

    def key_set(self) -> bytes:
        keys = [
            ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": name, "use": "sig"}
            for name, key in self.keys.items()
        ]
        return json.dumps({"keys": keys}).encode()

    def rotate(self) -> None:
        """Another key takes the place of the one before."""
        name = str(int(next(iter(self.keys))) + 1)
        self.keys = {name: ec.generate_private_key(ec.SECP256R1())}

    def token(self, *, header: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> bytes:
        """A token; a claim of None is left out."""
        name = next(iter(self.keys))
        plain = {
            "sub": "ann",
            "tenant": "a",
            "scope": "openid predict adapt",
            "aud": AUDIENCE,
            "iss": ISSUER,
            "exp": time.time() + 600,
        } | claims
        held = {claim: value for claim, value in plain.items() if value is not None}
        return jwt.encode(held, key or self.keys[name], "ES256", {"kid": name, **(header or {})}).encode()


@contextmanager
def published(provider: Provider) -> Iterator[str]:
    """The URL of its key set."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked += 1
            body = provider.key_set() if provider.status == 200 else b"out of order"
            self.send_response(provider.status)
            self.send_header("content-length", str(len(body)))
            self.send_header("location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/keys"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

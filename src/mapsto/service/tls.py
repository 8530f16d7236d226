"""TLS of the service: its certificate and key, checked when it starts, and loaded again when their files change.

Connections that are open go on with what they began with; each new one takes what was loaded last. What is wrong with new files is
said, and the ones before go on.
"""

from __future__ import annotations

import ssl
import stat
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from mapsto.errors import SpecError

__all__ = ["Certificates", "TlsSettings"]

_SOON = 7 * 86400.0
"""Seconds before a certificate ends from which on that is said."""


@dataclass(frozen=True, kw_only=True)
class TlsSettings:
    """The files of TLS, in PEM."""

    cert: str
    """The certificate, and behind it those between it and the one that clients trust."""
    key: str
    """Its private key, not encrypted."""
    client_ca: str = ""
    """Certificates of which one has to have signed a client's own; empty: clients need none."""


class Certificates:
    """What TLS is spoken with.

    Raises
    ------
    SpecError
        A file cannot be read or holds something else, the certificate has ended or is not valid yet, or the key is another's.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._stamp = self._stamps()
        self._loaded = _Loaded.of(settings)
        self.context = _Current(ssl.PROTOCOL_TLS_SERVER)
        """For servers: new connections take what was loaded last."""
        self.context.current = self._loaded.context

    @property
    def ends(self) -> float:
        """When the certificate ends, in seconds since 1970."""
        return self._loaded.ends

    def notes(self) -> list[str]:
        """What is not well, and no error."""
        found: list[str] = []
        if Path(self._settings.key).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            found.append(f"others on this machine may use the private key: chmod 600 {self._settings.key}")
        if self.ends - time.time() < _SOON:
            found.append(f"the certificate ends on {_day(self.ends)}: {self._settings.cert}")
        return found

    def reload(self) -> list[str]:
        """Load the files again where they changed; what is to be said. Raises `SpecError` where the ones before go on."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return []
        self._stamp = stamp  # so that what is wrong is said once
        self._loaded = _Loaded.of(self._settings)
        self.context.current = self._loaded.context
        return [f"the certificate is loaded again; it is valid until {_day(self.ends)}"]

    def grpc(self) -> Any:
        """Credentials of a gRPC server."""
        import grpc

        given = self._loaded

        def configuration() -> Any:
            pair = [(self._loaded.key, self._loaded.cert)]
            return grpc.ssl_server_certificate_configuration(pair, self._loaded.client_ca or None)

        def changed() -> Any:  # asked at each handshake
            nonlocal given
            if given is self._loaded:
                return None
            given = self._loaded
            return configuration()

        return grpc.dynamic_ssl_server_credentials(configuration(), changed, bool(self._settings.client_ca))

    def _stamps(self) -> tuple[tuple[int, ...] | None, ...]:
        """What changes with the files."""
        return tuple(_stamp(each) for each in (self._settings.cert, self._settings.key, self._settings.client_ca))


class _Current(ssl.SSLContext):
    """A context whose connections are those of the one that is current."""

    current: ssl.SSLContext

    def wrap_bio(self, *given: Any, **more: Any) -> ssl.SSLObject:
        return self.current.wrap_bio(*given, **more)


@dataclass(frozen=True)
class _Loaded:
    cert: bytes
    key: bytes
    client_ca: bytes
    ends: float
    context: ssl.SSLContext

    @classmethod
    def of(cls, settings: TlsSettings) -> _Loaded:
        cert = _content(settings.cert, "--tls-cert")
        key = _content(settings.key, "--tls-key")
        client_ca = _content(settings.client_ca, "--tls-client-ca") if settings.client_ca else b""
        own = _certificates(cert, settings.cert)[0]
        _require_valid(own, settings.cert)
        _require_pair(own, key, settings)
        if client_ca:
            _certificates(client_ca, settings.client_ca)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(settings.cert, settings.key, password=b"")
            if client_ca:
                context.load_verify_locations(settings.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (ssl.SSLError, OSError) as error:  # replaced meanwhile, or what OpenSSL holds to be too weak
            reason = getattr(error, "reason", None) or error
            raise SpecError(
                f"cannot be used ({reason})", where=settings.cert, hint="give a certificate and its key, in PEM"
            ) from error
        return cls(cert, key, client_ca, own.not_valid_after_utc.timestamp(), context)


def _content(path: str, option: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SpecError(
            f"cannot be read ({error.strerror})", where=path, hint=f"give {option} a file that this user may read"
        ) from error


def _certificates(content: bytes, path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise SpecError(
            "holds no certificate", where=path, hint="give one in PEM: it begins with -----BEGIN CERTIFICATE-----"
        ) from error


def _require_valid(own: x509.Certificate, path: str) -> None:
    now = datetime.now(UTC)
    if own.not_valid_after_utc < now:
        raise SpecError(
            f"the certificate ended on {_day(own.not_valid_after_utc.timestamp())}",
            where=path,
            hint="give one that is valid",
        )
    if own.not_valid_before_utc > now:
        raise SpecError(
            f"the certificate is valid from {_day(own.not_valid_before_utc.timestamp())} on",
            where=path,
            hint="give one that is valid, or set this machine's clock",
        )


def _require_pair(own: x509.Certificate, content: bytes, settings: TlsSettings) -> None:
    try:
        key = load_pem_private_key(content, None)
    except TypeError as error:
        raise SpecError(
            "the private key is encrypted",
            where=settings.key,
            hint="give it without a passphrase, in a file that this user alone may read",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SpecError(
            "holds no private key",
            where=settings.key,
            hint="give one in PEM: it begins with -----BEGIN PRIVATE KEY-----",
        ) from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        certified = own.public_key().public_bytes(*form)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SpecError(
            "the certificate's key is of a kind that is not known", where=settings.cert, hint="give one of ECDSA or RSA"
        ) from error
    if key.public_key().public_bytes(*form) != certified:
        raise SpecError(
            f"the private key is not that of the certificate {settings.cert}",
            where=settings.key,
            hint="give the key that the certificate was made for; the service's own certificate stands first in its file",
        )


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        found = Path(path).stat() if path else None
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")

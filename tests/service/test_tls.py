"""TLS for HTTP and gRPC: what is refused at the start, what is loaded again, and clients that speak something else."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.errors import DataError, SpecError
from mapsto.service.client import Client, ServiceError
from mapsto.service.tls import Certificates, TlsSettings
from tests.cli.packages import linear_package
from tests.command import mapsto
from tests.service.certificates import Authority, Pair
from tests.service.served import Served, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> Pair:
    """Files of a test's own."""
    own = Pair(tmp_path / "cert.pem", tmp_path / "key.pem")
    own.replaced_by(authority.signed("first"))
    own.key.chmod(0o600)
    return own


def settings(pair: Pair, **more: str) -> TlsSettings:
    return TlsSettings(cert=str(pair.cert), key=str(pair.key), **more)


def shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a connection, after the handshake and a byte of the client's."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    ends[0].write(b"1")
    ends[1].read(1)
    return ends


def trusting(authority: Authority, certificate: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca)
    if certificate is not None:
        context.load_cert_chain(certificate.cert, certificate.key)
    return context


def named(end: ssl.SSLObject) -> str:
    """The name in the other end's certificate."""
    subject: dict[str, str] = dict(each[0] for each in (end.getpeercert() or {})["subject"])  # pyright: ignore
    return subject["commonName"]


# -------------------------------------------------------------------------------------------------------- certificates


def test_a_handshake_needs_tls_1_2(authority: Authority, pair: Pair) -> None:
    context = Certificates(settings(pair)).context
    end, _ = shaken(context, trusting(authority))
    assert (end.version(), named(end)) == ("TLSv1.3", "first")
    client = trusting(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shaken(context, client)[0].version() == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        shaken(context, client)


def test_a_client_needs_a_certificate_where_a_ca_is_named(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    context = Certificates(settings(pair, client_ca=str(authority.ca))).context
    own, other = authority.signed("client"), Authority(tmp_path / "other").signed("stranger")
    assert named(shaken(context, trusting(authority, own))[1]) == "client"
    for certificate in (None, other):
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
            shaken(context, trusting(authority, certificate))


def test_files_that_change_are_loaded_again(authority: Authority, pair: Pair) -> None:
    held = Certificates(settings(pair))
    assert held.reload() == []
    pair.replaced_by(authority.signed("second", ends=timedelta(days=30)))
    (said,) = held.reload()
    assert said.startswith("the certificate is loaded again; it is valid until 20")
    assert named(shaken(held.context, trusting(authority))[0]) == "second"
    assert held.ends - time.time() < 31 * 86400

    pair.key.write_bytes(authority.signed("third").key.read_bytes())  # its certificate comes in a moment
    with pytest.raises(SpecError, match="not that of the certificate"):
        held.reload()
    assert held.reload() == [], "said once"
    assert named(shaken(held.context, trusting(authority))[0]) == "second", "which goes on"
    pair.cert.write_bytes((authority.ca.parent / "third.pem").read_bytes())
    assert held.reload()
    assert named(shaken(held.context, trusting(authority))[0]) == "third"


def test_a_key_that_others_may_read_is_said(authority: Authority, pair: Pair) -> None:
    assert Certificates(settings(pair)).notes() == []
    pair.key.chmod(0o640)
    assert Certificates(settings(pair)).notes() == [
        f"others on this machine may use the private key: chmod 600 {pair.key}"
    ]
    pair.replaced_by(authority.signed("short", ends=timedelta(days=3)))
    pair.key.chmod(0o600)
    (said,) = Certificates(settings(pair)).notes()
    assert said.startswith("the certificate ends on ")


def _wrong(kind: str, pair: Pair, authority: Authority) -> TlsSettings:
    """Files with something wrong about them."""
    if kind == "ended":
        pair.replaced_by(authority.signed(kind, ends=timedelta(minutes=-1)))
    elif kind == "not yet":
        pair.replaced_by(authority.signed("later", begins=timedelta(days=1)))
    elif kind == "another's":
        pair.key.write_bytes(authority.signed("other").key.read_bytes())
    elif kind == "encrypted":
        pair.replaced_by(authority.signed(kind, passphrase=b"secret"))
    elif kind == "no certificate":
        pair.cert.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    elif kind == "unknown curve":
        pem = pair.cert.read_text().splitlines()
        p_256, sm2 = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a811ccf5501822d")  # SM2: cryptography has none
        changed = base64.b64decode("".join(pem[1:-1])).replace(p_256, sm2)
        pair.cert.write_text(f"{pem[0]}\n{base64.encodebytes(changed).decode()}{pem[-1]}\n")
    elif kind == "no key":
        pair.key.write_bytes(pair.cert.read_bytes())
    elif kind == "not there":
        pair.key.unlink()
    elif kind == "no ca":
        pair.cert.with_name("ca").write_text("none")
        return settings(pair, client_ca=str(pair.cert.with_name("ca")))
    return settings(pair)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("ended", "the certificate ended on 20"),
        ("not yet", "the certificate is valid from 20"),
        ("another's", "the private key is not that of the certificate"),
        ("encrypted", "the private key is encrypted; give it without a passphrase"),
        ("no certificate", "holds no certificate"),
        ("unknown curve", "the certificate's key is of a kind that is not known"),
        ("no key", "holds no private key"),
        ("not there", r"cannot be read \(No such file or directory\); give --tls-key"),
        ("no ca", "holds no certificate"),
    ],
)
def test_what_is_wrong_is_refused(kind: str, said: str, pair: Pair, authority: Authority) -> None:
    given = _wrong(kind, pair, authority)
    with pytest.raises(SpecError, match=said):
        Certificates(given)


def test_a_service_does_not_start_with_it(pair: Pair, authority: Authority, tmp_path: Path) -> None:
    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    words = ("serve", str(tmp_path / "signs"), "--port", "0", "--tls-cert", str(pair.cert))
    assert "TLS needs a certificate and its private key" in mapsto(*words, code=2).err
    _wrong("ended", pair, authority)
    assert "the certificate ended on" in " ".join(mapsto(*words, "--tls-key", str(pair.key), code=2).err.split())


def test_files_of_a_client_that_are_none_are_said(pair: Pair) -> None:
    for ca in (pair.key, pair.cert.with_name("none")):
        with pytest.raises(DataError, match="cannot be used"):
            Client("https://localhost", "key", ca=ca)
    with pytest.raises(DataError, match="cannot be used"):
        Client("https://localhost", "key", certificate=(pair.cert, pair.cert))


# ------------------------------------------------------------------------------------------------------------- a service


ROW = np.array([[2.0, 0, 0]])


@pytest.fixture
def service(pair: Pair, tmp_path: Path) -> Iterator[Served]:
    pytest.importorskip("grpc", reason="the extra grpc is not installed")
    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    words = (tmp_path / "signs", "--grpc-port", 0, "--workers", 2, "--admin", "--learn", "none")
    with serving(*words, "--tls-cert", pair.cert, "--tls-key", pair.key, folder=tmp_path) as served:
        yield served


def said(service: Served) -> list[str]:
    return (service.folder / "serve.log").read_text().splitlines()


def certificate(address: str, ca: Path) -> str:
    """The name in the certificate of a server."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname=host) as end,
    ):
        return dict(each[0] for each in (end.getpeercert() or {})["subject"])["commonName"]  # pyright: ignore


@pytest.mark.slow
def test_http_and_grpc_over_tls(service: Served, authority: Authority, pair: Pair) -> None:
    import tritonclient.grpc as triton

    assert service.url.startswith("https://")
    client = Client(service.url, service.key, ca=authority.ca)
    assert client.infer("signs", ROW).labels == ("low",)
    with pytest.raises(ServiceError, match="CERTIFICATE_VERIFY_FAILED"):
        Client(service.url, service.key).versions("signs")
    with pytest.raises(ServiceError, match="cannot be reached"):
        Client(service.url.replace("https", "http"), service.key).versions("signs")

    over: Any = triton.InferenceServerClient(service.grpc, ssl=True, root_certificates=str(authority.ca))
    item = triton.InferInput("input", [1, 3], "FP32")
    item.set_data_from_numpy(ROW.astype(np.float32))
    headers = {"authorization": f"Bearer {service.key}"}
    assert over.infer("signs", [item], headers=headers).as_numpy("label").tolist() == [b"low"]
    with pytest.raises(triton.InferenceServerException):
        triton.InferenceServerClient(service.grpc).is_server_live(client_timeout=5)

    before = len(said(service))
    place = (service.url.split("/")[-1], service.grpc)
    for address in place:  # what is no TLS
        for content in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b"", os.urandom(5000)) * 25:
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port)), 10) as plain, suppress(OSError):
                plain.sendall(content)
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(4096):
                    pass
    assert client.infer("signs", ROW).labels == ("low",), "the service goes on"
    assert len(said(service)) == before, said(service)[before:]

    renewed = authority.signed("renewed")
    os.replace(renewed.key, pair.key)
    os.replace(renewed.cert, pair.cert)
    end = time.monotonic() + 30
    names: list[str] = []
    while names != ["renewed"] * 8 and time.monotonic() < end:
        time.sleep(0.3)
        names = [certificate(address, authority.ca) for address in place for _ in range(4)]
    assert names == ["renewed"] * 8
    assert over.infer("signs", [item], headers=headers).as_numpy("label").tolist() == [b"low"], "on its old connection"
    lines = said(service)[before:]
    assert sum("the certificate is loaded again" in line for line in lines) == 2, "a worker each"
    status, metrics = 0, ""
    with suppress(OSError):
        import urllib.request

        request = urllib.request.Request(service.url + "/metrics", headers={"Authorization": f"Bearer {service.key}"})
        with urllib.request.urlopen(request, context=trusting(authority)) as answer:
            status, metrics = answer.status, answer.read().decode()
    assert status == 200
    assert "mapsto_tls_certificate_expiry_timestamp_seconds 1" in metrics
    pair.cert.write_text("none")
    end = time.monotonic() + 10
    while not any("TLS goes on as it was" in line for line in said(service)) and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(1.0)
    assert sum("TLS goes on as it was" in line for line in said(service)) == 2, "once a worker"
    assert client.infer("signs", ROW).labels == ("low",)


@pytest.mark.slow
def test_clients_have_certificates(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    import tritonclient.grpc as triton

    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    own = authority.signed("client")
    words = (tmp_path / "signs", "--grpc-port", 0, "--learn", "none", "--tls-client-ca", authority.ca)
    with serving(*words, "--tls-cert", pair.cert, "--tls-key", pair.key, folder=tmp_path) as served:
        client = Client(served.url, served.key, ca=authority.ca, certificate=(own.cert, own.key))
        assert client.infer("signs", ROW).labels == ("low",)
        with pytest.raises(ServiceError, match="cannot be reached"):
            Client(served.url, served.key, ca=authority.ca).versions("signs")
        files: dict[str, Any] = {"root_certificates": str(authority.ca)}
        theirs: dict[str, Any] = {"private_key": str(own.key), "certificate_chain": str(own.cert)}
        assert triton.InferenceServerClient(served.grpc, ssl=True, **files, **theirs).is_server_live()
        with pytest.raises(triton.InferenceServerException):
            triton.InferenceServerClient(served.grpc, ssl=True, **files).is_server_live(client_timeout=5)

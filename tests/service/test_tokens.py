"""A token opens what it says, if the provider signed it for this service, in its time; every other is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from mapsto.errors import SpecError
from mapsto.service.access import Access, AccessSettings
from mapsto.service.keys import Keys, made
from mapsto.service.refusal import Refusal
from mapsto.service.signing_keys import SigningKeys
from mapsto.service.state import State
from mapsto.service.tokens import Tokens
from tests.service.identity import AUDIENCE, ISSUER, Provider, published


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider()


@pytest.fixture
def tokens(provider: Provider, tmp_path: Path) -> Tokens:
    (tmp_path / "keys.json").write_bytes(provider.key_set())
    return Tokens(SigningKeys(str(tmp_path / "keys.json"), pause=60), audience=AUDIENCE, issuer=ISSUER)


def refusal(tokens: Tokens, token: bytes) -> tuple[int, str]:
    try:
        asyncio.run(tokens.caller(token))
    except Refusal as refused:
        return refused.status, refused.text
    return 200, ""


def test_a_token_tells_who_whose_and_what(tokens: Tokens, provider: Provider) -> None:
    caller = asyncio.run(tokens.caller(provider.token()))
    assert (caller.name, caller.tenant, caller.scopes) == ("token:a/ann", "a", {"predict", "adapt"})
    listed = asyncio.run(tokens.caller(provider.token(scope=["learn", 7])))
    assert listed.scopes == {"learn"}
    assert asyncio.run(tokens.caller(provider.token(scope=None))).scopes == set()


def encoded(*parts: Any) -> bytes:
    texts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts)
    return b".".join(base64.urlsafe_b64encode(text).rstrip(b"=") for text in texts)


def unsigned(provider: Provider) -> bytes:
    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    return encoded({"alg": "none", "kid": "1"}, claims) + b"."


def signed_with_the_public_key(provider: Provider) -> bytes:
    """As if the public key were a secret that both know: HS256."""
    secret = provider.keys["1"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    head = encoded({"alg": "HS256", "kid": "1"}, claims)
    return head + b"." + encoded(hmac.digest(secret, head, hashlib.sha256))


def changed(provider: Provider) -> bytes:
    head, _, signature = provider.token().split(b".")
    claims = jwt.decode(provider.token(), options={"verify_signature": False}) | {"tenant": "b"}
    return b".".join([head, encoded(claims), signature])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (unsigned, "its algorithm is not accepted"),
        (signed_with_the_public_key, "its algorithm is not accepted"),
        (
            lambda p: p.token(header={"alg": "ES384"}, key=ec.generate_private_key(ec.SECP384R1())),
            "its algorithm is not accepted",
        ),
        (changed, "its signature is wrong"),
        (lambda p: p.token(key=ec.generate_private_key(ec.SECP256R1())), "its signature is wrong"),
        (lambda p: p.token(aud="another"), "it is for another audience"),
        (lambda p: p.token(iss="https://another.example"), "it is of another issuer"),
        (lambda p: p.token(exp=time.time() - 31), "it has expired"),
        (lambda p: p.token(nbf=time.time() + 60), "its time has not come"),
        (lambda p: p.token(exp=None), "it lacks one of the claims"),
        (lambda p: p.token(aud=None), "it lacks one of the claims|another audience"),
        (lambda p: p.token(sub=None), "it lacks one of the claims"),
        (lambda p: p.token(tenant=None), "its claim 'tenant'"),
        (lambda p: p.token(tenant="a b"), "its claim 'tenant'"),
        (lambda p: p.token(sub="x" * 201), "its claim 'sub'"),
        (lambda p: p.token(header={"kid": "9"}), "signing key is not known"),
        (lambda p: p.token(header={"crit": ["exp"]}), "it is no JSON Web Token"),
        (lambda p: p.token(more="x" * 9000), "more than 8192 bytes"),
        (lambda p: b"x" * 1_000_000, "more than 8192 bytes"),
        (lambda p: b"no token", "it is no JSON Web Token"),
        (lambda p: b"\xff.\xff.\xff", "it is no JSON Web Token"),
        (lambda p: encoded(b"[" * 5000, b"{}", b""), "it is no JSON Web Token"),
        (lambda p: encoded([], {}, b""), "it is no JSON Web Token"),
        (lambda p: encoded({"alg": ["ES256"]}, {}, b""), "it is no JSON Web Token|its algorithm"),
    ],
)
def test_a_token_that_does_not_hold_is_refused(
    tokens: Tokens, provider: Provider, make: Callable[[Provider], bytes], said: str
) -> None:
    token = make(provider)
    status, text = refusal(tokens, token)
    assert status == 401
    assert any(each in text for each in said.split("|")), text
    assert token.decode("latin-1")[:50] not in text
    assert refusal(tokens, provider.token())[0] == 200


def test_clocks_may_differ_a_little(tokens: Tokens, provider: Provider) -> None:
    assert refusal(tokens, provider.token(exp=time.time() - 20))[0] == 200
    assert refusal(tokens, provider.token(nbf=time.time() + 20))[0] == 200


def test_a_token_is_verified_once_until_it_ends(
    tokens: Tokens, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[bytes] = []
    decode = jwt.decode

    def counted(token: bytes, *arguments: Any, **more: Any) -> Any:
        verified.append(token)
        return decode(token, *arguments, **more)

    monkeypatch.setattr("mapsto.service.tokens.jwt.decode", counted)
    token = provider.token()
    assert asyncio.run(tokens.caller(token)) is asyncio.run(tokens.caller(token))
    assert len(verified) == 1
    now = time.time()
    monkeypatch.setattr("mapsto.service.tokens.time.time", lambda: now + 601)
    asyncio.run(tokens.caller(token))  # by the clock that PyJWT reads it still holds
    assert len(verified) == 2


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
def test_an_rsa_key_without_an_algorithm_takes_its_own_alone(tmp_path: Path, provider: Provider) -> None:
    key = rsa.generate_private_key(65537, 2048)
    weak = rsa.generate_private_key(65537, 1024)
    listed = [
        RSAAlgorithm.to_jwk(each, as_dict=True) | {"kid": name} for name, each in (("strong", key), ("weak", weak))
    ]
    listed.append({"kty": "oct", "k": "c2VjcmV0", "kid": "shared"})
    (tmp_path / "keys.json").write_text(json.dumps({"keys": listed}))
    tokens = Tokens(SigningKeys(str(tmp_path / "keys.json")), audience=AUDIENCE, issuer=ISSUER)
    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    assert refusal(tokens, jwt.encode(claims, key, "RS256", {"kid": "strong"}).encode())[0] == 200
    assert refusal(tokens, jwt.encode(claims, key, "PS256", {"kid": "strong"}).encode())[0] == 401
    assert refusal(tokens, jwt.encode(claims, weak, "RS256", {"kid": "weak"}).encode())[0] == 401
    assert refusal(tokens, jwt.encode(claims, b"secret" * 9, "HS256", {"kid": "shared"}).encode())[0] == 401


# -- the key set


@pytest.fixture
def own() -> Provider:
    """One that a test may change."""
    return Provider()


@pytest.fixture
def url(own: Provider) -> Iterator[str]:
    with published(own) as place:
        yield place


def test_a_new_key_is_fetched_once_for_all_who_wait(own: Provider, url: str) -> None:
    tokens = Tokens(SigningKeys(url, pause=0.2), audience=AUDIENCE, issuer=ISSUER)

    async def run() -> None:
        await asyncio.gather(*(tokens.caller(own.token()) for _ in range(5)))
        assert own.asked == 1
        old = own.token()
        await tokens.caller(old)
        own.rotate()
        for _ in range(5):  # too soon for another look
            with pytest.raises(Refusal, match="not known"):
                await tokens.caller(own.token())
        assert own.asked == 1
        await asyncio.sleep(0.2)
        await asyncio.gather(*(tokens.caller(own.token()) for _ in range(5)))
        assert own.asked == 2
        with pytest.raises(Refusal, match="not known"):  # it was taken back, though the token was remembered
            await tokens.caller(old)

    asyncio.run(run())


def test_while_the_provider_is_out_its_keys_go_on_for_a_time(own: Provider, url: str) -> None:
    notes: list[str] = []
    keys = SigningKeys(url, fresh=0.0, most_age=0.6, pause=0.05, note=notes.append)
    tokens = Tokens(keys, audience=AUDIENCE, issuer=ISSUER)

    async def run() -> None:
        await tokens.caller(own.token())
        own.status = 500
        await asyncio.sleep(0.1)
        for number in range(3):
            await tokens.caller(own.token(jti=str(number)))
            await asyncio.sleep(0.06)
        assert len(notes) == 1
        assert "those in memory go on for 0 s" in notes[0] or "those in memory go on for 1 s" in notes[0]
        with pytest.raises(Refusal) as refused:  # it may be a new key
            await tokens.caller(own.token(header={"kid": "9"}))
        assert refused.value.status == 503
        await asyncio.sleep(0.6)
        with pytest.raises(Refusal) as refused:
            await tokens.caller(own.token(jti="late"))
        assert (refused.value.status, refused.value.retry_after) == (503, 0.05)
        own.status = 200
        await asyncio.sleep(0.06)
        await tokens.caller(own.token(jti="again"))
        assert len(notes) == 2
        assert "can be read again" in notes[1]

    asyncio.run(run())


@pytest.mark.parametrize("status", [302, 404])
def test_keys_are_read_where_they_were_said_to_be(own: Provider, url: str, status: int) -> None:
    own.status = status
    tokens = Tokens(SigningKeys(url, note=lambda text: None), audience=AUDIENCE, issuer=ISSUER)
    assert refusal(tokens, own.token())[0] == 503
    assert own.asked == 1


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("http://identity.example/keys", "give https"),
        ("ftp://127.0.0.1/keys", "give https"),
        ("none.json", "holds no keys"),
        ("empty.json", "no public key for signatures"),
        ("deep.json", "nested too deeply|holds no keys"),
        ("secret.json", "no public key for signatures"),
    ],
)
def test_a_key_set_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.json").write_text('{"keys": []}')
    Path("deep.json").write_text("[" * 200_000)
    Path("secret.json").write_text('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}')
    with pytest.raises(SpecError, match=said):
        SigningKeys(place)


# -- keys and tokens together


def test_keys_and_tokens_open_the_same_service(provider: Provider, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(provider.key_set())
    settings = AccessSettings(jwks=str(tmp_path / "keys.json"), audience=AUDIENCE, issuer=ISSUER)
    state = State(tmp_path / "state.sqlite")
    name, key = made(state, rate=0.01, burst=2)
    access = Access(Keys(state), settings.tokens())

    async def run() -> None:
        assert (await access.caller(b"Bearer " + provider.token())).name == "token:a/ann"
        assert (await access.caller(b"bearer " + key.encode())).name == name
        assert (await access.caller(key.encode())).name == name
        with pytest.raises(Refusal) as refused:
            await access.caller(key.encode())
        assert refused.value.status == 429
        assert refused.value.retry_after == pytest.approx(100, abs=1)
        for header in (None, b"", b"Bearer ", b"Bearer mapsto_x", b"Basic eDp5"):
            with pytest.raises(Refusal) as refused:
                await access.caller(header)
            assert refused.value.status == 401, header
        without = Access(Keys(state))
        with pytest.raises(Refusal, match="the key is not known"):
            await without.caller(b"Bearer " + provider.token())

    asyncio.run(run())
    state.close()


@pytest.mark.parametrize("given", [{"jwks": "x"}, {"audience": "x"}, {"issuer": "x", "audience": "y"}])
def test_tokens_need_all_three(given: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="a key set, an audience and an issuer"):
        AccessSettings(**given).tokens()

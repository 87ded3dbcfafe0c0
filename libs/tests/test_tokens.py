"""Access tokens: what is in them is required, keys are kept while auth is away, new keys are found."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from libs.ids import new_id
from libs.postgres import Pool, create_pool
from libs.tasks import end_tasks
from libs.web import tokens as tokens_module
from libs.web.problems import TemporarilyUnavailable, Unauthenticated
from libs.web.tokens import TokenVerifier
from messaging_support import eventually


class Auth:
    """Publishes keys over HTTP, and may go away and come back."""

    def __init__(self) -> None:
        self._keys: dict[str, Ed25519PrivateKey] = {}
        self._others: list[dict[str, Any]] = []
        self.questions = 0
        self.answers = Event()
        self.answers.set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/jwks.json"

    def start(self) -> None:
        auth = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                auth.questions += 1
                auth.answers.wait()
                body = json.dumps({"keys": [*map(auth.jwk, auth._keys), *auth._others]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                with suppress(BrokenPipeError, ConnectionResetError):  # who asked may have given up
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        Thread(target=self._server.serve_forever, args=(0.02,)).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def publish(self, kid: str) -> None:
        self._keys[kid] = Ed25519PrivateKey.generate()

    def publish_secret(self, kid: str, secret: bytes) -> None:
        """A key of another algorithm."""
        self._others.append(
            {"kty": "oct", "kid": kid, "alg": "HS256", "k": base64.urlsafe_b64encode(secret).decode()}
        )

    def jwk(self, kid: str) -> dict[str, Any]:
        key: dict[str, Any] = OKPAlgorithm.to_jwk(self._keys[kid].public_key(), as_dict=True)
        return {**key, "kid": kid, "alg": "EdDSA", "use": "sig"}

    def token(
        self, kid: str, *, header: dict[str, Any] | None = None, without: str = "", **claims: Any
    ) -> str:
        now = time.time()
        payload = {
            "sub": str(new_id()),
            "role": "user",
            "iat": now,
            "exp": now + 600,
            "iss": "ticketing-auth",
            "aud": "ticketing",
            **claims,
        }
        payload.pop(without, None)
        return jwt.encode(
            payload,
            self._keys.get(kid) or Ed25519PrivateKey.generate(),
            algorithm="EdDSA",
            headers={"kid": kid, "typ": "at+jwt", **(header or {})},
        )


def with_header(header: dict[str, Any], token: str) -> str:
    encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    return ".".join((encoded, *token.split(".")[1:]))


@pytest.fixture
def auth() -> Iterator[Auth]:
    auth = Auth()
    auth.publish("first")
    auth.start()
    yield auth
    auth.stop()


@pytest_asyncio.fixture
async def pool(environment: dict[str, str]) -> AsyncGenerator[Pool]:
    async with create_pool(environment["INVENTORY_DATABASE_URL"]) as pool:
        yield pool


@pytest_asyncio.fixture
async def verifier(auth: Auth, pool: Pool) -> TokenVerifier:
    verifier = TokenVerifier(jwks_url=auth.url, pool=pool)
    await verifier.load_revocations()
    return verifier


async def test_token_of_a_published_key_is_good(auth: Auth, verifier: TokenVerifier) -> None:
    user_id = new_id()
    caller = await verifier.verify(auth.token("first", sub=str(user_id), role="scanner"))
    assert (caller.user_id, caller.role) == (user_id, "scanner")


async def test_keys_are_kept_while_auth_is_away(auth: Auth, verifier: TokenVerifier) -> None:
    await verifier.verify(auth.token("first"))
    auth.stop()
    for _ in range(3):
        await verifier.verify(auth.token("first"))


async def test_unknown_key_is_no_verdict_while_auth_is_away_and_is_found_when_it_is_back(
    auth: Auth, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "LOOK_AGAIN_SECONDS", 0.0)
    await verifier.verify(auth.token("first"))
    auth.publish("second")
    auth.stop()
    with pytest.raises(TemporarilyUnavailable):
        await verifier.verify(auth.token("second"))
    await verifier.verify(auth.token("first"))
    auth.start()
    await verifier.verify(auth.token("second"))
    await verifier.verify(auth.token("first"))


async def test_no_token_is_good_or_bad_before_keys_and_revocations_were_read(auth: Auth, pool: Pool) -> None:
    with pytest.raises(TemporarilyUnavailable):
        await TokenVerifier(jwks_url=auth.url, pool=pool).verify(auth.token("first"))
    auth.stop()
    verifier = TokenVerifier(jwks_url=auth.url, pool=pool)
    await verifier.load_revocations()
    with pytest.raises(TemporarilyUnavailable):
        await verifier.verify(auth.token("first"))


async def test_first_keys_are_looked_for_again_and_again(
    auth: Auth, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "LOOK_AGAIN_SECONDS", float("inf"))
    token = auth.token("first")
    auth.stop()
    with pytest.raises(TemporarilyUnavailable):
        await verifier.verify(token)
    auth.start()
    refreshing = asyncio.create_task(verifier.refresh())
    try:
        await eventually(lambda: is_good(verifier, token))
    finally:
        await end_tasks(refreshing)


async def is_good(verifier: TokenVerifier, token: str) -> bool:
    with suppress(TemporarilyUnavailable):
        await verifier.verify(token)
        return True
    return False


async def test_auth_that_is_silent_is_waited_for_once(auth: Auth, verifier: TokenVerifier) -> None:
    token = auth.token("first")
    auth.answers.clear()
    assert await asyncio.gather(*(is_good(verifier, token) for _ in range(5))) == [False] * 5
    assert auth.questions == 1
    auth.answers.set()


async def test_made_up_keys_do_not_make_us_ask_auth_each_time(auth: Auth, verifier: TokenVerifier) -> None:
    await verifier.verify(auth.token("first"))
    for number in range(20):
        with pytest.raises(Unauthenticated):
            await verifier.verify(auth.token(f"made up {number}"))
    assert auth.questions <= 2
    await verifier.verify(auth.token("first"))


async def test_every_claim_is_required(auth: Auth, verifier: TokenVerifier) -> None:
    for claim in ("exp", "iat", "sub", "iss", "aud", "role"):
        with pytest.raises(Unauthenticated):
            await verifier.verify(auth.token("first", without=claim))


async def test_header_that_is_not_ours_is_refused(auth: Auth, verifier: TokenVerifier) -> None:
    good = auth.token("first")
    claims = jwt.decode(good, options={"verify_signature": False})
    public = auth.jwk("first")["x"]
    stranger = Ed25519PrivateKey.generate()
    own = {**OKPAlgorithm.to_jwk(stranger.public_key(), as_dict=True), "kid": "first", "alg": "EdDSA"}
    ours = {"kid": "first", "typ": "at+jwt"}
    bad = [
        auth.token("first", header={"typ": "JWT"}),
        auth.token("first", header={"typ": None}),
        auth.token("first", header={"kid": "../first"}),
        with_header({"alg": "EdDSA", "typ": "at+jwt"}, good),
        with_header({"alg": "EdDSA", "typ": "at+jwt", "kid": ["first"]}, good),
        jwt.encode(claims, "", algorithm="none", headers=ours),
        jwt.encode(claims, public.encode().ljust(32, b"="), algorithm="HS256", headers=ours),
        jwt.encode(claims, stranger, algorithm="EdDSA", headers={**ours, "jwk": own, "jku": auth.url}),
        good.rsplit(".", 1)[0] + ".",
    ]
    for token in bad:
        with pytest.raises(Unauthenticated):
            await verifier.verify(token)
    await verifier.verify(good)


async def test_algorithm_is_ours_whatever_the_token_and_the_key_set_say(
    auth: Auth, verifier: TokenVerifier
) -> None:
    secret = bytes(range(32))
    auth.publish_secret("shared", secret)
    good = auth.token("first")
    claims = jwt.decode(good, options={"verify_signature": False})
    token = jwt.encode(claims, secret, algorithm="HS256", headers={"kid": "shared", "typ": "at+jwt"})
    with pytest.raises(Unauthenticated):
        await verifier.verify(token)
    await verifier.verify(good)


async def test_token_from_the_future_is_refused(auth: Auth, verifier: TokenVerifier) -> None:
    with pytest.raises(Unauthenticated):
        await verifier.verify(auth.token("first", iat=time.time() + 60))

"""What the tests of all services share beyond fixtures: access tokens, and an application to talk to."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any
from unittest.mock import patch
from uuid import UUID

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from litestar import Litestar

from libs.ids import new_id
from libs.web import idempotency
from libs.web.tokens import ALGORITHM, AUDIENCE, ISSUER, TYPE

Serve = Callable[[Litestar], AbstractAsyncContextManager[httpx.AsyncClient]]


class Tokens:
    """Access tokens as auth issues them, of a key made for this test unless one is given."""

    def __init__(self, *, key: Ed25519PrivateKey | None = None, key_id: str = "test") -> None:
        self._key = key or Ed25519PrivateKey.generate()
        self._key_id = key_id

    def issue(self, user_id: UUID | None = None, *, role: str = "user", **claims: Any) -> dict[str, str]:
        """The `Authorization` header of a user; an own one when none is named."""
        now = time.time()
        payload = {
            "sub": str(user_id or new_id()),
            "role": role,
            "iat": now,
            "exp": now + 600,
            "iss": ISSUER,
            "aud": AUDIENCE,
            **claims,
        }
        token = jwt.encode(
            payload, self._key, algorithm=ALGORITHM, headers={"kid": self._key_id, "typ": TYPE}
        )
        return {"Authorization": f"Bearer {token}"}

    @property
    def public_key(self) -> jwt.PyJWK:
        key = OKPAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return jwt.PyJWK({**key, "kid": self._key_id, "alg": ALGORITHM})


@asynccontextmanager
async def serve_in_this_loop(app: Litestar, tokens: Tokens) -> AsyncGenerator[httpx.AsyncClient]:
    """Runs an application, which trusts `tokens`, in the test's own event loop."""
    started, stop = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        # In one task from start to end: a fixture is set up and torn down in two.
        async with app.lifespan():
            started.set()
            await stop.wait()

    life = asyncio.create_task(live())
    await asyncio.wait([life, asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED)
    if life.done():
        await life
    app.state.token_verifier.trust([tokens.public_key])
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # pyright: ignore[reportArgumentType]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
    stop.set()
    await life


async def cut_off(request: Callable[[], Awaitable[httpx.Response]]) -> None:
    """A request under an Idempotency-Key whose process dies after the commit, before its answer is stored."""

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    with (
        patch.object(idempotency, "LOCK_SECONDS", 0),
        patch.object(idempotency._Answers, "keep", die),  # pyright: ignore[reportPrivateUsage]
        suppress(asyncio.CancelledError),
    ):
        answer = await request()
        raise AssertionError(f"it was answered: {answer.status_code} {answer.text}")

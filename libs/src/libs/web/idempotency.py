"""`Idempotency-Key` on authenticated mutations (draft-ietf-httpapi-idempotency-key-header).

The same caller, key and request get the stored answer; another request under the key is 422; while the first
still runs, 409. Answers are kept for 24 hours; of the body only a digest is. `/auth/*` and the webhook ignore
the header.

Errors of ours (5xx), a refused token and 429 are not kept: a retry runs anew. So does one whose first run was
cut off: a run renews its lock as long as it lives. It may have committed, so what a request makes gets the id
of its `Attempt`, the same in every run, and a use case that is told of a repetition looks for it first.
"""

import asyncio
import hashlib
import logging
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import psycopg
from litestar import Request
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from msgspec import Struct
from psycopg.types.json import Jsonb
from psycopg_pool import PoolTimeout, TooManyRequests

from libs.ids import new_id
from libs.postgres import Pool
from libs.web.access import find_caller
from libs.web.problems import BodyTooLarge, InvalidRequest, Problem
from libs.web.tokens import Caller

log = logging.getLogger(__name__)

HEADER = b"idempotency-key"
MAX_KEY_LENGTH = 255
MAX_BODY_BYTES = 4 * 1_048_576
LOCK_SECONDS = 5.0
RENEW_SECONDS = 1.5

_IGNORED_PATHS = ("/auth/", "/orders/webhook")
_KEPT_HEADERS = (b"content-type", b"cache-control", b"etag", b"link", b"location")
_ATTEMPT = "ticketing.attempt"


class IdempotencyKeyReused(Problem):
    """This `Idempotency-Key` was used for another request of yours in the last 24 hours."""

    code = "idempotency_key_reused"
    status = 422
    cure = "Take a new key for a new request; repeat a request byte for byte."


class RequestInProgress(Problem):
    """The first request with this `Idempotency-Key` is still running, or was cut off less than 5 s ago."""

    code = "request_in_progress"
    status = 409
    cure = "Send the same request again after `Retry-After` seconds."


class Attempt(Struct, frozen=True):
    """`id` is for what the request makes. `is_repeat`: an earlier run may have made it already."""

    id: UUID
    is_repeat: bool


async def provide_attempt(request: Request[Any, Any, Any]) -> Attempt:
    """The dependency `attempt` of routes that make something."""
    return cast(dict[str, Any], request.scope).get(_ATTEMPT) or Attempt(new_id(), is_repeat=False)


def takes_key(method: str, path: str) -> bool:
    """Whether an authenticated route takes the header."""
    return method not in ("GET", "HEAD", "OPTIONS") and not path.startswith(_IGNORED_PATHS)


def idempotency_middleware(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not takes_key(scope["method"], scope["path"]):
            await app(scope, receive, send)
            return
        keys = [value for name, value in scope["headers"] if name == HEADER]
        if not keys:
            await app(scope, receive, send)
            return
        request = Request[Any, Any, Any](scope)
        caller = await find_caller(request)
        if caller is None:  # the route's guard refuses it
            await app(scope, receive, send)
            return
        key = _only_key(keys)
        body = await _whole_body(receive)
        if body is None:
            return
        answers = _Answers(request.app.state.pool, caller, key, _digest(scope, body))
        attempt = await answers.claim()
        if attempt is None:
            await answers.replay(send)
        else:
            cast(dict[str, Any], scope)[_ATTEMPT] = attempt
            await _run(app, scope, body, send, answers)

    return middleware


def _only_key(keys: list[bytes]) -> str:
    key = keys[0].decode("latin-1")
    if len(keys) > 1 or not 0 < len(key) <= MAX_KEY_LENGTH or not key.isascii() or not key.isprintable():
        raise InvalidRequest.at(
            "header/Idempotency-Key", f"one key of 1 to {MAX_KEY_LENGTH} printable ASCII characters"
        )
    return key


class _Answers:
    """The stored answer of one caller's key."""

    def __init__(self, pool: Pool, caller: Caller, key: str, digest: bytes) -> None:
        self._pool = pool
        self._row = {"user_id": caller.user_id, "key": key, "digest": digest}
        self._locked_until: datetime | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.is_over = asyncio.Event()

    async def claim(self) -> Attempt | None:
        """None when this request is not the one to run: the first, or the next after one that was cut off."""
        async with self._pool.connection() as conn:
            cursor = await conn.execute(
                """
                INSERT INTO idempotency_keys AS stored (user_id, key, digest, attempt_id, locked_until)
                VALUES (%(user_id)s, %(key)s, %(digest)s, %(attempt_id)s,
                        clock_timestamp() + make_interval(secs => %(lock_seconds)s))
                ON CONFLICT (user_id, key) DO UPDATE
                   SET digest = EXCLUDED.digest,
                       attempt_id = CASE WHEN stored.created_at < now() - interval '24 hours'
                                         THEN EXCLUDED.attempt_id ELSE stored.attempt_id END,
                       locked_until = EXCLUDED.locked_until,
                       status = NULL, headers = NULL, body = NULL,
                       created_at = now()
                 WHERE stored.created_at < now() - interval '24 hours'
                    OR (stored.digest = EXCLUDED.digest
                        AND stored.status IS NULL
                        AND stored.locked_until < clock_timestamp())
                RETURNING new.attempt_id, old.attempt_id IS NOT DISTINCT FROM new.attempt_id, locked_until
                """,
                {**self._row, "attempt_id": new_id(), "lock_seconds": LOCK_SECONDS},
            )
            row: tuple[UUID, bool, datetime] | None = await cursor.fetchone()  # pyright: ignore[reportAssignmentType]
        if row is None:
            return None
        self._locked_until = row[2]
        self._renewing = asyncio.create_task(self._renew())
        return Attempt(row[0], is_repeat=row[1])

    async def _renew(self) -> None:
        """Keeps the lock until all is over."""
        while not await _is_set_within(self.is_over, RENEW_SECONDS):
            try:
                async with self._pool.connection() as conn:
                    cursor = await conn.execute(
                        """
                        UPDATE idempotency_keys
                           SET locked_until = clock_timestamp() + make_interval(secs => %(lock_seconds)s)
                         WHERE user_id = %(user_id)s AND key = %(key)s AND locked_until = %(locked_until)s
                        RETURNING locked_until
                        """,
                        {**self._row, "locked_until": self._locked_until, "lock_seconds": LOCK_SECONDS},
                    )
                    row: tuple[datetime] | None = await cursor.fetchone()  # pyright: ignore[reportAssignmentType]
            except (psycopg.Error, PoolTimeout, TooManyRequests) as error:
                log.warning("the lock of an Idempotency-Key was not renewed: %s", error)
                continue
            if row is None:  # overtaken
                return
            self._locked_until = row[0]

    async def keep(self, status: int, headers: dict[str, str], body: bytes) -> None:
        await self._finish(
            """
            UPDATE idempotency_keys
               SET status = %(status)s, headers = %(headers)s, body = %(body)s
             WHERE user_id = %(user_id)s AND key = %(key)s AND locked_until = %(locked_until)s
            """,
            {"status": status, "headers": Jsonb(headers), "body": body},
        )

    async def release(self) -> None:
        """Nothing is kept; the next one runs at once, as a repetition."""
        await self._finish(
            """
            UPDATE idempotency_keys
               SET locked_until = '-infinity'
             WHERE user_id = %(user_id)s AND key = %(key)s AND locked_until = %(locked_until)s
            """,
            {},
        )

    async def _finish(self, statement: Any, more: dict[str, Any]) -> None:
        self.is_over.set()
        if self._renewing is not None:
            await self._renewing  # it may just be changing what the statement looks for
        try:
            async with self._pool.connection() as conn:
                await conn.execute(statement, {**self._row, "locked_until": self._locked_until, **more})
        except (psycopg.Error, PoolTimeout, TooManyRequests) as error:
            # The answer is true all the same. The lock runs out by itself, and a retry is a repetition.
            log.warning("an answer was not stored under its Idempotency-Key: %s", error)

    async def replay(self, send: Send) -> None:
        async with self._pool.connection() as conn:
            cursor = await conn.execute(
                """
                SELECT digest = %(digest)s, status, headers, body
                  FROM idempotency_keys
                 WHERE user_id = %(user_id)s AND key = %(key)s
                """,
                self._row,
            )
            row: Any = await cursor.fetchone()
        if row is not None and not row[0]:
            raise IdempotencyKeyReused("This Idempotency-Key was used for another request.")
        if row is None or row[1] is None:
            raise RequestInProgress(
                "The first request with this Idempotency-Key is still running.", headers={"Retry-After": "1"}
            )
        _, status, headers, body = row
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    *((name.encode(), value.encode("latin-1")) for name, value in headers.items()),
                    *([] if status == 204 else [(b"content-length", str(len(body)).encode())]),
                    (b"idempotent-replayed", b"true"),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def _run(app: ASGIApp, scope: Scope, body: bytes, send: Send, answers: _Answers) -> None:
    status = 500
    headers: dict[str, str] = {}
    chunks: list[bytes] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send_and_keep(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = {
                name.lower().decode(): value.decode("latin-1")
                for name, value in message["headers"]
                if name.lower() in _KEPT_HEADERS
            }
        elif message["type"] == "http.response.body":
            chunks.append(message["body"])
            if not message.get("more_body"):
                # Kept before the client has it: a client that saw the answer always gets it again.
                if status < 500 and status not in (401, 429):
                    await answers.keep(status, headers, b"".join(chunks))
                else:
                    await answers.release()
        await send(message)

    try:
        await app(scope, receive, send_and_keep)
    except Exception:
        await answers.release()
        raise
    finally:
        answers.is_over.set()


async def _whole_body(receive: Receive) -> bytes | None:
    """None when the client has gone before it was all there."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message["body"]
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes.")
        if not message["more_body"]:
            return body


def _digest(scope: HTTPScope, body: bytes) -> bytes:
    target = f"{scope['method']} {scope['path']}?".encode() + scope["query_string"] + b"\n"
    return hashlib.sha256(target + body).digest()

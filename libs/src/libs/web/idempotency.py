"""`Idempotency-Key` on authenticated mutations (draft-ietf-httpapi-idempotency-key-header).

The same caller, key and request get the stored answer; another request under the key is 422; while the first
still runs, 409. Answers are kept for 24 hours; of the body only a digest is. Errors of ours (5xx) are not
kept, so that a retry runs anew. `/auth/*` and the webhook ignore the header.
"""

import hashlib
from typing import Any

from litestar import Request
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from libs.postgres import Pool
from libs.web.access import find_caller
from libs.web.problems import InvalidRequest, Problem
from libs.web.tokens import Caller

HEADER = b"idempotency-key"
MAX_KEY_LENGTH = 255
MAX_BODY_BYTES = 4 * 1_048_576
LOCK_SECONDS = 30

_IGNORED_PATHS = ("/auth/", "/orders/webhook")


class IdempotencyKeyReused(Problem):
    """This `Idempotency-Key` was used for another request."""

    code = "idempotency_key_reused"
    status = 422


class RequestInProgress(Problem):
    """The first request with this `Idempotency-Key` is still running."""

    code = "request_in_progress"
    status = 409


class BodyTooLarge(Problem):
    """The request body is larger than this route takes."""

    code = "request_entity_too_large"
    status = 413


def idempotency_middleware(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await app(scope, receive, send)
            return
        key = next((value for name, value in scope["headers"] if name == HEADER), None)
        if key is None or scope["path"].startswith(_IGNORED_PATHS):
            await app(scope, receive, send)
            return
        request = Request[Any, Any, Any](scope)
        caller = await find_caller(request)
        if caller is None:  # the route's guard refuses it
            await app(scope, receive, send)
            return
        if not 0 < len(key) <= MAX_KEY_LENGTH or not key.isascii() or b"\x00" in key:
            raise InvalidRequest.at("header/Idempotency-Key", f"1 to {MAX_KEY_LENGTH} ASCII characters")
        body = await _whole_body(receive)
        answers = _Answers(request.app.state.pool, caller, key.decode(), _digest(scope, body))
        if await answers.claim():
            await _run(app, scope, body, send, answers)
        else:
            await answers.replay(send)

    return middleware


class _Answers:
    """The stored answer of one caller's key."""

    def __init__(self, pool: Pool, caller: Caller, key: str, digest: bytes) -> None:
        self._pool = pool
        self._row = {"user_id": caller.user_id, "key": key, "digest": digest, "lock_seconds": LOCK_SECONDS}

    async def claim(self) -> bool:
        """Whether this request is the one to run: the first, or the next after one that died half-way."""
        async with self._pool.connection() as conn:
            cursor = await conn.execute(
                """
                INSERT INTO idempotency_keys AS stored (user_id, key, digest, locked_until)
                VALUES (%(user_id)s, %(key)s, %(digest)s, now() + make_interval(secs => %(lock_seconds)s))
                ON CONFLICT (user_id, key) DO UPDATE
                   SET locked_until = EXCLUDED.locked_until
                 WHERE stored.digest = EXCLUDED.digest
                   AND stored.status IS NULL
                   AND stored.locked_until < now()
                RETURNING true
                """,
                self._row,
            )
            return await cursor.fetchone() is not None

    async def keep(self, status: int, content_type: str, body: bytes) -> None:
        async with self._pool.connection() as conn:
            await conn.execute(
                """
                UPDATE idempotency_keys
                   SET status = %(status)s, content_type = %(content_type)s, body = %(body)s
                 WHERE user_id = %(user_id)s AND key = %(key)s
                """,
                {**self._row, "status": status, "content_type": content_type, "body": body},
            )

    async def forget(self) -> None:
        async with self._pool.connection() as conn:
            await conn.execute(
                "DELETE FROM idempotency_keys WHERE user_id = %(user_id)s AND key = %(key)s", self._row
            )

    async def replay(self, send: Send) -> None:
        async with self._pool.connection() as conn:
            cursor = await conn.execute(
                """
                SELECT digest = %(digest)s, status, content_type, body
                  FROM idempotency_keys
                 WHERE user_id = %(user_id)s AND key = %(key)s
                """,
                self._row,
            )
            row: tuple[bool, int | None, str, bytes] | None = await cursor.fetchone()  # pyright: ignore[reportAssignmentType]
        if row is not None and not row[0]:
            raise IdempotencyKeyReused("This Idempotency-Key was used for another request.")
        if row is None or row[1] is None:
            raise RequestInProgress(
                "The first request with this Idempotency-Key is still running.", headers={"Retry-After": "1"}
            )
        headers = [
            (b"content-type", row[2].encode()),
            (b"content-length", str(len(row[3])).encode()),
            (b"idempotent-replayed", b"true"),
        ]
        await send({"type": "http.response.start", "status": row[1], "headers": headers})
        await send({"type": "http.response.body", "body": row[3], "more_body": False})


async def _run(app: ASGIApp, scope: Scope, body: bytes, send: Send, answers: _Answers) -> None:
    status = 500
    content_type = ""
    chunks: list[bytes] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send_and_keep(message: Message) -> None:
        nonlocal status, content_type
        if message["type"] == "http.response.start":
            status = message["status"]
            content_type = dict(message["headers"]).get(b"content-type", b"").decode("latin-1")
        elif message["type"] == "http.response.body":
            chunks.append(message["body"])
            if not message.get("more_body"):
                # Kept before the client has it: a client that saw the answer always gets it again.
                if status < 500:
                    await answers.keep(status, content_type, b"".join(chunks))
                else:
                    await answers.forget()
        await send(message)

    try:
        await app(scope, receive, send_and_keep)
    except Exception:
        await answers.forget()
        raise


async def _whole_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message["body"]
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes.")
        if not message["more_body"]:
            return body


def _digest(scope: HTTPScope, body: bytes) -> bytes:
    target = f"{scope['method']} {scope['path']}?".encode() + scope["query_string"] + b"\n"
    return hashlib.sha256(target + body).digest()

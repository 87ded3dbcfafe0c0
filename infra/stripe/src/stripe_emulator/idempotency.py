"""Idempotency keys: what a key answered once it answers again.

Saved is what an endpoint answered after it began to execute, refusals included. Not saved are wrong
parameters, a wrong API key and faults that strike before it. https://docs.stripe.com/api/idempotent_requests
"""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from stripe_emulator.errors import ApiError
from stripe_emulator.objects import Json
from stripe_emulator.store import Transaction

MAX_KEY_LENGTH = 255


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """`original_request`: the id of the request that this one repeats."""

    status: int
    body: bytes
    original_request: str | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What must be the same when a key is used again."""

    key: str
    path: str
    digest: str


def describe_request(key: str, path: str, form: Json) -> Request:
    """Raises ApiError (400) for a key that is too long."""
    if len(key) > MAX_KEY_LENGTH:
        raise ApiError(
            400,
            f"Idempotency keys have at most {MAX_KEY_LENGTH} characters.",
            kind="idempotency_error",
        )
    digest = hashlib.sha256(msgspec.json.encode(form, order="deterministic")).hexdigest()
    return Request(key=key, path=path, digest=digest)


def find_reply(tx: Transaction, request: Request) -> Reply | None:
    """Raises ApiError (400) when the key was used for something else."""
    row = tx.db.execute(
        "SELECT path, digest, request_id, status, body FROM idempotency_keys WHERE key = ?", (request.key,)
    ).fetchone()
    if row is None:
        return None
    path, digest, request_id, status, body = row
    if path != request.path:
        raise mismatch("for the same endpoint they were first used for", request)
    if digest != request.digest:
        raise mismatch("with the same parameters they were first used with", request)
    return Reply(status=status, body=body, original_request=request_id)


def mismatch(rule: str, request: Request) -> ApiError:
    return ApiError(
        400,
        f"Keys for idempotent requests can only be used {rule}. Try using a key other than '{request.key}' "
        "if you meant to execute a different request.",
        kind="idempotency_error",
    )


def keep_reply(tx: Transaction, request: Request, reply: Reply) -> None:
    tx.db.execute(
        """
        INSERT INTO idempotency_keys (key, created, path, digest, request_id, status, body)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        """,
        (request.key, int(tx.now), request.path, request.digest, tx.request_id, reply.status, reply.body),
    )


class KeysInUse:
    """Keys whose first request has not been answered yet; of this process, for a crash ends all requests."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    @contextmanager
    def claim(self, key: str | None) -> Generator[None]:
        """Raises ApiError (409) while another request with this key is under way."""
        if key is None:
            yield
            return
        if key in self._keys:
            raise ApiError(
                409,
                f"There is currently another in-progress request using this Idempotency Key: {key}. Please "
                "try again later.",
                kind="idempotency_error",
                code="idempotency_key_in_use",
            )
        self._keys.add(key)
        try:
            yield
        finally:
            self._keys.remove(key)

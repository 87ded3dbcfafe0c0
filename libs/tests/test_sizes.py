"""An answer that comes before the end of a request's body waits for it."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from libs.web import sizes
from libs.web.sizes import sizes_middleware
from litestar.types import Message, Receive, Scope, Send

MEGABYTE = 1_048_576


async def answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 413, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def ask(parts: Iterable[int]) -> tuple[int, list[str]]:
    """(parts of the body that were read, messages sent), of a body with parts of these sizes."""
    left = iter(parts)
    read = 0
    sent: list[str] = []

    async def receive() -> Any:
        nonlocal read
        size = next(left, None)
        if size is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        read += 1
        return {"type": "http.request", "body": b"x" * size, "more_body": True}

    async def send(message: Message) -> None:
        sent.append(f"{message['type']} after {read}")

    scope = {
        "type": "http",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [(b"transfer-encoding", b"chunked")],
    }
    await sizes_middleware(answer_at_once)(scope, receive, send)  # pyright: ignore[reportArgumentType]
    return read, sent


@pytest.mark.parametrize("megabytes", [3, 50])
async def test_body_is_read_to_its_end_before_the_answer_starts(megabytes: int) -> None:
    assert await ask([MEGABYTE] * megabytes) == (
        megabytes,
        [f"http.response.start after {megabytes}", f"http.response.body after {megabytes}"],
    )


async def test_body_that_does_not_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "BODY_SECONDS", 0.02)
    read, sent = await ask(itertools.repeat(1))
    assert sent == [f"http.response.start after {read}", f"http.response.body after {read}"]

"""An answer that comes before the end of a request's body waits for it."""

from collections.abc import Iterable
from typing import Any

from libs.web.sizes import DRAINED_BYTES, sizes_middleware
from litestar.types import Message, Receive, Scope, Send

MEGABYTE = 1_048_576


async def answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 413, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def ask(parts: Iterable[int]) -> tuple[int, list[str]]:
    """(parts of the body that were read, messages sent), of a body with parts of these sizes."""
    left = list(parts)
    read = 0
    sent: list[str] = []

    async def receive() -> Any:
        nonlocal read
        read += 1
        body = b"x" * left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(f"{message['type']} after {read}")

    scope = {
        "type": "http",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [(b"content-length", b"%d" % sum(left))],
    }
    await sizes_middleware(answer_at_once)(scope, receive, send)  # pyright: ignore[reportArgumentType]
    return read, sent


async def test_body_is_read_to_its_end_before_the_answer_starts() -> None:
    assert await ask([MEGABYTE] * 3) == (3, ["http.response.start after 3", "http.response.body after 3"])


async def test_body_that_does_not_end_is_not_read_for_ever() -> None:
    most = DRAINED_BYTES // MEGABYTE
    read, sent = await ask([MEGABYTE] * (most + 5))
    assert read == most
    assert sent[0] == f"http.response.start after {most}"

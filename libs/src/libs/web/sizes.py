"""How large and how slow a request may be. Bodies have their limit in `request_max_body_size` (413)."""

import asyncio

from litestar.types import ASGIApp, HTTPReceiveMessage, HTTPScope, Message, Receive, Scope, Send

from libs.web.problems import Problem

# Below those of the gateway, so that a refusal is a problem document.
MAX_HEADER_BYTES = 16_384
MAX_TARGET_BYTES = 8_192
BODY_SECONDS = 8.0
DRAINED_BYTES = 8_388_608


class HeadersTooLarge(Problem):
    """The headers are larger than 16 KiB together."""

    code = "headers_too_large"
    status = 431
    cure = "Send fewer and shorter headers; cookies are not used here."


class TargetTooLong(Problem):
    """The path and query are longer than 8 KiB together."""

    code = "uri_too_long"
    status = 414
    cure = "Shorten the query; a cursor is passed on as it was given."


class BodyTooSlow(Problem):
    """The whole body did not arrive within 8 seconds."""

    code = "request_timeout"
    status = 408
    cure = "Send the body in one go, on another connection; send less at once over a slow line."


def sizes_middleware(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
            raise TargetTooLong(f"The path and query are longer than {MAX_TARGET_BYTES} bytes.")
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > MAX_HEADER_BYTES:
            raise HeadersTooLarge(f"The headers are larger than {MAX_HEADER_BYTES} bytes.")
        if not _has_body(scope):
            await app(scope, receive, send)
            return
        body = _Body(receive)
        await app(scope, body.receive, body.drained_before(send))

    return middleware


def _has_body(scope: HTTPScope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


class _Body:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        self._is_whole = False

    async def receive(self) -> HTTPReceiveMessage:
        if self._is_whole:
            return await self._receive()  # pyright: ignore[reportReturnType]  # this is HTTP
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow(
                f"The body did not arrive within {BODY_SECONDS:.0f} s.", headers={"Connection": "close"}
            ) from None
        self._is_whole = message["type"] != "http.request" or not message["more_body"]
        return message  # pyright: ignore[reportReturnType]

    def drained_before(self, send: Send) -> Send:
        """A gateway that is still sending would lose an answer that comes too early, such as 413."""

        async def send_after_body(message: Message) -> None:
            if not self._is_whole and message["type"] == "http.response.start":
                await self._drain()
            await send(message)

        return send_after_body

    async def _drain(self) -> None:
        left = DRAINED_BYTES
        try:
            async with asyncio.timeout_at(self._deadline):
                while not self._is_whole and left > 0:
                    message = await self._receive()
                    self._is_whole = message["type"] != "http.request" or not message["more_body"]
                    left -= len(message["body"]) if message["type"] == "http.request" else 0
        except TimeoutError:
            return

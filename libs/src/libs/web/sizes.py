"""How large and how slow a request may be. Bodies have their limit in `request_max_body_size` (413)."""

import asyncio

from litestar.types import ASGIApp, HTTPReceiveMessage, HTTPScope, Message, Receive, Scope, Send

from libs.web.problems import Problem, send_problem

# Below those of the gateway, so that a refusal is a problem document.
MAX_HEADER_BYTES = 16_384
MAX_TARGET_BYTES = 8_192
BODY_SECONDS = 8.0


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
    """Around the whole application: a path that is not there has these limits too."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        if _has_body(scope):
            body = _Body(receive)
            receive, send = body.receive, body.drained_before(send)
        refusal = _refusal(scope)
        if refusal is not None:
            await send_problem(send, refusal)
        else:
            await app(scope, receive, send)

    return middleware


def _refusal(scope: HTTPScope) -> Problem | None:
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
        return TargetTooLong(f"The path and query are longer than {MAX_TARGET_BYTES} bytes.")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return HeadersTooLarge(f"The headers are larger than {MAX_HEADER_BYTES} bytes.")
    return None


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
        """A gateway that is still sending would lose an answer that comes too early, such as 413, and say
        that we are away. However large the body is: only its time is bounded.
        """

        async def send_after_body(message: Message) -> None:
            if not self._is_whole and message["type"] == "http.response.start":
                await self._drain()
            await send(message)

        return send_after_body

    async def _drain(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout_at(self._deadline):
                while not self._is_whole and clock() < self._deadline:
                    message = await self._receive()
                    self._is_whole = message["type"] != "http.request" or not message["more_body"]
                    await asyncio.sleep(0)  # a flood that never lets us wait is not all there is to do
        except TimeoutError:
            return

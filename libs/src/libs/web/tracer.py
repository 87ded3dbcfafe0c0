"""Each request's place in its trace, its span where that is recorded, and its time."""

import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from libs import tracing

if TYPE_CHECKING:
    from libs.telemetry.sdk import Telemetry

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"))
# Asked every second by whoever looks after the process: nobody wants to see them.
_UNRECORDED = ("/health", "/ready")


class RequestTracer:
    """A thin one: of a request that is not recorded it keeps two ids and its time, and looks at no header but
    `traceparent`. It is the outermost layer, so that what is refused early is counted too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.telemetry: Telemetry | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = None
        for name, value in scope["headers"]:
            if name == b"traceparent":
                parent = value.decode("latin-1")
                break
        telemetry = self.telemetry
        if telemetry is None:
            tracing.start_trace(parent)
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        recorder, span = tracing.recorder, None
        if recorder is None or scope["path"].endswith(_UNRECORDED):
            tracing.start_trace(parent)
        else:
            span = recorder.start(parent, method, kind="server")
        status = 500

        def sending(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, sending)
        finally:
            route = scope.get("path_template", "")
            telemetry.requests.add(method, route, status, time.perf_counter() - started)
            if recorder is not None and span is not None:
                recorder.end_request(span, method=method, route=route, scheme=scope["scheme"], status=status)

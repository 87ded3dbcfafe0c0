"""What happens to every request before its route is looked for, and to every answer on its way out.

Host check, request id, `HEAD` as a `GET` without its body, security headers, `Cache-Control`, entity
tags and 304. It wraps the whole application, so that a 404 or 405 of the router's has all of this too.
"""

import re
from collections.abc import Sequence

from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send

from libs.tracing import set_request_id
from libs.web.etags import etag_of, matches
from libs.web.problems import Problem, send_problem

# In place of the name of the application server.
SERVER = b"ticketing"
# Of JSON and pictures. The documentation page says what it needs itself.
CONTENT_SECURITY_POLICY = b"default-src 'none'; frame-ancestors 'none'"
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_TAGGED_TYPES = (b"application/json", b"image/svg+xml", b"text/html", b"text/javascript")


class UnknownHost(Problem):
    """The `Host` header names another host than those that this service is known by (`ALLOWED_HOSTS`)."""

    code = "unknown_host"
    status = 400
    cure = "Use the address that you were given; whoever runs the service lists its names in `ALLOWED_HOSTS`."


class Edge:
    """`allowed_hosts` are names without a port; `*` allows any."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().encode() for host in allowed_hosts)
        # While the process stops: clients are to take their next request to another one.
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = set_request_id(given.decode() if _REQUEST_ID.fullmatch(given) else None)
        answer = _Answer(
            send,
            request_id=request_id.encode(),
            is_last=self.is_draining,
            is_secure=headers.get(b"x-forwarded-proto") == b"https" or scope["scheme"] == "https",
            is_read=scope["method"] in ("GET", "HEAD"),
            is_head=scope["method"] == "HEAD",
            known_tags=headers.get(b"if-none-match"),
        )
        if not self._is_known(headers.get(b"host", b"")):
            await send_problem(answer.send, UnknownHost("This host is not served here."))
            return
        if scope["method"] == "HEAD":
            scope["method"] = "GET"
        await self._app(scope, receive, answer.send)

    def _is_known(self, host: bytes) -> bool:
        name = re.sub(rb":\d*$", b"", host).lower().rstrip(b".")
        return b"*" in self._hosts or name in self._hosts


class _Answer:
    """Holds the head of an answer back until its body is there, if it may become a 304. One that has its
    entity tag already need not be waited for: a file is sent in parts.
    """

    def __init__(
        self,
        send: Send,
        *,
        request_id: bytes,
        is_last: bool,
        is_secure: bool,
        is_read: bool,
        is_head: bool,
        known_tags: bytes | None,
    ) -> None:
        self._send = send
        self._request_id = request_id
        self._is_last = is_last
        self._is_secure = is_secure
        self._is_read = is_read
        self._is_empty = is_head
        self._known_tags = known_tags
        self._held: HTTPResponseStartEvent | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = self._complete(message)
            if self._is_read and message["status"] == 200:
                if (tag := headers.get(b"etag")) is not None:
                    self._is_empty |= self._become_304(message, tag)
                elif headers[b"content-type"] in _TAGGED_TYPES:
                    self._held = message
                    return
        elif message["type"] == "http.response.body":
            body, more = message["body"], message.get("more_body", False)
            if self._held is not None:
                start, self._held = self._held, None
                if not more:
                    tag = etag_of(body).encode()
                    start["headers"] = [*start["headers"], (b"etag", tag)]
                    self._is_empty |= self._become_304(start, tag)
                await self._send(start)
            if self._is_empty:
                if more:
                    return
                body = b""
            message["body"] = body
        await self._send(message)

    def _complete(self, message: HTTPResponseStartEvent) -> dict[bytes, bytes]:
        headers = {name.lower(): value for name, value in message["headers"]}
        added = [*_SECURITY_HEADERS, (b"server", SERVER), (b"x-request-id", self._request_id)]
        # Also without an `Origin`: what a cache keeps of such an answer is not for a browser's script.
        if b"vary" not in headers:
            added.append((b"vary", b"Origin"))
        # What says nothing of it is somebody's own, an error, or not to be kept for another reason.
        if b"cache-control" not in headers:
            added.append((b"cache-control", b"private, no-store"))
        if b"content-security-policy" not in headers:
            added.append((b"content-security-policy", CONTENT_SECURITY_POLICY))
        if self._is_secure:
            added.append(_STRICT_TRANSPORT)
        if self._is_last:
            added.append((b"connection", b"close"))
        message["headers"] = [*message["headers"], *added]
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip()
        return {**headers, b"content-type": content_type}

    def _become_304(self, start: HTTPResponseStartEvent, tag: bytes) -> bool:
        """Whether the client has the answer with this entity tag already."""
        if self._known_tags is None or not matches(tag.decode(), self._known_tags.decode("latin-1")):
            return False
        start["status"] = 304
        start["headers"] = [each for each in start["headers"] if each[0].lower() != b"content-length"]
        return True

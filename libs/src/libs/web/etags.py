"""Entity tags (RFC 9110, section 8.8.3) of bodies that were encoded once."""

import hashlib
from typing import Any

from litestar import Request, Response


def etag_of(body: bytes) -> str:
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'


def etag_response(
    request: Request[Any, Any, Any], body: bytes, *, etag: str, cache_control: str = "no-cache"
) -> Response[bytes]:
    """200 with the JSON body, or 304 when the client has it (`If-None-Match`)."""
    headers = {"ETag": etag, "Cache-Control": cache_control}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        return Response(b"", status_code=304, headers=headers, media_type="application/json")
    return Response(body, headers=headers, media_type="application/json")

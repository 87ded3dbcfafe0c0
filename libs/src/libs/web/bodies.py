"""Request bodies are decoded strictly: `"7"` is no integer, and an error names its field."""

import re
from typing import Any

import msgspec
from litestar import Request

from libs.web.problems import InvalidRequest

_PATH_IN_MESSAGE = re.compile(r"^(?P<detail>.*) - at `\$(?P<path>.*)`$", re.DOTALL)

_FIELD_IN_MESSAGE = re.compile(r"(?:missing required|unknown) field `(.*)`$")


class StrictRequest(Request[Any, Any, Any]):
    """Decodes JSON straight into the struct that the handler's `data` is annotated with."""

    async def json(self) -> Any:
        field = getattr(self.route_handler, "parsed_data_field", None)
        target = field.annotation if field is not None else Any
        return decode_body(await self.body(), target)


def decode_body(body: bytes, target: Any) -> Any:
    """Raises `InvalidRequest` with a JSON Pointer (RFC 6901) to what is wrong."""
    try:
        value = msgspec.json.decode(body, type=target)
        _refuse_null_characters(body)
    except msgspec.ValidationError as error:
        match = _PATH_IN_MESSAGE.match(str(error))
        path, detail = (match["path"], match["detail"]) if match else ("", str(error))
        field = _FIELD_IN_MESSAGE.search(detail)
        raise InvalidRequest.at(_json_pointer(f"{path}.{field[1]}" if field else path), detail) from None
    except UnicodeDecodeError:
        raise InvalidRequest.at("/", "the body is not JSON: it is not UTF-8") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest.at("/", f"the body is not JSON: {error}") from None
    return value


def _refuse_null_characters(body: bytes) -> None:
    # PostgreSQL's text cannot hold U+0000.
    if b"\\u0000" in body:
        raise InvalidRequest.at("/", "the character U+0000 is not allowed")


def _json_pointer(path: str) -> str:
    """`.seats[0].section` of msgspec's messages -> `/seats/0/section`."""
    return (
        re.sub(r"\.|\[(\d+|\.\.\.)\]", lambda match: "/" + (match[1] or ""), path).replace("//", "/") or "/"
    )

"""Request bodies are decoded strictly: `"7"` is no integer, and an error names its field."""

import re
from typing import Any

import msgspec
from litestar import Request

from libs.web.problems import InvalidRequest

_PATH_IN_MESSAGE = re.compile(r"^(?P<detail>.*) - at `\$(?P<path>.*)`$", re.DOTALL)

_FLOAT_FOR_INTEGER = re.compile(r"Expected `[^`]*\bint\b[^`]*`, got `float`")

_EXACT = 2**53
"""Up to here a float is one integer and no other (RFC 8259, section 6)."""

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
        value = _decode(body, target)
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
    except RecursionError:
        raise InvalidRequest.at("/", "the body is nested too deeply") from None
    return value


def _decode(body: bytes, target: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=target)
    except msgspec.ValidationError as error:
        if not _FLOAT_FOR_INTEGER.match(str(error)):
            raise
        # 7.0 is an integer to JSON Schema (Validation, 6.1.1), and so to our documents, but not to msgspec.
        return msgspec.convert(_with_integers(msgspec.json.decode(body)), target, str_keys=True)


def _with_integers(value: Any) -> Any:
    match value:
        case float() if value.is_integer() and abs(value) <= _EXACT:
            return int(value)
        case list():
            return [_with_integers(each) for each in value]
        case dict():
            return {key: _with_integers(each) for key, each in value.items()}
        case _:
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

"""Stripe's form encoding: `metadata[order_id]=7&created[gte]=1700000000&expand[]=latest_charge`."""

import re
from typing import TypeVar, cast
from urllib.parse import parse_qsl

import msgspec

from stripe_emulator.errors import ApiError
from stripe_emulator.objects import Json

MAX_DEPTH = 6
NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
FIELD_OF_ERROR = re.compile(r"^(?P<what>.*) - at `\$\.?(?P<path>.*)`$", re.DOTALL)
# Sending "" unsets these; everywhere else it is a mistake.
MAY_BE_EMPTY = {"metadata", "description", "receipt_email", "shipping", "setup_future_usage"}

P = TypeVar("P", bound=msgspec.Struct)


def parse_form(raw: str) -> Json:
    """Nested dicts, lists and strings. Raises ApiError (400) for names that contradict each other."""
    form: Json = {}
    for name, value in parse_qsl(raw, keep_blank_values=True, errors="replace"):
        match = NAME.fullmatch(name)
        if match is None:
            raise ApiError(
                400, f"Invalid parameter name: {name[:100]}", code="parameter_unknown", param=name[:100]
            )
        path = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        if len(path) > MAX_DEPTH:
            raise ApiError(400, f"Parameter nested too deeply: {match[1]}", param=match[1])
        put(form, path, value)
    return {name: value if name == "metadata" else with_lists(value) for name, value in form.items()}


def put(node: Json, path: list[str], value: str) -> None:
    for step in path[:-1]:
        below = node.setdefault(step or str(len(node)), {})
        if not isinstance(below, dict):
            raise ApiError(400, f"Invalid object: {path[0]}", param=path[0])
        node = cast(Json, below)
    last = path[-1] or str(len(node))
    if isinstance(node.get(last), dict):
        raise ApiError(400, f"Invalid object: {path[0]}", param=path[0])
    node[last] = value


def with_lists(node: object) -> object:
    """A dict whose keys are all numbers (`expand[0]`, `expand[]`) was a list."""
    if not isinstance(node, dict):
        return node
    fields = {name: with_lists(value) for name, value in cast(Json, node).items()}
    if fields and all(name.isdecimal() for name in fields):
        return [fields[name] for name in sorted(fields, key=int)]
    return fields


def decode_params(form: Json, kind: type[P], *, drop_unknown: bool) -> P:
    """The struct of one endpoint. Raises ApiError (400) in the words of Stripe, naming the parameter."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    known = {name: value for name, value in form.items() if name in fields}
    if len(known) < len(form) and not drop_unknown:
        name = next(name for name in form if name not in fields)
        raise ApiError(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
    for name, field in fields.items():
        if field.required and name not in known:
            raise ApiError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    for name, value in known.items():
        if value == "" and name not in MAY_BE_EMPTY:
            raise ApiError(
                400,
                f"You passed an empty string for '{name}'. We assume empty values are an attempt to unset a "
                f"parameter; however '{name}' cannot be unset. You should remove '{name}' from your request "
                "or supply a non-empty value.",
                code="parameter_invalid_empty",
                param=name,
            )
    try:
        return msgspec.convert(known, kind, strict=False)
    except msgspec.ValidationError as error:
        raise invalid_param(error) from error


def invalid_param(error: msgspec.ValidationError) -> ApiError:
    match = FIELD_OF_ERROR.match(str(error))
    what, path = (match["what"], match["path"]) if match else (str(error), "")
    head, *rest = path.split(".")
    param = head + "".join(f"[{step}]" for step in rest)
    code = "parameter_invalid_integer" if "`int" in what else None
    return ApiError(400, f"Invalid {param}: {what}", code=code, param=param or None)

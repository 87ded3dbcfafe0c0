"""`expand[]`: ids replaced by the objects they name (https://docs.stripe.com/api/expanding_objects)."""

from typing import cast

import msgspec

from stripe_emulator.errors import ApiError
from stripe_emulator.objects import Json
from stripe_emulator.store import Transaction

EXPANDABLE = {"latest_charge", "payment_intent", "charge"}


def read_paths(wanted: object) -> list[list[str]]:
    """The parameter as it came, such as `latest_charge` or `data.payment_intent`. Raises ApiError (400)."""
    names = cast(list[object], wanted if isinstance(wanted, list) else [wanted])
    paths = [str(name).split(".") for name in names]
    for path in paths:
        if path[-1] not in EXPANDABLE:
            raise ApiError(400, f"This property cannot be expanded ({'.'.join(path)}).", param="expand")
    return paths


def expand(tx: Transaction, answer: object, paths: list[list[str]]) -> object:
    if not paths:
        return answer
    expanded = cast(object, msgspec.json.decode(msgspec.json.encode(answer)))
    for path in paths:
        expand_path(tx, expanded, path)
    return expanded


def expand_path(tx: Transaction, node: object, path: list[str]) -> None:
    if isinstance(node, list):
        for item in cast(list[object], node):
            expand_path(tx, item, path)
    elif isinstance(node, dict) and path:
        fields = cast(Json, node)
        below = fields.get(path[0])
        if isinstance(below, str):
            row = tx.db.execute("SELECT body FROM objects WHERE id = ?", (below,)).fetchone()
            if row is not None:
                fields[path[0]] = below = msgspec.json.decode(row[0])
        expand_path(tx, below, path[1:])

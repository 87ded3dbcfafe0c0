"""Lists as Stripe pages them: newest first, by cursor (https://docs.stripe.com/api/pagination)."""

from typing import Annotated

import msgspec

from stripe_emulator.errors import no_such
from stripe_emulator.store import Transaction

Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class CreatedRange(msgspec.Struct):
    """Unix seconds."""

    gt: Seconds | None = None
    gte: Seconds | None = None
    lt: Seconds | None = None
    lte: Seconds | None = None


class PageParams(msgspec.Struct, kw_only=True):
    """`payment_intent`, `charge` and `type` only where Stripe has them: the subclasses add them."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    starting_after: str | None = None
    ending_before: str | None = None
    created: Seconds | CreatedRange | None = None


class Page(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[msgspec.Raw]
    has_more: bool
    url: str


# One statement for both tables: {table} is one of two constants, everything else is bound.
SELECT = """
    SELECT body FROM {table}
    WHERE (:kind IS NULL OR {kind} = :kind)
      AND (:payment_intent IS NULL OR {payment_intent} = :payment_intent)
      AND (:charge IS NULL OR {charge} = :charge)
      AND created BETWEEN :low AND :high
      AND (:before IS NULL OR seq < :before)
      AND (:after IS NULL OR seq > :after)
    ORDER BY seq {order}
    LIMIT :limit
"""
OBJECT_COLUMNS = {"table": "objects", "kind": "kind", "payment_intent": "payment_intent", "charge": "charge"}
EVENT_COLUMNS = {"table": "events", "kind": "type", "payment_intent": "NULL", "charge": "NULL"}


def list_page(
    tx: Transaction,
    params: PageParams,
    *,
    url: str,
    kind: str | None,
    payment_intent: str | None = None,
    charge: str | None = None,
) -> Page:
    """`kind` is a struct's name, or for events (url /v1/events) an event type or None for all."""
    columns = EVENT_COLUMNS if url == "/v1/events" else OBJECT_COLUMNS
    low, high = created_bounds(params.created)
    backwards = params.ending_before is not None
    rows = tx.db.execute(
        SELECT.format(**columns, order="ASC" if backwards else "DESC"),
        {
            "kind": kind,
            "payment_intent": payment_intent,
            "charge": charge,
            "low": low,
            "high": high,
            "before": position(tx, columns["table"], params.starting_after, param="starting_after"),
            "after": position(tx, columns["table"], params.ending_before, param="ending_before"),
            "limit": params.limit + 1,
        },
    ).fetchall()
    bodies = [msgspec.Raw(body) for (body,) in rows[: params.limit]]
    if backwards:
        bodies.reverse()
    return Page(data=bodies, has_more=len(rows) > params.limit, url=url)


def position(tx: Transaction, table: str, cursor: str | None, *, param: str) -> int | None:
    if cursor is None:
        return None
    row = tx.db.execute(f"SELECT seq FROM {table} WHERE id = ?", (cursor,)).fetchone()
    if row is None:
        raise no_such("object", cursor, param=param, status=400)
    return row[0]


def created_bounds(created: int | CreatedRange | None) -> tuple[int, int]:
    """Inclusive; as wide as SQLite's integers when nothing is said."""
    low, high = 0, 2**62
    match created:
        case int():
            return created, created
        case CreatedRange():
            low = max(low, created.gte or 0, (created.gt or -1) + 1)
            high = min(
                high,
                high if created.lte is None else created.lte,
                high if created.lt is None else created.lt - 1,
            )
            return low, high
        case None:
            return low, high

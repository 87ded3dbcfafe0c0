"""The way of events to the webhook: rows of `deliveries`; knobs that delay, copy, hold and shuffle them."""

from typing import Annotated

import msgspec

from stripe_emulator.objects import Json
from stripe_emulator.store import Transaction

FIRST_RETRY_SECONDS = 0.3
LONGEST_RETRY_SECONDS = 5.0
GIVE_UP_SECONDS = 3 * 86_400


class DeliverySettings(msgspec.Struct, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """How events recorded from now on go out. `shuffle`: what is due together goes in random order."""

    delay_seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0
    copies: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    hold: bool = False
    shuffle: bool = False


class Due(msgspec.Struct, frozen=True):
    """A delivery whose time has come; `body` is what is signed and sent."""

    id: int
    event_id: str
    event_type: str
    attempts: int
    body: bytes


def read_settings(tx: Transaction) -> DeliverySettings:
    return tx.control("delivery", DeliverySettings) or DeliverySettings()


def schedule(tx: Transaction, event_id: str) -> None:
    """As the settings say at this moment."""
    settings = read_settings(tx)
    for _ in range(settings.copies):
        add(tx, event_id, due_at=tx.now + settings.delay_seconds, held=settings.hold)


def add(tx: Transaction, event_id: str, *, due_at: float, held: bool) -> None:
    tx.db.execute(
        "INSERT INTO deliveries (event_id, created_at, due_at, held) VALUES (?, ?, ?, ?)",
        (event_id, tx.now, due_at, held),
    )


def release(tx: Transaction) -> Json:
    """Makes what is held due at once."""
    rows = tx.db.execute(
        "UPDATE deliveries SET held = 0, due_at = ? WHERE held = 1 RETURNING event_id", (tx.now,)
    ).fetchall()
    return {"released": len(rows), "events": len(set(rows))}


def resume(tx: Transaction) -> None:
    """After a start: what waited for its next try is tried now."""
    tx.db.execute(
        """
        UPDATE deliveries SET due_at = min(due_at, :now)
        WHERE held = 0 AND delivered_at IS NULL AND gave_up_at IS NULL AND attempts > 0
        """,
        {"now": tx.now},
    )


def take_due(tx: Transaction, *, limit: int) -> list[Due]:
    """Oldest first, or shuffled. Nothing marks them as taken: the sender knows what it has under way."""
    order = "random()" if read_settings(tx).shuffle else "due_at, deliveries.id"
    rows = tx.db.execute(
        f"""
        SELECT deliveries.id, event_id, type, attempts, body
        FROM deliveries JOIN events ON events.id = event_id
        WHERE held = 0 AND delivered_at IS NULL AND gave_up_at IS NULL AND due_at <= ?
        ORDER BY {order}
        LIMIT ?
        """,
        (tx.now, limit),
    )
    return [Due(*row) for row in rows]


def next_due(tx: Transaction) -> float | None:
    """Unix seconds of the first delivery that is not due yet."""
    (due_at,) = tx.db.execute(
        """
        SELECT min(due_at) FROM deliveries
        WHERE held = 0 AND delivered_at IS NULL AND gave_up_at IS NULL AND due_at > ?
        """,
        (tx.now,),
    ).fetchone()
    return due_at


def record_attempt(tx: Transaction, due: Due, *, status: int | None, error: str | None) -> float | None:
    """Delivered on 2xx. Otherwise returns the seconds until the next try; None after three days."""
    if status is not None and 200 <= status < 300:
        tx.db.execute(
            """
            UPDATE deliveries
            SET attempts = attempts + 1, last_status = ?, last_error = NULL, delivered_at = ?
            WHERE id = ?
            """,
            (status, tx.now, due.id),
        )
        return None
    wait = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(due.attempts, 10))
    (gave_up_at,) = tx.db.execute(
        """
        UPDATE deliveries
        SET attempts = attempts + 1, last_status = :status, last_error = :error, due_at = :now + :wait,
            gave_up_at = CASE WHEN created_at < :now - :give_up THEN :now END
        WHERE id = :id
        RETURNING gave_up_at
        """,
        {
            "status": status,
            "error": error,
            "now": tx.now,
            "wait": wait,
            "give_up": GIVE_UP_SECONDS,
            "id": due.id,
        },
    ).fetchone() or (tx.now,)  # the row is gone after a reset
    return wait if gave_up_at is None else None

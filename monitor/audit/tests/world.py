"""A small world in which everything is in order, made by hand: rows, and payments at Stripe."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
from psycopg.types.json import Jsonb


class World:
    def __init__(self, conn: psycopg.Connection[Any], stripe: httpx.Client) -> None:
        self.conn = conn
        self.stripe = stripe

    def do(self, statement: str, **parameters: Any) -> int:
        return self.conn.execute(statement.encode(), parameters).rowcount

    def pay(self, amount_minor: int, order_id: UUID) -> str:
        """The id of a PaymentIntent that succeeded."""
        made = self.stripe.post(
            "/v1/payment_intents",
            data={"amount": amount_minor, "currency": "eur", "metadata[orderId]": str(order_id)},
        ).json()
        paid = self.stripe.post(
            f"/v1/payment_intents/{made['id']}/confirm", data={"payment_method": "pm_card_visa"}
        ).json()
        assert paid["status"] == "succeeded", paid
        return made["id"]

    def refund(self, intent_id: str, amount_minor: int, order_id: UUID | None = None) -> str:
        data = {"payment_intent": intent_id, "amount": amount_minor}
        made = self.stripe.post(
            "/v1/refunds", data=data | ({"metadata[orderId]": str(order_id)} if order_id else {})
        )
        assert made.status_code == 200, made.text
        return made.json()["id"]

    def event(self, *, seats: int = 4) -> tuple[UUID, list[UUID]]:
        event_id, venue_id = uuid4(), uuid4()
        seat_ids = sorted(uuid4() for _ in range(seats))
        ids = {"event": event_id, "venue": venue_id, "count": seats, "seats": seat_ids}
        self.do(
            """
            INSERT INTO catalog.venues (id, name, address, city, state, zip, country)
            VALUES (%(venue)s, 'Hall', 'a', 'c', 's', 'z', 'DE')
            """,
            **ids,
        )
        self.do(
            """
            INSERT INTO catalog.events (id, venue_id, name, starts_at, ends_at, status, currency, seat_count,
                                        venue_seats_version, published_at, updated_at)
            VALUES (%(event)s, %(venue)s, 'Show', now(), now(), 'published', 'eur', %(count)s, 1,
                    now() - interval '1 hour', now() - interval '1 hour')
            """,
            **ids,
        )
        self.do(
            """
            INSERT INTO inventory.events (event_id, version, status, currency, seat_map_version, seat_count,
                                          built_version)
            VALUES (%(event)s, 1, 'published', 'eur', 1, %(count)s, 1)
            """,
            **ids,
        )
        self.do(
            """
            INSERT INTO inventory.event_seats (event_id, seat_id, section)
            SELECT %(event)s, seat_id, 'A' FROM unnest(%(seats)s::uuid[]) AS seat_id
            """,
            **ids,
        )
        return event_id, seat_ids

    def hold(self, event_id: UUID, seat_ids: list[UUID], *, status: str = "active") -> dict[str, Any]:
        ids = {
            "hold": uuid4(),
            "event": event_id,
            "user": uuid4(),
            "seat_ids": seat_ids,
            "seats": Jsonb([{"seatId": str(each), "amountMinor": 4500} for each in seat_ids]),
            "amount": 4500 * len(seat_ids),
            "status": status,
        }
        self.do(
            """
            INSERT INTO inventory.holds (event_id, hold_id, user_id, status, seat_ids, seats, amount_minor,
                                         currency, placed_at, expires_at)
            VALUES (%(event)s, %(hold)s, %(user)s, %(status)s, %(seat_ids)s, %(seats)s, %(amount)s, 'eur',
                    now() - interval '1 hour', now() + interval '1 hour')
            """,
            **ids,
        )
        self.do(
            "UPDATE inventory.event_seats SET hold_id = %(hold)s"
            " WHERE event_id = %(event)s AND seat_id = ANY(%(seat_ids)s)",
            **ids,
        )
        self.do(
            """
            INSERT INTO payments.holds (id, event_id, user_id, status, seat_ids, seats, amount_minor,
                                        currency, expires_at)
            VALUES (%(hold)s, %(event)s, %(user)s, %(status)s, %(seat_ids)s, %(seats)s, %(amount)s, 'eur',
                    now() + interval '1 hour')
            """,
            **ids,
        )
        return ids

    def order(self, hold: dict[str, Any], status: str, *, intent: str | None = None) -> dict[str, Any]:
        """An hour old. With `intent`, a PaymentIntent's id, it has one, and its capture is recorded."""
        made: dict[str, Any] = {
            **hold,
            "order": hold.get("order", uuid4()),
            "status": status,
            "intent": intent,
        }
        self.do(
            """
            INSERT INTO payments.orders (id, hold_id, event_id, user_id, status, amount_minor, currency,
                                         seats, created_at, expires_at, payment_intent_id, client_secret,
                                         paid_at, fulfilled_at, ended_at, refund_reason, refunding_at)
            SELECT %(order)s, %(hold)s, %(event)s, %(user)s, %(status)s, %(amount)s, 'eur', %(seats)s,
                   at, at + interval '15 minutes', %(intent)s, %(intent)s,
                   CASE WHEN %(status)s IN ('paid', 'fulfilled', 'refunding') THEN at END,
                   CASE WHEN %(status)s = 'fulfilled' THEN at END,
                   CASE WHEN %(status)s IN ('cancelled', 'expired') THEN at END,
                   CASE WHEN %(status)s = 'refunding' THEN 'admin' END,
                   CASE WHEN %(status)s = 'refunding' THEN at END
              FROM (SELECT now() - interval '1 hour' AS at) AS moment
            """,
            **made,
        )
        self.do("UPDATE inventory.holds SET order_id = %(order)s WHERE hold_id = %(hold)s", **made)
        if intent:
            self.record(intent, made["order"], hold["amount"])
        return made

    def record(self, intent: str, order_id: UUID, amount_minor: int) -> None:
        self.do(
            "INSERT INTO payments.payments (payment_intent_id, order_id, amount_minor, currency)"
            " VALUES (%(intent)s, %(order)s, %(amount)s, 'eur')",
            intent=intent,
            order=order_id,
            amount=amount_minor,
        )

    def sell(self, *, seats: int = 2) -> dict[str, Any]:
        """A purchase that ended well."""
        event_id, seat_ids = self.event()
        hold = self.hold(event_id, seat_ids[:seats])
        hold["order"] = uuid4()
        sold = self.order(hold, "fulfilled", intent=self.pay(hold["amount"], hold["order"]))
        self.do("UPDATE inventory.holds SET status = 'confirmed' WHERE hold_id = %(hold)s", **sold)
        self.do("UPDATE payments.holds SET status = 'confirmed' WHERE id = %(hold)s", **sold)
        self.do(
            "INSERT INTO inventory.sales VALUES (%(order)s, %(event)s, %(hold)s, %(user)s, 'issued')", **sold
        )
        self.do(
            "UPDATE inventory.event_seats SET sold_order_id = %(order)s"
            " WHERE event_id = %(event)s AND seat_id = ANY(%(seat_ids)s)",
            **sold,
        )
        for seat_id in sold["seat_ids"]:
            self.ticket(sold, seat_id)
        return sold

    def ticket(self, sold: dict[str, Any], seat_id: UUID) -> None:
        self.do(
            """
            INSERT INTO inventory.tickets (event_id, ticket_id, order_id, user_id, seat_id, section, status,
                                           issued_at)
            VALUES (%(event)s, gen_random_uuid(), %(order)s, %(user)s, %(seat)s, 'A', 'issued', now())
            """,
            **{**sold, "seat": seat_id},
        )

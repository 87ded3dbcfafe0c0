"""Inconsistencies made by hand: each plants one thing, and returns the id by which it is found."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

from monitor.audit.tests.world import World


def new_order() -> dict[str, Any]:
    return {"order": uuid4()}


def seat_sold_twice(world: World) -> UUID:
    sold = world.sell()
    world.do("DROP INDEX inventory.tickets_valid_seat")
    world.ticket({**sold, "order": world.sell()["order"]}, sold["seat_ids"][0])
    return sold["seat_ids"][0]


def sold_seat_without_ticket(world: World) -> UUID:
    sold = world.sell()
    world.do("DELETE FROM inventory.tickets WHERE seat_id = %(seat)s", seat=sold["seat_ids"][0])
    return sold["seat_ids"][0]


def ticket_whose_seat_is_free(world: World) -> UUID:
    sold = world.sell()
    world.do("UPDATE inventory.event_seats SET sold_order_id = NULL, hold_id = NULL")
    return sold["seat_ids"][1]


def held_seat_that_another_hold_has(world: World) -> UUID:
    event_id, seats = world.event()
    robbed = world.hold(event_id, seats[:2])
    world.hold(event_id, seats[1:3])
    return robbed["hold"]


def confirmed_hold_without_order(world: World) -> UUID:
    sold = world.sell()
    world.do("ALTER TABLE payments.payments DROP CONSTRAINT payments_order_id_fkey")
    world.do("DELETE FROM payments.orders")
    return sold["hold"]


def hold_past_its_deadline(world: World) -> UUID:
    hold = world.hold(*world.event())
    world.do("UPDATE inventory.holds SET expires_at = now() - interval '5 minutes'")
    return hold["hold"]


def cancelled_event_with_valid_tickets(world: World) -> UUID:
    sold = world.sell()
    world.do(
        "UPDATE catalog.events SET status = 'cancelled', version = 2, updated_at = now() - interval '1 hour'"
    )
    world.do("UPDATE inventory.events SET status = 'cancelled', version = 2")
    return sold["event"]


def fulfilled_order_with_too_few_tickets(world: World) -> UUID:
    sold = world.sell()
    seat = sold["seat_ids"][0]
    world.do("UPDATE inventory.tickets SET status = 'void' WHERE seat_id = %(seat)s", seat=seat)
    world.do("UPDATE inventory.event_seats SET sold_order_id = NULL WHERE seat_id = %(seat)s", seat=seat)
    return sold["order"]


def ticket_without_payment(world: World) -> UUID:
    sold = world.sell()
    world.do("DELETE FROM payments.payments")
    return sold["order"]


def tickets_of_an_order_that_expired(world: World) -> UUID:
    sold = world.sell()
    world.do(
        "UPDATE payments.orders"
        " SET status = 'expired', ended_at = paid_at, paid_at = NULL, fulfilled_at = NULL"
    )
    return sold["order"]


def tickets_of_another_user_than_the_buyer(world: World) -> UUID:
    sold = world.sell()
    world.do("UPDATE inventory.tickets SET user_id = gen_random_uuid()")
    return sold["order"]


def fulfilled_order_of_which_inventory_knows_no_sale(world: World) -> UUID:
    sold = world.sell()
    world.do("DELETE FROM inventory.sales")
    return sold["order"]


def sale_that_was_rejected_after_all(world: World) -> UUID:
    sold = world.sell()
    world.do("UPDATE inventory.sales SET status = 'rejected'")
    return sold["order"]


def order_of_another_amount_than_its_hold(world: World) -> UUID:
    sold = world.sell()
    world.do("UPDATE payments.orders SET amount_minor = 100")
    return sold["order"]


def hold_with_two_orders(world: World) -> UUID:
    sold = world.sell()
    world.do("ALTER TABLE payments.orders DROP CONSTRAINT orders_hold_id_key")
    world.order({**sold, "order": uuid4()}, "cancelled")
    return sold["hold"]


def hold_that_payments_never_heard_of(world: World) -> UUID:
    hold = world.hold(*world.event())
    world.do("DELETE FROM payments.holds WHERE id = %(hold)s", **hold)
    return hold["hold"]


def hold_that_payments_has_at_another_price(world: World) -> UUID:
    hold = world.hold(*world.event())
    world.do("UPDATE payments.holds SET amount_minor = 1 WHERE id = %(hold)s", **hold)
    return hold["hold"]


def event_that_inventory_has_in_part(world: World) -> UUID:
    event_id, seats = world.event()
    world.do("DELETE FROM inventory.event_seats WHERE seat_id = %(seat)s", seat=seats[0])
    return event_id


def payment_that_we_do_not_know(world: World) -> str:
    order = world.order(world.hold(*world.event(), status="released"), "cancelled")
    return world.pay(order["amount"], order["order"])


def payment_of_an_order_that_is_not_there(world: World) -> str:
    return world.pay(4500, uuid4())


def paid_order_that_stripe_does_not_know(world: World) -> str:
    sold = world.sell()
    world.do("ALTER TABLE payments.payments DROP CONSTRAINT IF EXISTS payments_pkey CASCADE")
    world.do(
        "UPDATE payments.payments SET payment_intent_id = 'pi_invented' WHERE order_id = %(order)s", **sold
    )
    return "pi_invented"


def captured_amount_that_differs(world: World) -> str:
    sold = world.sell()
    answer = world.stripe.put(f"/_emulator/payment_intents/{sold['intent']}", json={"amount": 1})
    assert answer.status_code == 200, answer.text
    return sold["intent"]


def payment_without_ticket_or_refund(world: World) -> UUID:
    hold = world.hold(*world.event(), status="released") | new_order()
    return world.order(hold, "cancelled", intent=world.pay(hold["amount"], hold["order"]))["order"]


def tickets_and_the_money_back(world: World) -> UUID:
    sold = world.sell()
    world.refund(sold["intent"], sold["amount"])
    return sold["order"]


def second_payment_of_an_order(world: World) -> UUID:
    sold = world.sell()
    world.record(world.pay(sold["amount"], sold["order"]), sold["order"], sold["amount"])
    return sold["order"]


def two_refunds_of_one_payment(world: World) -> str:
    sold = world.sell()
    for _ in range(2):
        world.refund(sold["intent"], 4500, sold["order"])
    return sold["intent"]


def refund_that_stripe_does_not_know(world: World) -> str:
    sold = world.sell()
    world.do(
        "INSERT INTO payments.refunds VALUES ('re_invented', %(intent)s, 4500, 'eur', 'succeeded')", **sold
    )
    return "re_invented"


def order_that_stays_paid(world: World) -> UUID:
    hold = world.hold(*world.event()) | new_order()
    return world.order(hold, "paid", intent=world.pay(hold["amount"], hold["order"]))["order"]


def order_that_stays_pending(world: World) -> UUID:
    return world.order(world.hold(*world.event()), "pending")["order"]


def refund_that_never_comes(world: World) -> UUID:
    hold = world.hold(*world.event(), status="released") | new_order()
    return world.order(hold, "refunding", intent=world.pay(hold["amount"], hold["order"]))["order"]


def money_that_no_ticket_explains(world: World) -> str:
    sold = world.sell()
    world.do("UPDATE inventory.tickets SET status = 'void' WHERE order_id = %(order)s", **sold)
    return f"eur {sold['amount']}"


def message_that_stays_in_the_outbox(world: World) -> str:
    world.do(
        "INSERT INTO inventory.outbox (topic, key, type, body, created_at)"
        " VALUES ('inventory.holds', 'k', 'hold.placed', '{}', now() - interval '1 hour')"
    )
    return "inventory.outbox/1"


PLANTS: dict[Callable[[World], UUID | str], str] = {
    seat_sold_twice: "seat-twice",
    sold_seat_without_ticket: "seat-without-ticket",
    ticket_whose_seat_is_free: "ticket-without-seat",
    held_seat_that_another_hold_has: "hold-without-seats",
    confirmed_hold_without_order: "hold-without-order",
    hold_past_its_deadline: "hold-not-ended",
    cancelled_event_with_valid_tickets: "cancelled-event",
    fulfilled_order_with_too_few_tickets: "order-without-tickets",
    ticket_without_payment: "ticket-without-payment",
    tickets_of_an_order_that_expired: "ticket-without-payment",
    tickets_of_another_user_than_the_buyer: "ticket-without-payment",
    fulfilled_order_of_which_inventory_knows_no_sale: "sale-and-order",
    sale_that_was_rejected_after_all: "sale-and-order",
    order_of_another_amount_than_its_hold: "order-amount",
    hold_with_two_orders: "hold-with-two-orders",
    hold_that_payments_never_heard_of: "hold-projection",
    hold_that_payments_has_at_another_price: "hold-projection",
    event_that_inventory_has_in_part: "event-projection",
    payment_that_we_do_not_know: "payment-unknown-here",
    payment_of_an_order_that_is_not_there: "payment-unknown-here",
    paid_order_that_stripe_does_not_know: "payment-unknown-to-stripe",
    captured_amount_that_differs: "payment-amount",
    payment_without_ticket_or_refund: "payment-without-ticket",
    tickets_and_the_money_back: "payment-without-ticket",
    second_payment_of_an_order: "payment-without-ticket",
    two_refunds_of_one_payment: "refund-twice",
    refund_that_stripe_does_not_know: "refund-differs",
    order_that_stays_paid: "order-late",
    order_that_stays_pending: "order-late",
    refund_that_never_comes: "order-late",
    money_that_no_ticket_explains: "sums",
    message_that_stays_in_the_outbox: "outbox",
}

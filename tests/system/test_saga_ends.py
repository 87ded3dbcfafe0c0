"""Every end of a purchase, driven through the gateway: tickets and our money, or neither."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.system.shop import Client, Shop, eventually


def buy(shop: Shop, buyer: Client, *, seats: int = 2) -> dict[str, Any]:
    event = shop.event()
    order = buyer.check_out(buyer.hold(event, shop.seats(event)[:seats]))
    shop.stripe.pay(order)
    buyer.order_becomes(order, "fulfilled")
    return {**order, "event": event}


def test_declined_card_then_another_buys_the_tickets(shop: Shop) -> None:
    buyer, event = shop.buyer(), shop.event()
    hold = buyer.hold(event, shop.seats(event)[:2])
    order = buyer.check_out(hold)
    assert (order["status"], order["amountMinor"], order["currency"]) == ("pending", 9000, "eur")
    assert shop.stripe.confirm(order, "pm_card_visa_chargeDeclined").status_code == 402
    assert buyer.get(f"/orders/{order['orderId']}")["status"] == "pending"
    shop.stripe.pay(order)
    buyer.order_becomes(order, "fulfilled")
    assert {each["status"] for each in buyer.tickets(order)} == {"issued"}
    assert len(buyer.tickets(order)) == 2
    assert len(shop.seats(event, "sold")) == 2


def test_checkout_again_gives_the_same_order_and_secret(shop: Shop) -> None:
    buyer, event = shop.buyer(), shop.event()
    hold = buyer.hold(event, shop.seats(event)[:1])
    with ThreadPoolExecutor(8) as threads:
        orders = list(threads.map(buyer.check_out, [hold] * 8))
    assert len({(each["orderId"], each["clientSecret"]) for each in orders}) == 1
    shop.stripe.pay(orders[0])
    buyer.order_becomes(orders[0], "fulfilled")


def test_free_order_is_fulfilled_without_stripe(shop: Shop) -> None:
    buyer, event = shop.buyer(), shop.event(amount_minor=0)
    order = buyer.check_out(buyer.hold(event, shop.seats(event)[:3]))
    assert order["clientSecret"] is None
    buyer.order_becomes(order, "fulfilled")
    assert len(buyer.tickets(order)) == 3


def test_buyer_cancels_and_the_seats_are_free_and_cannot_be_paid_any_more(shop: Shop) -> None:
    buyer, event = shop.buyer(), shop.event()
    order = buyer.check_out(buyer.hold(event, shop.seats(event)[:2]))
    assert buyer.call("POST", f"/orders/{order['orderId']}/cancel")["status"] == "cancelled"
    assert shop.stripe.intent(order)["status"] == "canceled"
    assert shop.stripe.confirm(order).status_code == 400
    eventually(lambda: shop.seats(event), until=lambda free: len(free) == 10)
    buyer.call("POST", "/orders/checkout", {"reservationId": order["reservationId"]}, expect=410)


def test_paid_order_cannot_be_cancelled(shop: Shop) -> None:
    buyer = shop.buyer()
    order = buy(shop, buyer)
    buyer.call("POST", f"/orders/{order['orderId']}/cancel", expect=409)


def test_admin_refund_voids_the_tickets_frees_the_seats_and_returns_the_money(shop: Shop) -> None:
    buyer = shop.buyer()
    order = buy(shop, buyer)
    path = f"/orders/{order['orderId']}/refund"
    buyer.call("POST", path, expect=403)
    assert shop.admin.call("POST", path)["status"] == "refunding"
    buyer.order_becomes(order, "refunded")
    assert shop.admin.call("POST", path)["status"] == "refunded"
    assert {each["status"] for each in buyer.tickets(order)} == {"void"}
    assert shop.stripe.refunded(order) == 9000
    assert len(shop.seats(order["event"])) == 10


def test_refund_is_refused_once_a_ticket_was_used(shop: Shop) -> None:
    buyer = shop.buyer()
    order = buy(shop, buyer)
    code = {"qrPayload": buyer.tickets(order)[0]["qrPayload"]}
    admitted = shop.admin.call("POST", "/tickets/check-in", code)
    refused = shop.admin.call("POST", "/tickets/check-in", code, expect=409)
    assert refused["checkedInAt"] == admitted["checkedInAt"]
    shop.admin.call("POST", f"/orders/{order['orderId']}/refund")
    buyer.order_becomes(order, "fulfilled")
    assert shop.stripe.refunded(order) == 0


def test_unpaid_order_cannot_be_refunded(shop: Shop) -> None:
    buyer, event = shop.buyer(), shop.event()
    order = buyer.check_out(buyer.hold(event, shop.seats(event)[:1]))
    shop.admin.call("POST", f"/orders/{order['orderId']}/refund", expect=409)


def test_cancelled_event_refunds_all_its_orders_and_ends_its_holds(shop: Shop) -> None:
    event = shop.event()
    seats = shop.seats(event)
    paying, free_rider = [shop.buyer() for _ in range(2)], shop.buyer()
    orders: list[dict[str, Any]] = []
    for buyer, seat_id in zip(paying, seats, strict=False):
        order = buyer.check_out(buyer.hold(event, [seat_id]))
        shop.stripe.pay(order)
        buyer.order_becomes(order, "fulfilled")
        orders.append(order)
    unpaid = free_rider.check_out(free_rider.hold(event, seats[5:6]))
    held = free_rider.hold(event, seats[6:7])
    assert shop.admin.call("POST", f"/events/{event['id']}/cancel")["status"] == "cancelled"
    for buyer, order in zip(paying, orders, strict=True):
        buyer.order_becomes(order, "refunded")
        assert shop.stripe.refunded(order) == 4500
        assert {each["status"] for each in buyer.tickets(order)} == {"void"}
    free_rider.order_becomes(unpaid, "cancelled")
    assert shop.stripe.intent(unpaid)["status"] == "canceled"
    eventually(
        lambda: free_rider.get(f"/reservations/{held['id']}")["status"],
        until=lambda status: status == "released",
    )
    free_rider.call("POST", "/reservations", {"eventId": event["id"], "seatIds": seats[7:8]}, expect=409)


def test_refund_made_in_stripes_dashboard_voids_the_tickets(shop: Shop) -> None:
    buyer = shop.buyer()
    order = buy(shop, buyer)
    answer = shop.stripe.http.post("/v1/refunds", data={"payment_intent": shop.stripe.intent(order)["id"]})
    assert answer.status_code == 200, answer.text
    buyer.order_becomes(order, "refunded")
    assert {each["status"] for each in buyer.tickets(order)} == {"void"}
    assert shop.stripe.refunded(order) == 9000


def test_two_buyers_of_one_seat_make_one_owner(shop: Shop) -> None:
    event = shop.event()
    [seat_id, *_] = shop.seats(event)
    buyers = [shop.buyer() for _ in range(6)]
    wish = {"eventId": event["id"], "seatIds": [seat_id]}
    with ThreadPoolExecutor(6) as threads:
        tries = [threads.submit(each.request, "POST", "/reservations", wish) for each in buyers]
        answers = [each.result() for each in tries]
    assert sorted(each.status_code for each in answers) == [200] + [409] * 5
    assert {tuple(each.json()["seatIds"]) for each in answers if each.status_code == 409} == {(seat_id,)}


def test_what_belongs_to_another_is_404(shop: Shop) -> None:
    buyer, stranger, event = shop.buyer(), shop.buyer(), shop.event()
    hold = buyer.hold(event, shop.seats(event)[:1])
    order = buyer.check_out(hold)
    stranger.call("GET", f"/orders/{order['orderId']}", expect=404)
    stranger.call("GET", f"/reservations/{hold['id']}", expect=404)
    stranger.call("POST", f"/orders/{order['orderId']}/cancel", expect=404)
    stranger.call("POST", "/orders/checkout", {"reservationId": hold["id"]}, expect=404)
    assert shop.admin.get(f"/orders/{order['orderId']}")["id"] == order["orderId"]


def test_disabled_users_token_is_refused_everywhere(shop: Shop) -> None:
    buyer = shop.buyer()
    buyer.get("/orders")
    shop.admin.call("PATCH", f"/auth/users/{buyer.id}", {"disabled": True})
    for path in ("/orders", "/reservations", "/tickets", "/auth/me"):
        eventually(
            lambda path=path: buyer.request("GET", path).status_code, until=lambda status: status == 401
        )

"""Delivery of events, and the knobs on it."""

import time
from collections import Counter
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest
import stripe
from stripe_emulator.testing import Emulator, Receiver, client_of, until

# The SDK hands bytes to httpx in a way that httpx deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

PAID = ["charge.succeeded", "payment_intent.created", "payment_intent.succeeded"]


async def pay(client: stripe.StripeClient) -> str:
    intent = await client.v1.payment_intents.create_async(
        {"amount": 100, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    )
    return intent.id


async def test_delivery_is_prompt(client: stripe.StripeClient, receiver: Receiver) -> None:
    await pay(client)
    started_at = time.monotonic()
    for n in range(10):
        intent_id = await pay(client)
        await until(lambda intent_id=intent_id: sorted(receiver.types(intent_id)) == PAID)
        assert len(receiver.events) == 3 * (n + 2)
    assert (time.monotonic() - started_at) / 10 < 0.25


async def test_a_refused_webhook_is_tried_again_with_a_fresh_signature(
    client: stripe.StripeClient, receiver: Receiver, emulator: Emulator
) -> None:
    receiver.statuses = [500, 503, 302, 404]
    intent_id = await pay(client)
    await until(lambda: sorted(receiver.types(intent_id)) == PAID)
    assert receiver.refused == 4
    assert max(receiver.timestamps) >= int(time.time()) - 5

    def deliveries() -> list[dict[str, object]]:
        return [delivery for event in emulator.control("GET", "events") for delivery in event["deliveries"]]

    await until(lambda: all(delivery["deliveredAt"] for delivery in deliveries()))
    assert sum(int(str(delivery["attempts"])) for delivery in deliveries()) == 7
    assert {delivery["lastStatus"] for delivery in deliveries()} == {200}


async def test_a_slow_delivery_does_not_hold_back_others(
    client: stripe.StripeClient, receiver: Receiver
) -> None:
    receiver.slow_types = {"charge.succeeded"}
    ids = [await pay(client) for _ in range(3)]
    await until(lambda: all("payment_intent.succeeded" in receiver.types(i) for i in ids))
    assert not any("charge.succeeded" in receiver.types(i) for i in ids)
    receiver.go_on.set()
    await until(lambda: all(sorted(receiver.types(i)) == PAID for i in ids))


async def test_undelivered_webhooks_survive_kill_9(
    own_emulator: Emulator, own_client: stripe.StripeClient, receiver: Receiver
) -> None:
    receiver.statuses = [500] * 1000
    own_emulator.control("PUT", "delivery", {"copies": 2})
    intent_id = await pay(own_client)
    own_emulator.end(SIGKILL)
    receiver.statuses.clear()
    own_emulator.start()
    # At least: one whose 200 the killed process did not live to see is sent again.
    await until(lambda: Counter(PAID * 2) <= Counter(receiver.types(intent_id)))
    assert own_emulator.control("GET", "delivery")["copies"] == 2


async def test_the_receiver_may_be_away_and_come_back(tmp_path: Path, sdk: stripe.HTTPXClient) -> None:
    receiver = Receiver()
    receiver.close()
    emulator = Emulator(tmp_path, receiver.url)
    emulator.start()
    intent_id = await pay(client_of(emulator, sdk))
    await until(lambda: all(e["deliveries"][0]["attempts"] for e in emulator.control("GET", "events")))
    back = Receiver(receiver.port)
    await until(lambda: sorted(back.types(intent_id)) == PAID)
    back.close()
    assert emulator.end(SIGTERM) == 0


async def test_an_idle_emulator_is_small(emulator: Emulator) -> None:
    assert emulator.resident_mb() < 100


async def test_held_events_wait_for_their_release(
    client: stripe.StripeClient, receiver: Receiver, emulator: Emulator
) -> None:
    emulator.control("PUT", "delivery", {"hold": True})
    held_id = await pay(client)
    assert emulator.control("PUT", "delivery", {}) == {
        "delaySeconds": 0,
        "copies": 1,
        "hold": False,
        "shuffle": False,
    }
    free_id = await pay(client)
    await until(lambda: sorted(receiver.types(free_id)) == PAID)
    assert receiver.types(held_id) == [], "later events overtake what is held"
    assert emulator.control("POST", "delivery/release") == {"released": 3, "events": 3}
    await until(lambda: sorted(receiver.types(held_id)) == PAID)
    assert emulator.control("POST", "delivery/release") == {"released": 0, "events": 0}


async def test_each_event_comes_as_often_as_copies_says(
    client: stripe.StripeClient, receiver: Receiver, emulator: Emulator
) -> None:
    emulator.control("PUT", "delivery", {"copies": 3, "shuffle": True})
    intent_id = await pay(client)
    await until(lambda: sorted(receiver.types(intent_id)) == sorted(PAID * 3))
    assert len({event["id"] for event in receiver.events}) == 3


async def test_shuffled_events_come_in_another_order(
    client: stripe.StripeClient, receiver: Receiver, emulator: Emulator
) -> None:
    emulator.control("PUT", "delivery", {"hold": True, "shuffle": True})
    for _ in range(8):
        await pay(client)
    recorded = [event["id"] for event in emulator.control("GET", "events")]
    emulator.control("POST", "delivery/release")
    await until(lambda: len(receiver.events) == 24)
    assert sorted(event["id"] for event in receiver.events) == sorted(recorded)
    # Side by side, neighbours may swap by themselves; that the first half comes from all over is shuffling.
    places = [recorded.index(event["id"]) for event in receiver.events]
    assert max(places[:12]) > 15


async def test_a_delay_is_kept(client: stripe.StripeClient, receiver: Receiver, emulator: Emulator) -> None:
    emulator.control("PUT", "delivery", {"delaySeconds": 0.3})
    started_at = time.monotonic()
    intent_id = await pay(client)
    await until(lambda: sorted(receiver.types(intent_id)) == PAID)
    assert time.monotonic() - started_at >= 0.3


async def test_an_event_can_be_delivered_again_and_read(
    client: stripe.StripeClient, receiver: Receiver, emulator: Emulator
) -> None:
    intent_id = await pay(client)
    await until(lambda: len(receiver.types(intent_id)) == 3)
    events = await client.v1.events.list_async({"type": "payment_intent.succeeded"})
    assert [event.data.object["id"] for event in events.data] == [intent_id]
    emulator.control("POST", f"events/{events.data[0].id}/deliver")
    await until(lambda: receiver.types(intent_id).count("payment_intent.succeeded") == 2)
    found = await client.v1.events.retrieve_async(events.data[0].id)
    assert found.type == "payment_intent.succeeded"
    assert found.request is not None
    assert found.request.idempotency_key

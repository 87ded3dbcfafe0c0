"""Kafka away for long: holds go on, webhooks are answered 200, and all orders end well once it is back."""

import asyncio
import random
import time

from tests.faults.suite import Result, Suite

ANSWER_SECONDS = 10.0


async def take_kafka_away(suite: Suite, *, seconds: float, seed: int) -> Result:
    """Orders placed before are paid one after another while it is away, and all get their tickets after."""
    draw = random.Random(seed)
    stage, market = suite.stage, suite.market
    name = f"kafka away for {seconds:.0f} s"
    faults: list[str] = []
    ready = []
    while len(ready) < max(4, min(20, int(seconds / 15))):
        buyer = await market.buyer()
        purchase = await buyer.hold(draw=draw, seats=1)
        if purchase and await buyer.check_out(purchase):
            ready.append(purchase)
    # Seats for all the while: inventory hears of no new event without Kafka.
    await market.open_event()
    await stage.stop("kafka")
    gone_at = time.monotonic()
    holds = 0
    for number, purchase in enumerate(ready, start=1):
        await purchase.buyer.pay(purchase)
        asked_at = time.monotonic()
        while (held := await purchase.buyer.hold(draw=draw, seats=1)) is None:
            pass  # a rival was faster: an answer too
        holds += 1
        if (waited := time.monotonic() - asked_at) > ANSWER_SECONDS:
            faults.append(f"{name}: a hold took {waited:.1f} s")
        await purchase.buyer.call("DELETE", f"/reservations/{held.hold_id}")
        await asyncio.sleep(max(0.0, gone_at + seconds * number / len(ready) - time.monotonic()))
    intents = {purchase.intent_id for purchase in ready}
    for event in await stage.webhooks():
        if event["type"] == "payment_intent.succeeded" and event["data"]["object"]["id"] in intents:
            wrong = [
                each for each in event["deliveries"] if each["lastStatus"] != 200 or each["attempts"] > 1
            ]
            faults += [f"{name}: a webhook was answered {each}" for each in wrong]
            intents.discard(event["data"]["object"]["id"])
    faults += [f"{name}: no webhook of {intent}" for intent in intents]
    stage.begin_start("kafka")
    result = Result(name, "kafka", await suite.seconds_to_sell(time.monotonic()), faults=faults)
    ends = [await suite.end_of(purchase) for purchase in ready]
    result.marked = f"{holds} holds and {len(ready)} payments meanwhile, {ends.count('fulfilled')} fulfilled"
    result.faults += [
        f"{name}: a paid order is {end}" for end in ends if end not in ("fulfilled", "refunded")
    ]
    return await suite.finish(result)

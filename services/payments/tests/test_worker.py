"""The worker as a process: over Kafka, killed half-way, to the end."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from contracts.messages import Message, PaymentSucceeded
from libs.ids import new_id
from libs.messaging.topics import create_topics

from services.payments.tests.support import Buyer, Shop, issued, make_hold, until, voided

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of Stripe's SDK

TOPICS = ("payments.orders", "payment.succeeded.dlq")


class Kafka:
    """The far side of payments' topics."""

    def __init__(self, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer) -> None:
        self._producer = producer
        self._consumer = consumer
        self.told: list[tuple[str, bytes, str]] = []
        """(topic, key, type) of what was read so far."""

    async def send(self, message: Message, *, message_id: str | None = None) -> None:
        key = str(getattr(message, message.KEY)).encode()
        await self._producer.send_and_wait(
            message.TOPIC,
            key=key,
            value=msgspec.json.encode(message),
            headers=[
                ("ce_id", (message_id or str(new_id())).encode()),
                ("ce_type", message.TYPE.encode()),
            ],
        )

    async def heard(self, topic: str, key: object, type_: str) -> None:
        wanted = (topic, str(key).encode(), type_)
        async with asyncio.timeout(60):
            while wanted not in self.told:
                record: Any = await self._consumer.getone()
                self.told.append((record.topic, record.key, dict(record.headers)["ce_type"].decode()))


@pytest_asyncio.fixture
async def kafka(environment: dict[str, str]) -> AsyncGenerator[Kafka]:
    brokers = environment["KAFKA_BROKERS"]
    await create_topics(brokers)
    consumer = AIOKafkaConsumer(*TOPICS, bootstrap_servers=brokers, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await consumer.start()
    await producer.start()
    yield Kafka(producer, consumer)
    await producer.stop()
    await consumer.stop()


async def start_worker() -> asyncio.subprocess.Process:
    """Its environment is the test's: fixtures have put everything there."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "payments.worker",
        env={**os.environ, "KAFKA_PAYMENT_CONSUMER_RETRY_BACKOFF_MS": "10"},
    )


async def test_order_goes_its_whole_way_though_the_worker_is_killed(
    shop: Shop, buyer: Buyer, kafka: Kafka
) -> None:
    worker = await start_worker()
    try:
        hold = make_hold(buyer.id)
        for _ in range(2):
            await kafka.send(hold, message_id=str(hold.hold_id))

        async def checked_out() -> dict[str, Any] | None:
            answer = await buyer.try_checkout(hold)
            return answer.json() if answer.status_code == 200 else None

        order = await until(checked_out, seconds=60)
        await kafka.heard("payments.orders", order["id"], "order.placed")
        worker.kill()
        await worker.wait()
        # Paid while nobody is there to see it.
        await shop.pay(order)
        letter = await shop.letter("payment_intent.succeeded", order)
        for _ in range(3):
            assert (await shop.post_webhook(letter)).status_code == 200
        worker = await start_worker()
        await kafka.heard("payments.orders", order["id"], "order.paid")
        await kafka.send(issued(order))
        await kafka.heard("payments.orders", order["id"], "order.fulfilled")
        await shop.admin.post(f"/orders/{order['id']}/refund")
        await kafka.heard("payments.orders", order["id"], "order.refund_requested")
        await kafka.send(voided(order))
        await kafka.heard("payments.orders", order["id"], "order.refunded")
        assert await buyer.status(order) == "refunded"
        assert len(await shop.refunds(order)) == 1

        late = await shop.ordered(buyer)
        await shop.execute("UPDATE orders SET expires_at = now() WHERE id = %s", late["id"])
        await kafka.heard("payments.orders", late["id"], "order.expired")

        unknown = PaymentSucceeded(
            order_id=new_id(),
            payment_intent_id="pi_1",
            amount_minor=1,
            currency="eur",
            stripe_event_id=None,
        )
        await kafka.send(unknown)
        await kafka.heard("payment.succeeded.dlq", unknown.order_id, "payment.succeeded")
    finally:
        worker.terminate()
        assert await worker.wait() == 0

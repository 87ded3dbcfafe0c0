"""Ending a Kafka producer."""

import asyncio
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError


async def abandon(producer: AIOKafkaProducer) -> None:
    """Ends a producer without what it has not sent yet: that is still where it came from.

    stop() would flush first, which with Kafka away never ends; abandoned half-way it leaves its sender,
    and all that it was given, behind for good.
    """
    producer._closed = True  # pyright: ignore[reportPrivateUsage]
    sender: Any = producer._sender  # pyright: ignore[reportPrivateUsage]
    # A sender that has not begun yet would end as cancelled, and so would who waits for it.
    await asyncio.sleep(0)
    with suppress(TimeoutError, KafkaError):
        async with asyncio.timeout(2):
            if sender is not None:
                await sender.close()
    with suppress(TimeoutError, KafkaError):
        async with asyncio.timeout(2):
            await producer.client.close()

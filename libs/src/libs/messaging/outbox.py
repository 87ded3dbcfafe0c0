"""The outbox: a message is written in the transaction that changes the state."""

from typing import cast
from uuid import UUID

import msgspec
from contracts.messages import Message

from libs.postgres import Conn
from libs.tracing import current_traceparent


async def publish(conn: Conn, *messages: Message) -> None:
    """Leaves messages for the relay; they are sent once the transaction of `conn` has committed.

    Whoever publishes has locked the row that the key names, so that messages of one key are written in order.
    """
    rows = [
        (
            message.TOPIC,
            str(cast(UUID, getattr(message, message.KEY))),
            message.TYPE,
            message.VERSION,
            msgspec.json.encode(message).decode(),
            current_traceparent(),
        )
        for message in messages
    ]
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO outbox (topic, key, type, version, body, traceparent)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            rows,
        )

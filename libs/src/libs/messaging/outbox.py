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
    await conn.execute(
        """
        INSERT INTO outbox (topic, key, type, version, body, traceparent)
        SELECT topic, key, type, version, body, %s
          FROM unnest(%s::text[], %s::text[], %s::text[], %s::smallint[], %s::text[])
               WITH ORDINALITY AS message (topic, key, type, version, body, number)
         ORDER BY number
        """,
        [
            current_traceparent(),
            [each.TOPIC for each in messages],
            [str(cast(UUID, getattr(each, each.KEY))) for each in messages],
            [each.TYPE for each in messages],
            [each.VERSION for each in messages],
            [msgspec.json.encode(each).decode() for each in messages],
        ],
    )

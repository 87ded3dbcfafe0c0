"""Reading topics from a place on, past records that aiokafka cannot read."""

from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition


async def read_some(
    consumer: AIOKafkaConsumer, *places: TopicPartition, timeout_ms: int
) -> dict[TopicPartition, list[ConsumerRecord[Any, Any]]]:
    """What `getmany` gives, without records whose header has a name that is no UTF-8."""
    positions = {place: await consumer.position(place) for place in places}
    try:
        return await consumer.getmany(*places, timeout_ms=timeout_ms)
    except UnicodeDecodeError:
        # aiokafka has lost its place, perhaps in other partitions too. One of each, until that one is passed.
        for place, position in positions.items():
            consumer.seek(place, position)
    records: dict[TopicPartition, list[ConsumerRecord[Any, Any]]] = {}
    for place in places:
        try:
            records |= await consumer.getmany(place, timeout_ms=timeout_ms, max_records=1)
        except UnicodeDecodeError:
            consumer.seek(place, await consumer.position(place) + 1)
    return records

"""Which offsets of the assigned partitions may be committed."""

from collections.abc import Sequence
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

# Beyond either a partition is no longer read until its oldest unfinished record is finished: what waits is
# kept in memory, and what comes after it is read again after a crash.
MAX_UNFINISHED = 200
MAX_AHEAD = 20_000


class Offsets:
    """Of each partition a contiguous prefix: never past a record that is not finished."""

    def __init__(self) -> None:
        self._next: dict[TopicPartition, int] = {}
        self._unfinished: dict[TopicPartition, set[int]] = {}
        self._committed: dict[TopicPartition, int] = {}

    def begin(self, record: ConsumerRecord[Any, Any]) -> None:
        """This record is not finished, although those after it may be."""
        self._unfinished.setdefault(_partition(record), set()).add(record.offset)

    def finish(self, record: ConsumerRecord[Any, Any]) -> None:
        self._unfinished[_partition(record)].remove(record.offset)

    def advance(self, records: Sequence[ConsumerRecord[Any, Any]]) -> None:
        """All of these are finished, save those that were begun."""
        for record in records:
            self._next[_partition(record)] = record.offset + 1

    def committable(self) -> dict[TopicPartition, int]:
        """What has not been committed yet."""
        offsets = {each: min(self._unfinished.get(each) or [end]) for each, end in self._next.items()}
        return {each: offset for each, offset in offsets.items() if offset != self._committed.get(each)}

    def committed(self, offsets: dict[TopicPartition, int]) -> None:
        self._committed |= offsets

    def is_too_far_ahead(self, partition: TopicPartition) -> bool:
        unfinished = self._unfinished.get(partition)
        if not unfinished:
            return False
        return (
            len(unfinished) >= MAX_UNFINISHED or self._next.get(partition, 0) - min(unfinished) >= MAX_AHEAD
        )

    def forget(self) -> None:
        """The partitions belong to others now."""
        self._next.clear()
        self._unfinished.clear()
        self._committed.clear()


def _partition(record: ConsumerRecord[Any, Any]) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)

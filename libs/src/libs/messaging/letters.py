"""Working with dead letters: reading them, sending them again to their own subscriber, putting them away.

Kafka cannot delete a record, so what was done with a letter is written on an audit topic; a letter of which
that says nothing waits. A letter is sent before it is written: who is killed in between leaves a letter that
waits, and may be sent again. Sending twice is harmless: the inbox drops what had its effect, and copies that
fail again count as one letter, because they carry the name of the same replay.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError
from contracts.topics import DEAD_LETTER_AUDIT, TOPICS
from msgspec import Struct, structs

from libs.messaging.dead_letters import (
    HISTORY_LENGTH,
    MAX_BYTES,
    Failure,
    Headers,
    Notes,
    read_notes,
    replay_topic,
    send_as_it_is,
    without_notes,
)
from libs.messaging.producers import abandon
from libs.messaging.reading import read_some

ANSWER_SECONDS = 20.0
"""How long Kafka may say nothing before it counts as away."""

# Bodies of up to 2 MB are held in memory for as many letters as this.
AT_ONCE = 20

Status = Literal["waiting", "replayed", "discarded"]


class Source(NamedTuple):
    """Where the letters of a dead-letter topic come from."""

    topic: str
    service: str


SOURCES = {
    dead_letters: Source(topic.name, service)
    for topic in TOPICS
    for service, dead_letters in topic.subscribers.items()
}


class Decision(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What was done with a letter: a record of the audit topic, whose key is `topic` and `identity`."""

    topic: str
    letter: str
    identity: str
    action: Literal["replayed", "discarded"]
    by: str
    at: datetime
    reason: str = ""
    replay: str = ""


Decisions = dict[tuple[str, str], list[Decision]]


class Letter(Struct, frozen=True):
    """A dead letter, without its body, which may be large.

    `id` is its place on the dead-letter topic, partition:offset; `copies` are the places of the same failure,
    written again after a crash or a doubled replay. `decisions` are what was done with it, oldest first.
    """

    id: str
    place: TopicPartition
    offset: int
    key: bytes | None
    headers: Headers
    size: int
    notes: Notes
    identity: str
    copies: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()

    @property
    def status(self) -> Status:
        return self.decisions[-1].action if self.decisions else "waiting"


class KafkaAway(Exception):
    """Kafka does not answer, or not any more."""


class UnknownTopic(Exception):
    """No dead-letter topic has this name."""


class UnknownLetter(Exception):
    """The dead-letter topic has no letter at this place."""


class ReplayResult(NamedTuple):
    """`handled` is None while the subscriber has not taken all of them; `failed` are those that came back."""

    sent: int
    handled: int | None
    failed: list[Letter]


class Letters:
    """The dead letters of a Kafka; made by `open_letters`. Raises `KafkaAway` when Kafka goes away."""

    def __init__(
        self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, admin: AIOKafkaAdminClient
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._admin = admin

    async def of(self, topic: str) -> list[Letter]:
        """All letters of a dead-letter topic in the order in which they failed. Raises `UnknownTopic`."""
        if topic not in SOURCES:
            raise UnknownTopic(topic)
        return await self._with_decisions(topic, await self._decisions())

    async def of_all_topics(self) -> dict[str, list[Letter]]:
        decisions = await self._decisions()
        return {topic: await self._with_decisions(topic, decisions) for topic in sorted(SOURCES)}

    async def _with_decisions(self, topic: str, decisions: Decisions) -> list[Letter]:
        letters: dict[str, Letter] = {}
        async for record in self._read(topic):
            letter = _letter(record)
            first = letters.get(letter.identity)
            if first is None:
                decided = tuple(decisions.get((topic, letter.identity), ()))
                letters[letter.identity] = structs.replace(letter, decisions=decided)
            else:
                letters[letter.identity] = structs.replace(first, copies=(*first.copies, letter.id))
        return list(letters.values())

    async def find(self, topic: str, ids: Sequence[str]) -> list[Letter]:
        """The named letters, each once, in the order in which they failed. Raises `UnknownLetter`."""
        letters = await self.of(topic)
        known = {name for letter in letters for name in (letter.id, *letter.copies)}
        for name in ids:
            if name not in known:
                raise UnknownLetter(name)
        return [each for each in letters if not {each.id, *each.copies}.isdisjoint(ids)]

    async def body(self, letter: Letter) -> bytes | None:
        """Raises `UnknownLetter` when it has become too old meanwhile."""
        async for _, record in self._records([letter]):
            return record.value
        raise UnknownLetter(letter.id)

    async def replay(self, topic: str, letters: Sequence[Letter], *, by: str) -> ReplayResult:
        """Sends letters to their own subscriber, those of one key in order, and looks what became of them."""
        begins = await self._ends(topic)
        replays: list[tuple[Letter, str]] = []
        sent: list[asyncio.Future[Any]] = []
        last: Any = None

        async def settle() -> Any:
            metadata = await self._acknowledged(sent)
            await self._decide(topic, replays[-len(sent) :], action="replayed", by=by)
            sent.clear()
            return metadata[-1]

        async for letter, record in self._records(letters):
            name = _replay_name(letter)
            headers = [*without_notes(letter.headers), *_notes_of_replay(topic, letter, name).headers()]
            to = replay_topic(SOURCES[topic].service)
            sent.append(await send_as_it_is(self._producer, to, record, headers=headers))
            replays.append((letter, name))
            if len(sent) == AT_ONCE:
                last = await settle()
        if sent:
            last = await settle()
        taken = last is None or await self._taken(topic, last)
        names = {name for _, name in replays}
        failed = [
            each
            for each in await self.of(topic)
            if each.identity in names and each.offset >= begins.get(each.place, 0)
        ]
        return ReplayResult(len(replays), len(replays) - len(failed) if taken else None, failed)

    async def discard(self, topic: str, letters: Sequence[Letter], *, reason: str, by: str) -> None:
        """Puts letters away for good; they stay on their topic until they are too old."""
        for start in range(0, len(letters), AT_ONCE):
            chunk = [(letter, "") for letter in letters[start : start + AT_ONCE]]
            await self._decide(topic, chunk, action="discarded", by=by, reason=reason)

    async def _decide(
        self,
        topic: str,
        letters: Sequence[tuple[Letter, str]],
        *,
        action: Literal["replayed", "discarded"],
        by: str,
        reason: str = "",
    ) -> None:
        now = datetime.now(UTC)
        sent = [
            await self._producer.send(
                DEAD_LETTER_AUDIT,
                key=f"{topic} {letter.identity}".encode(),
                value=msgspec.json.encode(
                    Decision(
                        topic=topic,
                        letter=letter.id,
                        identity=letter.identity,
                        action=action,
                        by=by,
                        at=now,
                        reason=reason,
                        replay=name,
                    )
                ),
            )
            for letter, name in letters
        ]
        await self._acknowledged(sent)

    async def _acknowledged(self, sent: "Sequence[asyncio.Future[Any]]") -> list[Any]:
        async with _answering():
            return await asyncio.gather(*sent)

    async def _decisions(self) -> Decisions:
        decisions: Decisions = {}
        async for record in self._read(DEAD_LETTER_AUDIT):
            try:
                decision = msgspec.json.decode(record.value or b"", type=Decision)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            decisions.setdefault((decision.topic, decision.identity), []).append(decision)
        return decisions

    async def _records(
        self, letters: Sequence[Letter]
    ) -> AsyncGenerator[tuple[Letter, ConsumerRecord[Any, Any]]]:
        """Those that are there still, in the order in which they failed."""
        wanted = {(each.place, each.offset): each for each in letters}
        begins = {place: min(at for each, at in wanted if each == place) for place, _ in wanted}
        for topic in {place.topic for place in begins}:
            async for record in self._read(topic, begins):
                letter = wanted.pop((TopicPartition(topic, record.partition), record.offset), None)
                if letter is not None:
                    yield letter, record
                if not wanted:
                    return

    async def _read(
        self, topic: str, begins: Mapping[TopicPartition, int] | None = None
    ) -> AsyncGenerator[ConsumerRecord[Any, Any]]:
        """What the topic holds at this moment, from `begins` or from its beginning on."""
        ends = await self._ends(topic)
        if begins is not None:
            ends = {place: ends[place] for place in begins if place in ends}
        if not ends:
            return
        self._consumer.assign(list(ends))
        async with _answering():
            await self._consumer.seek_to_beginning(*ends)
            for place in ends:
                begin = (begins or {}).get(place, 0)
                if begin > await self._consumer.position(place):
                    self._consumer.seek(place, begin)
            behind = {place for place in ends if await self._consumer.position(place) < ends[place]}
        heard_at = time.monotonic()
        while behind:
            async with _answering():
                batches = await read_some(self._consumer, *behind, timeout_ms=500)
            for place, records in batches.items():
                heard_at = time.monotonic()
                for record in records:
                    if record.offset < ends[place]:
                        yield record
            if time.monotonic() - heard_at > ANSWER_SECONDS:
                raise KafkaAway(f"no answer for {ANSWER_SECONDS:.0f} s")
            async with _answering():
                behind = {place for place in behind if await self._consumer.position(place) < ends[place]}

    async def _ends(self, topic: str) -> dict[TopicPartition, int]:
        """Of each partition; none when Kafka has no such topic yet."""
        async with _answering():
            if topic not in await self._admin.list_topics():
                return {}
            [description] = await self._admin.describe_topics([topic])
            places = [TopicPartition(topic, each["partition"]) for each in description["partitions"]]
            return await self._consumer.end_offsets(places)

    async def _taken(self, topic: str, last: Any, *, seconds: float = 15) -> bool:
        """Whether the subscriber has read what was sent it, waiting a while."""
        place = TopicPartition(last.topic, last.partition)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            async with _answering():
                offsets: Any = await self._admin.list_consumer_group_offsets(SOURCES[topic].service)
            if place in offsets and offsets[place].offset > last.offset:
                return True
            await asyncio.sleep(0.1)
        return False


@asynccontextmanager
async def open_letters(kafka_brokers: str) -> AsyncGenerator[Letters]:
    async with AsyncExitStack() as stack:
        async with _answering():
            admin = AIOKafkaAdminClient(bootstrap_servers=kafka_brokers)
            stack.push_async_callback(admin.close)
            await admin.start()
            consumer = AIOKafkaConsumer(
                bootstrap_servers=kafka_brokers,
                enable_auto_commit=False,
                max_partition_fetch_bytes=MAX_BYTES,
                # The broker answers one request of a connection after another: whatever is asked next waits
                # for a fetch that finds nothing.
                fetch_max_wait_ms=10,
            )
            stack.push_async_callback(consumer.stop)
            await consumer.start()
            producer = AIOKafkaProducer(
                bootstrap_servers=kafka_brokers, enable_idempotence=True, max_request_size=MAX_BYTES
            )
            stack.push_async_callback(abandon, producer)
            await producer.start()
        yield Letters(consumer, producer, admin)


@asynccontextmanager
async def _answering() -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except TimeoutError:
        raise KafkaAway(f"no answer for {ANSWER_SECONDS:.0f} s") from None
    except (KafkaConnectionError, KafkaTimeoutError, OSError) as error:
        raise KafkaAway(str(error)) from None


def _letter(record: ConsumerRecord[Any, Any]) -> Letter:
    notes = read_notes(record.headers)
    place = f"{record.partition}:{record.offset}"
    if notes.replay and len(notes.replay) < 1000:
        identity = notes.replay
    elif notes.topic and notes.offset is not None:
        # The time tells it from the record that had this place before the topic was made anew.
        identity = f"{notes.topic}/{notes.partition}:{notes.offset}@{notes.timestamp}"
    else:
        identity = place
    return Letter(
        id=place,
        place=TopicPartition(record.topic, record.partition),
        offset=record.offset,
        key=record.key,
        headers=record.headers,
        size=len(record.value or b""),
        notes=notes,
        identity=identity,
    )


def _replay_name(letter: Letter) -> str:
    """The same for two who replay a letter at the same time, another one for each later replay."""
    earlier = sum(decision.action == "replayed" for decision in letter.decisions)
    return f"{letter.identity}#{earlier + 1}"


def _notes_of_replay(topic: str, letter: Letter, name: str) -> Notes:
    notes = letter.notes
    failure = Failure(
        reason=notes.reason, error=notes.error, attempts=notes.attempts, failed_at=notes.failed_at
    )
    return Notes(
        topic=SOURCES[topic].topic,
        partition=notes.partition,
        offset=notes.offset,
        timestamp=notes.timestamp,
        replays=notes.replays + 1,
        replay=name,
        history=(*notes.history, failure)[-HISTORY_LENGTH:],
    )

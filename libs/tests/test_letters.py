"""Dead letters in the hands of an operator: shown, sent again to their own subscriber alone, put away."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from contracts.messages import Message, UserDisabled
from contracts.topics import DEAD_LETTER_AUDIT
from libs.ids import new_id
from libs.messaging.dead_letters import DeadLetters, read_notes
from libs.messaging.deliveries import Retry
from libs.messaging.heartbeat import Heartbeat
from libs.messaging.letters import Letter, Letters, open_letters
from libs.messaging.subscriptions import Subscription
from libs.messaging.texts import body_text
from libs.postgres import Conn, Pool
from messaging_support import eventually

TOPIC = "auth.users"  # it has three subscribers
DEAD = "auth.users.payments.dlq"

# One Kafka and one consumer group: these tests run one after another.
pytestmark = pytest.mark.xdist_group("letters")


class Fault(Exception):
    pass


class Handler:
    """Notes what it handled, and fails for the users that it is told to."""

    def __init__(self) -> None:
        self.faulty: set[UUID] = set()
        self.handled: list[UUID] = []

    async def __call__(self, conn: Conn, message: UserDisabled) -> None:
        await conn.execute("INSERT INTO effects (key, note) VALUES (%s, 'done')", [str(message.user_id)])
        if message.user_id in self.faulty:
            raise Fault(f"no such user {message.user_id}")
        self.handled.append(message.user_id)


def disabled() -> UserDisabled:
    return UserDisabled(user_id=new_id(), disabled_at=datetime.now(UTC))


async def effects(pool: Pool, message: UserDisabled) -> int:
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT count(*) FROM effects WHERE key = %s", [str(message.user_id)])
        row = await cursor.fetchone()
        return row[0] if row else 0


@asynccontextmanager
async def subscribed(
    pool: Pool, kafka_brokers: str, handler: Handler, *, service: str = "payments"
) -> AsyncGenerator[None]:
    subscription = Subscription(
        service=service,
        pool=pool,
        handlers={UserDisabled: handler},
        dead_letters=DeadLetters(service=service, kafka_brokers=kafka_brokers),
        retry=Retry(count=2, backoff_seconds=0.01),
    )
    task = asyncio.create_task(subscription.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat()))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture
async def letters(kafka_brokers: str) -> AsyncGenerator[Letters]:
    async with open_letters(kafka_brokers) as letters:
        yield letters


@pytest_asyncio.fixture
async def producer(kafka_brokers: str) -> AsyncGenerator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka_brokers, max_request_size=2_000_000)
    await producer.start()
    yield producer
    await producer.stop()


async def send(producer: AIOKafkaProducer, message: Message, *headers: tuple[str, Any]) -> None:
    await producer.send_and_wait(
        message.TOPIC,
        msgspec.json.encode(message),
        key=str(getattr(message, message.KEY)).encode(),
        headers=[("ce_id", str(new_id()).encode()), ("ce_type", message.TYPE.encode()), *headers],
    )


async def letters_of(letters: Letters, *messages: UserDisabled) -> list[Letter]:
    keys = {str(message.user_id).encode() for message in messages}
    return [letter for letter in await letters.of(DEAD) if letter.key in keys]


async def fail(
    pool: Pool,
    kafka_brokers: str,
    letters: Letters,
    producer: AIOKafkaProducer,
    handler: Handler,
    *messages: UserDisabled,
) -> list[Letter]:
    """The dead letters that these messages become, in their order."""
    handler.faulty |= {message.user_id for message in messages}
    for message in messages:
        await send(producer, message)

    async def all_dead() -> bool:
        return len(await letters_of(letters, *messages)) == len(messages)

    async with subscribed(pool, kafka_brokers, handler):
        await eventually(all_dead)
    by_key = {letter.key: letter for letter in await letters_of(letters, *messages)}
    return [by_key[str(message.user_id).encode()] for message in messages]


async def statuses(letters: Letters, *messages: UserDisabled) -> dict[str, int]:
    return Counter(letter.status for letter in await letters_of(letters, *messages))


def dlq(kafka_brokers: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        (sys.executable, "-m", "libs.messaging.dlq", *arguments),
        env={**os.environ, "KAFKA_BROKERS": kafka_brokers},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def run_dlq(kafka_brokers: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(dlq, kafka_brokers, *arguments)


async def all_records(kafka_brokers: str, topic: str) -> list[ConsumerRecord[Any, Any]]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka_brokers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        records: list[ConsumerRecord[Any, Any]] = []
        while sum(ends.values()) > len(records):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
        return records
    finally:
        await consumer.stop()


async def test_letter_tells_what_failed_where_how_often_and_why(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    message = disabled()
    [letter] = await fail(pool, kafka_brokers, letters, producer, Handler(), message)
    page = (await run_dlq(kafka_brokers, DEAD)).stdout
    assert f"{DEAD} {letter.id}  waiting" in page
    assert f"Fault: no such user {message.user_id}" in page
    assert f"auth.users {letter.notes.partition}:{letter.notes.offset}, at payments" in page
    assert "3 tries" in page
    assert "ce_type: user.disabled" in page
    assert f'"userId": "{message.user_id}"' in page
    listed = (await run_dlq(kafka_brokers)).stdout
    waiting = sum(each.status == "waiting" for each in await letters.of(DEAD))
    assert [DEAD, str(waiting)] in [line.split()[:2] for line in listed.splitlines()]
    assert "payment.succeeded.dlq" in listed


async def test_replayed_letter_has_its_effect_at_its_own_subscriber_alone(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    mended, left = disabled(), disabled()
    handler, other = Handler(), Handler()
    first, _ = await fail(pool, kafka_brokers, letters, producer, handler, mended, left)
    async with subscribed(pool, kafka_brokers, other, service="catalog"):

        async def seen() -> bool:
            return {mended.user_id, left.user_id} <= set(other.handled)

        await eventually(seen)
        # Without its inbox the other subscriber would handle whatever it saw again.
        async with pool.connection() as conn:
            await conn.execute("DELETE FROM inbox WHERE consumer = 'catalog'")
        before = len(await all_records(kafka_brokers, TOPIC))
        handler.faulty.clear()
        async with subscribed(pool, kafka_brokers, handler):
            result = await letters.replay(DEAD, [first], by="ada")
    assert (result.sent, result.handled, result.failed) == (1, 1, [])
    assert handler.handled == [mended.user_id]
    assert other.handled.count(mended.user_id) == 1
    assert len(await all_records(kafka_brokers, TOPIC)) == before
    assert await statuses(letters, mended, left) == {"replayed": 1, "waiting": 1}


async def test_letter_replayed_again_and_by_two_at_once_has_its_effect_once(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    message = disabled()
    handler = Handler()
    [letter] = await fail(pool, kafka_brokers, letters, producer, handler, message)
    handler.faulty.clear()
    async with subscribed(pool, kafka_brokers, handler):
        runs = await asyncio.gather(*(run_dlq(kafka_brokers, DEAD, "--replay", letter.id) for _ in range(2)))
        again = await run_dlq(kafka_brokers, DEAD, "--replay", letter.id)
    assert [run.returncode for run in (*runs, again)] == [0, 0, 0]
    assert "was replayed before, by " in again.stdout
    assert "1 done, 0 failed again." in again.stdout
    assert await effects(pool, message) == 1
    assert await statuses(letters, message) == {"replayed": 1}


async def test_letter_that_two_replay_at_once_and_that_fails_again_is_one_letter(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    message = disabled()
    handler = Handler()
    [letter] = await fail(pool, kafka_brokers, letters, producer, handler, message)
    async with subscribed(pool, kafka_brokers, handler), open_letters(kafka_brokers) as others:
        await asyncio.gather(
            letters.replay(DEAD, [letter], by="ada"), others.replay(DEAD, [letter], by="grace")
        )

        async def both_are_back() -> bool:
            keys = [record.key for record in await all_records(kafka_brokers, DEAD)]
            return keys.count(letter.key) == 3

        await eventually(both_are_back)
    assert await statuses(letters, message) == {"replayed": 1, "waiting": 1}
    returned = (await letters_of(letters, message))[1]
    assert len(returned.copies) == 1
    # A replay of it, named by its copy, is another one.
    handler.faulty.clear()
    async with subscribed(pool, kafka_brokers, handler):
        [chosen] = await letters.find(DEAD, [returned.copies[0]])
        await letters.replay(DEAD, [chosen], by="ada")
    assert await statuses(letters, message) == {"replayed": 2}
    assert await effects(pool, message) == 1


async def test_letter_written_twice_by_a_consumer_that_died_before_its_offset_is_one_letter(
    kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    message = disabled()
    await send(producer, message)
    key = str(message.user_id).encode()
    [record] = [each for each in await all_records(kafka_brokers, TOPIC) if each.key == key]
    dead_letters = DeadLetters(service="payments", kafka_brokers=kafka_brokers)
    await dead_letters.start()
    for _ in range(2):
        await dead_letters.send(record, error=Fault("x"), attempts=3)
    await dead_letters.stop()
    [letter] = await letters_of(letters, message)
    assert len(letter.copies) == 1
    await letters.discard(DEAD, [letter], reason="written twice", by="ada")
    assert await statuses(letters, message) == {"discarded": 1}


async def test_replay_that_fails_again_comes_back_with_its_history(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    message = disabled()
    handler = Handler()
    [letter] = await fail(pool, kafka_brokers, letters, producer, handler, message)
    async with subscribed(pool, kafka_brokers, handler):
        [second] = (await letters.replay(DEAD, [letter], by="ada")).failed
        [third] = (await letters.replay(DEAD, [second], by="ada")).failed
    assert (third.notes.replays, third.status) == (2, "waiting")
    assert [(each.reason, each.attempts) for each in third.notes.history] == [("Fault", 3)] * 2
    assert [each.failed_at for each in third.notes.history] == [
        letter.notes.failed_at,
        second.notes.failed_at,
    ]
    # It stands where it failed first, whichever way it went since.
    place = ("auth.users", letter.notes.partition, letter.notes.offset, letter.notes.timestamp)
    notes = third.notes
    assert (notes.topic, notes.partition, notes.offset, notes.timestamp) == place
    page = (await run_dlq(kafka_brokers, DEAD, "--letter", third.id)).stdout
    assert "3 tries, replay 2" in page
    assert page.count(f"Fault: no such user {message.user_id}") == 3
    assert await statuses(letters, message) == {"replayed": 2, "waiting": 1}


async def test_discarded_letter_leaves_its_reason_and_waits_no_more(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    message = disabled()
    [letter] = await fail(pool, kafka_brokers, letters, producer, Handler(), message)
    for reason in ((), ("--reason", "  ")):
        refused = await run_dlq(kafka_brokers, DEAD, "--discard", letter.id, *reason)
        assert (refused.returncode, "without a reason" in refused.stderr) == (1, True)
    assert await statuses(letters, message) == {"waiting": 1}
    done = await run_dlq(kafka_brokers, DEAD, "--discard", letter.id, "--reason", 'it\'s a "test"')
    assert (done.returncode, done.stdout) == (0, "1 discarded.\n")
    assert await statuses(letters, message) == {"discarded": 1}
    audit = [
        msgspec.json.decode(each.value or b"") for each in await all_records(kafka_brokers, DEAD_LETTER_AUDIT)
    ]
    assert (audit[-1]["letter"], audit[-1]["action"]) == (letter.id, "discarded")
    assert audit[-1]["reason"] == 'it\'s a "test"'
    assert letter.id not in (await run_dlq(kafka_brokers, DEAD)).stdout
    everything = (await run_dlq(kafka_brokers, DEAD, "--all")).stdout
    assert f"{DEAD} {letter.id}  discarded" in everything


GARBAGE: list[tuple[bytes | None, bytes | None, list[tuple[str, Any]]]] = [
    (b"no id", b"{}", [("ce_type", b"user.disabled")]),
    (b"large", b"\xff" * 1_000_000, [("ce_id", b"1"), ("ce_type", b"user.disabled")]),
    (b"null", None, [("ce_id", b"2"), ("ce_type", b"user.disabled")]),
    (None, None, [("ce_id", b"3")]),
    (None, b"not json", []),
    (b"\xff", b"{}", [("ce_id", None), ("odd", None), ("ce_type", b"\xff")]),
    (b"deep", b"[" * 100_000, [("ce_id", b"4"), ("ce_type", b"user.disabled")]),
]


async def test_garbage_can_be_shown_and_replayed_and_comes_back_as_the_bytes_it_was(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    known = {letter.id for letter in await letters.of(DEAD)}
    for key, value, headers in GARBAGE:
        batch = producer.create_batch()  # send() takes no record without key and value
        batch.append(key=key, value=value, timestamp=None, headers=headers)
        await (await producer.send_batch(batch, TOPIC, partition=0))

    async def new() -> list[Letter]:
        return [letter for letter in await letters.of(DEAD) if letter.id not in known]

    async def all_dead() -> bool:
        return len(await new()) == len(GARBAGE)

    async with subscribed(pool, kafka_brokers, Handler()):
        await eventually(all_dead)
        first = await new()
        assert dlq_shows(await run_dlq(kafka_brokers, DEAD), first)
        result = await letters.replay(DEAD, first, by="ada")
    assert (result.sent, result.handled, len(result.failed)) == (len(GARBAGE), 0, len(GARBAGE))

    async def contents(of: list[Letter]) -> set[tuple[bytes | None, bytes | None]]:
        return {(letter.key, await letters.body(letter)) for letter in of}

    wanted = {(key, value) for key, value, _ in GARBAGE}
    assert await contents(first) == wanted
    assert await contents(result.failed) == wanted
    assert all(len(letter.notes.history) == 1 for letter in result.failed)
    odd = next(letter for letter in result.failed if letter.key == b"\xff")
    assert [each for each in odd.headers if not each[0].startswith("dlq_")] == GARBAGE[5][2]


def dlq_shows(shown: subprocess.CompletedProcess[str], letters: list[Letter]) -> bool:
    # Cut sensibly: a megabyte is not poured over the screen.
    assert len(shown.stdout) < 60_000
    return shown.returncode == 0 and all(f"{letter.id}  waiting" in shown.stdout for letter in letters)


async def test_garbage_on_the_replay_topic_itself_is_a_letter_too_and_stops_nothing(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    await producer.send_and_wait("payments.replay", b"x", headers=[("dlq_topic", b"catalog.events")])
    await producer.send_and_wait("payments.replay", b"y", headers=[("dlq_topic", b"\xff")])
    await producer.send_and_wait("payments.replay", b"z")
    message = disabled()
    handler = Handler()
    async with subscribed(pool, kafka_brokers, handler):
        await send(producer, message)

        async def done() -> bool:
            return handler.handled == [message.user_id] and len(await letters.of("payments.replay.dlq")) == 3

        await eventually(done)


async def test_headers_of_a_dead_letter_on_an_ordinary_message_are_not_believed(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    real, forged = disabled(), disabled()
    handler = Handler()
    [letter] = await fail(pool, kafka_brokers, letters, producer, handler, real)
    handler.faulty.add(forged.user_id)
    async with subscribed(pool, kafka_brokers, handler):
        await letters.replay(DEAD, [letter], by="ada")
        [_, returned] = await letters_of(letters, real)
        await send(producer, forged, ("dlq_replay", returned.identity.encode()), ("dlq_replays", b"7"))

        async def is_a_letter_of_its_own() -> bool:
            return len(await letters_of(letters, forged)) == 1

        await eventually(is_a_letter_of_its_own)
    [own] = await letters_of(letters, forged)
    assert (own.notes.replays, own.notes.history) == (0, ())


async def test_operator_killed_after_sending_leaves_a_letter_that_waits_and_can_be_sent_again(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    message = disabled()
    handler = Handler()
    [letter] = await fail(pool, kafka_brokers, letters, producer, handler, message)
    handler.faulty.clear()
    killed = (
        "import os, sys\n"
        "from libs.messaging import dlq, letters\n"
        "async def die(*arguments, **options): os.kill(os.getpid(), 9)\n"
        "letters.Letters._decide = die\n"
        "sys.exit(dlq.main())\n"
    )
    async with subscribed(pool, kafka_brokers, handler):
        operator = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", killed, DEAD, "--replay", letter.id),
            env={**os.environ, "KAFKA_BROKERS": kafka_brokers},
        )
        assert await operator.wait() == -signal.SIGKILL

        async def handled() -> bool:
            return await effects(pool, message) == 1

        await eventually(handled)
        assert await statuses(letters, message) == {"waiting": 1}
        again = await run_dlq(kafka_brokers, DEAD, "--replay", letter.id)
    assert "1 done, 0 failed again." in again.stdout
    assert await effects(pool, message) == 1
    assert await statuses(letters, message) == {"replayed": 1}


async def test_all_that_wait_are_replayed_and_those_of_one_key_keep_their_order(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    handler = Handler()
    messages = [disabled() for _ in range(45)]
    await fail(pool, kafka_brokers, letters, producer, handler, *messages)
    waiting = [each for each in await letters.of(DEAD) if each.status == "waiting"]
    order = [each.key for each in waiting if each.key in {str(m.user_id).encode() for m in messages}]
    handler.faulty.clear()
    # Nobody takes them: that is said, and nothing waits any more.
    done = await run_dlq(kafka_brokers, DEAD, "--replay", "all")
    assert done.returncode == 0
    assert "is payments's worker running?" in done.stdout
    assert await statuses(letters, *messages) == {"replayed": 45}
    assert (await run_dlq(kafka_brokers, DEAD, "--replay", "all")).stdout == f"No letter waits on {DEAD}.\n"
    async with subscribed(pool, kafka_brokers, handler):

        async def all_handled() -> bool:
            return {each.user_id for each in messages} <= set(handler.handled)

        await eventually(all_handled)
    mine = [str(user_id).encode() for user_id in handler.handled]
    assert [key for key in mine if key in order] == order


async def test_letter_that_somebody_wrote_by_hand_can_be_worked_with(
    pool: Pool, kafka_brokers: str, letters: Letters, producer: AIOKafkaProducer
) -> None:
    message = disabled()
    await producer.send_and_wait(
        DEAD,
        msgspec.json.encode(message),
        key=str(message.user_id).encode(),
        headers=[
            ("ce_id", b"by hand"),
            ("ce_type", b"user.disabled"),
            ("dlq_topic", b"catalog.events"),
            ("dlq_offset", "²".encode()),
            ("dlq_history", b"[" * 100_000),
        ],
    )
    handler = Handler()
    [letter] = await letters_of(letters, message)
    assert f"{letter.id}  waiting" in (await run_dlq(kafka_brokers, DEAD, "--letter", letter.id)).stdout
    async with subscribed(pool, kafka_brokers, handler):
        await letters.replay(DEAD, [letter], by="ada")
    assert handler.handled == [message.user_id]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nonsense.dlq",), "nonsense.dlq is no dead-letter topic. There are: auth.users.catalog.dlq"),
        (("auth.users", "--replay", "all"), "auth.users is no dead-letter topic"),
        ((DEAD, "--replay", "0:987654"), f"there is no letter 0:987654 on {DEAD}: nothing was done"),
        ((DEAD, "--letter", "7:0"), "there is no letter 7:0"),
        ((DEAD, "--replay", "twelve"), "twelve is no letter: say partition:offset, such as 0:12"),
        ((DEAD, "--replay", "0:1", "--discard", "0:1", "--reason", "x"), "one at a time"),
        (("--replay", "all"), "replay: of which topic?"),
        ((DEAD, "--reason", "x"), "a reason goes with DISCARD"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_one_line(
    kafka_brokers: str, arguments: tuple[str, ...], complaint: str
) -> None:
    done = await run_dlq(kafka_brokers, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert complaint in done.stderr


def test_kafka_that_is_away_is_one_line() -> None:
    done = dlq("127.0.0.1:1", DEAD, "--replay", "all")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("dlq: Kafka at 127.0.0.1:1 does not answer: ")
    assert dlq("").stderr == "dlq: KAFKA_BROKERS is not set\n"


def test_body_on_the_screen_is_set_out_cut_and_harmless() -> None:
    assert body_text(b'{"a":"\xc3\xa9"}', limit=None) == '{\n  "a": "é"\n}'
    assert body_text(None, limit=None) == "(null)"
    assert body_text(b"\x1b[2J\xff", limit=None) == r"\x1b[2J\xff"
    # In JSON too: a control sequence of one character, a change of direction, half a character.
    assert body_text('"\x9b2J\u202e"'.encode(), limit=None) == r'"\x9b2J\u202e"'
    assert body_text(b'"\\ud800"', limit=None) == r'"\ud800"'
    cut = body_text(b"x" * 5000, limit=100)
    assert cut.splitlines() == ["x" * 100, "... 4900 more characters: LETTER= (--letter) shows all"]


def test_notes_are_read_from_whatever_is_there() -> None:
    assert (
        read_notes([("dlq_offset", b"9" * 30), ("dlq_attempts", None), ("dlq_partition", b"-1")]).offset
        is None
    )
    assert read_notes([("dlq_history", b'[{"reason": 7}]')]).history == ()

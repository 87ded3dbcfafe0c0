"""Dead letters of what anyone may have written: kept as the bytes they were, and not believed."""

import subprocess
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from letters_support import (
    DEAD,
    TOPIC,
    Handler,
    disabled,
    fail,
    letters_of,
    run_dlq,
    send,
    subscribed,
)
from libs.messaging.dead_letters import read_notes
from libs.messaging.letters import Letter, Letters
from libs.postgres import Pool
from messaging_support import eventually

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


def test_notes_are_read_from_whatever_is_there() -> None:
    assert (
        read_notes([("dlq_offset", b"9" * 30), ("dlq_attempts", None), ("dlq_partition", b"-1")]).offset
        is None
    )
    assert read_notes([("dlq_history", b'[{"reason": 7}]')]).history == ()

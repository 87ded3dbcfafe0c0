"""Dead letters in the hands of an operator: shown, sent again to their own subscriber alone, put away."""

import asyncio
import os
import signal
import sys

import msgspec
from aiokafka import AIOKafkaProducer
from contracts.topics import DEAD_LETTER_AUDIT
from letters_support import (
    DEAD,
    TOPIC,
    Fault,
    Handler,
    disabled,
    effects,
    fail,
    letters_of,
    run_dlq,
    send,
    statuses,
    subscribed,
)
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.letters import Letters, open_letters
from libs.postgres import Pool
from messaging_support import eventually, read_all


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
        before = len(await read_all(kafka_brokers, TOPIC))
        handler.faulty.clear()
        async with subscribed(pool, kafka_brokers, handler):
            result = await letters.replay(DEAD, [first], by="ada")
    assert (result.sent, result.handled, result.failed) == (1, 1, [])
    assert handler.handled == [mended.user_id]
    assert other.handled.count(mended.user_id) == 1
    assert len(await read_all(kafka_brokers, TOPIC)) == before
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
            keys = [record.key for record in await read_all(kafka_brokers, DEAD)]
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
    [record] = [each for each in await read_all(kafka_brokers, TOPIC) if each.key == key]
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
        msgspec.json.decode(each.value or b"") for each in await read_all(kafka_brokers, DEAD_LETTER_AUDIT)
    ]
    assert (audit[-1]["letter"], audit[-1]["action"]) == (letter.id, "discarded")
    assert audit[-1]["reason"] == 'it\'s a "test"'
    assert letter.id not in (await run_dlq(kafka_brokers, DEAD)).stdout
    everything = (await run_dlq(kafka_brokers, DEAD, "--all")).stdout
    assert f"{DEAD} {letter.id}  discarded" in everything


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

"""Coming up, going down, and coming up again after the worst."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from embedded.ports import free_port_base, is_free
from embedded.problems import Problem
from embedded.settings import Settings
from embedded.stack import BACKING, Stack
from embedded.supervision import leftovers
from embedded.testing import running_stack


def eventually(condition: Callable[[], object], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


@pytest.fixture
def small() -> Iterator[Stack]:
    """Redis alone: comes up in a moment, and is supervised like all the others."""
    with running_stack(("redis",)) as stack:
        yield stack


def redis_pid(stack: Stack) -> int:
    return stack.supervisor.processes()["redis"].pid or 0


def test_up_again_on_a_healthy_stack_changes_nothing(small: Stack) -> None:
    pid = redis_pid(small)
    assert small.up() is False
    assert redis_pid(small) == pid


def test_down_leaves_no_process_and_no_open_port(small: Stack) -> None:
    assert small.down() == 2  # Redis, and the keeper of a test's stack
    assert leftovers(small.settings) == []
    assert is_free(small.settings.port("redis"))
    assert small.down() == 0


def test_what_dies_is_restarted(small: Stack) -> None:
    pid = redis_pid(small)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: redis_pid(small) not in (0, pid) and small.is_ready())


def test_what_is_stopped_stays_away_until_it_is_started(small: Stack) -> None:
    small.stop(["redis"])
    assert "stopped" in (small.trouble("redis") or "")
    small.start(["redis"])
    assert small.is_ready()


def test_orphans_of_a_killed_supervisor_are_replaced(small: Stack) -> None:
    orphan = redis_pid(small)
    os.kill(small.supervisor.pid() or 0, signal.SIGKILL)
    assert small.up() is True
    assert small.is_ready()
    assert not psutil.pid_exists(orphan)


def test_other_settings_restart_what_they_concern_and_nothing_else(small: Stack) -> None:
    pid = redis_pid(small)
    other = Stack(
        Settings(small.settings.state, small.settings.port_base, durable=True),
        parts=("redis", "gateway"),
        keeper=small.settings.state.parent / "keeper",
    )
    assert other.up() is True
    assert other.is_ready()
    assert redis_pid(other) == pid


def test_two_stacks_run_side_by_side(small: Stack) -> None:
    with running_stack(("redis",)) as other:
        assert small.settings.port("redis") != other.settings.port("redis")
    assert small.is_ready()


def test_a_taken_port_stops_the_start_before_anything_runs(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "stack", free_port_base())
    stack = Stack(settings, parts=("redis",))
    with (
        socket.create_server(("127.0.0.1", settings.port("redis"))),
        pytest.raises(Problem, match=f"port {settings.port('redis')}, which redis needs, is taken by"),
    ):
        stack.up()
    assert leftovers(settings) == []


def test_a_stack_ends_with_the_process_that_it_belongs_to() -> None:
    code = (
        "import os, json\n"
        "from embedded.testing import running_stack\n"
        "with running_stack(('redis',)) as stack:\n"
        "    print(json.dumps([str(stack.settings.state), stack.settings.port_base]), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False)
    state, port_base = json.loads(killed.stdout)
    assert killed.returncode == -signal.SIGKILL
    eventually(lambda: not leftovers(Settings(Path(state), port_base)))
    Stack(Settings(Path(state), port_base)).reset()
    (Path(state).parent / "keeper").unlink()
    Path(state).with_name("stack.lock").unlink()
    Path(state).parent.rmdir()


def test_a_broken_program_is_named_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedded.stack.MAX_DEATHS", 1)
    with running_stack(("redis",)) as stack:
        (stack.settings.logs / "redis.log").write_text("all was well\nthen it was not\n")
        stack.stop(["redis"])
        with (
            socket.create_server(("127.0.0.1", stack.settings.port("redis"))),
            pytest.raises(Problem) as problem,
        ):
            stack.start(["redis"])
    assert str(problem.value).startswith("redis is not ready: ")
    assert "make logs S=redis" in str(problem.value)
    assert "\n" not in str(problem.value)


async def test_data_survives_when_everything_is_killed() -> None:
    with running_stack(BACKING, durable=True) as stack:
        environment = stack.environment()
        with psycopg.connect(environment["ADMIN_DATABASE_URL"]) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await send(environment["KAFKA_BROKERS"], "kept", b"still here")

        killed = leftovers(stack.settings)
        for process in killed:
            process.kill()
        psutil.wait_procs(killed, timeout=10)
        (stack.settings.state / "postgres.new").mkdir()  # as if a first start had been cut off

        assert stack.up() is True
        with psycopg.connect(environment["ADMIN_DATABASE_URL"]) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        assert await first_message(environment["KAFKA_BROKERS"], "kept") == b"still here"


async def send(brokers: str, topic: str, value: bytes) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=brokers, enable_idempotence=True)
    await producer.start()
    await producer.send_and_wait(topic, value)
    await producer.stop()


async def first_message(brokers: str, topic: str) -> bytes | None:
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers)
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    await consumer.seek_to_beginning(TopicPartition(topic, 0))
    message = await consumer.getone()
    await consumer.stop()
    return message.value

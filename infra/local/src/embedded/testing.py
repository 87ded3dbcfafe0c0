"""Real servers for tests: on free ports, in a temporary folder, gone when the tests are."""

import os
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

from embedded import locks
from embedded.ports import free_port_base
from embedded.settings import Settings, passed_on
from embedded.stack import BACKING, Stack


@contextmanager
def running_stack(
    parts: Sequence[str] = BACKING, *, environ: Mapping[str, str] | None = None, durable: bool = False
) -> Generator[Stack]:
    """A stack of its own, by default the backing servers alone: its `environment()` tells where they are.

    It ends with the block; it also ends when the process dies in it, however it dies.
    """
    folder = Path(tempfile.mkdtemp(prefix="ticketing-test-"))
    keeper = folder / "keeper"
    settings = Settings(
        folder / "stack", free_port_base(), passed_on=passed_on(environ or {}), durable=durable
    )
    stack = Stack(settings, parts=parts, keeper=keeper)
    try:
        with locks.held(keeper, shared=True):
            try:
                stack.up()
                yield stack
            finally:
                stack.down()
    finally:
        shutil.rmtree(folder)


@contextmanager
def shared_stack(name: str, parts: Sequence[str] = BACKING) -> Generator[Stack]:
    """One stack for all parallel workers of a pytest run: the first starts it, the last one stops it.

    Who shares it keeps apart by databases, topics or groups of their own. `name` tells stacks of one
    run apart. Not durable.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir()) / f"ticketing-test-{os.geteuid()}-{run}-{name}"
    keeper, users, port_base = folder / "keeper", folder / "users", folder / "port-base"
    with locks.held(keeper, shared=True):
        with locks.held(folder / "start"):
            if not port_base.exists():
                port_base.write_text(str(free_port_base()))
            settings = Settings(folder / "stack", int(port_base.read_text()), durable=False)
            stack = Stack(settings, parts=parts, keeper=keeper)
            use = locks.take(users, shared=True)
            stack.up()
        try:
            yield stack
        finally:
            with locks.held(folder / "start"):
                os.close(use)
                if not locks.is_held(users):
                    stack.down()
                    shutil.rmtree(folder, ignore_errors=True)


async def send_unreadable(producer: AIOKafkaProducer, topic: str, *, partition: int = 0) -> None:
    """A record whose header has a name that is no UTF-8, as other clients send it: aiokafka reads none."""
    batch = producer.create_batch()
    batch.append(key=None, value=None, timestamp=None, headers=[("??", b"")])
    broken = batch._build().replace(b"??", b"\xff\xfe")  # pyright: ignore[reportPrivateUsage]
    # The checksum of what follows it.
    broken[17:21] = calc_crc32c(bytes(broken[21:])).to_bytes(4)
    batch._buffer = broken  # pyright: ignore[reportPrivateUsage]
    await (await producer.send_batch(batch, topic, partition=partition))

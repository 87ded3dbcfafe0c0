"""Passwords are kept as Argon2id hashes, in the PHC string format.

Parameters: OWASP Password Storage Cheat Sheet (m = 19 MiB, t = 2, p = 1). A hash takes some 40 ms of a core
and releases the interpreter lock, so it runs in a few threads beside the event loop.
"""

import asyncio
import ctypes
import secrets
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from libs.web.problems import TemporarilyUnavailable

MEMORY_KIB = 19_456
ITERATIONS = 2
LANES = 1

# Some 0.6 s of waiting for two threads.
MAX_WAITING = 32

T = TypeVar("T")


class PasswordHasher:
    """Hashes and verifies in `threads` threads; beyond `max_waiting` more it refuses with 503."""

    def __init__(self, *, threads: int, max_waiting: int = MAX_WAITING) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._places = threads + max_waiting
        self._taken = 0
        self._counting = threading.Lock()
        self._memory = _Memory()
        # What is verified in the place of an account that does not exist, so that it takes the same time.
        self._nobody = _hash(secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """Raises `TemporarilyUnavailable`."""
        return await self._run(lambda: _hash(password))

    async def verify(self, password: str, phc: str | None) -> bool:
        """Without a hash to compare with (`phc` is None) it takes as long, and is false.

        Raises `TemporarilyUnavailable`.
        """
        matches = await self._run(lambda: _verify(password, phc or self._nobody))
        return matches and phc is not None

    async def _run(self, work: Callable[[], T]) -> T:
        with self._counting:
            if self._taken >= self._places:
                raise TemporarilyUnavailable("Too many people log in at this moment. Try again.")
            self._taken += 1
        future = self._threads.submit(work)
        # The place is free when the thread is, also when the client has gone before.
        future.add_done_callback(lambda _: self._leave())
        return await asyncio.wrap_future(future)

    def _leave(self) -> None:
        with self._counting:
            self._taken -= 1
            is_idle = self._taken == 0
        if is_idle:
            self._memory.give_back()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


class _Memory:
    """Keeps glibc from holding on to what hashes took: 80 MiB for two threads, in a process of 100."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        with suppress(AttributeError):  # another C library
            m_arena_max = -8  # malloc.h
            self._libc.mallopt(m_arena_max, 1)

    def give_back(self) -> None:
        with suppress(AttributeError):
            self._libc.malloc_trim(0)


def _bytes(password: str) -> bytes:
    # NIST SP 800-63B, section 3.1.1.2: the same characters must give the same bytes on any keyboard.
    return unicodedata.normalize("NFKC", password).encode()


def _hash(password: str) -> str:
    argon2 = Argon2id(
        salt=secrets.token_bytes(16), length=32, iterations=ITERATIONS, lanes=LANES, memory_cost=MEMORY_KIB
    )
    return argon2.derive_phc_encoded(_bytes(password))


def _verify(password: str, phc: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(_bytes(password), phc)
    except InvalidKey:
        return False
    return True

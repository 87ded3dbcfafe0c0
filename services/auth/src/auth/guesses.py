"""Wrong passwords are counted, right ones are not: by account and network, and by account.

The second count, ten times as large, holds back many networks that guess at one account together. It does not
concern networks from which its owner has logged in before, so that they cannot lock the owner out.

A password counts as wrong until it was looked at. So those for one account from one network are looked at one
after another: many right ones at the same moment would else refuse each other.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network, IPv6Network
from uuid import UUID

from libs.web.buckets import Bucket, Buckets, RateLimit
from libs.web.limits import RateLimited
from libs.web.problems import TemporarilyUnavailable

from auth.errors import InvalidCredentials, WrongPassword
from auth.settings import Settings

Network = IPv4Network | IPv6Network

UNKNOWN_NETWORKS_FACTOR = 10
# For one account from one network: some 4 s of waiting.
MAX_WAITING = 100


class _Queue:
    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.length = 0


class Guesses:
    """Lets an attempt at a password through, or not."""

    def __init__(self, *, buckets: Buckets, settings: Settings) -> None:
        self._buckets = buckets
        self._queues: dict[Bucket, _Queue] = {}
        quota, seconds = settings.login_failures_max, settings.auth_rate_limit_window_ms / 1000
        self._by_network = RateLimit("wrong-passwords", quota, seconds)
        self._by_account = RateLimit("wrong-passwords-anywhere", quota * UNKNOWN_NETWORKS_FACTOR, seconds)

    @asynccontextmanager
    async def at_login(
        self, email_key: str, *, network: Network, is_known_network: bool
    ) -> AsyncGenerator[None]:
        """Counted in the same way when there is no such account.

        Raises `RateLimited`, or `TemporarilyUnavailable` while the counts are not to be had.
        """
        account = hashlib.sha256(email_key.encode()).hexdigest()
        bucket = self._by_network.bucket(f"{account}:{network}")
        more = [] if is_known_network else [self._by_account.bucket(account)]
        async with self._turn(bucket), self._counted(bucket, *more):
            yield

    @asynccontextmanager
    async def at_password_change(self, user_id: UUID) -> AsyncGenerator[None]:
        """For who has somebody else's token. Raises as above."""
        bucket = self._by_network.bucket(user_id)
        async with self._turn(bucket), self._counted(bucket):
            yield

    @asynccontextmanager
    async def _turn(self, bucket: Bucket) -> AsyncGenerator[None]:
        queue = self._queues.setdefault(bucket, _Queue())
        if queue.length > MAX_WAITING:
            raise TemporarilyUnavailable("Too many log in to this account at this moment. Try again.")
        queue.length += 1
        try:
            async with queue.turn:
                yield
        finally:
            queue.length -= 1
            if queue.length == 0:
                del self._queues[bucket]

    @asynccontextmanager
    async def _counted(self, *buckets: Bucket) -> AsyncGenerator[None]:
        # Taken before the password is looked at: parallel guesses would else all pass.
        verdict = await self._buckets.take(*buckets)
        if verdict is None:
            raise TemporarilyUnavailable("Passwords cannot be checked at this moment. Try again.")
        if not verdict.is_given:
            raise RateLimited(wait_seconds=verdict.wait_seconds)
        try:
            yield
        except (InvalidCredentials, WrongPassword):
            raise
        except TemporarilyUnavailable:
            await self._buckets.give_back(*buckets)
            raise
        await self._buckets.give_back(*buckets)

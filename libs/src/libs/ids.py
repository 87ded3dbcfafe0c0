"""Ids are UUIDv7 (RFC 9562, section 5.7): they sort by time and tell when they were minted."""

import time
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    return uuid7()


def seconds_since_minted(id_: UUID) -> float:
    """Age of a UUIDv7 in seconds; infinite for any other id and for one from the future."""
    if id_.version != 7:
        return float("inf")
    age = time.time() - (id_.int >> 80) / 1000
    # Clocks of two hosts may differ a little; an id from far in the future was made up.
    return max(age, 0.0) if age > -5 else float("inf")

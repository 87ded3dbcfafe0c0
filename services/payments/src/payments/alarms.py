"""What a person has to look at: one line of level ERROR, marked so that monitoring can count it."""

import logging

log = logging.getLogger(__name__)


def raise_alarm(what: str, **which: object) -> None:
    """`which`: ids and amounts, never anything about a person or a card."""
    log.error("ALARM %s (%s)", what, ", ".join(f"{name}={value}" for name, value in which.items()))

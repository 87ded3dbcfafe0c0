"""The command that shows dead letters: what it refuses, and what it puts on the screen."""

import pytest
from letters_support import (
    DEAD,
    dlq,
    run_dlq,
)
from libs.messaging.texts import body_text


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

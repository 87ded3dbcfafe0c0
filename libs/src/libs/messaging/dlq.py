"""Dead letters on the command line: list, read, send again, put away. `make dlq` calls it.

    python -m libs.messaging.dlq                                          every dead-letter topic, with counts
    python -m libs.messaging.dlq payment.succeeded.dlq                    the letters that wait
    python -m libs.messaging.dlq payment.succeeded.dlq --letter 0:12      one letter, all of it
    python -m libs.messaging.dlq payment.succeeded.dlq --replay 0:12,0:13
    python -m libs.messaging.dlq payment.succeeded.dlq --replay all       all that wait
    python -m libs.messaging.dlq payment.succeeded.dlq --discard 0:12 --reason "a test of ours"

reads KAFKA_BROKERS. A letter is named by its place on the dead-letter topic, partition:offset.
"""

import argparse
import asyncio
import getpass
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from aiokafka.errors import KafkaError

from libs.messaging.dead_letters import Failure, without_notes
from libs.messaging.letters import (
    SOURCES,
    Decision,
    KafkaAway,
    Letter,
    Letters,
    ReplayResult,
    Status,
    UnknownLetter,
    UnknownTopic,
    open_letters,
)
from libs.messaging.texts import body_text, safe, text_of

SHOWN_LETTERS = 20
SHOWN_CHARACTERS = 2_000
STATUSES: tuple[Status, ...] = ("waiting", "replayed", "discarded")


class Refused(Exception):
    """What was asked for makes no sense; the text says what would."""


def main() -> int:
    arguments = _parser().parse_args()
    # Its words about a broker that is away are no news beside ours.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    brokers = os.environ.get("KAFKA_BROKERS", "")
    try:
        _refuse_nonsense(arguments, brokers)
        asyncio.run(_run(arguments, brokers))
    except Refused as refused:
        return _complain(str(refused))
    except UnknownTopic:
        return _complain(
            f"{arguments.topic} is no dead-letter topic. There are: {', '.join(sorted(SOURCES))}"
        )
    except UnknownLetter as letter:
        return _complain(f"there is no letter {letter} on {arguments.topic}: nothing was done")
    except KafkaAway as away:
        return _complain(f"Kafka at {brokers} does not answer: {away}")
    except KafkaError as error:
        return _complain(f"Kafka at {brokers} refused: {error!r}")
    except BrokenPipeError:  # what read our output has gone: `make dlq | head`
        sys.stdout = None
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dlq", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topic", nargs="?", default="", help="a dead-letter topic")
    parser.add_argument("--letter", default="", help="show these letters in full, whatever became of them")
    parser.add_argument("--all", action="store_true", help="show also what was replayed or discarded")
    parser.add_argument("--replay", default="", metavar="LETTERS", help="0:12,0:13 or all")
    parser.add_argument("--discard", default="", metavar="LETTERS", help="0:12,0:13 or all; needs a reason")
    parser.add_argument("--reason", default="", help="why a letter is discarded")
    return parser


def _refuse_nonsense(arguments: argparse.Namespace, brokers: str) -> None:
    if not brokers:
        raise Refused("KAFKA_BROKERS is not set")
    actions = [name for name in ("letter", "replay", "discard") if getattr(arguments, name)]
    if actions and not arguments.topic:
        raise Refused(f"{actions[0]}: of which topic? T=, one of {', '.join(sorted(SOURCES))}")
    if len(actions) > 1:
        raise Refused(f"{' and '.join(actions)}: one at a time")
    if arguments.discard and not arguments.reason.strip():
        raise Refused("a letter is not discarded without a reason: REASON='...' (--reason)")
    if arguments.reason and not arguments.discard:
        raise Refused("a reason goes with DISCARD (--discard)")


async def _run(arguments: argparse.Namespace, brokers: str) -> None:
    topic: str = arguments.topic
    async with open_letters(brokers) as letters:
        if not topic:
            print(await _counts(letters))
        elif arguments.replay:
            chosen = await _chosen(letters, topic, arguments.replay)
            if chosen:
                result = await letters.replay(topic, chosen, by=_operator())
                print(_result(topic, chosen, result))
        elif arguments.discard:
            chosen = await _chosen(letters, topic, arguments.discard)
            if chosen:
                await letters.discard(topic, chosen, reason=arguments.reason.strip(), by=_operator())
                print(f"{len(chosen)} discarded.")
        elif arguments.letter:
            for letter in await letters.find(topic, _ids(arguments.letter)):
                print(await _page(letters, letter, full=True), end="\n\n")
        else:
            await _show(letters, topic, everything=arguments.all)


async def _counts(letters: Letters) -> str:
    rows: list[tuple[str, ...]] = [("topic", *STATUSES)]
    for topic, of_topic in (await letters.of_all_topics()).items():
        counts = Counter(letter.status for letter in of_topic)
        rows.append((topic, *(str(counts[status]) for status in STATUSES)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


async def _show(letters: Letters, topic: str, *, everything: bool) -> None:
    known = await letters.of(topic)
    shown = [letter for letter in known if everything or letter.status == "waiting"]
    for letter in shown[:SHOWN_LETTERS]:
        print(await _page(letters, letter, full=False), end="\n\n")
    counts = Counter(letter.status for letter in known)
    print(f"{topic}: {', '.join(f'{counts[status]} {status}' for status in STATUSES)}")
    if len(shown) > SHOWN_LETTERS:
        print(f"These are the first {SHOWN_LETTERS}; the next begin at {shown[SHOWN_LETTERS].id}.")


async def _chosen(letters: Letters, topic: str, text: str) -> list[Letter]:
    if text == "all":
        waiting = [letter for letter in await letters.of(topic) if letter.status == "waiting"]
        if not waiting:
            print(f"No letter waits on {topic}.")
        return waiting
    chosen = await letters.find(topic, _ids(text))
    for letter in chosen:
        for decision in letter.decisions[-1:]:
            print(f"{letter.id} was {decision.action} before, by {decision.by} at {_moment(decision.at)}.")
    return chosen


def _ids(text: str) -> list[str]:
    ids = re.split(r"[,\s]+", text.strip(", \t"))
    for name in ids:
        if not re.fullmatch(r"\d+:\d+", name, re.ASCII):
            raise Refused(
                f"{safe(name)} is no letter: say partition:offset, such as 0:12, several with commas"
            )
    return ids


def _result(topic: str, letters: Sequence[Letter], result: ReplayResult) -> str:
    source = SOURCES[topic]
    lines = [f"{result.sent} sent to {source.service}, as {source.topic} had them."]
    if result.sent < len(letters):
        lines.append(f"{len(letters) - result.sent} became too old meanwhile.")
    if result.handled is None:
        lines.append(f"It has not taken all of them yet: is {source.service}'s worker running?")
    else:
        lines.append(f"{result.handled} done, {len(result.failed)} failed again.")
    lines += [f"  {each.id}  {safe(each.notes.reason)}: {safe(each.notes.error)}" for each in result.failed]
    return "\n".join(lines)


async def _page(letters: Letters, letter: Letter, *, full: bool) -> str:
    notes = letter.notes
    rows = [
        ("failed", f"{safe(notes.reason) or 'unknown'}: {safe(notes.error)}"),
        ("when", safe(notes.failed_at) or "unknown"),
        ("where", _where(letter)),
        ("how often", f"{_tries(notes.attempts)}" + (f", replay {notes.replays}" if notes.replays else "")),
        *(("before", _failure(each)) for each in notes.history),
        *(("copies", ", ".join(letter.copies)) for _ in letter.copies[:1]),
        *(("then", _decision(each)) for each in letter.decisions),
        ("key", text_of(letter.key)),
        *(("header", f"{safe(name)}: {text_of(value)}") for name, value in without_notes(letter.headers)),
        ("body", f"{letter.size} bytes" if letter.size else "none"),
    ]
    head = f"{letter.place.topic} {letter.id}  {letter.status}"
    body = body_text(await letters.body(letter), limit=None if full else SHOWN_CHARACTERS)
    return "\n".join([head, *(f"  {name:<9} {text}" for name, text in rows), body]).rstrip()


def _where(letter: Letter) -> str:
    notes = letter.notes
    source = SOURCES[letter.place.topic]
    at = "?" if notes.partition is None or notes.offset is None else f"{notes.partition}:{notes.offset}"
    return f"{source.topic} {at}, at {source.service}"


def _failure(failure: Failure) -> str:
    what = f"{safe(failure.reason)}: {safe(failure.error)}"
    return f"{safe(failure.failed_at)}  {what} ({_tries(failure.attempts)})"


def _decision(decision: Decision) -> str:
    why = f": {safe(decision.reason)}" if decision.reason else ""
    return f"{_moment(decision.at)}  {decision.action} by {safe(decision.by)}{why}"


def _tries(attempts: int) -> str:
    return "1 try" if attempts == 1 else f"{attempts} tries"


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _operator() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, in a container
        return str(os.getuid())


def _complain(text: str) -> int:
    print(f"dlq: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

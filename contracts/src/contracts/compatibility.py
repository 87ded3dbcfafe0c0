"""What a change would break, held against the last release (`contracts/released/`).

Two readers count. A consumer on the last release reads new messages: it refuses what its schema did not
allow. A consumer on the new one reads old messages: topics are read from their first message to rebuild a
projection, dead letters come back after weeks. So a field stays as it was; only optional ones may be added,
since readers ignore what they do not know.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.definitions import CONTRACTS, Contracts, InvalidContracts, MessageDefinition, read_contracts
from contracts.schemas import Schema, non_null

RELEASED = "released"
CHECKSUMS = "SHA256SUMS"
RULES = 'contracts/README.md, "To change something"'

OLD_READERS = "consumers on the last release would refuse it"
OLD_MESSAGES = "messages that were sent before, and are read again, would be refused"


def released_problems(folder: Path = CONTRACTS) -> list[str]:
    """Says which files of the release are not as `make contracts-release` wrote them."""
    released = folder / RELEASED
    on_disk = checksums(released)
    try:
        lines = (released / CHECKSUMS).read_text().splitlines()
        written = {name: checksum for checksum, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        return [
            f"contracts/{RELEASED} is missing or not whole: bring it back with `git checkout"
            f" contracts/{RELEASED}`"
        ]
    return [
        f"contracts/{RELEASED}/{name} was changed by hand: only `make contracts-release` writes there. Bring"
        " it"
        f" back with `git checkout contracts/{RELEASED}`"
        for name in sorted(on_disk.keys() | written.keys())
        if on_disk.get(name) != written.get(name)
    ]


def checksums(released: Path) -> dict[str, str]:
    """The SHA-256 of each file of a release by its path."""
    return {
        path.relative_to(released).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(released.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS
    }


def breaking_changes(contracts: Contracts, folder: Path = CONTRACTS) -> list[str]:
    """Says, for each change since the release that would break a consumer, whom and what to do instead."""
    try:
        released = read_contracts(folder / RELEASED, released=True)
    except InvalidContracts as error:
        return [f"contracts/{RELEASED}/{each}" for each in error.problems]
    return [*_topic_changes(released, contracts), *_message_changes(released, contracts)]


def _topic_changes(released: Contracts, contracts: Contracts) -> Iterator[str]:
    for name, old in released.topics.items():
        new = contracts.topics.get(name)
        if new is None:
            if not all(each.is_deprecated for each in released.on(name)):
                yield (
                    f"topics.yaml: {name} is gone: {', '.join(old.subscribers) or 'whoever reads it'} would"
                    " wait"
                    f" for messages for ever. Keep it until its messages are deprecated ({RULES})"
                )
            continue
        harms: dict[str, tuple[Any, Any, str]] = {
            "owner": (old.owner, new.owner, "its consumers would hear from a service that they do not know"),
            "key": (old.key, new.key, f"messages of one {old.key} would lose their order"),
            "partitions": (
                old.partitions,
                new.partitions,
                "keys would move to other partitions, ahead of or behind their older messages",
            ),
            "cleanup": (old.cleanup, new.cleanup, "what consumers can read again would be another"),
        }
        for field, (before, after, harm) in harms.items():
            if before != after:
                yield (
                    f"topics.yaml: {name}: {field} was {before}, is {after}: {harm}. Leave it at {before},"
                    " or make"
                    f" a new topic beside it ({RULES})"
                )
        for subscriber, dead_letters in old.subscribers.items():
            if new.subscribers.get(subscriber, dead_letters) != dead_letters:
                yield (
                    f"topics.yaml: {name}: the dead-letter topic of {subscriber} was {dead_letters}, is"
                    f" {new.subscribers[subscriber]}: the letters in the old one would be forgotten. Leave"
                    " its name"
                )


def _message_changes(released: Contracts, contracts: Contracts) -> Iterator[str]:
    for (message_type, version), old in released.messages.items():
        new = contracts.messages.get((message_type, version))
        if new is None:
            if not old.is_deprecated:
                yield (
                    f"schemas/{old.name}.json is gone: consumers on the last release still wait for"
                    f" {message_type}"
                    f' v{version}. Keep it; once nobody publishes it, write "deprecated": true into it and'
                    " release"
                    f" that; a later release may be without it ({RULES})"
                )
            continue
        if new.topic != old.topic:
            yield (
                f"topics.yaml: {message_type} was on {old.topic}, is on {new.topic}: the subscribers of"
                f" {old.topic}"
                f" would miss it. Leave it there, and give what is on {new.topic} another type"
            )
        instead = f"contracts/schemas/{message_type}.v{_next_version(contracts, old)}.json beside it"
        for field, harm, is_new in _changed_fields("", old.schema, new.schema):
            way = "Leave it out of `required`" if is_new else "Leave it as it was"
            yield (
                f"schemas/{old.name}.json: {field} {harm}. {way}, or leave this version and make {instead}"
                f" ({RULES})"
            )


def _next_version(contracts: Contracts, message: MessageDefinition) -> int:
    return max(each.version for each in contracts.versions(message.type)) + 1


# A change: the field, what happens to whom, whether the field is new.
Change = tuple[str, str, bool]


def _changed_fields(path: str, old: Schema, new: Schema) -> Iterator[Change]:
    was_required, is_required = old.get("required", []), new.get("required", [])
    for name, before in old["properties"].items():
        field = f"{path}{name}"
        after = new["properties"].get(name)
        if after is None:
            yield field, "is gone: consumers on the last release read it", False
            continue
        if name in was_required and name not in is_required:
            yield field, f"may be absent now: {OLD_READERS}", False
        if name in is_required and name not in was_required:
            yield field, f"is required now: {OLD_MESSAGES}", True
        yield from _changed_value(field, before, after)
    for name in new["properties"].keys() - old["properties"].keys():
        if name in is_required:
            yield f"{path}{name}", f"is new and required: {OLD_MESSAGES}", True


def _changed_value(field: str, before: Schema, after: Schema) -> Iterator[Change]:
    old, was_nullable = non_null(before)
    new, is_nullable = non_null(after)
    if is_nullable and not was_nullable:
        yield field, f"may be null now: {OLD_READERS}", False
    if was_nullable and not is_nullable:
        yield field, f"may be null no more: {OLD_MESSAGES}", False
    if _kind(old) != _kind(new):
        yield field, f"was {_kind(old)}, is {_kind(new)}: {OLD_READERS}", False
        return
    yield from _changed_enum(field, old.get("enum"), new.get("enum"))
    for name in ("minimum", "minLength", "minItems"):
        yield from _changed_limit(field, name, old.get(name), new.get(name), wider=-1)
    for name in ("maximum", "maxLength", "maxItems"):
        yield from _changed_limit(field, name, old.get(name), new.get(name), wider=1)
    if (patterns := (old.get("pattern"), new.get("pattern")))[0] != patterns[1]:
        harm = OLD_MESSAGES if patterns[0] is None else OLD_READERS
        yield field, f"had the pattern {patterns[0]}, has {patterns[1]}: {harm}", False
    if old["type"] == "array":
        yield from _changed_value(f"{field}[]", old["items"], new["items"])
    if old["type"] == "object":
        yield from _changed_fields(f"{field}.", old, new)


def _kind(schema: Schema) -> str:
    return " ".join(filter(None, (schema["type"], schema.get("format"))))


def _changed_enum(field: str, old: list[Any] | None, new: list[Any] | None) -> Iterator[Change]:
    if old is None or new is None:
        if old is not None:
            yield field, f"was one of {', '.join(map(str, old))}, may be anything now: {OLD_READERS}", False
        if new is not None:
            yield field, f"may only be one of {', '.join(map(str, new))} now: {OLD_MESSAGES}", False
        return
    if added := [str(each) for each in new if each not in old]:
        yield field, f"may be {' or '.join(added)} now: {OLD_READERS}", False
    if removed := [str(each) for each in old if each not in new]:
        yield field, f"may be {' or '.join(removed)} no more: {OLD_MESSAGES}", False


def _changed_limit(
    field: str, name: str, old: int | None, new: int | None, *, wider: int
) -> Iterator[Change]:
    if old == new:
        return
    is_wider = new is None or (old is not None and (new - old) * wider > 0)
    yield field, f"had {name} {old}, has {new}: {OLD_READERS if is_wider else OLD_MESSAGES}", False

"""What the code of the services publishes and consumes, held against the contracts.

The code is read, not run. Published is what a service builds of its own messages, or of others', in Python,
and what its SQL inserts into the outbox. Consumed is what `HANDLERS` of its `consumers.py` names.
"""

from collections.abc import Iterator
from pathlib import Path

from contracts.definitions import Contracts, MessageDefinition
from contracts.usage_python import read_python
from contracts.usage_sql import read_migrations

Version = tuple[str, int]


def usage_problems(contracts: Contracts, services: Path) -> list[str]:
    """A sentence for each place where code and contracts differ, and what to do there."""
    names = sorted(path.name for path in services.iterdir() if (path / "src").is_dir())
    problems: list[str] = []
    publishers: dict[Version, str] = {}
    handled: dict[str, set[Version]] = {}
    for name in names:
        python = read_python(services / name, name, contracts)
        sql = read_migrations(services / name / "migrations", contracts)
        problems.extend(python.unreadable + sql.unreadable)
        for version, place in [*python.published, *sql.published]:
            publishers[version] = name
            problems.extend(_publishing(contracts.messages[version], contracts, name, place))
        if python.handled is not None:
            handled[name] = python.handled
            problems.extend(_handling(contracts, name, python.handled))
    problems.extend(_parties(contracts, names))
    problems.extend(_silent(contracts, publishers, names))
    problems.extend(_unheard(contracts, publishers, handled))
    return list(dict.fromkeys(problems))


def _publishing(message: MessageDefinition, contracts: Contracts, service: str, place: str) -> Iterator[str]:
    owner = contracts.topics[message.topic].owner
    if owner != service:
        yield (
            f"{place}: {service} publishes {message.struct} on {message.topic}, which is {owner}'s. Publish"
            " a message"
            f" of a topic that {service} owns, or make it one in contracts/topics.yaml"
        )
    elif message.is_deprecated:
        yield (
            f"{place}: {service} publishes {message.struct}, which is deprecated. Publish"
            f" {contracts.versions(message.type)[-1].struct} instead"
        )


def _handling(contracts: Contracts, service: str, handled: set[Version]) -> Iterator[str]:
    place = f"services/{service}/src/{service}/consumers.py"
    for version in sorted(handled):
        message = contracts.messages[version]
        if service not in contracts.topics[message.topic].subscribers:
            yield (
                f"{place}: a handler for {message.struct}, but {service} does not subscribe to"
                f" {message.topic}: it"
                f" would never run. Add {service}: {message.topic}.{service}.dlq to the topic's subscribers"
                " in"
                " contracts/topics.yaml, or remove the handler"
            )
    for name, topic in contracts.topics.items():
        if service in topic.subscribers and not any(
            contracts.messages[each].topic == name for each in handled
        ):
            yield (
                f"{place}: {service} subscribes to {name} and has no handler for any of its messages. Add"
                " one to"
                f" HANDLERS, or remove {service} from the topic's subscribers in contracts/topics.yaml"
            )


def _parties(contracts: Contracts, services: list[str]) -> Iterator[str]:
    for name, topic in contracts.topics.items():
        for party in sorted({topic.owner, *topic.subscribers}.difference(services)):
            yield f"contracts/topics.yaml: {name} names {party}, and there is no services/{party}"


def _silent(contracts: Contracts, publishers: dict[Version, str], services: list[str]) -> Iterator[str]:
    """Types that are in the contracts and never sent."""
    for topic in contracts.topics.values():
        for message_type in topic.messages if topic.owner in services else ():
            versions = [each for each in contracts.versions(message_type) if not each.is_deprecated]
            if versions and not any((message_type, each.version) in publishers for each in versions):
                yield (
                    f"contracts/schemas/{versions[-1].name}.json: nothing in services/{topic.owner} publishes"
                    f' {message_type}. Publish it, or write "deprecated": true into its schema'
                )


def _unheard(
    contracts: Contracts, publishers: dict[Version, str], handled: dict[str, set[Version]]
) -> Iterator[str]:
    """Subscribers that act on a type, but on none of the versions that are sent."""
    for service, versions in handled.items():
        for message_type in sorted({each for each, _ in versions}):
            sent = {each for each in publishers if each[0] == message_type}
            if sent and not sent & versions:
                latest = contracts.messages[max(sent)]
                yield (
                    f"services/{service}/src/{service}/consumers.py: {latest.type} is published as"
                    f" v{latest.version},"
                    f" and {service} has handlers for other versions only: it would skip every one. Add"
                    f" {latest.struct} to HANDLERS"
                )

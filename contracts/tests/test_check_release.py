"""What `make check` says about changes that break an old consumer on new messages, or a new one on old."""

from collections.abc import Callable
from typing import Any

import pytest
from contracts.check import problems
from contracts.definitions import InvalidContracts
from contracts.release import release

from .conftest import Repository

Change = Callable[[dict[str, Any], dict[str, Any]], object]

OLD_READERS = "consumers on the last release would refuse it"
OLD_MESSAGES = "messages that were sent before, and are read again, would be refused"
NEW_VERSION = "make contracts/schemas/hold.placed.v2.json beside it (contracts/README.md"


def seat(schema: dict[str, Any]) -> dict[str, Any]:
    return schema["properties"]["seats"]["items"]


def removed(schema: dict[str, Any], example: dict[str, Any]) -> None:
    del schema["properties"]["currency"], example["currency"]
    schema["required"].remove("currency")


def renamed(schema: dict[str, Any], example: dict[str, Any]) -> None:
    schema["properties"]["totalMinor"] = schema["properties"].pop("amountMinor")
    schema["required"][schema["required"].index("amountMinor")] = "totalMinor"
    example["totalMinor"] = example.pop("amountMinor")


def retyped(schema: dict[str, Any], example: dict[str, Any]) -> None:
    schema["properties"]["amountMinor"] = {"type": "string"}
    example["amountMinor"] = "45.00"


def reformatted(schema: dict[str, Any], example: dict[str, Any]) -> None:
    del schema["properties"]["userId"]["format"]


def required(schema: dict[str, Any], example: dict[str, Any]) -> None:
    schema["properties"]["channel"] = {"type": "string"}
    schema["required"].append("channel")
    example["channel"] = "web"


def made_optional(schema: dict[str, Any], example: dict[str, Any]) -> None:
    schema["required"].remove("currency")


def made_nullable(schema: dict[str, Any], example: dict[str, Any]) -> None:
    schema["properties"]["currency"] = {"anyOf": [schema["properties"]["currency"], {"type": "null"}]}


def nested_removed(schema: dict[str, Any], example: dict[str, Any]) -> None:
    del seat(schema)["properties"]["row"]
    seat(schema)["required"].remove("row")
    for each in example["seats"]:
        del each["row"]


def nested_no_longer_nullable(schema: dict[str, Any], example: dict[str, Any]) -> None:
    seat(schema)["properties"]["tierId"] = {"type": "string", "format": "uuid"}


def narrowed(schema: dict[str, Any], example: dict[str, Any]) -> None:
    schema["properties"]["amountMinor"]["minimum"] = 1


def widened(schema: dict[str, Any], example: dict[str, Any]) -> None:
    del schema["properties"]["amountMinor"]["minimum"]


def limited(schema: dict[str, Any], example: dict[str, Any]) -> None:
    schema["properties"]["seats"]["maxItems"] = 10


def other_pattern(schema: dict[str, Any], example: dict[str, Any]) -> None:
    schema["properties"]["currency"]["pattern"] = "^[a-zA-Z]{3}$"


def enumerated(schema: dict[str, Any], example: dict[str, Any]) -> None:
    seat(schema)["properties"]["section"]["enum"] = sorted({each["section"] for each in example["seats"]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (removed, [("currency is gone: consumers on the last release read it", "Leave it as it was")]),
        (
            renamed,
            [
                ("amountMinor is gone: consumers on the last release read it", "Leave it as it was"),
                (f"totalMinor is new and required: {OLD_MESSAGES}", "Leave it out of `required`"),
            ],
        ),
        (retyped, [(f"amountMinor was integer, is string: {OLD_READERS}", "Leave it as it was")]),
        (reformatted, [(f"userId was string uuid, is string: {OLD_READERS}", "Leave it as it was")]),
        (required, [(f"channel is new and required: {OLD_MESSAGES}", "Leave it out of `required`")]),
        (made_optional, [(f"currency may be absent now: {OLD_READERS}", "Leave it as it was")]),
        (made_nullable, [(f"currency may be null now: {OLD_READERS}", "Leave it as it was")]),
        (nested_removed, [("seats[].row is gone", "Leave it as it was")]),
        (
            nested_no_longer_nullable,
            [(f"seats[].tierId may be null no more: {OLD_MESSAGES}", "Leave it as it was")],
        ),
        (narrowed, [(f"amountMinor had minimum 0, has 1: {OLD_MESSAGES}", "Leave it as it was")]),
        (widened, [(f"amountMinor had minimum 0, has None: {OLD_READERS}", "Leave it as it was")]),
        (limited, [(f"seats had maxItems None, has 10: {OLD_MESSAGES}", "Leave it as it was")]),
        (
            other_pattern,
            [
                (
                    f"currency had the pattern ^[a-z]{{3}}$, has ^[a-zA-Z]{{3}}$: {OLD_READERS}",
                    "Leave it as it was",
                )
            ],
        ),
        (enumerated, [("seats[].section may only be one of", "Leave it as it was")]),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_breaking_change_of_a_field_is_named_with_a_way_out(
    repository: Repository, change: Change, said: list[tuple[str, str]]
) -> None:
    with repository.schema("hold.placed.v1") as schema, repository.example("hold.placed.v1") as example:
        change(schema, example)
    # Found by the contracts alone: the code that publishes it was not changed with it.
    found = [each for each in repository.problems() if "schemas/hold.placed.v1.json" in each]
    assert len(found) == len(said)
    for problem, (what, instead) in zip(found, said, strict=True):
        assert problem.startswith(f"contracts/schemas/hold.placed.v1.json: {what}")
        assert instead in problem
        assert NEW_VERSION in problem


@pytest.mark.parametrize("change", [removed, retyped, required])
def test_breaking_change_is_named_before_the_example_that_did_not_change_with_it(
    repository: Repository, change: Change
) -> None:
    with repository.schema("hold.placed.v1") as schema:
        change(schema, dict.fromkeys(("currency", "amountMinor")))
    first, second = problems(repository.root)
    assert NEW_VERSION in first
    assert "examples/hold.placed.v1.json" in second


def test_optional_field_made_required_is_named(repository: Repository) -> None:
    with repository.schema("hold.placed.v1") as schema:
        schema["properties"]["channel"] = {"type": "string"}
    repository.generate()
    release(repository.contracts)
    with repository.schema("hold.placed.v1") as schema, repository.example("hold.placed.v1") as example:
        schema["required"].append("channel")
        example["channel"] = "web"
    assert any(f"channel is required now: {OLD_MESSAGES}" in each for each in repository.problems())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["buyer", "hold_ended", "fraud"], f"reason may be fraud now: {OLD_READERS}"),
        (["buyer"], f"reason may be hold_ended no more: {OLD_MESSAGES}"),
        (None, f"reason was one of buyer, hold_ended, may be anything now: {OLD_READERS}"),
    ],
)
def test_changed_enum_is_named(repository: Repository, values: list[str] | None, said: str) -> None:
    with repository.schema("order.cancelled.v1") as schema:
        schema["properties"]["reason"]["enum"] = values
        if values is None:
            del schema["properties"]["reason"]["enum"]
    (problem,) = repository.problems()
    assert said in problem


def test_new_optional_field_new_type_and_new_version_are_allowed(repository: Repository) -> None:
    with repository.schema("hold.placed.v1") as schema:
        schema["properties"]["channel"] = {"type": "string"}
        seat(schema)["properties"]["level"] = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
        schema["properties"]["currency"]["description"] = "Better said."
        schema["properties"]["userId"] = dict(reversed(schema["properties"]["userId"].items()))
    repository.add_version("order.paid", 2)
    repository.replace("contracts/topics.yaml", "- order.placed", "- order.noted\n      - order.placed")
    repository.add_version("order.fulfilled", 2)
    for folder in ("schemas", "examples"):
        path = repository.contracts / folder
        (path / "order.fulfilled.v2.json").rename(path / "order.noted.v1.json")
    with repository.schema("order.noted.v1") as schema:
        schema |= {"$id": "order.noted.v1.json", "title": "order.noted"}
    with (repository.root / "services/payments/src/payments/orders.py").open("a") as file:
        file.write("\nfrom contracts.messages import OrderNoted\nnoted = OrderNoted()\n")
    assert repository.problems() == []


def test_removed_version_is_named_until_it_was_released_as_deprecated(repository: Repository) -> None:
    repository.add_version("order.paid", 2)
    publisher = "services/payments/src/payments/orders.py"
    consumer = "services/inventory/src/inventory/consumers.py"
    repository.replace(publisher, "OrderPaid", "OrderPaidV2")
    repository.replace(consumer, "OrderPaid,", "OrderPaid,\n    OrderPaidV2,")
    repository.replace(consumer, "OrderPaid:", "OrderPaidV2: confirm_sale,\n    OrderPaid:")
    assert repository.problems() == []
    release(repository.contracts)

    def remove() -> None:
        for folder in ("schemas", "examples"):
            (repository.contracts / folder / "order.paid.v1.json").unlink()

    kept = {each: each.read_text() for each in repository.contracts.glob("*/order.paid.v1.json")}
    remove()
    repository.replace(consumer, "OrderPaid:", "OrderPaidV2:")
    (problem,) = repository.problems()
    assert problem.startswith("contracts/schemas/order.paid.v1.json is gone: consumers on the last release")
    assert 'write "deprecated": true into it and release that' in problem

    for path, text in kept.items():
        path.write_text(text)
    with repository.schema("order.paid.v1") as schema:
        schema["deprecated"] = True
    assert repository.problems() == []
    release(repository.contracts)
    remove()
    assert repository.problems() == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "key: holdId",
            "key: eventId",
            "inventory.holds: key was holdId, is eventId: messages of one holdId would lose",
        ),
        ("owner: catalog", "owner: inventory", "catalog.events: owner was catalog, is inventory"),
        (
            "partitions: 3",
            "partitions: 4",
            "auth.users: partitions was 3, is 4: keys would move to other partitions",
        ),
        (
            "cleanup: keep",
            "cleanup: delete\n    retentionDays: 30",
            "auth.users: cleanup was keep, is delete",
        ),
        (
            "auth.users.catalog.dlq",
            "auth.users.catalogue.dlq",
            "the dead-letter topic of catalog was auth.users.catalog.dlq, is auth.users.catalogue.dlq: the"
            " letters in"
            " the old one would be forgotten. Leave its name",
        ),
        (
            "messages: [seat-map.part]",
            "messages: []",
            "seat-map.part was on catalog.seat-maps, is on catalog.events",
        ),
    ],
)
def test_breaking_change_of_a_topic_is_named(repository: Repository, old: str, new: str, said: str) -> None:
    repository.replace("contracts/topics.yaml", old, new)
    if "messages: []" in new:
        repository.replace("contracts/topics.yaml", "event.cancelled]", "event.cancelled, seat-map.part]")
    assert any(said in each for each in repository.problems())


def test_new_subscriber_and_longer_retention_are_allowed(repository: Repository) -> None:
    repository.replace(
        "contracts/topics.yaml",
        "      inventory: catalog.seat-maps.inventory.dlq",
        "      inventory: catalog.seat-maps.inventory.dlq\n      payments: catalog.seat-maps.payments.dlq",
    )
    repository.replace("contracts/topics.yaml", "retentionDays: 14", "retentionDays: 21")
    consumer = "services/payments/src/payments/consumers.py"
    repository.replace(consumer, "    SaleRejected,\n", "    SaleRejected,\n    SeatMapPart,\n")
    repository.replace(consumer, "    UserDisabled: on", "    SeatMapPart: print,\n    UserDisabled: on")
    assert repository.problems() == []


def test_release_changed_by_hand_is_noticed(repository: Repository) -> None:
    released = repository.contracts / "released" / "schemas" / "order.paid.v1.json"
    released.write_text(released.read_text().replace("amountMinor", "amount"))
    (repository.contracts / "released" / "schemas" / "order.placed.v1.json").unlink()
    found = problems(repository.root)
    assert [each.partition(" was changed by hand")[0] for each in found] == [
        "contracts/released/schemas/order.paid.v1.json",
        "contracts/released/schemas/order.placed.v1.json",
    ]
    with pytest.raises(InvalidContracts, match="was changed by hand"):
        release(repository.contracts)
    for path in (repository.contracts / "released").rglob("*.*"):
        path.unlink()
    (repository.contracts / "released" / "SHA256SUMS").unlink()
    assert "is missing or not whole: bring it back with `git checkout" in problems(repository.root)[0]


def test_release_is_refused_while_generated_files_are_stale(repository: Repository) -> None:
    (repository.contracts / "messages.md").write_text("")
    with pytest.raises(InvalidContracts, match=r"contracts/messages.md is stale: run `make contracts`"):
        release(repository.contracts)

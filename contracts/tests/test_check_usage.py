"""What `make check` says about code that publishes or consumes what the contracts do not say."""

import pytest

from .conftest import Repository

IMPORTS = "from contracts.messages import OrderPaid, HoldLost, EventCreated\nimport contracts.messages as m\n"


def plant(repository: Repository, path: str, text: str) -> None:
    file = repository.root / "services" / path
    file.write_text((file.read_text() if file.exists() else "") + text)


@pytest.mark.parametrize(
    "text", ["publish(conn, OrderPaid(order_id=1))", "late = m.OrderPaid()", "x = [OrderPaid(**y)]"]
)
def test_message_of_a_topic_of_another_owner_is_named(repository: Repository, text: str) -> None:
    plant(repository, "inventory/src/inventory/odd.py", IMPORTS + text + "\n")
    assert repository.problems() == [
        "services/inventory/src/inventory/odd.py:3: inventory publishes OrderPaid on payments.orders, which"
        " is"
        " payments's. Publish a message of a topic that inventory owns, or make it one in"
        " contracts/topics.yaml"
    ]


READING = [
    "def on(conn: int, paid: OrderPaid) -> None: ...",
    "none = list[OrderPaid]()",
    "def on(conn: int, paid: OrderPaid | HoldLost) -> OrderPaid: ...",
    "Either = OrderPaid | EventCreated",
    "is_it = isinstance(x, OrderPaid) or type(x) is OrderPaid or type(x) in (OrderPaid, HoldLost)",
    "topic = OrderPaid.TOPIC, m.OrderPaid.VERSION",
    "paid = decode(body, type=OrderPaid)",
    "paid = cast(OrderPaid, x)",
    "by_type: dict[type[OrderPaid], int] = {OrderPaid: 1}",
    "match x:\n    case OrderPaid(order_id=y):\n        pass",
]


@pytest.mark.parametrize("text", READING)
def test_reading_the_messages_of_others_is_no_publishing(repository: Repository, text: str) -> None:
    plant(repository, "inventory/src/inventory/odd.py", IMPORTS + text + "\n")
    assert repository.problems() == []


def test_handler_for_a_topic_that_is_not_subscribed_to_is_named(repository: Repository) -> None:
    path = "services/catalog/src/catalog/consumers.py"
    repository.replace(path, "import UserDisabled", "import OrderPaid, UserDisabled")
    repository.replace(path, "HANDLERS: Handlers = {", "HANDLERS: Handlers = {OrderPaid: print, ")
    assert repository.problems() == [
        f"{path}: a handler for OrderPaid, but catalog does not subscribe to payments.orders: it would never"
        " run."
        " Add catalog: payments.orders.catalog.dlq to the topic's subscribers in contracts/topics.yaml, or"
        " remove"
        " the handler"
    ]


def test_subscriber_without_any_handler_is_named(repository: Repository) -> None:
    path = "services/inventory/src/inventory/consumers.py"
    repository.replace(path, "    SeatMapPart: save_seat_map_part,\n", "")
    assert repository.problems() == [
        f"{path}: inventory subscribes to catalog.seat-maps and has no handler for any of its messages. Add"
        " one to"
        " HANDLERS, or remove inventory from the topic's subscribers in contracts/topics.yaml"
    ]


@pytest.mark.parametrize("text", ["", *READING])
def test_type_that_nobody_publishes_is_named(repository: Repository, text: str) -> None:
    repository.replace("services/payments/src/payments/refunds.py", "OrderRefunded(", "dict(")
    own = IMPORTS.replace("OrderPaid", "OrderRefunded") + text.replace("OrderPaid", "OrderRefunded")
    plant(repository, "payments/src/payments/odd.py", own + "\n")
    assert repository.problems() == [
        "contracts/schemas/order.refunded.v1.json: nothing in services/payments publishes order.refunded."
        " Publish it,"
        ' or write "deprecated": true into its schema'
    ]


def test_publishing_a_deprecated_version_is_named(repository: Repository) -> None:
    repository.add_version("order.refunded", 2)
    with repository.schema("order.refunded.v1") as schema:
        schema["deprecated"] = True
    found = repository.problems()
    assert any(
        each.startswith("services/payments/src/payments/refunds.py:")
        and each.endswith(
            "payments publishes OrderRefunded, which is deprecated. Publish OrderRefundedV2 instead"
        )
        for each in found
    )


def test_consumer_of_another_version_than_is_published_is_named(repository: Repository) -> None:
    repository.add_version("order.paid", 2)
    repository.replace("services/payments/src/payments/orders.py", "OrderPaid", "OrderPaidV2")
    assert repository.problems() == [
        "services/inventory/src/inventory/consumers.py: order.paid is published as v2, and inventory has"
        " handlers for"
        " other versions only: it would skip every one. Add OrderPaidV2 to HANDLERS"
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("HANDLERS: Handlers = {UserDisabled: on_user_disabled", "HANDLERS: Handlers = {**OTHERS"),
        ("HANDLERS: Handlers = {", "HANDLERS: Handlers = make() if 1 else {"),
        ("HANDLERS: Handlers = {", "LISTENERS: Handlers = {"),
        ("HANDLERS: Handlers = {", "HANDLERS: Handlers = {}\nHANDLERS |= {"),
    ],
)
def test_handlers_that_cannot_be_read_are_named(repository: Repository, old: str, new: str) -> None:
    path = "services/catalog/src/catalog/consumers.py"
    repository.replace(path, old, new)
    assert repository.problems()[0].startswith(f"{path}: the messages that are handled cannot be read")


def test_kafka_behind_the_back_of_the_contracts_is_named(repository: Repository) -> None:
    plant(repository, "auth/src/auth/odd.py", "from aiokafka import AIOKafkaProducer\n")
    (problem,) = repository.problems()
    assert problem.startswith("services/auth/src/auth/odd.py:1: aiokafka is imported")


INSERT = "INSERT INTO outbox (topic, key, type, version, body) VALUES ('{}', k, '{}', {}, '{{}}');\n"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            INSERT.format("payments.orders", "order.paid", 1),
            "inventory publishes OrderPaid on payments.orders, which is",
        ),
        (
            INSERT.format("inventory.holds", "hold.melted", 1),
            "publishes hold.melted v1 on inventory.holds, which",
        ),
        (
            INSERT.format("inventory.holds", "hold.lost", 7),
            "publishes hold.lost v7 on inventory.holds, which",
        ),
        (
            INSERT.format("inventory.tickets", "hold.lost", 1),
            "publishes hold.lost v1 on inventory.tickets, which",
        ),
        (
            "WITH a AS (INSERT INTO outbox (topic, key, type, body) SELECT v_topic, 'k', 'hold.lost', ''"
            " FROM x)",
            "write its topic, type and version as literals",
        ),
        (
            "INSERT INTO outbox (topic, key, type, body) VALUES ('inventory.holds', f(1, ')'), 'hold.lost',"
            " ''),"
            " ('inventory.holds', f(2), 'hold.melted', '');",
            "publishes hold.melted v1",
        ),
    ],
)
def test_sql_that_publishes_what_the_contracts_do_not_say_is_named(
    repository: Repository, sql: str, said: str
) -> None:
    plant(repository, "inventory/migrations/9999_odd.sql", sql)
    (problem,) = repository.problems()
    assert problem.startswith("services/inventory/migrations/9999_odd.sql: ")
    assert said in problem


def test_sql_within_python_is_read_too(repository: Repository) -> None:
    sql = INSERT.format("payments.orders", "order.paid", 1)
    plant(repository, "inventory/src/inventory/odd.py", f'SQL = """\n{sql}"""\n')
    (problem,) = repository.problems()
    assert problem.startswith("services/inventory/src/inventory/odd.py:1: inventory publishes OrderPaid")


def test_body_that_sql_builds_has_the_fields_of_its_schema(repository: Repository) -> None:
    path = "services/inventory/migrations/0002_placing.sql"
    repository.replace(path, "'placedAt', placed_at", "'heldAt', placed_at")
    assert repository.problems() == [
        f"{path}: hold.placed.v1 is published without placedAt, which its schema requires",
        f"{path}: hold.placed.v1 is published with heldAt, which its schema does not have",
    ]


def test_function_that_a_later_migration_replaces_or_drops_counts_no_more(repository: Repository) -> None:
    path = "inventory/migrations/9001_odd.sql"
    function = "CREATE OR REPLACE FUNCTION melt() AS $$ {} $$;\n"
    plant(repository, path, function.format(INSERT.format("inventory.holds", "hold.melted", 1)))
    assert len(repository.problems()) == 1
    plant(repository, "inventory/migrations/9002_odd.sql", function.format(""))
    assert repository.problems() == []
    plant(repository, "inventory/migrations/9002_odd.sql", function.format(INSERT.format("a", "b", 1)))
    assert len(repository.problems()) == 1
    plant(repository, "inventory/migrations/9003_odd.sql", "DROP FUNCTION IF EXISTS melt();\n")
    assert repository.problems() == []

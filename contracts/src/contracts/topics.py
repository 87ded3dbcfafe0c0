"""Generated from contracts/ by `make contracts`. Do not edit."""

from msgspec import Struct


class Topic(Struct, frozen=True, kw_only=True):
    """A topic; `subscribers` maps a consumer group to its dead-letter topic,
    `retention_days` is None where messages are kept for good. A topic without messages
    carries dead letters that are sent again."""

    name: str
    owner: str
    partitions: int
    retention_days: int | None
    messages: tuple[str, ...]
    subscribers: dict[str, str]


TOPICS = (
    Topic(
        name='auth.users',
        owner='auth',
        partitions=3,
        retention_days=None,
        messages=('user.registered', 'user.disabled', 'user.tokens_revoked'),
        subscribers={'catalog': 'auth.users.catalog.dlq', 'inventory': 'auth.users.inventory.dlq', 'payments': 'auth.users.payments.dlq'},
    ),
    Topic(
        name='catalog.events',
        owner='catalog',
        partitions=3,
        retention_days=None,
        messages=('event.created', 'event.updated', 'event.published', 'event.cancelled'),
        subscribers={'inventory': 'catalog.events.inventory.dlq'},
    ),
    Topic(
        name='catalog.seat-maps',
        owner='catalog',
        partitions=3,
        retention_days=None,
        messages=('seat-map.part',),
        subscribers={'inventory': 'catalog.seat-maps.inventory.dlq'},
    ),
    Topic(
        name='inventory.holds',
        owner='inventory',
        partitions=6,
        retention_days=14,
        messages=('hold.placed', 'hold.extended', 'hold.lost', 'hold.released', 'hold.expired', 'hold.confirmed'),
        subscribers={'payments': 'inventory.holds.payments.dlq'},
    ),
    Topic(
        name='inventory.tickets',
        owner='inventory',
        partitions=6,
        retention_days=14,
        messages=('tickets.issued', 'sale.rejected', 'tickets.voided', 'void.refused'),
        subscribers={'payments': 'inventory.tickets.payments.dlq'},
    ),
    Topic(
        name='payments.orders',
        owner='payments',
        partitions=6,
        retention_days=14,
        messages=('order.placed', 'order.paid', 'order.cancelled', 'order.expired', 'order.refund_requested', 'order.fulfilled', 'order.refunded'),
        subscribers={'inventory': 'payments.orders.inventory.dlq'},
    ),
    Topic(
        name='payment.succeeded',
        owner='payments',
        partitions=6,
        retention_days=14,
        messages=('payment.succeeded',),
        subscribers={'payments': 'payment.succeeded.dlq'},
    ),
    Topic(
        name='catalog.replay',
        owner='catalog',
        partitions=1,
        retention_days=14,
        messages=(),
        subscribers={'catalog': 'catalog.replay.dlq'},
    ),
    Topic(
        name='inventory.replay',
        owner='inventory',
        partitions=1,
        retention_days=14,
        messages=(),
        subscribers={'inventory': 'inventory.replay.dlq'},
    ),
    Topic(
        name='payments.replay',
        owner='payments',
        partitions=1,
        retention_days=14,
        messages=(),
        subscribers={'payments': 'payments.replay.dlq'},
    ),
)

DEAD_LETTER_AUDIT = 'dead-letters.audit'

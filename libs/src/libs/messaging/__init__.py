"""Kafka with exactly one effect: outbox, relay, inbox, subscriptions, dead letters."""

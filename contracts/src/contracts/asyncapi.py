"""The contracts as an AsyncAPI 3 document: https://www.asyncapi.com/docs/reference/specification/v3.0.0

A channel is a topic; an operation is a service that sends to it or receives from it.
"""

from typing import Any

import yaml

from contracts.definitions import Contracts, MessageDefinition, TopicDefinition
from contracts.schemas import Schema

HEADER = "# Generated from contracts/ by `make contracts`. Do not edit.\n"
KAFKA_BINDING = "0.5.0"
DAY_MILLISECONDS = 24 * 3600 * 1000

HEADERS: Schema = {
    "type": "object",
    "properties": {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_id": {
            "type": "string",
            "format": "uuid",
            "description": "the message's id: seen twice, it counts once",
        },
        "ce_type": {"type": "string", "description": "the message type"},
        "ce_source": {"type": "string", "description": "the publisher, such as /payments"},
        "ce_subject": {"type": "string", "description": "the key"},
        "ce_time": {
            "type": "string",
            "format": "date-time",
            "description": "when it was written to the outbox",
        },
        "ce_dataschema": {"type": "string", "description": "file of its schema: <type>.v<N>.json"},
        "correlation_id": {"type": "string", "description": "the trace's id"},
        "traceparent": {"type": "string", "description": "W3C trace context of the change"},
    },
    "required": ["ce_id", "ce_type", "ce_dataschema"],
}


def asyncapi_source(contracts: Contracts) -> str:
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, topic in contracts.topics.items():
        messages = [each.name for each in contracts.on(name)]
        channels[name] = _channel(contracts, name, topic)
        operations[f"{topic.owner}.sends.{name}"] = _operation("send", name, messages)
        for subscriber, dead_letters in topic.subscribers.items():
            operations[f"{subscriber}.receives.{name}"] = _receiving(subscriber, name, messages)
            channels[dead_letters] = _dead_letters(
                dead_letters, f"What {subscriber} could not process of {name}, as the bytes it was."
            )
            operations[f"{subscriber}.sends.{dead_letters}"] = _operation(
                "send", dead_letters, ["dead-letter"]
            )
    for service, replay in contracts.replays.items():
        channels[replay.topic] = _dead_letters(replay.topic, f"Dead letters that {service} gets again.")
        channels[replay.dead_letters] = _dead_letters(
            replay.dead_letters, f"What {service} could make nothing of on {replay.topic}."
        )
        operations[f"{service}.receives.{replay.topic}"] = _receiving(service, replay.topic, ["dead-letter"])
        operations[f"{service}.sends.{replay.dead_letters}"] = _operation(
            "send", replay.dead_letters, ["dead-letter"]
        )
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Ticketing: messages between the services",
            "version": "1.0.0",
            "description": "Every topic and message that crosses a service border. contracts/README.md says"
            " how to"
            " change one.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{brokers}",
                "protocol": "kafka",
                "variables": {"brokers": {"description": "the setting KAFKA_BROKERS"}},
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {
                **{each.name: _message(contracts, each) for each in contracts.messages.values()},
                "dead-letter": {
                    "summary": "The record as it was read, its headers with dlq_* ones that say why and"
                    " where.",
                    "payload": {},
                },
            },
            "schemas": {
                "headers": HEADERS,
                **{each.name: _payload(each.schema) for each in contracts.messages.values()},
            },
        },
    }
    return HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def _channel(contracts: Contracts, name: str, topic: TopicDefinition) -> Schema:
    return {
        "address": name,
        "summary": f"Owned by {topic.owner}; messages of one {topic.key} keep their order.",
        "messages": {
            each.name: {"$ref": f"#/components/messages/{each.name}"} for each in contracts.on(name)
        },
        "bindings": {
            "kafka": {
                "topic": name,
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "cleanup.policy": ["delete"],
                    "retention.ms": -1
                    if topic.retention_days is None
                    else topic.retention_days * DAY_MILLISECONDS,
                },
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _dead_letters(address: str, summary: str) -> Schema:
    return {
        "address": address,
        "summary": summary,
        "messages": {"dead-letter": {"$ref": "#/components/messages/dead-letter"}},
    }


def _operation(action: str, channel: str, messages: list[str]) -> Schema:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{each}"} for each in messages],
    }


def _receiving(subscriber: str, channel: str, messages: list[str]) -> Schema:
    group = {"groupId": {"type": "string", "enum": [subscriber]}, "bindingVersion": KAFKA_BINDING}
    return _operation("receive", channel, messages) | {"bindings": {"kafka": group}}


def _message(contracts: Contracts, message: MessageDefinition) -> Schema:
    key = contracts.topics[message.topic].key
    return {
        "name": message.type,
        "title": message.name,
        "summary": message.schema["description"],
        **({"tags": [{"name": "deprecated"}]} if message.is_deprecated else {}),
        "contentType": "application/json",
        "headers": {
            "allOf": [
                {"$ref": "#/components/schemas/headers"},
                {
                    "type": "object",
                    "properties": {
                        "ce_type": {"const": message.type},
                        "ce_dataschema": {"const": f"{message.name}.json"},
                    },
                },
            ]
        },
        "payload": {"$ref": f"#/components/schemas/{message.name}"},
        "bindings": {
            "kafka": {
                "key": message.schema["properties"][key] | {"description": f"the message's {key}"},
                "bindingVersion": KAFKA_BINDING,
            }
        },
        "examples": [{"name": message.name, "payload": message.example}],
    }


def _payload(schema: Schema) -> Schema:
    # What contracts use of 2020-12 means the same in AsyncAPI's own schema format.
    return {name: value for name, value in schema.items() if name not in ("$schema", "$id")}


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

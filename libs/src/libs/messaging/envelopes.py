"""What a Kafka record says, decoded and checked against its contract."""

from typing import Any, NamedTuple

import msgspec
from aiokafka import ConsumerRecord
from contracts.messages import MESSAGE_TYPES, Message

_DECODERS = {name: msgspec.json.Decoder(struct) for name, struct in MESSAGE_TYPES.items()}
_KNOWN_TYPES = {message_type for message_type, _ in MESSAGE_TYPES}


class Undecodable(Exception):
    """The record is no message of our contracts; no retry will make it one."""


class UnknownType(Exception):
    """A message of a type that this release does not know: a newer publisher's, none of our business."""


class Delivery(NamedTuple):
    record: ConsumerRecord[Any, Any]
    id: str
    message: Message
    traceparent: str | None


def decode(record: ConsumerRecord[Any, Any]) -> Delivery:
    """Raises `Undecodable` or `UnknownType`."""
    headers: dict[str, str] = {}
    for name, value in record.headers:
        if not name.startswith("ce_") and name != "traceparent":
            continue
        if name in headers:
            raise Undecodable(f"header {name} comes twice")
        try:
            headers[name] = value.decode()
        except (UnicodeDecodeError, AttributeError):
            raise Undecodable(f"header {name} is not UTF-8") from None
    for name in ("ce_id", "ce_type"):
        if not headers.get(name) or len(headers[name]) > 200:
            raise Undecodable(f"header {name} is missing or too long")
    if "\x00" in headers["ce_id"]:
        raise Undecodable("header ce_id has a null byte")
    message_type = headers["ce_type"]
    version = _version(headers.get("ce_dataschema", f"{message_type}.v1.json"))
    decoder = _DECODERS.get((message_type, version))
    if decoder is None:
        if message_type in _KNOWN_TYPES:
            raise Undecodable(f"version {version} of {message_type} is not known")
        raise UnknownType(f"type {message_type[:80]!r} on {record.topic}")
    try:
        message = decoder.decode(record.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"{message_type} v{version}: {error}") from None
    if record.topic != message.TOPIC:
        raise Undecodable(f"{message_type} does not belong on {record.topic}")
    if record.key != str(getattr(message, message.KEY)).encode():
        raise Undecodable(f"the key is not the message's {message.KEY}")
    return Delivery(record, headers["ce_id"], message, headers.get("traceparent"))


def _version(dataschema: str) -> int:
    text = dataschema.removesuffix(".json").rpartition(".v")[2]
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise Undecodable("header ce_dataschema names no version")
    return int(text)

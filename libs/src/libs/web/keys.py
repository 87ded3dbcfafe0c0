"""Public keys as they are published (RFC 7517, RFC 8037)."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class PublicKey(Struct, frozen=True):
    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    alg: Literal["EdDSA"]
    use: Literal["sig"]
    kid: Annotated[str, Meta(examples=["3f9a2c41"])]
    x: Annotated[str, Meta(examples=["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"])]


class KeySet(Struct, frozen=True):
    keys: list[PublicKey]

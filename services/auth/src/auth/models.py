"""Roles and rows."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from msgspec import Struct


class Role(StrEnum):
    USER = "user"
    ADMIN = "admin"
    SCANNER = "scanner"


class User(Struct, frozen=True):
    """A row of `users`; never answered as it is."""

    id: UUID
    email: str
    name: str
    role: Role
    password_phc: str
    disabled_at: datetime | None


class SigningKeyRow(Struct, frozen=True):
    kid: str
    private_pem: str
    created_at: datetime
    active_from: datetime
    retire_at: datetime | None
    is_active: bool

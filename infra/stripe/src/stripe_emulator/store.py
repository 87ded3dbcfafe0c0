"""The state, in one SQLite file of one process; it survives `kill -9`, for every answer follows its commit.

All access is synchronous and from the event loop's thread: a transaction has no `await` inside, so that no
two overlap, and each takes well under a millisecond.
"""

import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from stripe_emulator.objects import S, StoredObject

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    created INTEGER NOT NULL,
    payment_intent TEXT,
    charge TEXT,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS objects_by_kind ON objects (kind, seq);
CREATE INDEX IF NOT EXISTS objects_by_payment_intent ON objects (payment_intent, kind, seq);

CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    created INTEGER NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL REFERENCES events (id),
    created_at REAL NOT NULL,
    due_at REAL NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_status INTEGER,
    last_error TEXT,
    delivered_at REAL,
    gave_up_at REAL
);
CREATE INDEX IF NOT EXISTS deliveries_by_event ON deliveries (event_id);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (due_at)
    WHERE held = 0 AND delivered_at IS NULL AND gave_up_at IS NULL;

CREATE TABLE IF NOT EXISTS settlements (
    refund_id TEXT PRIMARY KEY,
    due_at REAL NOT NULL,
    outcome TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS idempotency_keys (
    key TEXT PRIMARY KEY,
    created INTEGER NOT NULL,
    path TEXT NOT NULL,
    digest TEXT NOT NULL,
    request_id TEXT NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE IF NOT EXISTS controls (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL
);
"""
TABLES = ("objects", "deliveries", "events", "settlements", "idempotency_keys", "controls")

T = TypeVar("T")


class StateUnusable(Exception):
    """The state file cannot be used; the text says why and what to do."""


class Transaction:
    """One unit of work: what it changes and the events that tell of it are committed together."""

    def __init__(
        self, db: sqlite3.Connection, *, request_id: str | None, idempotency_key: str | None
    ) -> None:
        self.db = db
        self.request_id = request_id
        self.idempotency_key = idempotency_key
        self.now = time.time()

    def find(self, kind: type[S], object_id: str) -> S | None:
        row = self.db.execute("SELECT kind, body FROM objects WHERE id = ?", (object_id,)).fetchone()
        if row is None or row[0] != kind.__name__:
            return None
        return msgspec.json.decode(row[1], type=kind)

    def save(self, item: StoredObject) -> None:
        self.db.execute(
            """
            INSERT INTO objects (id, kind, created, payment_intent, charge, body)
            VALUES (:id, :kind, :created, :payment_intent, :charge, :body)
            ON CONFLICT (id) DO UPDATE SET body = excluded.body
            """,
            {
                "id": item.id,
                "kind": type(item).__name__,
                "created": item.created,
                "payment_intent": getattr(item, "payment_intent", None),
                "charge": getattr(item, "charge", None),
                "body": msgspec.json.encode(item),
            },
        )

    def control(self, name: str, kind: type[T]) -> T | None:
        """A setting of the control surface, or None when it was never put."""
        row = self.db.execute("SELECT body FROM controls WHERE name = ?", (name,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=kind)

    def put_control(self, name: str, value: msgspec.Struct) -> None:
        self.db.execute(
            "REPLACE INTO controls (name, body) VALUES (?, ?)", (name, msgspec.json.encode(value))
        )


class Store:
    def __init__(self, path: Path) -> None:
        """Raises StateUnusable, also when another emulator has the file open."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=1, isolation_level=None)
            # Exclusive comes first: a second emulator on the same file is refused.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA_VERSION):
                raise StateUnusable(f"{path} is of another version of the emulator: delete it")
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._db.execute("BEGIN EXCLUSIVE")
            self._db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            hint = " (another emulator is using it)" if "locked" in str(error) else ""
            raise StateUnusable(f"cannot use the state file {path}: {error}{hint}") from error

    @contextmanager
    def transaction(
        self, *, request_id: str | None = None, idempotency_key: str | None = None
    ) -> Generator[Transaction]:
        """Commits at the end; an exception that leaves the block rolls back. Never `await` inside it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield Transaction(self._db, request_id=request_id, idempotency_key=idempotency_key)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def clear(self) -> None:
        with self.transaction() as tx:
            for table in TABLES:
                tx.db.execute(f"DELETE FROM {table}")

    def prune(self) -> None:
        """Forgets what Stripe forgets: idempotency keys after a day, events after 30 days."""
        with self.transaction() as tx:
            tx.db.execute("DELETE FROM idempotency_keys WHERE created < ?", (tx.now - 86_400,))
            month_ago = (tx.now - 30 * 86_400,)
            tx.db.execute("DELETE FROM deliveries WHERE created_at < ?", month_ago)
            tx.db.execute(
                """
                DELETE FROM events
                WHERE created < ? AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_id = events.id)
                """,
                month_ago,
            )

    def close(self) -> None:
        self._db.close()

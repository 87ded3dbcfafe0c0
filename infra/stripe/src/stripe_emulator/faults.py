"""Faults that the control surface orders for the next API calls."""

from typing import Annotated

import msgspec

from stripe_emulator.store import Transaction


class Fault(msgspec.Struct, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Strikes calls under /v1 whose path contains `path` (None: all), `count` times (None: until replaced).

    `after` false: before anything is done; the call waits `delay_seconds`, then is answered with `status`, or
    goes on as usual without one. `after` true: the effect happens and is kept, then the answer is delayed and
    replaced by `status`, or lost with the connection without one.
    """

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    delay_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0
    count: Annotated[int, msgspec.Meta(ge=0)] | None = None
    path: str | None = None
    after: bool = False


def read_fault(tx: Transaction) -> Fault:
    return tx.control("faults", Fault) or Fault()


def take_fault(tx: Transaction, path: str) -> Fault | None:
    """The fault that strikes a call of this path, counted down."""
    fault = read_fault(tx)
    if fault == Fault() or fault.count == 0 or (fault.path is not None and fault.path not in path):
        return None
    if fault.count is not None:
        tx.put_control("faults", msgspec.structs.replace(fault, count=fault.count - 1))
    return fault

"""Throws a projection away and builds it again from its topics, while the service runs.

python -m payments.rebuild revocations    revoked access tokens
"""

import sys

from contracts.messages import HoldConfirmed, HoldExpired, HoldExtended, HoldLost, HoldPlaced, HoldReleased
from libs.messaging.rebuilds import Projection, main
from libs.revocations import revocations_projection

from payments.consumers import HANDLERS
from payments.queries import rebuilds as queries

_HOLDS = (HoldPlaced, HoldExtended, HoldLost, HoldReleased, HoldExpired, HoldConfirmed)

PROJECTIONS = (
    Projection(
        service="payments",
        name="holds",
        topics=("inventory.holds",),
        tables=("holds",),
        # No hold of the copy has an order: what its end means for one is not repeated.
        handlers={message: HANDLERS[message] for message in _HOLDS},
        copied_keys=queries.list_differing_holds,
        live_keys=queries.list_told_holds,
        lock=queries.lock_hold,
        replace=queries.replace_hold,
    ),
    revocations_projection("payments"),
)

if __name__ == "__main__":
    sys.exit(main("payments", PROJECTIONS))

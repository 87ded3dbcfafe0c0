"""What the machine draws from."""

from hypothesis import strategies as st

from tests.saga.flights import Fate
from tests.saga.organizer import PRICE
from tests.saga.world import TOPICS

buyers = st.integers(0, 1)
# Of A1, A2, A3 and the free one; four are more than one may hold.
seats = st.sampled_from([(0,), (1,), (3,), (0, 1), (1, 2), (0, 3), (0, 1, 2), (0, 1, 2, 3)])
# None of which stands in another's way.
parts = st.sampled_from([(0,), (1, 3), (2,)])
# "asked": its buyer waits for the PaymentIntent, and Stripe's answer is not here yet.
begun = st.sampled_from(["ordered", "asked", "paid", "held", "ordered"])
nth = st.integers(0, 7)
counts = st.sampled_from([1, 1, 2, 9])
# The simplest first: Hypothesis shrinks towards it.
fates = st.sampled_from([Fate.GO, Fate.HOLD, Fate.HOLD, *Fate])
answers = st.sampled_from([fate for fate in Fate if fate is not Fate.HOLD])
faults = st.sampled_from([fate for fate in Fate if fate is not Fate.GO])
cards = st.sampled_from(
    [
        "pm_card_visa",
        "pm_card_visa",
        "pm_card_visa",
        "pm_card_chargeDeclined",
        "pm_card_processing",
        "pm_card_pendingRefund",
        "pm_card_refundFail",
    ]
)
topics = st.sampled_from(TOPICS)
wrongs = st.sampled_from([{"amount": 1}, {"amount": 2 * PRICE}, {"currency": "usd"}])

"""How long a buyer waits for the messages of a purchase, on the running stack.

    python -m tests.benchmarks.purchase [PURCHASES]

hold -> checkout   the checkout of a hold, sent at once after the hold's answer
paid -> ticket     from the card's confirmation until the ticket can be read
hold               one POST /reservations
"""

import statistics
import sys
import time

from embedded.settings import saved_settings, state_dir
from embedded.stack import Stack

from tests.system.shop import open_shop


def main() -> int:
    purchases = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    settings = saved_settings(state_dir())
    if settings is None:
        print("benchmark: the stack is not up: make up", file=sys.stderr)
        return 1
    seconds: dict[str, list[float]] = {"hold": [], "hold -> checkout": [], "paid -> ticket": []}
    with open_shop(Stack(settings).environment()) as shop:
        event = shop.event(seats=purchases)
        for seat_id in shop.seats(event):
            buyer = shop.buyer()
            started = time.perf_counter()
            hold = buyer.hold(event, [seat_id])
            held = time.perf_counter()
            order = buyer.check_out(hold)
            checked_out = time.perf_counter()
            shop.stripe.pay(order)
            paid = time.perf_counter()
            while not buyer.tickets(order):
                time.sleep(0.002)
            seconds["paid -> ticket"].append(time.perf_counter() - paid)
            seconds["hold"].append(held - started)
            seconds["hold -> checkout"].append(checked_out - held)
    print(f"{'':18}{'median':>10}{'p95':>10}{'max':>10}   ms, {purchases} purchases one after another")
    for name, values in seconds.items():
        p95 = sorted(values)[int(len(values) * 0.95) - 1]
        figures = (statistics.median(values), p95, max(values))
        print(f"{name:18}" + "".join(f"{value * 1000:10.1f}" for value in figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())

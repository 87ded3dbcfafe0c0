"""Numbers that a command is asked for with, as environment variables."""

import math
import os
import sys


def asked_number(name: str, default: float, *, least: int = 1) -> float:
    """Leaves with a line that says what would do when it is no number, or less than `least`."""
    text = os.environ.get(name, "").strip()
    try:
        number = float(text or default)
    except ValueError:
        number = math.nan
    if not least <= number < math.inf:
        sys.exit(f"{name}={text} does not do: say a number from {least} on, or leave it out")
    return number

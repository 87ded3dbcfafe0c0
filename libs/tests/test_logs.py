"""What the log says, and how often."""

import logging

import pytest
from libs.logs import configure_logging


def test_complaints_of_aiokafka_are_heard_twice_a_minute_and_ours_always(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging("info")
        for number in range(100):
            logging.getLogger("aiokafka.client").error("Unable to connect to %s", number)
            logging.getLogger("libs.messaging").warning("ours")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "Unable to connect" in line]) == 1
    assert len([line for line in lines if line.endswith("ours")]) == 100

"""Starting: what is missing, taken or in use is told in one line."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from stripe_emulator.settings import SettingMissing, read_settings
from stripe_emulator.testing import SECRET_KEY, Emulator, free_port


async def start(port: int, state: Path) -> str:
    """Starts an emulator that must give up; returns what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "stripe_emulator", "--port", str(port)),
        env={
            **os.environ,
            "STRIPE_SECRET_KEY": SECRET_KEY,
            "STRIPE_WEBHOOK_SECRET": "whsec_local",
            "STRIPE_WEBHOOK_URL": "http://127.0.0.1:9/",
            "STRIPE_STATE_FILE": str(state),
        },
        stderr=PIPE,
    )
    async with asyncio.timeout(20):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert len(said.splitlines()) == 1, said.decode()
    return said.decode()


def test_a_setting_that_is_missing_or_unusable_is_named() -> None:
    names = ("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_WEBHOOK_URL", "STRIPE_STATE_FILE")
    given = dict.fromkeys(names, "http://127.0.0.1:9/")
    for name in names:
        with pytest.raises(SettingMissing, match=f"{name} is not set"):
            read_settings({**given, name: " "})
    with pytest.raises(SettingMissing, match="STRIPE_WEBHOOK_URL must start with"):
        read_settings({**given, "STRIPE_WEBHOOK_URL": "localhost"})


def test_the_first_of_two_webhook_secrets_signs() -> None:
    given = dict.fromkeys(
        ("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_URL", "STRIPE_STATE_FILE"), "http://127.0.0.1:9/"
    )
    settings = read_settings({**given, "STRIPE_WEBHOOK_SECRET": "whsec_new,whsec_old"})
    assert settings.webhook_secret == "whsec_new"


async def test_what_prevents_a_start_is_said_in_one_line(tmp_path: Path, emulator: Emulator) -> None:
    state, broken = tmp_path / "state.db", tmp_path / "broken.db"
    broken.write_text("not a database, but long enough to look like a file of some other kind" * 20)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = await asyncio.gather(
            start(taken.getsockname()[1], state),
            start(emulator.port, state),
            start(free_port(), emulator.state_file),
            start(free_port(), broken),
        )
    for text, expected in zip(
        said,
        [
            "in use",
            "in use",
            "another emulator is using it",
            "cannot use the state file",
        ],
        strict=True,
    ):
        assert expected in text

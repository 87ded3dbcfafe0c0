"""A short run of `make fuzz`."""

import os
import subprocess
import sys
from pathlib import Path

from embedded.settings import SERVICES

ROOT = Path(__file__).parents[2]
BOUND_SECONDS = 600
"""Many times what it takes: it is to end, not to be fast."""


def test_every_answer_to_made_up_requests_is_what_the_documents_say() -> None:
    # A process of its own, which can be ended: it dies when pytest does, and its stack with it.
    command = ("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.fuzz")
    # Nothing else: other tests of this worker have set addresses of servers that are not for this.
    own = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
    run = subprocess.run(
        command,
        cwd=ROOT,
        env={**own, "SHORT": "1", "SEED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOUND_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    rows = {words[0]: words[1:] for line in run.stdout.splitlines() if (words := line.split())}
    for service in SERVICES:
        as_nobody, as_buyer, as_admin, done, *_ = map(int, rows[service])
        assert min(as_nobody, as_buyer, as_admin) > 10, run.stdout
        assert done > 10, run.stdout  # refusals alone would prove little

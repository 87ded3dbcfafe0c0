"""docs/curl.md does what it says: each command that names a code or headers is answered with them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.shop import Shop
from tests.system.test_every_code import LISTED

PAGE = Path(__file__).parents[2] / "docs" / "curl.md"
# A command, the status, and the code or the headers of its answer.
TOLD = re.compile(r"^(.*\S) +# (\d{3}) (\S.*)$", re.M)
MARK = "@@ "


@pytest.mark.skipif(not shutil.which("curl"), reason="apt-get install curl")
def test_every_command_of_the_page_gets_what_the_page_says(shop: Shop, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S)[
        :-1
    ]  # the last one restarts parts
    script = "".join(blocks).replace('eval "$(make env)"\n', "")
    told = [(int(status), set(rest.split())) for _, status, rest in TOLD.findall(script)]
    marked = TOLD.sub(rf"echo; echo '{MARK}\2 \3'\n\1\necho '{MARK}'", script)
    run = subprocess.run(
        ["bash", "-c", marked],
        env={**os.environ, **shop.environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    answers = [each.partition("\n")[2] for each in run.stdout.split(f"\n{MARK}") if re.match(r"\d", each)]
    assert len(answers) == len(told), run.stderr
    seen: set[str] = set()
    for (status, names), answer in zip(told, answers, strict=True):
        assert re.search(rf" {status}$", answer, re.M), (status, names, answer, run.stderr)
        codes = set(re.findall(r'"code":"(\w+)"', answer))
        headers = {each.lower() for each in re.findall(r"^([\w-]+): ", answer, re.M)}
        for name in names:
            assert name in codes or name.lower() in headers, (status, name, answer)
        seen |= names & LISTED.keys()
    assert seen == LISTED.keys() - {"internal_error"}

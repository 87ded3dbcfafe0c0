"""`make certs`: what compose.yaml needs and no checkout has: a certificate for localhost, secrets in .env.

What is there already is left as it is. The authority that signs the certificate is used once and its key
thrown away, so that nobody can sign anything else with it; nothing on this machine is told to trust it.
"""

import os
import re
import secrets
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("auth", "catalog", "inventory", "payments")
NAMES = ("localhost", "127.0.0.1", "::1")
DAYS = 825
"""Some clients take no certificate that is good for longer."""
FILES = {"ca.crt": 0o644, "server.crt": 0o644, "server.key": 0o600}


class Trouble(Exception):
    """What keeps it from being done, in one line."""


def make_certificate(folder: Path) -> str:
    """What was done, as a line for the screen. Raises Trouble."""
    there = [name for name in FILES if (folder / name).exists()]
    again = f"delete {folder.name}/ and run make certs again"
    if there and len(there) < len(FILES):
        missing = ", ".join(name for name in FILES if name not in there)
        raise Trouble(f"{folder.name}/ has {', '.join(there)} but not {missing}: {again}")
    if there:
        until = x509.load_pem_x509_certificate((folder / "server.crt").read_bytes()).not_valid_after_utc
        if until < datetime.now(UTC):
            raise Trouble(f"{folder.name}/server.crt was good until {until:%Y-%m-%d}: {again}")
        return f"{folder.name}/ is there already, its certificate is good until {until:%Y-%m-%d}"
    until = datetime.now(UTC) + timedelta(days=DAYS)
    authority = trustme.CA(
        organization_name="ticketing", organization_unit_name=f"made on {os.uname().nodename}"
    )
    server = authority.issue_cert(*NAMES, common_name=NAMES[0], not_after=until)
    contents = {
        "ca.crt": authority.cert_pem.bytes(),
        "server.crt": b"".join(pem.bytes() for pem in server.cert_chain_pems),
        "server.key": server.private_key_pem.bytes(),
    }
    folder.mkdir(exist_ok=True)
    for name, mode in FILES.items():
        with _new_file(folder / name, mode) as descriptor:
            os.write(descriptor, contents[name])
    return f"{folder.name}/ has a certificate for {', '.join(NAMES)}, good until {until:%Y-%m-%d}"


def fill_env(file: Path) -> str:
    """What was done, as a line for the screen."""
    text = file.read_text() if file.exists() else ""
    known = set(re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", text, re.MULTILINE))
    missing = {name: value for name, value in variables().items() if name not in known}
    if not missing:
        return f"{file.name} has everything already"
    if not file.exists():
        with _new_file(file, 0o600):
            pass
    file.chmod(0o600)
    start = "\n" if text and not text.endswith("\n") else ""
    with file.open("a") as output:
        output.write(start + "".join(f"{name}={value}\n" for name, value in missing.items()))
    return f"{file.name} has {len(missing)} more: {', '.join(missing)}"


def variables() -> dict[str, str]:
    """Those that compose.yaml asks for and that nobody may guess; and the profile of one's own machine."""
    passwords = [
        "POSTGRES",
        "REDIS",
        *(f"{each.upper()}_{process}" for each in SERVICES for process in ("APP", "WORKER")),
    ]
    return {
        "COMPOSE_PROFILES": "dev",
        **{f"{name}_PASSWORD": secrets.token_hex(24) for name in passwords},
        "STRIPE_EMULATOR_KEY": f"sk_test_{secrets.token_hex(24)}",
        "STRIPE_EMULATOR_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(24)}",
    }


@contextmanager
def _new_file(path: Path, mode: int) -> Generator[int]:
    """Never one that is there, and never readable by more than `mode` says, whatever the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.fchmod(descriptor, mode)
        yield descriptor
    finally:
        os.close(descriptor)


def main() -> None:
    try:
        print(make_certificate(ROOT / "certs"))
        print(fill_env(ROOT / ".env"))
    except Trouble as trouble:
        sys.exit(f"certs: {trouble}")
    except OSError as error:
        sys.exit(f"certs: {error}")
    print("Next: docker compose up -d --build, then curl --cacert certs/ca.crt https://localhost/health")


if __name__ == "__main__":
    main()

"""Looks up the locked packages among the known vulnerabilities: `python -m embedded.audit`.

pip-audit asks OSV (https://osv.dev), or another service with its interface at `OSV_URL`. Ends with 1 when
there is a finding. Without an answer nothing was checked: that is said aloud, and ends with 0, so that a
check passes without a network; with `AUDIT=required` it ends with 1.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from embedded.settings import ROOT, TOOLS

OSV_URL = "https://api.osv.dev/v1/query"
UV = TOOLS / "uv" / "bin" / "uv"


def audit(requirements: Path, *, osv_url: str) -> tuple[list[dict[str, Any]], str]:
    """The packages with what is known of each; and why there are none."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as report:
        done = subprocess.run(
            (
                *(sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--requirement"),
                *(str(requirements), "--vulnerability-service", "osv", "--osv-url", osv_url),
                *(
                    "--format",
                    "json",
                    "--output",
                    report.name,
                    "--progress-spinner",
                    "off",
                    "--timeout",
                    "10",
                ),
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        text = report.read()
    if not text:
        lines = done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"]
        return [], lines[-1]
    return json.loads(text)["dependencies"], ""


def export_lock(target: Path) -> None:
    """Every package of the lock file, with its version."""
    subprocess.run(
        (
            *(str(UV), "export", "--quiet", "--frozen", "--all-groups", "--all-packages"),
            *(
                "--no-emit-workspace",
                "--no-hashes",
                "--no-header",
                "--no-annotate",
                "--output-file",
                str(target),
            ),
        ),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        export_lock(requirements)
        packages, trouble = audit(requirements, osv_url=os.environ.get("OSV_URL") or OSV_URL)
    if skipped := [each["name"] for each in packages if "skip_reason" in each]:
        trouble = f"no word about {', '.join(skipped)}"
    found = [(each, known) for each in packages for known in each.get("vulns", [])]
    for each, known in found:
        fixed = ", ".join(known["fix_versions"]) or "no version yet"
        print(f"{each['name']} {each['version']}: {known['id']}, fixed in {fixed}", file=sys.stderr)
    if trouble:
        print(f"NOT AUDITED: the vulnerability service gave no answer: {trouble}", file=sys.stderr)
    elif not found:
        print(f"{len(packages)} packages, no known vulnerability.")
    return 1 if found or (trouble and os.environ.get("AUDIT") == "required") else 0


if __name__ == "__main__":
    sys.exit(main())

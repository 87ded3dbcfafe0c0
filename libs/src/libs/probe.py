"""Is a process well? For container health checks: starts in a blink, and says why not.

python -m libs.probe http://127.0.0.1:3011/auth/ready     an application answers 200
python -m libs.probe /tmp/worker.json                     a worker's health file says that it is ready
"""

import http.client
import json
import sys
import time
from pathlib import Path

ANSWER_SECONDS = 3
WORKER_SILENCE_SECONDS = 15
"""A worker renews its health file every second."""


def app_trouble(url: str) -> str | None:
    address, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(address, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", f"/{path}")
        answer = connection.getresponse()
        body = answer.read(200)
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer: {error!r}"
    finally:
        connection.close()
    return None if answer.status == 200 else f"answers {answer.status}: {body.decode(errors='replace')}"


def worker_trouble(health_file: Path) -> str | None:
    try:
        age = time.time() - health_file.stat().st_mtime
        health = json.loads(health_file.read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return "has not said yet that it is ready"
    if age > WORKER_SILENCE_SECONDS:
        return f"has said nothing for {age:.0f} s"
    if health["status"] != "ready":
        return f"{health['status']}: {health.get('detail') or 'no word of why'}"
    return None


if __name__ == "__main__":
    target = sys.argv[1]
    sys.exit(app_trouble(target) if target.startswith("http://") else worker_trouble(Path(target)))

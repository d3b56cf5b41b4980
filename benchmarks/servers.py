"""gunicorns to measure, one beside the other, on a core of their own."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import gunicorn

import gunicorn_expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HERE = Path(__file__).parent
OURS = "gunicorn_expect.Worker"
STOCK = "gthread"

_Servers = TypeVar("_Servers")


@contextlib.contextmanager
def served(
    app: str, worker: str, env: Mapping[str, str] | None = None, *arguments: str
) -> Iterator[tuple[tuple[str, int], int]]:
    """Serve an application of apps.py with one worker process and, if it has threads, 8 of them.

    Give its address and the process id of the master.
    """
    # gunicorn's sync worker with threads is its gthread worker.
    threads = () if worker in ("sync", "gunicorn_expect.Sync") else ("--threads", "8")
    command = [
        *(sys.executable, "-m", "gunicorn", "-k", worker, *threads, f"apps:{app}"),
        *("--bind", "127.0.0.1:0", "--no-control-socket", "--graceful-timeout", "1"),
        *("--backlog", "2048", "--worker-connections", "2000"),
        *arguments,
    ]
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    with subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": path} | dict(env or {}),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                listening = re.search(r"Listening at: https?://([\d.]+):(\d+)", line)
                if listening:
                    yield (listening[1], int(listening[2])), process.pid
                    break
        finally:
            process.terminate()
            process.stderr.read()


@contextlib.contextmanager
def apart(servers: contextlib.AbstractContextManager[_Servers]) -> Iterator[_Servers]:
    """Serve on one core; the client gets the other one."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:])  # the servers inherit it
    with servers as started:
        if len(cores) > 1:
            os.sched_setaffinity(0, cores[:1])
        try:
            yield started
        finally:
            if cores:
                os.sched_setaffinity(0, cores)  # for the next start


def both(
    app: str, **more: Mapping[str, str]
) -> contextlib.AbstractContextManager[dict[str, tuple[str, int]]]:
    """Serve it by ours and by stock gunicorn, on one core; the client gets the other one.

    Args:
        app: of apps.py.
        more: other servers of ours, by name, with what their environment has.

    """
    return apart(_both(app, more))


@contextlib.contextmanager
def _both(app: str, more: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, tuple[str, int]]]:
    with contextlib.ExitStack() as stack:
        addresses = {name: stack.enter_context(served(app, name))[0] for name in (OURS, STOCK)}
        for name, env in more.items():
            addresses[name] = stack.enter_context(served(app, OURS, env))[0]
        yield addresses


def worker_of(master: int) -> int:
    """Find the only child of a gunicorn master."""
    [child] = Path(f"/proc/{master}/task/{master}/children").read_text("ascii").split()
    return int(child)


def resident(pid: int) -> int:
    """Read how much memory a process has, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert match
    return int(match[1])


def in_turn(
    addresses: dict[str, tuple[str, int]],
    measure: Callable[[tuple[str, int]], float],
    rounds: int,
) -> dict[str, list[float]]:
    """Measure them in turn; give the results of each, a round each.

    The first to be measured changes from round to round, so that none has the warmer machine.
    """
    results: dict[str, list[float]] = {name: [] for name in addresses}
    for number in range(rounds):
        names = list(addresses) if number % 2 else list(reversed(addresses))
        for name in names:
            results[name].append(measure(addresses[name]))
    return results


def ratios(results: dict[str, list[float]], name: str, to: str) -> list[float]:
    """Compare one with another, in each round."""
    return [one / other for one, other in zip(results[name], results[to], strict=True)]


def print_machine() -> None:
    """Say what is measured on what."""
    print(
        f"gunicorn_expect {gunicorn_expect.__version__}, gunicorn {gunicorn.__version__}, "
        f"Python {platform.python_version()}, {platform.system()} {platform.release()}, "
        f"{os.cpu_count()} cores; one worker process, 8 threads if it has any"
    )

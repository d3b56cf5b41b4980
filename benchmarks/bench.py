"""Measure our workers and others, and write docs/performance.md: ``make bench``, half an hour.

``--only LINE`` measures one line and prints it; ``--quick`` is short, and its rates are rough.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import beside
import growth
import lines
import report
import storing
from load import Load
from noise import Effort
from servers import CLIENT_CORE, CONNECTIONS, HERE

PAGE = HERE.parent / "docs" / "performance.md"
NAMES = (
    *(line.name for line in lines.LINES),
    *(company.name for company in beside.COMPANIES),
    *growth.GROWTHS,
    storing.RESUMABLE,
)
FULL = Effort(0.8, 5)
QUICK = Effort(0.2, 3)
#: Seconds after which no noisy line is measured again, so that a run ends in half an hour.
REPEAT = 600.0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="LINE", choices=NAMES, help=f"one of: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="0.2 s and 3 rounds for each server")
    parser.add_argument(
        "--page", type=Path, help="write this page; a full run writes docs/performance.md"
    )
    given = parser.parse_args()
    if given.only and given.page:
        parser.error("--only measures one line: it can't write a page")
    if not (given.only or given.quick or given.page):
        given.page = PAGE
    return given


def allow_many_files() -> None:
    """Raise the limit of open files, which the servers inherit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = max(most, CONNECTIONS + 1000)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, enough))
    except ValueError:  # only root may
        raise SystemExit(
            f"The benchmarks need {enough} open files. As root, run first: ulimit -Hn {enough}"
        ) from None


def _say(part: str) -> str:
    print(f"\n{part}", flush=True)
    return part


def main() -> None:
    """Measure, print and write."""
    given = arguments()
    wanted = {given.only} if given.only else set(NAMES)
    effort = QUICK if given.quick else FULL
    effort = effort._replace(repeat_until=time.monotonic() + (0 if given.quick else REPEAT))
    few = effort._replace(rounds=3)
    os.sched_setaffinity(0, {CLIENT_CORE})
    allow_many_files()
    parts = {"machine": _say(report.machine(effort))}
    with tempfile.TemporaryDirectory() as folder:
        load = Load(Path(folder))
        results = [lines.measure(load, x, effort) for x in lines.LINES if x.name in wanted]
        if results:
            parts["requests"] = _say(report.lines(results))
        costs = [beside.measure(load, x, few) for x in beside.COMPANIES if x.name in wanted]
        if costs:
            parts["beside"] = _say(report.beside(costs))
        growths = [growth.measure(load, x, few) for x in growth.GROWTHS if x in wanted]
        if growths:
            parts["growth"] = _say(report.growth(growths))
    if storing.RESUMABLE in wanted:
        size = storing.SMALL_SIZE if given.quick else storing.SIZE
        parts["stored"] = _say(report.stored(storing.measure(few, size)))
    if given.page:
        report.write(given.page, parts)
        report.draw_lines(results, given.page.with_name("speed.svg"))
        report.draw_growth(growths, given.page.with_name("growth.svg"))


if __name__ == "__main__":
    main()

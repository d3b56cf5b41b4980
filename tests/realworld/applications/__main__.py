"""Try applications of other projects on our workers, with the clients that people use for them.

usage: .venv/bin/python tests/realworld/applications [--keep FOLDER] [--workers W,W] [NAME ...]

Each has a virtual environment of its own, in a temporary folder or in the one of ``--keep``. The
script replaces the rows of each in docs/compatibility.md. It needs the network, curl and git.
"""

import argparse
import datetime
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1])]

from setting import Environment, FailedError  # noqa: E402
from trials import TRIALS  # noqa: E402

from support import CHECKOUT  # noqa: E402

PAGE = CHECKOUT / "docs" / "compatibility.md"
HEAD = "| application | worker | what was done | what was seen | date |\n|---|---|---|---|---|\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", metavar="FOLDER", help="keep the environments in this folder")
    parser.add_argument("--workers", default="thread,gevent,sync", help="thread,gevent,sync,stock")
    parser.add_argument(
        "--no-page", action="store_true", help="print the rows, and don't write them into the page"
    )
    parser.add_argument("names", nargs="*", choices=[*TRIALS, []], metavar="NAME")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="applications-") as folder:
        kept = Path(options.keep or folder).resolve()
        for name in options.names or TRIALS:
            rows = try_application(name, TRIALS[name], kept, options.workers.split(","))
            print(*rows, sep="\n", flush=True)
            if not options.no_page:
                write(name, rows)


def try_application(name, trial, folder, workers):
    """Try an application on each of these workers; return the rows of the table."""
    environment = Environment(folder / name, trial.packages)
    version = environment.version(trial.packages[0].partition("[")[0].partition("=")[0])
    seen = {}
    for worker in workers:
        with tempfile.TemporaryDirectory(prefix=f"{name}-") as place:
            try:
                result = trial.use(environment, worker, Path(place))
            except (AssertionError, FailedError, OSError, subprocess.SubprocessError) as error:
                traceback.print_exc()
                result = f"**fails**: {(str(error).splitlines() or [repr(error)])[-1][:200]}"
        seen.setdefault(result, []).append(worker)
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    return [
        f"| {trial.name} {version} | {', '.join(workers)} | {trial.done} | {result} | {today} |"
        for result, workers in seen.items()
    ]


def write(name, rows):
    """Replace the rows of an application in the page."""
    text = PAGE.read_text("utf-8")
    start = text.index(HEAD) + len(HEAD)
    table = re.match(r"(?:\|.*\n)*", text[start:])[0]
    order = [trial.name for trial in TRIALS.values()]
    kept = [x for x in table.splitlines() if not x.startswith(f"| {TRIALS[name].name} ")]
    lines = sorted([*kept, *rows], key=lambda x: order.index(x[2:].rpartition(" |")[0].split()[0]))
    PAGE.write_text(
        text[:start] + "".join(f"{x}\n" for x in lines) + text[start + len(table) :], "utf-8"
    )


if __name__ == "__main__":
    main()

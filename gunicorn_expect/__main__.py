"""The command line: ``gunicorn-expect``, or ``python -m gunicorn_expect``."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, NoReturn

from gunicorn_expect import check
from gunicorn_expect.probe import command as probe_command
from gunicorn_expect.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse quotes arguments that it does not know, and one of them may be a secret.
        message = re.split(r":? ['\"]", message)[0]
        if message == "argument COMMAND: invalid choice":
            message += ": the commands are check and probe"
        super().error(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status.

    Args:
        argv: the arguments; None: those of the process.

    Raises:
        SystemExit: with 2 if they are wrong, with 0 after ``--help`` and ``--version``.

    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["check"]:  # its arguments are gunicorn's
        return check.run(argv[1:])
    parser = _Parser(
        prog="gunicorn-expect",
        description="Tools for users of gunicorn_expect.",
        epilog="gunicorn-expect COMMAND --help lists the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gunicorn-expect {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("check", help="print what is wrong with a configuration of gunicorn")
    probe = commands.add_parser(
        "probe",
        help="send Expect: 100-continue to a server, and show what it answers and when",
        description=probe_command.DESCRIPTION,
        epilog=probe_command.EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    probe_command.add_arguments(probe)
    arguments, more = parser.parse_known_args(argv)
    if more:
        # Don't print them: they may be an unquoted secret.
        probe.error(f"unknown arguments: {len(more)}. A header is one argument: -H NAME:VALUE")
    return probe_command.run(probe, arguments)


if __name__ == "__main__":
    sys.exit(main())

"""The command ``gunicorn-expect probe``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import re
import ssl
import sys
from typing import Final

from gunicorn_expect.probe.question import Manner, question_about
from gunicorn_expect.probe.rendering import as_json, as_text
from gunicorn_expect.probe.verdict import judge

#: The default Content-Length. nginx refuses one byte more by default (client_max_body_size).
LENGTH: Final = 1024 * 1024
#: Seconds. Clients that send their body in the end without a 100 do so earlier (the AWS SDK for
#: JavaScript after 6 s).
TIMEOUT: Final = 10.0

DESCRIPTION: Final = """\
Send a request with Expect: 100-continue, and show what the server answers and when.
By default the probe sends no body."""
EXIT_STATUS: Final = (
    "exit status: 0 as expected, 1 not as expected, 2 no connection or a wrong option"
)


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Send the request that the arguments describe, print the result; return the exit status."""
    try:
        from gunicorn_expect.probe.exchange import ask
    except ModuleNotFoundError as error:
        if error.name != "h11":
            raise
        print(
            "the probe needs the extra gunicorn-expect[probe]: "
            "python -m pip install 'gunicorn-expect[probe]'",
            file=sys.stderr,
        )
        return 2
    try:
        question = question_about(
            arguments.URL,
            arguments.header,
            method=arguments.method,
            length=arguments.length,
            manner=arguments.manner,
            refusal=arguments.refusal,
            unix_socket=arguments.unix_socket,
        )
        timeline = ask(question, _context(arguments), arguments.timeout)
    except ValueError as error:
        parser.error(str(error))
    verdict = judge(timeline, question.manner, question.refusal)
    render = as_json if arguments.json else as_text
    print(render(timeline, verdict))
    return verdict.status


def add_arguments(probe: argparse.ArgumentParser) -> None:
    """Add the probe's arguments to this parser."""
    _add_request(probe)
    _add_manners(probe)
    _add_connection(probe)
    probe.add_argument(
        "--json", action="store_true", help="print the timeline and the verdict as JSON"
    )


def _add_request(probe: argparse.ArgumentParser) -> None:
    option = probe.add_argument
    option("URL", help="http://… or https://…")
    option("--method", default="PUT", help="the request's method (default: PUT)")
    option(
        "-H",
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header of the request; may be repeated. The value is never printed",
    )
    option(
        "--length",
        type=_length,
        default=LENGTH,
        metavar="BYTES",
        help="the Content-Length (default: 1 MiB, the most that nginx accepts by default)",
    )
    option(
        "--refusal",
        type=_status,
        metavar="STATUS",
        help="expect this status code, and no 100 before it; without this option, expect a 100",
    )


def _add_manners(probe: argparse.ArgumentParser) -> None:
    bodies = probe.add_mutually_exclusive_group()
    bodies.add_argument(
        "--send-body",
        dest="manner",
        action="store_const",
        const=Manner.SENDS,
        default=Manner.WAITS,
        help="send the body, which is zeros, after a 100",
    )
    bodies.add_argument(
        "--impatient",
        dest="manner",
        action="store_const",
        const=Manner.IMPATIENT,
        help="don't wait: send the body at once, to see whether the response arrives completely",
    )


def _add_connection(probe: argparse.ArgumentParser) -> None:
    option = probe.add_argument
    option(
        "--timeout",
        type=_seconds,
        default=TIMEOUT,
        metavar="SECONDS",
        help="maximum seconds to connect, and as many again for the responses (default: 10)",
    )
    option("--unix-socket", metavar="PATH", help="connect to this socket and not to the URL's host")
    trust = probe.add_mutually_exclusive_group()
    trust.add_argument("--cacert", metavar="FILE", help="the CA certificates to trust, in PEM")
    trust.add_argument("--insecure", action="store_true", help="trust all certificates")


def _context(arguments: argparse.Namespace) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=arguments.cacert)
    except OSError as error:
        raise ValueError(f"the file of --cacert can't be used: {error.strerror}") from None
    context.set_alpn_protocols(["http/1.1"])
    if arguments.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


# Numbers in options. The errors do not quote what was typed.


def _length(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError("has to be a number of bytes, 1 or more")
    return int(text)


def _status(text: str) -> int:
    if not re.fullmatch("[2-5][0-9][0-9]", text):
        raise argparse.ArgumentTypeError("has to be the status of a final response, like 401")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", text) or not float(text):
        raise argparse.ArgumentTypeError("has to be a number of seconds, more than 0")
    return float(text)

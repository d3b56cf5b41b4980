"""A timeline and its verdict, for people and for programs: the same in both."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from typing import TYPE_CHECKING, Final

from gunicorn_expect.probe import timeline as seen

if TYPE_CHECKING:
    from gunicorn_expect.probe.verdict import Verdict

_BEGINNINGS: Final = {0: "As expected", 1: "Not as expected", 2: "Could not connect"}


def as_text(timeline: seen.Timeline, verdict: Verdict) -> str:
    """Return a line for each event, and the verdict below."""
    # Plus 0.0: no -0.0.
    lines = [f"{round(event.at, 1) + 0.0:9.1f} ms  {_line(event)}" for event in timeline]
    verdict_lines = [f"{_BEGINNINGS[verdict.status]}: {verdict.text}", *verdict.notes]
    return "\n".join([*lines, "", *(textwrap.fill(line, 100) for line in verdict_lines)])


def as_json(timeline: seen.Timeline, verdict: Verdict) -> str:
    """Return one object: ``timeline``, and ``verdict``."""
    events = [{"event": type(event).__name__, **dataclasses.asdict(event)} for event in timeline]
    return json.dumps({"timeline": events, "verdict": dataclasses.asdict(verdict)}, indent=2)


def _line(event: seen.Event) -> str:
    match event:
        case seen.Unreachable(reason=reason):
            return f"no connection: {reason}"
        case seen.Connected(to=to):
            return f"connected to {to}"
        case seen.Secured(version=version):
            return f"{version} is up"
        case seen.HeadSent():
            masked = [f"{name}: ***" for name in event.given]
            announced = f"{event.length} bytes announced"
            return ", ".join([f"head sent: {event.method} {event.target}", announced, *masked])
        case seen.Interim() | seen.Final():
            fields = [f"{name}: {value}" for name, value in event.fields]
            closes = ["Connection: close"] if isinstance(event, seen.Final) and event.closes else []
            return ", ".join([f"{event.status} {event.reason}".rstrip(), *fields, *closes])
        case seen.Whole(size=size):
            return f"the response is complete, with {size} bytes of content"
        case seen.ContinueInContent():
            return "a 100 in the content of the response"
        case seen.BodySent(size=size, length=length):
            return f"{size} of {length} bytes of the body sent"
        case seen.Malformed(reason=reason):
            return f"not HTTP/1: {reason}"
        case seen.CutOff():
            return "the response is cut off"
        case seen.Closed(by="end"):
            return "the server closed the connection"
        case seen.Closed():
            return "the connection was reset"
        case seen.Left(seconds=seconds):
            return f"nothing more for {seconds} s: the probe closed the connection"
    raise TypeError(f"{type(event).__name__} has no line")

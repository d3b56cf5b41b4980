"""A timeline and its verdict as text and as JSON, with the same contents."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from typing import TYPE_CHECKING, Final

from gunicorn_expect.probe import timeline as events

if TYPE_CHECKING:
    from gunicorn_expect.probe.verdict import Verdict

_BEGINNINGS: Final = {0: "As expected", 1: "Not as expected", 2: "Could not connect"}


def as_text(timeline: events.Timeline, verdict: Verdict) -> str:
    """Return a line for each event, and the verdict below."""
    # Adding 0.0 turns -0.0 into 0.0.
    lines = [f"{round(event.at, 1) + 0.0:9.1f} ms  {_line(event)}" for event in timeline]
    verdict_lines = [f"{_BEGINNINGS[verdict.status]}: {verdict.text}", *verdict.notes]
    return "\n".join([*lines, "", *(textwrap.fill(line, 100) for line in verdict_lines)])


def as_json(timeline: events.Timeline, verdict: Verdict) -> str:
    """Return one object: ``timeline``, and ``verdict``."""
    dicts = [{"event": type(event).__name__, **dataclasses.asdict(event)} for event in timeline]
    return json.dumps({"timeline": dicts, "verdict": dataclasses.asdict(verdict)}, indent=2)


def _line(event: events.Event) -> str:
    match event:
        case events.Unreachable(reason=reason):
            return f"no connection: {reason}"
        case events.Connected(to=to):
            return f"connected to {to}"
        case events.Secured(version=version):
            return f"{version} is up"
        case events.HeadSent():
            masked = [f"{name}: ***" for name in event.given]
            announced = f"{event.length} bytes announced"
            return ", ".join([f"head sent: {event.method} {event.target}", announced, *masked])
        case events.Interim() | events.Final():
            fields = [f"{name}: {value}" for name, value in event.fields]
            closes = (
                ["Connection: close"] if isinstance(event, events.Final) and event.closes else []
            )
            return ", ".join([f"{event.status} {event.reason}".rstrip(), *fields, *closes])
        case events.Whole(size=size):
            return f"the response is complete, with {size} bytes of content"
        case events.ContinueInContent():
            return "a 100 in the content of the response"
        case events.BodySent(size=size, length=length):
            return f"{size} of {length} bytes of the body sent"
        case events.Malformed(reason=reason):
            return f"not HTTP/1: {reason}"
        case events.CutOff():
            return "the response is cut off"
        case events.Closed(by="end"):
            return "the server closed the connection"
        case events.Closed():
            return "the connection was reset"
        case events.Left(seconds=seconds):
            return f"nothing more for {seconds} s: the probe closed the connection"
    raise TypeError(f"{type(event).__name__} has no line")

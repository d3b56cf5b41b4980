"""Draw the pictures of the pages: ``python docs/draw.py`` writes them beside itself.

``states.svg`` is drawn from the table of transitions, ``endings.svg`` from `ENDINGS` below, and
``resumable.svg`` from `RESUMED`. All are plain SVG with a background of their own, light or dark
like the reader's system.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from gunicorn_expect.states import TRANSITIONS, Event, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #1f2933; }
.name { font-weight: 600; font-size: 15px; }
.small { font-size: 12px; fill: #52606d; }
.middle { text-anchor: middle; }
.ground { fill: #ffffff; stroke: #d2d8de; }
.box { fill: #f0f4f8; stroke: #829ab1; }
.begin { fill: #fff3e6; stroke: #d9480f; }
.line { stroke: #52606d; fill: none; stroke-width: 1.5; }
.lane { stroke: #bcccdc; stroke-dasharray: 2 4; }
.lost { stroke-dasharray: 5 4; }
marker path { fill: #52606d; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e7eb; }
  .small { fill: #b6c2cf; }
  .ground { fill: #161b22; stroke: #30363d; }
  .box { fill: #222b36; stroke: #627d98; }
  .begin { fill: #3b2412; stroke: #f08c4a; }
  .line { stroke: #9fb3c8; }
  .lane { stroke: #486581; }
  marker path { fill: #9fb3c8; }
}
"""

#: Who sends what to whom, or calls whom, by the last state. "~" marks a message that gets lost.
ENDINGS: Final[Mapping[State, Sequence[tuple[str, str, str]]]] = {
    State.CONTINUED: (
        ("client", "server", "Expect: 100-continue"),
        ("server", "application", "calls it"),
        ("application", "server", "reads the body"),
        ("server", "client", "100 Continue"),
        ("client", "server", "body"),
        ("server", "application", "body"),
        ("application", "server", "responds"),
        ("server", "client", "response, keep-alive"),
    ),
    State.DECLINED: (
        ("client", "server", "Expect: 100-continue"),
        ("server", "application", "calls it"),
        ("application", "server", "responds"),
        ("server", "client", "response, Connection: close"),
        ("server", "client", "FIN (half-close)"),
        ("client", "server", "~body, if it sends any"),
        ("client", "server", "FIN"),
    ),
    State.WAIVED: (
        ("client", "server", "Expect: 100-continue"),
        ("server", "application", "calls it"),
        ("client", "server", "body: it stopped waiting"),
        ("application", "server", "reads the body"),
        ("server", "application", "body"),
        ("application", "server", "responds"),
        ("server", "client", "response, keep-alive"),
    ),
    State.NONE: (
        ("client", "server", "headers and body"),
        ("server", "application", "calls it"),
        ("application", "server", "reads the body"),
        ("server", "application", "body"),
        ("application", "server", "responds"),
        ("server", "client", "response, keep-alive"),
    ),
}
#: A resumable upload that breaks off, and is resumed. Each message has one line or two.
RESUMED: Final = (
    ("client", "server", "POST /uploads", "Upload-Complete: ?1, Content-Length: 5000000000"),
    ("server", "application", "calls it", ""),
    (
        "application",
        "client",
        "104 Upload Resumption Supported",
        "Location: /uploads/7, Upload-Limit",
    ),
    ("application", "server", "reads the body", ""),
    ("client", "application", "body", ""),
    ("application", "client", "104 Upload Resumption Supported", "Upload-Offset: 4800000000"),
    ("client", "server", "~body: the connection breaks", ""),
    (
        "server",
        "application",
        "the read raises ClientDisconnected",
        "error.partial: the bytes of that read",
    ),
    ("client", "application", "HEAD /uploads/7", ""),
    ("application", "client", "204", "Upload-Offset: 4900000000, Upload-Complete: ?0"),
    ("client", "server", "PATCH /uploads/7", "Upload-Offset: 4900000000, Upload-Complete: ?1"),
    ("application", "server", "reads the body", ""),
    ("client", "application", "the rest of the body", ""),
    ("application", "client", "200", "Upload-Complete: ?1"),
)
LANES: Final = ("client", "server", "application")


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Write a line."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Draw a box."""
    size = f'width="{width:g}" height="{height:g}"'
    return f'<rect x="{x:g}" y="{y:g}" {size} rx="8" class="{kind}"/>'


def line(x1: float, y1: float, x2: float, y2: float, more: str = 'class="line"') -> str:
    """Draw a straight line."""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" {more}/>'


def arrow(x1: float, y1: float, x2: float, y2: float, kind: str = "") -> str:
    """Draw a straight arrow."""
    return line(x1, y1, x2, y2, f'class="line {kind}" marker-end="url(#head)"')


def picture(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """Put parts together."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>',
        box(0.5, 0.5, width - 1, height - 1, "ground"),
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def state(x: float, y: float, which: State, kind: str) -> Iterator[str]:
    """Draw a state with what is true of it, 300 wide and 76 high."""
    yield box(x, y, 300, 76, kind)
    yield text(x + 14, y + 24, which.name, "name")
    for row, words in enumerate(textwrap.wrap(which.value, 42)):
        yield text(x + 14, y + 44 + 18 * row, words, "small")


def states() -> str:
    """Draw the transitions. ValueError: more than one state changes, which has no drawing yet."""
    [(begin, moves)] = [
        (which, events)
        for which, events in TRANSITIONS.items()
        if any(target is not which for target in events.values())
    ]
    ends = {event: target for event, target in moves.items() if target is not begin}
    alone = [which for which in State if which is not begin and which not in ends.values()]

    def parts() -> Iterator[str]:
        middle = 24 + (96 * len(ends) - 20) / 2
        yield from state(24, middle - 38, begin, "begin")
        for number, (event, target) in enumerate(ends.items()):
            y = 24 + 96 * number
            yield from state(676, y, target, "box")
            yield line(324, middle + 14 * (number - (len(ends) - 1) / 2), 396, y + 38)
            yield box(396, y, 220, 76, "ground")
            yield text(506, y + 24, event.name, "name middle")
            for row, words in enumerate(textwrap.wrap(event.value, 34)):
                yield text(506, y + 44 + 18 * row, words, "small middle")
            yield arrow(616, y + 38, 674, y + 38)
        for number, which in enumerate(alone):
            y = 24 + 96 * (len(ends) + number)
            yield from state(24, y, which, "box")
        only = f"Only {begin.name} ever changes, and only once."
        yield text(352, 24 + 96 * len(ends) + 34, only)
        names = ", ".join(event.name for event in Event)
        still = f"{names} change nothing in the other {len(State) - 1}."
        yield text(352, 24 + 96 * len(ends) + 54, still, "small")

    height = 24 + 96 * (len(ends) + len(alone)) + 4
    return picture(1000, height, "The states of an expectation", parts())


def ending(x: float, y: float, which: State) -> Iterator[str]:
    """Draw who sends what in this ending, 480 wide."""
    at = {lane: x + 40 + 190 * number for number, lane in enumerate(LANES)}
    bottom = y + 78 + 30 * len(ENDINGS[which])
    yield text(x + 10, y + 16, which.name, "name")
    for lane, place in at.items():
        yield text(place, y + 46, lane, "small middle")
        yield line(place, y + 54, place, bottom, 'class="lane"')
    for number, (source, target, words) in enumerate(ENDINGS[which]):
        height = y + 82 + 30 * number
        kind = "lost" if words.startswith("~") else ""
        yield arrow(at[source], height, at[target], height, kind)
        middle = (at[source] + at[target]) / 2
        yield text(middle, height - 6, words.removeprefix("~"), "small middle")


def endings() -> str:
    """Draw the endings, two beside each other."""
    parts: list[str] = []
    every = list(ENDINGS)
    y = 20
    for pair in (every[:2], every[2:]):
        for number, which in enumerate(pair):
            parts += ending(20 + 490 * number, y, which)
        y += 110 + 30 * max(len(ENDINGS[which]) for which in pair)
    return picture(1000, y, "The endings of an expectation", parts)


def resumed() -> str:
    """Draw the exchange of a resumable upload."""
    at = {lane: 60 + 340 * number for number, lane in enumerate(LANES)}
    bottom = 60 + 44 * len(RESUMED)

    def parts() -> Iterator[str]:
        for lane, place in at.items():
            yield text(place, 30, lane, "name middle")
            yield line(place, 42, place, bottom, 'class="lane"')
        for number, (source, target, words, fields) in enumerate(RESUMED):
            y = 84 + 44 * number
            yield arrow(at[source], y, at[target], y, "lost" if words[0] == "~" else "")
            place = min(at[source], at[target]) + 170
            yield text(place, y - 6 - 15 * bool(fields), words.removeprefix("~"), "middle")
            if fields:
                yield text(place, y - 6, fields, "small middle")

    return picture(800, bottom + 20, "A resumable upload that breaks off, and is resumed", parts())


def main(folder: Path) -> None:
    """Write all pictures into this folder."""
    folder.joinpath("resumable.svg").write_text(resumed(), "utf-8")
    folder.joinpath("states.svg").write_text(states(), "utf-8")
    folder.joinpath("endings.svg").write_text(endings(), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)

"""Compares what two servers make of a stream, and finds a difference that no deviation explains."""

import dataclasses
import functools
import itertools
import re

from differential.deviations import (
    BY_PIECES,
    CORRECTIONS,
    DEVIATIONS,
    Case,
    as_ordinary_field,
    must_differ,
)
from differential.servers import Exchange

#: Ends a head that is cut off, so that gunicorn responds to the lines that it has.
_CUT = b"\r\n" * 6


@dataclasses.dataclass
class Difference:
    """Where two servers differ, though they should not."""

    number: int
    ours: Exchange | None
    stock: Exchange | None

    def __str__(self):
        lines = [f"exchange {self.number}:"]
        for name in ("environ", "read", "raised", "sent"):
            mine, theirs = (getattr(side, name, None) for side in (self.ours, self.stock))
            if name == "environ" and mine and theirs:
                changed = [key for key in mine | theirs if mine.get(key) != theirs.get(key)]
                mine, theirs = ({key: x.get(key) for key in changed} for x in (mine, theirs))
            if mine != theirs:
                lines += [f"  {name}, ours:  {mine!r}", f"  {name}, stock: {theirs!r}"]
        if len(lines) == 1:
            lines.append(
                f"  both are the same, but the page says that ours differs: {self.ours.sent!r}"
            )
        return "\n".join(lines)


def compare(server, stream):
    """Serve a stream twice; return the unexplained difference, and the deviation, if any."""
    data = stream.data()
    ours = server.ours(stream, stream.pieces(data))
    if b"xpect" in data.lower():
        data = as_ordinary_field(data)
        for exchange in ours:
            _take_for_ordinary(exchange)
    pieces = stream.pieces(data)
    stock = server.stock(stream, pieces)
    if any(mark in _last(stock) and mark not in _last(ours) for mark in BY_PIECES.tells):
        stock = server.stock(stream, [data])
    for correction in CORRECTIONS:
        correction.tells(ours, stock)
    for number in range(max(len(ours), len(stock))):
        mine = ours[number] if number < len(ours) else None
        theirs = stock[number] if number < len(stock) else None
        if mine and theirs and mine.seen() == theirs.seen() and not must_differ(theirs):
            continue
        # A deviation closes our connection, so it can only explain our last exchange.
        if mine is None or len(ours) > number + 1:
            return Difference(number, mine, theirs), None
        case = Case(
            mine,
            theirs or Exchange(),
            len(pieces) > 1 or stream.end is not None,
            max(map(len, data.split(b"\n"))) >= server.limits.field,
            functools.partial(_cut_responses, server, stream, pieces, number),
        )
        for deviation in DEVIATIONS:
            if deviation.tells(case):
                return None, deviation
        return Difference(number, mine, theirs), None
    return None, None


def _last(exchanges):
    return exchanges[-1].sent if exchanges else b""


def _take_for_ordinary(exchange):
    """Rename `Expect` in what our application saw, as it is renamed in what gunicorn gets."""
    if exchange.environ:
        exchange.environ = {
            as_ordinary_field(name): as_ordinary_field(value) if isinstance(value, str) else value
            for name, value in exchange.environ.items()
        }
    exchange.read, exchange.sent = (
        as_ordinary_field(exchange.read),
        as_ordinary_field(exchange.sent),
    )


def _cut_responses(server, stream, pieces, number):
    """Return gunicorn's responses of this number to a head that ends after any piece or line."""
    data = b"".join(pieces)
    ends = {match.end() for match in re.finditer(b"\n", data)}
    ends.update(itertools.accumulate(map(len, pieces)))
    cuts = [data[:end].removesuffix(b"\r") + _CUT for end in ends]
    answers = (server.stock(stream, [cut]) for cut in [*cuts, data])
    return {exchanges[number].sent for exchanges in answers if number < len(exchanges)}

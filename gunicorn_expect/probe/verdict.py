"""The verdict about a timeline: the first rule in the table whose condition holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

from gunicorn_expect.probe import timeline as events
from gunicorn_expect.probe.question import Manner

if TYPE_CHECKING:
    from collections.abc import Callable

AnEvent = TypeVar("AnEvent", bound=events.Event)

#: Milliseconds that the least patient clients wait for a response: curl, boto3, Go and .NET.
PATIENCE: Final = 1000

#: Servers that send 100 before they ask the application, by the beginning of a Server field.
KNOWN: Final = {
    "nginx": "nginx sends 100 itself, before it asks the server behind it.",
    "gunicorn": (
        "gunicorn's own workers send 100 before they call the application; those of "
        "gunicorn_expect send it when the application reads the body. A proxy that does not change "
        "the Server field may also have sent the 100: to find out, probe gunicorn at its own "
        "address."
    ),
}


@dataclass(frozen=True)
class Verdict:
    """The result of a rule, and the notes."""

    #: The name of the rule.
    name: str
    #: 0: as expected; 1: not as expected; 2: there was no connection.
    status: int
    text: str
    #: Notes that don't change the exit status.
    notes: tuple[str, ...]


def judge(timeline: events.Timeline, manner: Manner, refusal: int | None) -> Verdict:
    """Return the verdict.

    Args:
        timeline: the events, at least one.
        manner: what the probe did with the body.
        refusal: the status that the user expects; None: the user expects a 100.

    """
    facts = Facts(timeline, manner, refusal)
    name, status, _, text = next(rule for rule in RULES if rule[2](facts))
    notes = tuple(note for holds, note in NOTES if holds(facts))
    return Verdict(name, status, text.format_map(facts.values), notes)


@dataclass(frozen=True)
class Facts:
    """What the rules look at: a timeline, and what the user expects."""

    timeline: events.Timeline
    manner: Manner
    refusal: int | None

    def all(self, kind: type[AnEvent]) -> list[AnEvent]:
        """Return the events of this kind."""
        return [event for event in self.timeline if isinstance(event, kind)]

    def ends(self, kind: type[events.Event]) -> bool:
        """Return whether the timeline ends with this kind."""
        return isinstance(self.timeline[-1], kind)

    @cached_property
    def final(self) -> events.Final | None:
        """The final response; the first, if there are two."""
        return next(iter(self.all(events.Final)), None)

    @cached_property
    def status(self) -> int:
        """The status code of the final response; 0 without one."""
        return self.final.status if self.final else 0

    @cached_property
    def hundreds(self) -> list[events.Interim]:
        """The 100s that came before the final response."""
        return [interim for interim in self._interim_before(self.final) if interim.status == 100]

    @cached_property
    def first_response(self) -> events.Interim | events.Final | None:
        """What answers the expectation: a 100, or a final response instead."""
        return self.hundreds[0] if self.hundreds else self.final

    @cached_property
    def other_interims(self) -> list[events.Interim]:
        """Other interim responses that came before the first response."""
        return self._interim_before(self.first_response)

    @cached_property
    def late_hundred(self) -> bool:
        """Whether a 100 came after the first byte of the final response."""
        interim = [event for event in self.all(events.Interim) if event.status == 100]
        return len(interim) > len(self.hundreds) or bool(self.all(events.ContinueInContent))

    @cached_property
    def cut_off(self) -> bool:
        """Whether a response began and did not end."""
        begun = len(self.all(events.Final)) > len(self.all(events.Whole))
        return begun or bool(self.all(events.CutOff))

    @cached_property
    def closes(self) -> bool:
        """Whether the final response announces that the connection closes."""
        return self.final is not None and self.final.closes

    @cached_property
    def waits(self) -> bool:
        """Whether the probe waited for the response before it sent the body."""
        return self.manner is not Manner.IMPATIENT

    @cached_property
    def values(self) -> dict[str, str]:
        """The values for the braces in the texts of the rules."""
        announced = sum(head.length for head in self.all(events.HeadSent)[:1])
        sent = self.final.body_sent if self.final else 0
        return {
            "first": f"after {self.first_response.at:.1f} ms" if self.first_response else "",
            "status": str(self.status),
            "refusal": str(self.refusal),
            "final": f"after {self.final.at:.1f} ms" if self.final else "",
            "second": ", ".join(str(final.status) for final in self.all(events.Final)[1:]),
            "others": ", ".join(str(interim.status) for interim in self.other_interims),
            "hundreds": str(len(self.hundreds)),
            "reason": ", ".join(
                event.reason
                for event in self.timeline
                if isinstance(event, (events.Unreachable, events.Malformed))
            ),
            "sent": f"{sent} of {announced} bytes of the body had been sent by then",
            "servers": self._servers(),
            "known": self._known_servers(),
        }

    def _servers(self) -> str:
        """Return which servers name themselves in the responses."""
        answers: list[events.Interim | events.Final] = [
            *self.hundreds[:1],
            *self.all(events.Final)[:1],
        ]
        names = {answer.status: _named(answer.fields) for answer in answers}
        sentences = [f"The {status} says {name}." for status, name in names.items() if name]
        return " ".join(sentences) or "No Server or Via field names the server."

    def _known_servers(self) -> str:
        """Return what `KNOWN` says about the servers that are named."""
        fields = self.final.fields if self.final else ()
        servers = [value for name, value in fields if name.lower() == "server"]
        known = [
            text for name, text in KNOWN.items() for value in servers if value.startswith(name)
        ]
        return " ".join(["", *known])

    def _interim_before(self, event: events.Event | None) -> list[events.Interim]:
        end = len(self.timeline) if event is None else self.timeline.index(event)
        return [event for event in self.timeline[:end] if isinstance(event, events.Interim)]


def _named(fields: events.Fields) -> str:
    names = [f"{name}: {value}" for name, value in fields if name.lower() in {"server", "via"}]
    return ", ".join(names)


#: Name, exit status, condition and text. First what is wrong on the wire, then what breaks clients,
#: then whether the result is what the user expects.
RULES: Final[tuple[tuple[str, int, Callable[[Facts], bool], str], ...]] = (
    ("unreachable", 2, lambda x: x.ends(events.Unreachable), "{reason}."),
    (
        "continue-in-answer",
        1,
        lambda x: x.late_hundred,
        "A 100 came after the beginning of the {status}. A client takes it for a part of this "
        "response, or for the response to its next request.",
    ),
    (
        "second-answer",
        1,
        lambda x: len(x.all(events.Final)) > 1,
        "After the {status} came {second}, without a request. If the server read bytes of the body "
        "as a request, an upload can contain requests (request smuggling).",
    ),
    (
        "malformed",
        1,
        lambda x: x.ends(events.Malformed),
        "The bytes that came are not HTTP/1: {reason}.",
    ),
    (
        "cut-off",
        1,
        lambda x: x.cut_off,
        "The response is incomplete. A server that closes while a client may be sending has to go "
        "on reading for a while, or the client can lose the response (RFC 9112 section 9.6).",
    ),
    (
        "closed",
        1,
        lambda x: x.first_response is None and x.ends(events.Closed),
        "The connection was closed without a response.",
    ),
    (
        "silence",
        1,
        lambda x: x.first_response is None,
        "No response came. Either a hop holds the request headers back until it has the body, or "
        "the application takes longer than the probe waits. Most clients send the body after a "
        "second.",
    ),
    (
        "two-continues",
        1,
        lambda x: len(x.hundreds) > 1,
        "100 came {hundreds} times: a hop sends one of its own and passes on another one, or a "
        "server sends two. Java 17 and LWP break on the second. {servers}{known}",
    ),
    (
        "other-interim",
        1,
        lambda x: bool(x.other_interims) and x.waits,
        "{others} came before a 100 or a final response. HTTP allows it, but some clients fail "
        "(boto3, OkHttp, Ruby, Java).",
    ),
    (
        "expectation-failed",
        1,
        lambda x: x.status == 417 != x.refusal,
        "417 {final}: the server does not accept the expectation, and some clients then send the "
        "upload without Expect. {servers}",
    ),
    # A refusal is expected.
    (
        "continue-instead",
        1,
        lambda x: x.refusal is not None and x.final is None,
        "100 {first}, and no {refusal}. Either the 100 was sent before the decision to refuse, or "
        "the request is not refused: --send-body shows what follows. {servers}",
    ),
    (
        "other-answer",
        1,
        lambda x: x.refusal not in (None, x.status),
        "{status} {final}, where {refusal} is expected. {servers}",
    ),
    (
        "refusal-heard",
        0,
        lambda x: x.refusal is not None and not x.waits,
        "{status} {final}, and it is complete; {sent}. {servers}",
    ),
    (
        "refused-behind-continue",
        1,
        lambda x: x.refusal is not None and bool(x.hundreds),
        "100 {first}, and {status} only {final}; {sent}. The 100 was sent before the decision to "
        "refuse: a client uploads until it gets the refusal. {servers}{known}",
    ),
    (
        "refused-first",
        0,
        lambda x: x.refusal is not None,
        "{status} {final}, and no 100: no hop sends 100 before the decision to refuse. {servers}",
    ),
    # The body is expected to be asked for.
    (
        "refused",
        1,
        lambda x: x.status >= 400,
        "{status} {final}. If you expect this refusal, add --refusal {status}. {servers}",
    ),
    (
        "no-answer",
        1,
        lambda x: x.final is None and x.manner is not Manner.WAITS,
        "100 {first}, and no response after the body. {servers}",
    ),
    (
        "continued",
        0,
        lambda x: x.final is None,
        "100 {first}. This does not show whether the application or a hop in front of it sent the "
        "100: for that, probe with a request that is refused, and --refusal. {servers}",
    ),
    (
        "accepted",
        0,
        lambda x: bool(x.hundreds) or not x.waits,
        "{status} {final}; {sent}. {servers}",
    ),
    (
        "answered-unasked",
        1,
        lambda _: True,
        "{status} {final}, and no 100: the server did not ask for the body. {servers}",
    ),
)

#: The notes: condition and text. They apply to any verdict.
NOTES: Final[tuple[tuple[Callable[[Facts], bool], str], ...]] = (
    (
        lambda x: x.waits and x.first_response is not None and x.first_response.at > PATIENCE,
        "The first response is late: curl, boto3, Go and .NET send the body after 1 s.",
    ),
    (
        lambda x: x.status == x.refusal == 417,
        "After a 417 some clients send the upload again, without Expect.",
    ),
    (
        lambda x: (
            x.waits
            and x.first_response is not None
            and x.first_response is x.final
            and not x.closes
        ),
        "The response has no Connection: close. The client may now send the body or not, and the "
        "server can't tell the body from the next request.",
    ),
    (
        lambda x: x.closes and x.ends(events.Left),
        "The response has Connection: close, but the connection was still open at the end.",
    ),
    (
        lambda x: x.final is not None and not x.closes and x.ends(events.Closed),
        "The connection was closed without Connection: close: a client can lose its next request.",
    ),
    (
        lambda x: x.final is not None and any(end.by == "reset" for end in x.all(events.Closed)),
        "The connection was reset after the response: a client that reads it later can lose it.",
    ),
)

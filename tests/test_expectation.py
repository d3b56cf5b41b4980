"""The state machine alone, on a wire that only takes notes."""

import gc
import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_expect import expectation as expectation_module
from gunicorn_expect.expectation import (
    TRANSITIONS,
    Event,
    Expectation,
    State,
    UnknownExpectationError,
    expects_continue,
)

FINAL = "final response"


def fields(values):
    return [("EXPECT", value) for value in values]


class Notes:
    """A wire that notes what it was asked to do."""

    def __init__(self, *, arrived=False, fails=False):
        self.arrived = arrived
        self.fails = fails
        self.sent = []
        self.closing = False

    def body_arrived(self):
        return self.arrived

    def send_continue(self, headers):
        self.sent.append(["100", *headers])
        if self.fails:
            raise BrokenPipeError

    def close_after_response(self):
        self.closing = True


def test_every_event_has_an_outcome_in_every_state():
    assert set(TRANSITIONS) == set(State)
    assert all(set(outcomes) == set(Event) for outcomes in TRANSITIONS.values())


def test_only_pending_changes_and_nothing_leads_back_to_it():
    changes = {
        (before, event): after
        for before, outcomes in TRANSITIONS.items()
        for event, after in outcomes.items()
        if after is not before
    }
    assert changes == {
        (State.PENDING, Event.READ): State.CONTINUED,
        (State.PENDING, Event.ARRIVED): State.WAIVED,
        (State.PENDING, Event.RESPOND): State.DECLINED,
    }


def test_without_a_wire_nobody_waits():
    expectation = Expectation()
    expectation.on_read()
    expectation.on_respond()
    expectation.proceed([("X-Node", "7")])
    assert expectation.state is State.NONE


def test_its_text_is_its_state():
    assert str(Expectation()) == "none"
    assert f"{Expectation(Notes())}" == "pending"
    assert repr(Expectation(Notes())) == "<Expectation pending>"


def test_proceed_sends_its_fields_once():
    wire = Notes()
    expectation = Expectation(wire)
    expectation.proceed(iter([("X-Node", "7")]))
    expectation.proceed([("X-Node", "8")])
    expectation.on_read()
    assert wire.sent == [["100", ("X-Node", "7")]]


@pytest.mark.parametrize(
    "headers", [{"X-Node": "7"}, ["X-Node"], [("X-Node",)], [(b"X-Node", b"7")], [("X-Node", 7)]]
)
def test_proceed_says_what_a_header_field_is(headers):
    with pytest.raises(ValueError, match="header field 1 of a 100 Continue is no pair of str"):
        Expectation().proceed(headers)


def test_proceed_checks_its_fields_even_if_nobody_waits():
    with pytest.raises(ValueError, match="X-Token") as caught:
        Expectation().proceed([("X-Token", "secret\r\n")])
    assert "secret" not in str(caught.value)


def test_a_100_that_could_not_be_sent_is_not_sent_again():
    wire = Notes(fails=True)
    expectation = Expectation(wire)
    with pytest.raises(BrokenPipeError):
        expectation.on_read()
    expectation.on_read()
    expectation.on_respond()
    assert wire.sent == [["100"]]
    assert expectation.state is State.CONTINUED


# When it was decided.


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second at each look."""
    seconds = itertools.count(1000.0)
    monkeypatch.setattr(expectation_module.time, "monotonic", lambda: next(seconds))


@pytest.mark.parametrize(
    ("decide", "state"),
    [
        (Expectation.on_read, State.CONTINUED),
        (Expectation.proceed, State.CONTINUED),
        (Expectation.proceed_again, State.CONTINUED),
        (Expectation.on_respond, State.DECLINED),
    ],
)
def test_the_decision_is_told_once_with_its_time(clock, decide, state):
    told = []
    expectation = Expectation(
        Notes(), on_decided=lambda decided: told.append((decided.state, decided.decided_after))
    )
    assert expectation.decided_after is None
    decide(expectation)
    decide(expectation)
    expectation.on_respond()
    assert told == [(state, 1.0)]
    assert expectation.decided_after == 1.0


def test_bytes_that_arrived_with_the_head_are_told_of_too(clock):
    told = []
    Expectation(
        Notes(),
        arrived=True,
        on_decided=lambda decided: told.append((decided.state, decided.decided_after)),
    )
    assert told == [(State.WAIVED, 1.0)]


def test_a_100_that_could_not_be_sent_is_told_of():
    told = []
    expectation = Expectation(Notes(fails=True), on_decided=told.append)
    with pytest.raises(BrokenPipeError):
        expectation.on_read()
    assert told == [expectation]


def test_nothing_is_decided_where_nobody_waits():
    told = []
    expectation = Expectation(on_decided=told.append)
    expectation.on_read()
    expectation.on_respond()
    assert expectation.decided_after is None
    assert told == []


@pytest.mark.parametrize("when", ["with the head", "later"])
def test_bytes_that_arrived_waive_the_100(when):
    wire = Notes(arrived=when == "with the head")
    expectation = Expectation(wire)
    assert expectation.pending == (when == "later")
    wire.arrived = True
    expectation.on_read()
    expectation.on_respond()
    assert expectation.state is State.WAIVED
    assert wire.sent == []
    assert not wire.closing


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], False),
        ([""], False),
        ([" , \t,"], False),
        (["100-continue"], True),
        (["", "100-Continue"], True),
        (["100-continue,100-continue"], True),
    ],
)
def test_the_members_of_the_field_tell_whether_the_client_waits(values, expected):
    assert expects_continue([("HOST", "x"), *fields(values)]) is expected


@given(st.lists(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"))))
def test_two_lines_are_read_as_one_line_with_a_comma(values):
    def reading(lines):
        try:
            return expects_continue(fields(lines))
        except UnknownExpectationError:
            return "unknown"

    assert reading(values) == reading([",".join(values)])


# What an application, its threads and its client can do to one expectation, in any order.

STEPS = {
    "read": lambda expectation, wire: expectation.on_read(),
    "proceed": lambda expectation, wire: expectation.proceed(),
    "client sends": lambda expectation, wire: setattr(wire, "arrived", True),
    "respond": lambda expectation, wire: (expectation.on_respond(), wire.sent.append(FINAL)),
}
STEP_LISTS = st.lists(st.sampled_from(sorted(STEPS)))


def check(expectation, wire, decisions=None):
    if decisions is not None:
        assert decisions == [expectation.state] * (expectation.state is not State.PENDING)
    assert (expectation.decided_after is None) == (expectation.state is State.PENDING)
    hundreds = wire.sent.count(["100"])
    assert hundreds <= 1
    assert hundreds == (expectation.state is State.CONTINUED)
    if FINAL in wire.sent:
        assert ["100"] not in wire.sent[wire.sent.index(FINAL) :]
        assert not expectation.pending
    assert wire.closing == (expectation.state is State.DECLINED)


@given(STEP_LISTS, st.booleans())
def test_no_order_of_events_sends_two_100s_or_one_after_the_response(steps, arrived):
    wire = Notes(arrived=arrived)
    decisions = []
    expectation = Expectation(wire, on_decided=lambda decided: decisions.append(decided.state))
    for step in steps:
        STEPS[step](expectation, wire)
        check(expectation, wire, decisions)


@given(STEP_LISTS, STEP_LISTS)
def test_two_threads_send_no_two_100s_and_none_after_the_response(one, other):
    wire = Notes()
    decisions = []
    expectation = Expectation(wire, on_decided=lambda decided: decisions.append(decided.state))
    together = threading.Barrier(2)

    def take(steps):
        together.wait()
        for step in steps:
            STEPS[step](expectation, wire)

    thread = threading.Thread(target=take, args=(other,))
    thread.start()
    take(one)
    thread.join()
    check(expectation, wire, decisions)


class Slow(Notes):
    """A wire whose 100 is on its way while the test goes on."""

    def __init__(self):
        super().__init__()
        self.sending = threading.Event()
        self.go_on = threading.Event()

    def send_continue(self, headers):
        self.sending.set()
        assert self.go_on.wait(20)
        super().send_continue(headers)


def test_the_response_waits_for_a_100_that_is_being_sent():
    wire = Slow()
    expectation = Expectation(wire)
    reader = threading.Thread(target=expectation.on_read)
    reader.start()
    assert wire.sending.wait(20)

    responder = threading.Thread(target=STEPS["respond"], args=(expectation, wire))
    responder.start()
    responder.join(0.05)  # long enough for one that does not wait to be done
    assert wire.sent == []

    wire.go_on.set()
    reader.join()
    responder.join()
    assert wire.sent == [["100"], FINAL]


def test_a_second_reader_does_not_look_at_the_socket_after_the_100():
    wire = Slow()
    looks = []
    wire.body_arrived = lambda: bool(looks.append(1))
    expectation = Expectation(wire)
    readers = [threading.Thread(target=expectation.on_read) for _ in range(2)]
    for reader in readers:
        reader.start()
    assert wire.sending.wait(20)
    wire.go_on.set()
    for reader in readers:
        reader.join()
    assert wire.sent == [["100"]]
    assert len(looks) == 1  # before the 100


def test_a_read_after_the_response_sends_nothing():
    wire = Notes()
    expectation = Expectation(wire)
    expectation.on_respond()
    expectation.on_read()
    assert wire.sent == []


def test_a_settled_expectation_lets_its_wire_go():
    wire = Notes()
    expectation = Expectation(wire)
    expectation.on_respond()
    assert wire not in gc.get_referents(expectation)

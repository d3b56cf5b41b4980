"""One upload and its lock, and the `Expectation` that applications see, without a connection."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_expect import BodyTimeout, ClientDisconnected, Expectation, State
from gunicorn_expect import exchange as exchange_module
from gunicorn_expect.exchange import Exchange, Responses, UnknownExpectationError, expects_continue
from gunicorn_expect.states import ENDS, End, Rest
from support import PATIENCE

FINAL = "final response"


class RecordingWire:
    """The wire and the body of a client; it records what it was asked to do."""

    def __init__(self, *, arrived=False, fails=False, rest=Rest.MUCH, gone=None):
        self.is_here = arrived
        self.fails = fails
        self.left = rest
        self.gone = gone
        self.sent = []
        self.opened = 0
        self.most = []
        self.drained = 0
        self.ended = rest is Rest.NOTHING

    def send_interim(self, status, headers):
        self.sent.append([str(status), *headers])
        if self.fails:
            raise BrokenPipeError
        return True

    def arrived(self):
        if self.gone is not None:
            raise self.gone
        return self.is_here

    def open_body(self):
        self.opened += 1
        return self

    def limit(self, size):
        self.most.append(size)

    def rest(self):
        return self.left

    def drain(self, deadline):
        self.drained += 1
        if self.gone is not None:
            raise self.gone


def waiting_exchange(wire, **callbacks):
    """Open the exchange of a client that waits for a 100."""
    return Exchange(wire, waits=True, **callbacks)


def sending_exchange(wire, **callbacks):
    """Open the exchange of a client that does not wait for a 100."""
    return Exchange(wire, waits=False, **callbacks)


# What the client expects.


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
def test_a_client_waits_if_100_continue_is_a_member_of_its_expect_field(values, expected):
    assert expects_continue(values) is expected


@given(st.lists(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"))))
def test_two_expect_lines_mean_the_same_as_one_line_with_a_comma(values):
    def reading(lines):
        try:
            return expects_continue(lines)
        except UnknownExpectationError:
            return "unknown"

    assert reading(values) == reading([",".join(values)])


# Asking for the body.


def test_a_read_sends_one_100_to_a_client_that_waits():
    wire = RecordingWire()
    exchange = waiting_exchange(wire)
    exchange.read()
    exchange.read()
    assert wire.sent == [["100"]]
    assert exchange.state is State.CONTINUED


def test_a_client_that_does_not_wait_gets_no_100():
    wire = RecordingWire()
    exchange = sending_exchange(wire)
    exchange.read([("X-Node", "7")])
    exchange.proceed_again([("X-Node", "7")])
    exchange.respond()
    assert wire.sent == []
    assert exchange.state is State.NONE


@pytest.mark.parametrize("when", ["with the head", "later"])
def test_a_client_whose_body_bytes_have_arrived_gets_no_100(when):
    wire = RecordingWire(arrived=when == "with the head")
    exchange = waiting_exchange(wire)
    assert exchange.look() == (when == "later")
    wire.is_here = True
    exchange.read()
    exchange.respond()
    assert exchange.state is State.WAIVED
    assert wire.sent == []


def test_a_client_that_is_gone_still_waits_until_a_read_or_the_response_finds_out():
    exchange = waiting_exchange(RecordingWire(gone=ClientDisconnected("gone")))
    assert exchange.look()
    with pytest.raises(ClientDisconnected):
        exchange.read()
    assert exchange.state is State.PENDING  # nobody has declined it


def test_a_100_that_could_not_be_sent_is_not_sent_again():
    wire = RecordingWire(fails=True)
    exchange = waiting_exchange(wire)
    with pytest.raises(BrokenPipeError):
        exchange.read()
    exchange.read()
    exchange.respond()
    assert wire.sent == [["100"]]
    assert exchange.state is State.CONTINUED


def test_a_read_after_the_response_sends_nothing():
    wire = RecordingWire()
    exchange = waiting_exchange(wire)
    exchange.respond()
    exchange.read()
    assert not exchange.proceed_again(())
    assert wire.sent == []
    assert exchange.state is State.DECLINED


def test_proceed_again_sends_another_100_with_the_fields_that_were_set():
    wire = RecordingWire()
    exchange = waiting_exchange(wire)
    exchange.set_headers([("X-Every", "1")])
    exchange.read()
    assert exchange.proceed_again(())
    assert exchange.proceed_again([("X-Once", "2")])
    assert wire.sent == [
        ["100", ("X-Every", "1")],
        ["100", ("X-Every", "1")],
        ["100", ("X-Once", "2")],
    ]


# Opening the body.


def test_a_body_is_opened_once():
    wire = RecordingWire()
    exchange = sending_exchange(wire)
    assert exchange.open_body() is exchange.open_body() is exchange.framing is wire
    exchange.respond()
    exchange.drain()
    assert wire.opened == 1


@pytest.mark.parametrize(
    "early",
    [
        Exchange.look,
        lambda exchange: exchange.limit(5),
        lambda exchange: exchange.proceed_again(()),
    ],
    ids=["look", "limit", "proceed again"],
)
def test_a_body_is_not_opened_before_a_read(early):
    wire = RecordingWire()
    early(waiting_exchange(wire))
    assert wire.opened == 0


@pytest.mark.parametrize("waits", [False, True])
def test_the_response_opens_a_body_to_see_what_is_left_of_it_unless_it_was_declined(waits):
    wire = RecordingWire(rest=Rest.LITTLE)
    exchange = Exchange(wire, waits=waits)
    assert exchange.respond() is not waits
    assert wire.opened == (not waits)


def test_two_threads_that_open_a_body_at_once_get_the_same_one():
    class Opens(RecordingWire):
        def open_body(self):
            never.wait(0.05)  # long enough for a second thread that does not wait its turn
            return RecordingWire()

    never = threading.Event()
    exchange = sending_exchange(Opens())
    with ThreadPoolExecutor() as pool:
        opened = [pool.submit(exchange.open_body) for _ in range(2)]
        assert opened[0].result() is opened[1].result()


@pytest.mark.parametrize("opened", [0, 1, 2])
def test_the_lowest_limit_of_a_body_applies_no_matter_when_it_was_set(opened):
    wire = RecordingWire()
    exchange = sending_exchange(wire)
    for number, most in enumerate([7, 5, 9]):
        if number == opened:
            exchange.open_body()
        exchange.limit(most)
    exchange.open_body()
    assert min(wire.most) == wire.most[-1] == 5


# What the application sees of it.


def test_without_an_upload_nobody_waits():
    expectation = Expectation()
    expectation.proceed([("X-Node", "7")])
    assert not expectation.pending
    assert expectation.decided_after is None
    assert expectation.state is State.NONE


def test_the_str_of_an_expectation_is_its_state():
    assert str(Expectation()) == "none"
    expectation = Expectation(waiting_exchange(RecordingWire()))
    assert f"{expectation}" == "pending"
    assert repr(expectation) == "<Expectation pending>"
    expectation.proceed()
    assert str(expectation) == "continued"


def test_pending_looks_at_the_connection():
    wire = RecordingWire()
    expectation = Expectation(waiting_exchange(wire))
    assert expectation.pending
    wire.is_here = True
    assert not expectation.pending
    assert expectation.state is State.WAIVED


def test_proceed_sends_its_fields_once():
    wire = RecordingWire()
    exchange = waiting_exchange(wire)
    Expectation(exchange).proceed(iter([("X-Node", "7")]))
    Expectation(exchange).proceed([("X-Node", "8")])
    exchange.read()
    assert wire.sent == [["100", ("X-Node", "7")]]


@pytest.mark.parametrize(
    "headers", [{"X-Node": "7"}, ["X-Node"], [("X-Node",)], [(b"X-Node", b"7")], [("X-Node", 7)]]
)
def test_proceed_names_the_header_field_that_can_not_be_sent(headers):
    with pytest.raises(ValueError, match="header field 1 of a 100 Continue is not a pair of str"):
        Expectation().proceed(headers)


def test_proceed_checks_its_fields_even_if_nobody_waits():
    with pytest.raises(ValueError, match="X-Token") as caught:
        Expectation().proceed([("X-Token", "secret\r\n")])
    assert "secret" not in str(caught.value)


def test_without_a_connection_nothing_is_sent():
    assert Expectation().inform(104, [("Location", "/a")]) is False


def test_a_request_without_a_body_gets_interim_responses_until_its_response_starts():
    wire = RecordingWire()
    responses = Responses(wire)
    assert Expectation(responses).inform(104, [("Location", "/a")])
    assert responses.respond()
    assert not Expectation(responses).inform(104)
    assert wire.sent == [["104", ("Location", "/a")]]


@pytest.mark.parametrize(
    ("options", "understands", "sent"),
    [({}, False, False), ({"force": True}, False, True), ({}, True, True)],
)
def test_a_client_that_waits_gets_an_interim_response_if_it_understands_or_by_force(
    options, understands, sent
):
    wire = RecordingWire()
    expectation = Expectation(waiting_exchange(wire), understands)
    assert expectation.inform(104, **options) is sent
    assert expectation.pending
    expectation.proceed()
    assert expectation.inform(104)
    assert wire.sent == [["104"]] * sent + [["100"], ["104"]]


def test_a_client_whose_body_has_arrived_gets_an_interim_response():
    wire = RecordingWire(arrived=True)
    expectation = Expectation(waiting_exchange(wire))
    assert expectation.inform(104)
    assert expectation.state is State.WAIVED


def test_a_declined_client_gets_no_further_interim_response():
    wire = RecordingWire()
    exchange = waiting_exchange(wire)
    exchange.respond()
    assert not Expectation(exchange).inform(104, force=True)
    assert wire.sent == []


@pytest.mark.parametrize("status", [-104, 0, 99, 100, 101, 200, 1040])
def test_inform_sends_only_interim_responses(status):
    wire = RecordingWire()
    with pytest.raises(ValueError, match=f"inform\\(\\) can't send {status}: it sends 102 to 199"):
        Expectation(sending_exchange(wire)).inform(status)
    assert wire.sent == []


def test_inform_checks_its_fields_even_if_nothing_is_sent():
    with pytest.raises(ValueError, match="X-Token") as caught:
        Expectation().inform(104, [("X-Token", "secret\r\n")])
    assert "secret" not in str(caught.value)


# When the expectation was decided.


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by a second each time it is read."""
    seconds = itertools.count(1000.0)
    monkeypatch.setattr(exchange_module.time, "monotonic", lambda: next(seconds))


DECIDE = {
    "read": Exchange.read,
    "proceed": lambda exchange: Expectation(exchange).proceed(),
    "proceed again": lambda exchange: exchange.proceed_again(()),
    "respond": Exchange.respond,
}


@pytest.mark.parametrize("decide", DECIDE)
def test_the_decision_is_reported_once_with_its_time(clock, decide):
    reported = []
    exchange = waiting_exchange(
        RecordingWire(),
        on_decided=lambda decided: reported.append((decided.state, decided.decided_after)),
    )
    assert Expectation(exchange).decided_after is None
    DECIDE[decide](exchange)
    DECIDE[decide](exchange)
    exchange.respond()
    assert reported == [(State.DECLINED if decide == "respond" else State.CONTINUED, 1.0)]
    assert Expectation(exchange).decided_after == 1.0


def test_a_waived_expectation_is_reported_too(clock):
    reported = []
    exchange = waiting_exchange(
        RecordingWire(arrived=True),
        on_decided=lambda decided: reported.append((decided.state, decided.decided_after)),
    )
    exchange.look()
    assert reported == [(State.WAIVED, 1.0)]


def test_the_decision_is_reported_even_if_the_100_could_not_be_sent():
    reported = []
    exchange = waiting_exchange(RecordingWire(fails=True), on_decided=reported.append)
    with pytest.raises(BrokenPipeError):
        exchange.read()
    assert reported == [exchange]


def test_nothing_is_decided_if_the_client_does_not_wait():
    reported = []
    exchange = sending_exchange(RecordingWire(), on_decided=reported.append)
    exchange.read()
    exchange.respond()
    assert exchange.decided_after is None
    assert reported == []


# The response, and the end.


@pytest.mark.parametrize("rest", [rest for rest in Rest if rest is not Rest.UNASKED])
def test_what_is_left_of_the_body_when_the_response_starts_decides_how_the_connection_ends(rest):
    wire = RecordingWire(rest=rest)
    exchange = sending_exchange(wire)
    keeps = ENDS[rest][True] is not End.LINGER
    assert exchange.respond() is keeps
    wire.left = Rest.MUCH
    wire.ended = False
    assert exchange.respond() is keeps  # later ones change nothing
    for may_keep in (True, False):
        assert exchange.end(may_keep=may_keep) is ENDS[rest][may_keep]


def test_a_connection_whose_upload_was_declined_is_not_kept_even_if_nothing_is_left():
    exchange = waiting_exchange(RecordingWire(rest=Rest.NOTHING))
    assert not exchange.respond()
    assert exchange.end(may_keep=True) is End.LINGER


def test_a_connection_is_not_kept_if_its_response_never_started():
    assert sending_exchange(RecordingWire(rest=Rest.NOTHING)).end(may_keep=True) is End.LINGER


def test_a_client_that_left_while_it_waited_stays_pending_and_counts_as_disconnected():
    failures = []
    exchange = waiting_exchange(
        RecordingWire(gone=ClientDisconnected("gone")),
        on_failed=lambda error: failures.append(type(error)),
    )
    with pytest.raises(ClientDisconnected):
        exchange.respond()
    assert exchange.state is State.PENDING
    assert failures == [ClientDisconnected]
    assert exchange.end(may_keep=True) is End.LINGER


def test_no_100_is_sent_after_the_response_found_the_client_gone():
    wire = RecordingWire(gone=ClientDisconnected("gone"))
    exchange = waiting_exchange(wire)
    with pytest.raises(ClientDisconnected):
        exchange.respond()
    wire.gone = None
    exchange.read()
    assert not exchange.proceed_again(())
    assert wire.sent == []


def test_a_connection_is_not_kept_while_a_thread_still_reads_the_body():
    exchange = sending_exchange(RecordingWire(rest=Rest.LITTLE))
    with exchange.reading:
        assert not exchange.respond()


def test_a_connection_is_not_kept_if_its_body_failed():
    exchange = sending_exchange(RecordingWire(rest=Rest.LITTLE))
    exchange.fail(BodyTimeout("late"))
    assert not exchange.respond()


def test_every_read_after_a_failure_raises_it_again_but_it_is_reported_once():
    reported = []
    exchange = sending_exchange(RecordingWire(), on_failed=reported.append)
    error = BodyTimeout("late")
    error.partial = b"came"
    exchange.fail(error)
    exchange.fail(BodyTimeout("again"))
    assert reported == [error]
    for _ in range(2):
        with pytest.raises(BodyTimeout) as raised:
            exchange.raise_failure()
        assert raised.value is not error  # the first one's traceback refers to buffers
        assert raised.value.partial == b""


@pytest.mark.parametrize("fails", [False, True])
def test_a_connection_whose_body_was_drained_may_be_kept_and_the_body_can_not_be_read_any_more(
    fails,
):
    wire = RecordingWire(rest=Rest.LITTLE)
    exchange = sending_exchange(wire)
    exchange.respond()
    wire.gone = BodyTimeout("late") if fails else None
    assert exchange.drain() is not fails
    assert wire.drained == 1
    with pytest.raises(OSError, match="late" if fails else "this request has ended"):
        exchange.raise_failure()


def test_a_body_that_was_read_is_not_drained():
    wire = RecordingWire(rest=Rest.NOTHING)
    assert sending_exchange(wire).drain()
    assert wire.drained == 0


def test_a_body_that_is_given_up_can_not_be_read_any_more():
    exchange = sending_exchange(RecordingWire())
    assert exchange.give_up_body()
    with pytest.raises(OSError, match="the rest of this body was discarded"):
        exchange.raise_failure()


def test_a_body_is_not_given_up_while_a_thread_reads_it():
    exchange = sending_exchange(RecordingWire())
    with exchange.reading:
        assert not exchange.give_up_body()
    exchange.raise_failure()


# What an application, its threads and its client can do to one upload, in any order.

STEPS = {
    "read": lambda exchange, wire: exchange.read(),
    "proceed": lambda exchange, wire: Expectation(exchange).proceed(),
    "look": lambda exchange, wire: exchange.look(),
    "client sends": lambda exchange, wire: setattr(wire, "is_here", True),
    "respond": lambda exchange, wire: (exchange.respond(), wire.sent.append(FINAL)),
}
STEP_LISTS = st.lists(st.sampled_from(sorted(STEPS)))


def check(exchange, wire, decisions):
    assert decisions == [exchange.state] * (exchange.state is not State.PENDING)
    assert (exchange.decided_after is None) == (exchange.state is State.PENDING)
    hundreds = wire.sent.count(["100"])
    assert hundreds <= 1
    assert hundreds == (exchange.state is State.CONTINUED)
    if FINAL in wire.sent:
        assert ["100"] not in wire.sent[wire.sent.index(FINAL) :]
        assert not exchange.look()
        assert exchange.respond() == (exchange.state is not State.DECLINED)


@given(STEP_LISTS, st.booleans())
def test_no_order_of_events_sends_two_100s_or_one_after_the_response(steps, arrived):
    wire = RecordingWire(arrived=arrived, rest=Rest.LITTLE)
    decisions = []
    exchange = waiting_exchange(wire, on_decided=lambda decided: decisions.append(decided.state))
    for step in steps:
        STEPS[step](exchange, wire)
        check(exchange, wire, decisions)


@given(STEP_LISTS, STEP_LISTS)
def test_two_threads_never_send_two_100s_or_one_after_the_response(one, other):
    wire = RecordingWire(rest=Rest.LITTLE)
    decisions = []
    exchange = waiting_exchange(wire, on_decided=lambda decided: decisions.append(decided.state))
    together = threading.Barrier(2)

    def take(steps):
        together.wait()
        for step in steps:
            STEPS[step](exchange, wire)

    thread = threading.Thread(target=take, args=(other,))
    thread.start()
    take(one)
    thread.join()
    check(exchange, wire, decisions)


class SlowWire(RecordingWire):
    """A wire that takes as long to send a 100 as the test wants."""

    def __init__(self):
        super().__init__()
        self.looks = 0
        self.sending = threading.Event()
        self.go_on = threading.Event()

    def arrived(self):
        self.looks += 1
        return super().arrived()

    def send_interim(self, status, headers):
        self.sending.set()
        assert self.go_on.wait(PATIENCE)
        return super().send_interim(status, headers)


def test_the_response_waits_for_a_100_that_is_being_sent():
    wire = SlowWire()
    exchange = waiting_exchange(wire)
    reader = threading.Thread(target=exchange.read)
    reader.start()
    assert wire.sending.wait(PATIENCE)

    responder = threading.Thread(target=STEPS["respond"], args=(exchange, wire))
    responder.start()
    responder.join(0.05)  # long enough for a thread that does not wait to end
    assert wire.sent == []

    wire.go_on.set()
    reader.join()
    responder.join()
    assert wire.sent == [["100"], FINAL]


def test_a_second_reader_does_not_look_at_the_socket_after_the_100():
    wire = SlowWire()
    exchange = waiting_exchange(wire)
    readers = [threading.Thread(target=exchange.read) for _ in range(2)]
    for reader in readers:
        reader.start()
    assert wire.sending.wait(PATIENCE)
    wire.go_on.set()
    for reader in readers:
        reader.join()
    assert wire.sent == [["100"]]
    assert wire.looks == 1  # before the 100

"""The two tables of the protocol, as data."""

from gunicorn_expect.states import ENDS, TRANSITIONS, End, Event, Rest, State

#: What may be left of a body if it is certain where the next request begins.
CERTAIN = {Rest.NOTHING, Rest.LITTLE}


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


def test_every_rest_of_a_body_has_an_end_for_connections_that_may_be_kept_and_for_others():
    assert set(ENDS) == set(Rest)
    assert all(set(ends) == {True, False} for ends in ENDS.values())


def test_a_connection_is_kept_only_if_it_is_certain_where_the_next_request_begins():
    for rest, ends in ENDS.items():
        assert (ends[True] is not End.LINGER) == (rest in CERTAIN)
        assert ends[False] is End.LINGER
    assert ENDS[Rest.NOTHING][True] is End.KEEP
    assert ENDS[Rest.LITTLE][True] is End.DRAIN

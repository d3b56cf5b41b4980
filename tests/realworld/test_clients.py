"""docs/clients.md is true: real clients upload through a relay that counts what crosses.

With ``--write-tables`` its table is written, and that of object storage in docs/policies.md, and
they are not compared.
"""

import functools
import re

import pytest

from realworld.clients import (
    CLIENTS,
    INFORMS,
    PLAIN_SIZE,
    REFUSALS,
    SIZE,
    STATUSES,
    WORKERS,
    HangsError,
    World,
    received,
    whole,
)
from support import CHECKOUT
from support.installed import missing
from support.tables import Table

PAGE = CHECKOUT / "docs/clients.md"
STORAGE_PAGE = CHECKOUT / "docs/policies.md"
WAITING = [name for name, program in CLIENTS.items() if program.waits]
NOT_WAITING = [name for name in CLIENTS if name not in WAITING]

every_client = pytest.mark.parametrize("name", CLIENTS)
every_waiting_client = pytest.mark.parametrize("name", WAITING)
every_worker = pytest.mark.parametrize("worker", WORKERS)
every_refusal = pytest.mark.parametrize("status", STATUSES)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("clients")) as world:
        yield world


@pytest.fixture
def worker():
    """Return the usual worker; tests that try several have a parameter of this name."""
    return "thread"


@pytest.fixture
def outcome(world, name, worker):
    """Return a function that tries a scenario with the client."""
    if absent := CLIENTS[name].missing():
        missing(absent, "make test" if CLIENTS[name].file == "python.py" else "apt-get install")
    return functools.partial(world.outcome, worker, name)


def check_crossed(name, exchange):
    """Check how much arrived of a refused body that was sent without Expect."""
    if CLIENTS[name].stops:
        assert exchange.body < PLAIN_SIZE  # none, if the refusal is quicker
    else:
        assert exchange.body == PLAIN_SIZE


@every_worker
@every_client
@every_refusal
def test_every_client_sees_the_status(outcome, status):
    assert outcome(status).statuses == [status]


@every_worker
@every_waiting_client
@every_refusal
def test_a_client_that_waits_sends_no_byte_of_a_refused_body(outcome, status):
    assert all(exchange.asks for exchange in outcome(status).exchanges)
    assert outcome(status).bytes == 0
    assert not any(exchange.interim for exchange in outcome(status).exchanges)


@pytest.mark.parametrize("name", NOT_WAITING)
@every_refusal
def test_a_client_without_expect_sends_a_refused_body(name, outcome, status):
    (exchange,) = outcome(status).exchanges
    assert not exchange.asks
    check_crossed(name, exchange)


@every_client
@every_refusal
def test_only_botocore_tries_again_and_only_after_503(name, outcome, status):
    expected = CLIENTS[name].attempts.get(status, 1)
    assert len(outcome(status).uploads) == outcome(status).connections == expected


@every_worker
@every_client
def test_an_accepted_body_arrives_whole(outcome):
    outcome = outcome("twice")
    assert outcome.statuses == [200, 200]
    assert [received(exchange) for exchange in outcome.exchanges] == [whole(SIZE)] * 2


@every_worker
@every_client
def test_a_client_gets_a_100_if_it_asked_and_only_then(name, outcome):
    interim = [100] if CLIENTS[name].waits else []
    assert [exchange.interim for exchange in outcome("twice").exchanges] == [interim] * 2


@every_worker
@every_client
def test_a_connection_is_used_again_after_an_accepted_body(outcome):
    assert outcome("twice").connections == 1


@every_worker
@every_client
def test_what_follows_a_refusal_arrives_whole_on_another_connection(outcome):
    outcome = outcome("after a refusal")
    assert outcome.statuses == [401, 200]
    assert outcome.connections == 2
    assert received(outcome.exchanges[-1]) == whole(SIZE)


@every_client
def test_clients_that_send_expect_by_default_are_known(name, outcome):
    (exchange,) = outcome("default").exchanges
    assert exchange.asks == (CLIENTS[name].asks == "by itself")
    assert received(exchange) == whole(SIZE)


@every_client
def test_no_100_is_sent_for_an_empty_body(name, outcome):
    (exchange,) = outcome("empty").exchanges
    assert outcome("empty").statuses == [200]
    assert exchange.asks == (name == "botocore")
    assert exchange.interim == []


@every_waiting_client
def test_a_100_that_comes_late_does_no_harm(name, outcome):
    (exchange,) = outcome("late").exchanges
    assert outcome("late").statuses == [200]
    assert received(exchange) == whole(SIZE)
    assert exchange.impatient == CLIENTS[name].impatient


@every_waiting_client
def test_no_104_reaches_a_client_that_waits_unless_it_is_forced(outcome):
    (exchange,) = outcome("unforced").exchanges
    assert outcome("unforced").statuses == [200]
    assert exchange.interim == [100]
    assert received(exchange) == whole(SIZE)


@every_client
def test_a_client_that_is_sent_elsewhere_sends_its_body_there_once(name, outcome):
    outcome = outcome(307)
    program = CLIENTS[name]
    (exchange,) = outcome.uploads
    if program.waits:
        assert outcome.bytes == 0
    else:
        check_crossed(name, exchange)
    if not program.follows:
        assert outcome.statuses == [307]
        assert outcome.elsewhere == []
        return
    (exchange,) = outcome.elsewhere
    assert outcome.statuses == [200]
    assert received(exchange) == whole(SIZE if program.waits else PLAIN_SIZE)
    assert exchange.asks == program.waits
    assert exchange.waited == (program.waits and name != "Go net/http")


@every_client
def test_a_client_that_does_not_wait_sees_why_it_was_refused(name, outcome):
    (exchange,) = outcome("plain").exchanges
    assert outcome("plain").statuses == [413]
    assert not exchange.asks
    check_crossed(name, exchange)


@every_client
def test_a_client_that_is_sent_to_object_storage_stores_its_body_there(name, outcome):
    outcome = outcome("storage")
    program = CLIENTS[name]
    assert outcome.uploads[0].status == 307
    if program.waits:
        assert outcome.bytes == 0
    if not program.follows:
        assert outcome.statuses == [307]
        assert outcome.stored is None
    elif program.keeps_authorization:
        assert [exchange.status for exchange in outcome.elsewhere] == [400]
        assert outcome.stored is None
    else:
        assert outcome.statuses == [200]
        assert outcome.stored == whole(SIZE if program.waits else PLAIN_SIZE)


# The pages.

COLUMNS = [
    "client",
    "asks",
    "no answer",
    ", ".join(map(str, REFUSALS)),
    "417",
    "307",
    "413, not asking",
    "connection",
]
INFORM_COLUMNS = [
    "client",
    "before the body is asked for",
    "while the body is sent",
    "before the response",
]
STORAGE_COLUMNS = ["client", "asks", "sent to you", "sent to the storage", "stored", "status"]
TABLE = Table(PAGE, "table", COLUMNS)
INFORM_TABLE = Table(PAGE, "104", INFORM_COLUMNS)
STORAGE_TABLE = Table(STORAGE_PAGE, "storage", STORAGE_COLUMNS)
VERSIONS = re.compile(r"(?<=<!-- versions -->\n).*?(?=<!-- /versions -->)", re.DOTALL)


def amount(exchanges):
    """Return in words how much of the body crossed."""
    body = sum(exchange.body for exchange in exchanges)
    if body == 0 and all(exchange.asks for exchange in exchanges):
        return "0 bytes"
    # From a client that does not ask, 0 bytes count as a part: the refusal was quicker that time.
    return "all" if body == sum(exchange.length for exchange in exchanges) else "part"


def of_refusal(outcome, status):
    (seen,) = outcome.statuses
    cell = f"{'seen' if seen == status else seen}, {amount(outcome.uploads)}"
    return cell if len(outcome.uploads) == 1 else f"{cell}, {len(outcome.uploads)} attempts"


def of_refusals(outcomes):
    cells = {status: of_refusal(outcome, status) for status, outcome in outcomes.items()}
    usual = cells[REFUSALS[0]]
    others = [
        f"{status}: {cell.removeprefix(usual + ', ')}"
        for status, cell in cells.items()
        if cell != usual
    ]
    return "; ".join([usual, *others])


def of_redirection(outcome):
    (seen,) = outcome.statuses
    here = amount(outcome.uploads)
    if not outcome.elsewhere:
        return f"{'seen' if seen == 307 else seen}, {here}"
    there = amount(outcome.elsewhere)
    if outcome.elsewhere[0].asks:
        there += ", waits" if outcome.elsewhere[0].waited else ", asks and does not wait"
    return f"followed; here {here}, there {there}"


def how_it_asks(outcome):
    if outcome("default").exchanges[0].asks:
        return "by itself"
    return "when told" if outcome("twice").exchanges[0].asks else "never"


def storage_row(name, outcome):
    sent = outcome("storage")
    cells = [
        name,
        how_it_asks(outcome),
        amount(sent.uploads),
        amount(sent.elsewhere),
        "nothing" if sent.stored is None else "all",
        "; ".join(map(str, sent.statuses)),
    ]
    return f"| {' | '.join(cells)} |"


def row(name, outcome):
    program = CLIENTS[name]
    patience = "sends" if outcome("late").exchanges[0].impatient else "waits on"
    cells = [
        name,
        how_it_asks(outcome),
        patience if program.waits else "-",
        of_refusals({status: outcome(status) for status in REFUSALS}),
        of_refusal(outcome(417), 417),
        of_redirection(outcome(307)),
        of_refusal(outcome("plain"), 413),
        "reused" if outcome("twice").connections == 1 else "not reused",
    ]
    return f"| {' | '.join(cells)} |"


def of_inform(outcome, when):
    """Return in words what a client made of a 104; one that waits may take it for its 100."""
    try:
        outcome = outcome(when)
    except HangsError:
        return "hangs"
    (seen,) = outcome.statuses
    if seen != 200:
        (exchange,) = outcome.uploads
        crossed = "0 bytes" if exchange.body == 0 else "all"
        return f"is the response: caller sees {seen}, {crossed}"
    (exchange,) = outcome.exchanges
    assert received(exchange) == whole(SIZE)
    return "is the 100: sends the body" if exchange.impatient else "ignored"


def inform_row(name, outcome):
    return f"| {' | '.join([name, *(of_inform(outcome, when) for when in INFORMS)])} |"


@pytest.fixture
def comparable(name, world, request):
    """Skip a test if the page can't be compared with what is seen."""
    if request.config.getoption("write_tables"):
        pytest.skip("the table is written instead")
    if world.client(name).version not in written_versions():
        pytest.skip(f"the page is of another version than {world.client(name).version}")


@every_client
def test_the_page_says_what_was_seen(name, outcome, comparable):
    assert TABLE.row(name) == row(name, outcome)


@every_client
def test_the_page_says_what_was_seen_of_a_104(name, outcome, comparable, request):
    if request.config.getoption("thorough"):
        assert INFORM_TABLE.row(name) == inform_row(name, outcome)
    else:  # the other two columns take longer: one of the clients hangs
        assert INFORM_TABLE.row(name).split(" | ")[2] == of_inform(outcome, "between")


@every_client
def test_the_page_says_what_was_seen_of_object_storage(name, outcome, comparable):
    assert STORAGE_TABLE.row(name) == storage_row(name, outcome)


@pytest.mark.timeout(900)  # it tries everything
def test_the_pages_are_written_when_that_is_asked_for(world, request):
    if not request.config.getoption("write_tables"):
        pytest.skip("no --write-tables")
    assert not any(program.missing() for program in CLIENTS.values()), (
        "a table needs all clients installed"
    )
    outcomes = {name: functools.partial(world.outcome, "thread", name) for name in CLIENTS}
    versions = [world.client(name).version for name in CLIENTS]
    for table, of in [(TABLE, row), (INFORM_TABLE, inform_row), (STORAGE_TABLE, storage_row)]:
        table.write([of(*each) for each in outcomes.items()])
    text = PAGE.read_text("utf-8")
    PAGE.write_text(VERSIONS.sub(lambda _: ", ".join(versions) + ".\n", text), "utf-8")


def written_versions():
    text = " ".join(VERSIONS.search(PAGE.read_text("utf-8"))[0].split())
    return text.removesuffix(".").split(", ")


@pytest.mark.parametrize(
    "table", [TABLE, INFORM_TABLE, STORAGE_TABLE], ids=["table", "104", "storage"]
)
def test_the_pages_have_every_client_and_no_other(table):
    lines = table.lines()
    assert lines[:2] == table.heading()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == list(CLIENTS)


def test_the_page_has_the_version_of_every_client_and_of_no_other():
    names = [version.partition(" (")[0].rpartition(" ")[0] for version in written_versions()]
    assert names == list(CLIENTS)

"""What each proxy does to an expectation, a refusal and an interim response: a table of the docs.

With ``--write-tables`` it is written into docs/deploy.md, a row for each version that is installed.
The proxies that CI does not have are compared with it by ``--thorough``.
"""

import contextlib
import json
import re
import tempfile

import pytest

from gunicorn_expect.__main__ import main
from realworld.hops import HOPS, running, versions
from realworld.proxies import Upstream
from realworld.test_proxies import Uploader, interim_and_final
from support import CHECKOUT
from support.client import Client, request
from support.installed import missing
from support.server import Server
from support.tables import Table, amounts

COLUMNS = [
    *("proxy", "setting", "`Expect`", "a refused client that waits for 100"),
    *("a refused client that does not wait", "103", "104"),
]
TABLE = Table(CHECKOUT / "docs/deploy.md", "hops", COLUMNS)
#: More than the systems and a proxy hold between client and gunicorn.
SIZE = 64 << 20


@pytest.fixture(scope="module")
def gunicorn(request):
    # nginx ends a response without an end when gunicorn closes, which must not hide that it hangs.
    keep_alive = "60" if request.config.getoption("write_tables") else "2"
    with Server("--keep-alive", keep_alive, app="realworld.hopping:app") as server:
        yield server


@contextlib.contextmanager
def before(gunicorn, hop, program):
    """Run this proxy; yield it, and a function that ends it and returns what reached gunicorn."""
    with (
        tempfile.TemporaryDirectory(prefix="upstream-") as folder,
        Upstream(gunicorn, f"{folder}/socket") as upstream,
        running(hop, program, upstream) as proxy,
    ):

        def reached():
            proxy.process.terminate()
            return b"".join(upstream.sent_by_clients())

        yield proxy, reached


def probed(capsys, proxy, path, *arguments):
    """Return the name of the probe's verdict, and the bytes that it sent of a body."""
    url = "http://{}:{}{}".format(*proxy.address, path)
    main(["probe", "--json", "--send-body", *arguments, url])
    said = json.loads(capsys.readouterr().out)
    sent = [event["size"] for event in said["timeline"] if event["event"] == "BodySent"]
    return said["verdict"]["name"], sum(sent)


def cells(gunicorn, hop, program, capsys, times):
    """Return what is seen through this proxy, tried so often, for the last five columns."""
    waits, sends, early, resumable = set(), set(), set(), set()
    with before(gunicorn, hop, program) as (proxy, reached):
        accepted, _ = probed(capsys, proxy, "/accept", "--length", "5")
        for _ in range(times):
            if times > 1 or not hop.falls_silent:
                early.add(passed(proxy, "103"))
                resumable.add(passed(proxy, "104"))
            sends.add(refused_while_it_sends(proxy))
            verdict, sent = probed(
                capsys, proxy, "/refuse", "--refusal", "401", "--length", str(SIZE)
            )
            waits.add((REFUSALS.get(verdict, verdict), sent))
        asked = b"expect: 100-continue\r\n" in reached().lower()
    return [
        expectation(accepted, verdict, asked),
        outcomes(waits, "; sends"),
        outcomes(sends, " after sending"),
        " or ".join(sorted(early)),
        " or ".join(sorted(resumable)),
    ]


def outcomes(seen, verb):
    """Return in words each outcome, with the least and the most that the client sent."""
    said = []
    for outcome in sorted({outcome for outcome, _ in seen}):
        sent = [sent for each, sent in seen if each == outcome and sent is not None]
        sent = amounts(sent, SIZE)
        said.append(f"{outcome}{verb} {sent}" if sent else outcome)
    return " or ".join(said)


def expectation(accepted, refused, asked):
    """Return what the hop does with ``Expect``, by the probe and by what reached gunicorn."""
    if asked:
        return "passes it on"
    if accepted == "accepted" and refused == "refused-behind-continue":
        return "answers 100 itself"
    return f"drops it ({accepted})"


#: What the probe's verdicts mean to the client.
REFUSALS = {
    "refused-first": "gets 401",
    "refused-behind-continue": "gets 100, then 401",
    "silence": "**gets nothing**",
}


def refused_while_it_sends(proxy):
    sent = None
    with Uploader(proxy) as client:
        client.send(request("PUT /refuse", f"Content-Length: {SIZE}"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sent = client.upload(SIZE)
        _, status, _ = answered(client)
    return f"gets {status}", sent


def answered(client):
    """Return the interim responses, the final status, or what happened instead, and its head."""
    client.socket.settimeout(15)  # longer than the probe waits
    try:
        interim, head, _ = interim_and_final(client)
    except TimeoutError:
        return [], "nothing", b""
    return interim, head.split()[1].decode() if head else "a closed connection", head


def passed(proxy, status):
    """Return what the hop does with an interim response to a client without ``Expect``.

    The next response has to come, too, unless the connection closes by agreement: a proxy may take
    the interim one for the response.
    """
    with Client(proxy) as client:
        client.send(request(f"PUT /{status}", "Content-Length: 5"), b"hello")
        interim, final, head = answered(client)
        if final != "201":
            return f"**gives {final}**"
        if b"\r\nconnection: close\r\n" not in head.lower():
            client.send(request("PUT /accept", "Content-Length: 1"), b"x")
            if answered(client)[1] != "201":
                return "**takes it for the response**"
    return "passes it on" if any(x.split()[1] == status.encode() for x in interim) else "drops it"


def masked(cell):
    """Return the outcomes of a cell, without the bytes sent if there were any: they vary."""
    # A client that does not wait may receive it before it has sent anything.
    cell = re.sub(r"gets 401 after [^;]*", "gets 401", cell)
    cell = re.sub(r"(then 401|gets 401); sends (?!0 bytes$)[^;]*", r"\1", cell)
    return set(re.sub("then 401; sends 0 bytes", "then 401", cell).split(" or "))


def row(gunicorn, hop, version, program, capsys, times):
    seen = cells(gunicorn, hop, program, capsys, times)
    return [f"{hop.name} {version}", hop.setting or "-", *seen]


@pytest.mark.parametrize("hop", HOPS, ids=lambda hop: f"{hop.name} {hop.setting}".strip())
def test_the_page_says_what_a_proxy_does(hop, gunicorn, capsys, thorough, request):
    if request.config.getoption("write_tables"):
        pytest.skip("the table is written instead")
    if not (hop.in_ci or thorough):
        pytest.skip("proxies that CI does not have are tried by --thorough")
    found = versions(hop)
    if not found:
        missing(hop.program, "make realworld")
    written = {tuple(line.strip("| ").split(" | ")[:2]): line for line in TABLE.lines()}
    for version, program in found.items():
        line = written.get((f"{hop.name} {version}", hop.setting or "-"))
        if line is None:
            pytest.skip(f"docs/deploy.md has no row of {hop.name} {version}")
        seen = row(gunicorn, hop, version, program, capsys, times=1)
        for said, saw in zip(line.strip("| ").split(" | "), seen, strict=True):
            assert not saw or masked(saw) <= masked(said), line


@pytest.mark.timeout(900)  # it tries everything
def test_the_page_is_written_when_that_is_asked_for(gunicorn, capsys, request):
    if not request.config.getoption("write_tables"):
        pytest.skip("no --write-tables")
    TABLE.write(
        [
            f"| {' | '.join(row(gunicorn, hop, version, program, capsys, times=3))} |"
            for hop in HOPS
            for version, program in versions(hop).items()
        ]
    )

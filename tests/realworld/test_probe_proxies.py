"""The probe on the proxies of examples/deploy: it shows which of them send 100 themselves."""

import json
import shlex
import tempfile
from pathlib import Path

import pytest

from gunicorn_expect.__main__ import main
from gunicorn_expect.probe import exchange
from realworld.proxies import PROXIES, RunningProxy, Upstream
from support.probe_page import blocks, masked
from support.server import Server

TOKEN = "Authorization: Bearer letmein"


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    with Server(app="examples.flask_upload:app", env={"UPLOAD_FOLDER": str(folder)}) as server:
        yield server


@pytest.fixture(params=PROXIES)
def proxy(request, gunicorn):
    with (
        tempfile.TemporaryDirectory(prefix="upstream-") as folder,
        Upstream(gunicorn, str(Path(folder, "socket"))) as upstream,
        RunningProxy(PROXIES[request.param], upstream) as proxy,
    ):
        yield proxy
        proxy.process.terminate()


@pytest.fixture
def run(proxy, capsys):
    def run(*arguments):
        url = "http://{}:{}/files/big.iso".format(*proxy.address)
        status = main(["probe", "--json", *arguments, url])
        said = json.loads(capsys.readouterr().out)
        return status, said["verdict"], said["timeline"]

    return run


@pytest.mark.parametrize("manner", [[], ["--send-body"]], ids=["waits", "sends"])
def test_a_refusal_shows_which_proxies_send_100_themselves(proxy, run, manner, monkeypatch):
    if not proxy.proxy.asks_application:
        # On a busy machine the refusal may come after the probe has stopped looking for it.
        monkeypatch.setattr(exchange, "KEEP_WATCHING", 5.0)
    status, verdict, timeline = run("--refusal", "401", *manner)
    if proxy.proxy.asks_application:
        assert (status, verdict["name"]) == (0, "refused-first")
    else:
        assert (status, verdict["name"]) == (1, "refused-behind-continue")
        assert "The 401 says Server: nginx" in verdict["text"]
        assert "nginx sends 100 itself, before it asks the server behind it." in verdict["text"]
    assert [event["event"] for event in timeline].count("Whole") == 1


def test_a_refusal_reaches_a_client_that_goes_on_sending(run):
    status, verdict, _ = run("--refusal", "401", "--impatient")
    assert (status, verdict["name"]) == (0, "refusal-heard")


def test_an_accepted_upload_is_asked_for_and_answered(run, request):
    def verdicts(*arguments):
        found = [run("-H", TOKEN, *arguments) for _ in range(3)]
        names = {(status, verdict["name"]) for status, verdict, _ in found}
        # Caddy sometimes sends a 100 of its own: docs/caddy.md.
        return names - {(1, "two-continues")} if "caddy" in request.node.name else names

    assert verdicts() == {(0, "continued")}
    assert verdicts("--send-body") == {(0, "accepted")}


@pytest.mark.parametrize("proxy", ["nginx"], indirect=True)
def test_the_page_shows_what_is_printed_behind_nginx(proxy, capsys):
    [(line, output)] = blocks("127.0.0.1:8080")
    main(shlex.split(line.replace("127.0.0.1:8080", "{}:{}".format(*proxy.address))))
    assert masked(capsys.readouterr().out) == masked(output)

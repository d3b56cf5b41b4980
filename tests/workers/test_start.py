"""Starting gunicorn with our workers."""

import re
import subprocess
import sys

import pytest

import gunicorn_expect
from support import CHECKOUT
from support.client import Client, request
from support.ended import refusal_of
from support.installed import gunicorn_at, require_fast_parser
from support.matrix import WORKERS
from support.server import Server
from support.uwsgi import packet


@pytest.mark.parametrize("version", ["23.0.0", "26.2.0"])
@pytest.mark.parametrize("worker", [ours for ours, _ in WORKERS.values()])
def test_a_gunicorn_that_is_too_old_is_refused_with_one_line(version, worker):
    line = refusal_of("-k", worker, path=[gunicorn_at(version)])
    assert line.startswith(
        f"Error: gunicorn_expect {gunicorn_expect.__version__} can't work with gunicorn {version}"
    )
    assert line.endswith("it needs gunicorn 27.0.0 or later")


def test_the_gevent_worker_without_gevent_says_what_to_install(tmp_path):
    tmp_path.joinpath("gevent.py").write_text("raise ImportError('there is no gevent')")
    assert refusal_of("-k", "gunicorn_expect.GeventWorker", path=[tmp_path]) == (
        "Error: gunicorn_expect.GeventWorker needs the extra gunicorn-expect[gevent]: "
        "gevent worker requires gevent 24.10.1 or higher"
    )


#: The text of a module that replaces gunicorn_h1c.
PARSERS = {"none": "raise ImportError", "too old": ""}


@pytest.mark.parametrize("worker", [ours for ours, _ in WORKERS.values()])
@pytest.mark.parametrize(
    ("settings", "parser", "line"),
    [
        ((), "none", "gunicorn_h1c not installed but http_parser='fast'"),
        ((), "too old", "gunicorn_h1c >= 0.4.1 required for http_parser='fast'. Please upgrade: "),
        (("permit-obsolete-folding",), None, "incompatible with compatibility flags: permit_obs"),
        (("strip-header-spaces",), None, "incompatible with compatibility flags: strip_header_s"),
    ],
)
def test_a_fast_parser_that_can_not_be_used_is_refused_with_one_line(
    tmp_path, worker, settings, parser, line
):
    if parser:
        tmp_path.joinpath("gunicorn_h1c.py").write_text(PARSERS[parser], "utf-8")
    else:
        require_fast_parser()
    options = ("--http-parser", "fast", *(f"--{name}" for name in settings))
    error = refusal_of("-k", worker, *options, path=[tmp_path])
    assert error.startswith("Error: ")
    assert line in error


@pytest.mark.parametrize("worker", [ours for ours, _ in WORKERS.values()])
@pytest.mark.parametrize(
    ("parser", "settings"),
    [
        ("none", ("--http-parser", "auto")),
        ("none", ("--http-parser", "python", "--permit-obsolete-folding")),
        ("too old", ("--http-parser", "auto", "--strip-header-spaces")),
    ],
)
def test_without_http_parser_fast_the_fast_parser_is_not_needed(tmp_path, worker, parser, settings):
    tmp_path.joinpath("gunicorn_h1c.py").write_text(PARSERS[parser], "utf-8")
    path = f"{tmp_path}:{CHECKOUT}:{CHECKOUT / 'tests'}"
    with Server(*settings, worker=worker, env={"PYTHONPATH": path}) as server:
        assert server.get("/hello") == b"hello"


@pytest.mark.parametrize("worker", [ours for ours, _ in WORKERS.values()])
def test_the_uwsgi_protocol_needs_no_fast_parser(tmp_path, worker):
    tmp_path.joinpath("gunicorn_h1c.py").write_text(PARSERS["none"], "utf-8")
    path = f"{tmp_path}:{CHECKOUT}:{CHECKOUT / 'tests'}"
    settings = ("--http-parser", "fast", "--protocol", "uwsgi")
    with (
        Server(*settings, worker=worker, env={"PYTHONPATH": path}) as server,
        Client(server) as client,
    ):
        client.send(packet("GET", "/hello"))
        assert client.receive_response()[1] == b"hello"


@pytest.mark.parametrize("parser", ["python", "fast"])
@pytest.mark.parametrize("kind", WORKERS)
@pytest.mark.parametrize("limit", ["1", "13", "19"])
def test_a_small_limit_request_line_has_the_same_effect_as_in_stock_gunicorn(kind, parser, limit):
    def answers(worker):
        settings = ("--limit-request-line", limit, "--http-parser", parser)
        with Server(*settings, worker=worker) as server:
            for line in ("GET /hello", "GET / HTTP/1.1", "X", "GET /a-longer-path", "PUT /read"):
                with Client(server) as client:
                    client.send(request(line, "Connection: close"))
                    yield line, re.sub(rb"\r\nDate: [^\r]*", b"", client.receive_all())

    ours, stock = WORKERS[kind]
    assert list(answers(ours)) == list(answers(stock))


@pytest.mark.parametrize("threads", ["1", "4"])
def test_gunicorn_runs_our_worker_with_any_number_of_threads(threads):
    with Server("--threads", threads) as server:
        assert server.wait_for_log(r"Using worker: (.*)")[1] == "gunicorn_expect.Worker"
        assert server.get("/hello") == b"hello"


def test_the_sync_worker_has_its_old_name_too():
    """gunicorn takes names that end in SyncWorker for its own, and runs gthread instead."""
    assert gunicorn_expect.workers.sync.Worker is gunicorn_expect.Sync
    with Server("--threads", "1", worker="gunicorn_expect.workers.sync.Worker") as server:
        assert (
            server.wait_for_log(r"Using worker: (.*)")[1] == "gunicorn_expect.workers.sync.Worker"
        )
        assert server.get("/hello") == b"hello"


def test_the_package_can_be_imported_without_an_application():
    code = "import gunicorn_expect as g; print(g.Worker.__name__, *sorted(g.__all__))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert output.split() == ["ExpectWorker", *sorted(gunicorn_expect.__all__)]

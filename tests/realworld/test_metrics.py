"""examples/deploy/metrics: a real Prometheus reads what two workers counted, one of them killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

from support import CHECKOUT, PATIENCE
from support.client import CONTINUE, Client, waiting
from support.installed import missing
from support.server import Server

METRICS = CHECKOUT / "examples" / "deploy" / "metrics"
TOKEN = "Authorization: Bearer letmein"
DASHBOARD = json.loads(METRICS.joinpath("dashboard.json").read_text("utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
RULES = re.findall(
    r"expr: >\n((?: {10,}.*\n)+)|expr: (.+)\n", METRICS.joinpath("rules.yml").read_text()
)
ALERTS = [" ".join("".join(rule).split()) for rule in RULES]


def program(name):
    found = shutil.which(name)
    if found is None:
        missing(name, "make realworld")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    arguments = ("-c", str(METRICS / "gunicorn.conf.py"))
    env = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "UPLOAD_FOLDER": str(folder / "uploads")}
    env["GUNICORN_EXPECT_BODY_TIMEOUT"] = "0.5"
    with Server(*arguments, app="examples.deploy.metrics.app:app", env=env) as server:
        use(server)
        kill_a_worker(server)
        use(server)
        yield server


def use(server):
    """Refuse three uploads, accept one, and let one stall."""
    for _ in range(3):
        with Client(server) as client:
            client.send(waiting("PUT /files/a", "Content-Length: 1000"))
            assert client.receive_all().startswith(b"HTTP/1.1 401 ")
    for body, status in ((b"hello", b"201"), (b"hel", b"408")):
        with Client(server) as client:
            client.send(waiting("PUT /files/a", TOKEN, "Content-Length: 5", "Connection: close"))
            assert client.receive(len(CONTINUE)) == CONTINUE
            client.send(body)
            assert client.receive_all().startswith(b"HTTP/1.1 %b " % status)


def kill_a_worker(server):
    boots = [line for line in server.lines if "Booting worker" in line]
    pid = int(boots[0].rpartition(" ")[2])
    start = len(server.lines)
    os.kill(pid, signal.SIGKILL)
    server.wait_for_log("Booting worker", start)


@pytest.fixture(scope="module")
def prometheus(server, tmp_path_factory):
    """Start the Prometheus that the example configures, for this server; yield its address."""
    folder = tmp_path_factory.mktemp("prometheus")
    text = METRICS.joinpath("prometheus.yml").read_text("utf-8")
    text = text.replace("127.0.0.1:8000", "{}:{}".format(*server.address)).replace("15s", "200ms")
    folder.joinpath("prometheus.yml").write_text(text, "utf-8")
    shutil.copy(METRICS / "rules.yml", folder)
    with subprocess.Popen(
        [
            *(program("prometheus"), f"--config.file={folder}/prometheus.yml"),
            *(f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"),
            "--log.format=json",
        ],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            address, ready = None, False
            while not (address and ready):  # it logs the two in either order
                line = json.loads(process.stderr.readline())
                address = line["address"] if line.get("msg") == "Listening on" else address
                ready = ready or "ready to receive" in line.get("msg", "")
            yield address
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


def ask(prometheus, query):
    url = f"http://{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)["data"]["result"]


def value(prometheus, query):
    """Return the only value of a query, as soon as it has one."""
    ends = time.monotonic() + PATIENCE
    while not (result := ask(prometheus, query)):
        assert time.monotonic() < ends, f"Prometheus has no {query}"
        time.sleep(0.1)  # Prometheus scrapes every 200 ms
    [series] = result
    return float(series["value"][1])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('gunicorn_expect_expectations_total{outcome="declined"}', 6),
        ('gunicorn_expect_expectations_total{outcome="continued"}', 4),
        ('gunicorn_expect_broken_bodies_total{reason="body_timeout"}', 2),
        ("gunicorn_expect_not_uploaded_bytes_total", 6000),
        ("gunicorn_expect_decision_seconds_count", 10),
        ("gunicorn_expect_received_bytes_total", 2 * (len(b"hello") + len(b"hel"))),
    ],
)
def test_prometheus_has_the_sums_of_all_workers_the_killed_one_included(
    prometheus, query, expected
):
    assert value(prometheus, query) == expected


@pytest.mark.parametrize("query", [*QUERIES, *ALERTS])
def test_prometheus_understands_each_query_of_the_dashboard_and_the_rules(prometheus, query):
    ask(prometheus, query.replace("$__rate_interval", "1m").replace("$job", "uploads"))


def test_every_metric_of_the_dashboard_and_the_rules_exists(server):
    exported = set(re.findall(r"^(\w+)", server.get("/metrics").decode(), re.MULTILINE))
    wanted = set(re.findall(r"gunicorn_expect_\w+", " ".join([*QUERIES, *ALERTS])))
    assert wanted
    assert wanted <= exported


def test_every_metric_is_on_the_dashboard(server):
    types = re.findall(r"^# TYPE (\w+) ", server.get("/metrics").decode(), re.MULTILINE)
    assert [name for name in types if name not in " ".join(QUERIES)] == []


def test_promtool_accepts_the_rules():
    command = [program("promtool"), "check", "rules", METRICS / "rules.yml"]
    assert ALERTS
    assert (
        f"{len(ALERTS)} rules found"
        in subprocess.run(
            command, capture_output=True, check=True, text=True, timeout=PATIENCE
        ).stdout
    )

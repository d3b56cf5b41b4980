"""examples/deploy/containers: its files are valid, and what compose.yaml starts works together.

The tests need no Docker and no cluster. They start the same programs with the same files, in which
they replace only the addresses.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from realworld.daemon import Daemon, free_address
from support import CHECKOUT, PATIENCE
from support.client import CONTINUE, Client, request, waiting
from support.curl import curl
from support.installed import missing
from support.server import Server

CONTAINERS = CHECKOUT / "examples" / "deploy" / "containers"
TOKEN = "Authorization: Bearer letmein"


def read(name):
    return CONTAINERS.joinpath(name).read_text("utf-8")


@pytest.fixture(scope="module")
def compose():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(read("compose.yaml"))["services"]


@pytest.fixture(scope="module")
def kubernetes():
    """The documents of kubernetes.yaml by kind; of its two Deployments, that of the application."""
    yaml = pytest.importorskip("yaml")
    documents = reversed(list(yaml.safe_load_all(read("kubernetes.yaml"))))
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def pod(kubernetes):
    return kubernetes["Deployment"]["spec"]["template"]["spec"]


def checked(program, *arguments):
    """Run a program that checks a file; return its exit code and its output."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # noqa: PTH120
    found = shutil.which(program, path=path) or missing(program)
    done = subprocess.run(
        [found, *arguments],
        cwd=CONTAINERS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout


def test_hadolint_finds_nothing_wrong_with_the_dockerfile():
    assert checked("hadolint", "--no-color", "Dockerfile") == (0, "")


def test_the_compose_specification_allows_compose_yaml():
    arguments = ("--builtin-schema", "vendor.compose-spec", "compose.yaml")
    status, said = checked("check-jsonschema", *arguments)
    assert status == 0, said


def test_the_schemas_of_kubernetes_allow_each_document(kubernetes):
    status, said = checked("kubernetes-validate", "--strict", "kubernetes.yaml")
    assert (status, said.count(" passed for ")) == (0, 6), said


def test_the_dockerfile_copies_only_what_is_sent_to_the_builder():
    copied = re.findall(r"^COPY (.+) \S+$", read("Dockerfile"), re.MULTILINE)
    sent = re.findall(r"^!(\S+)$", read("Dockerfile.dockerignore"), re.MULTILINE)
    assert sorted(" ".join(copied).split()) == sorted(sent)
    assert [name for name in sent if not CHECKOUT.joinpath(name).exists()] == []


def seconds(duration):
    [number] = re.findall(r"^(\d+)s$", duration)
    return int(number)


def test_containers_have_longer_to_end_than_uploads_under_way(compose, pod):
    graceful = int(re.search(r"^graceful_timeout = (\d+)$", read("gunicorn.conf.py"), re.M)[1])
    for service in ("application", "nginx"):  # which passes the uploads on
        assert seconds(compose[service]["stop_grace_period"]) > graceful
    [command, sleeps] = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert pod["terminationGracePeriodSeconds"] > graceful + int(sleeps)


def test_compose_and_kubernetes_set_what_the_application_reads(compose, pod):
    ours = {"WEB_CONCURRENCY", "UPLOAD_AT_ONCE", "UPLOAD_STORAGE", "UPLOAD_TOKEN"}
    assert set(compose["application"]["environment"]) == ours
    assert {variable["name"] for variable in pod["containers"][0]["env"]} == ours
    sources = read("gunicorn.conf.py") + CHECKOUT.joinpath("examples/flask_upload.py").read_text()
    assert [name for name in ours if f'"{name}"' not in sources] == []


def test_the_ingress_stores_no_upload_before_the_application_is_asked(kubernetes):
    annotations = kubernetes["Ingress"]["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/"
    # nginx.conf has the same three by nginx's names.
    assert annotations == {
        prefix + "proxy-request-buffering": "off",
        prefix + "proxy-http-version": "1.1",
        prefix + "proxy-body-size": "0",
    }
    for line in ("proxy_request_buffering off;", "proxy_http_version 1.1;"):
        assert line in read("nginx.conf")
    assert "client_max_body_size 0;" in read("nginx.conf")


class Nginx(Daemon):
    """nginx with nginx.conf, in which only the addresses and the log are replaced."""

    def __init__(self, application):
        super().__init__("nginx")
        self._application = application

    def _arguments(self, folder):
        text = read("nginx.conf")
        for there, here in {
            "server application:8000;": "server {}:{};".format(*self._application.address),
            "listen 8080;": "listen {}:{};".format(*self.address),
            "/dev/stdout": f"{folder}/access.log",
        }.items():
            assert text.count(there) == 1, there
            text = text.replace(there, here)
        # nginx makes these folders when it starts, and Debian's belong to root.
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        file = folder / "nginx.conf"
        file.write_text(text.replace("http {", "http {" + places), "utf-8")
        pid = f"daemon off; pid {folder}/pid;"
        return ["-c", str(file), "-p", str(folder), "-e", "error.log", "-g", pid]


AT_ONCE = 3


@pytest.fixture
def services(compose, shared, tmp_path):
    """Start what compose.yaml starts: gunicorn, which finds its Redis, and nginx."""
    command = json.loads(re.search(r"^CMD (\[.+\])$", read("Dockerfile"), re.MULTILINE)[1])
    command = [sys.executable, "-m", *command]
    there = "redis://redis:6379"
    environment = compose["application"]["environment"]
    assert environment["UPLOAD_STORAGE"] == there
    env = {
        **environment,
        "UPLOAD_STORAGE": shared,
        "UPLOAD_AT_ONCE": str(AT_ONCE),
        "UPLOAD_TOKEN": "letmein",
        "UPLOAD_LIMIT": str(6 * 1024**3),  # more than the policy's
        "UPLOAD_FOLDER": str(tmp_path / "uploads"),
        "PYTHONPATH": str(CHECKOUT),
    }
    # The image's working directory.
    for name in ("app.py", "gunicorn.conf.py"):
        shutil.copy(CONTAINERS / name, tmp_path)
    with Server.of(command, env=env, cwd=tmp_path) as application, Nginx(application) as nginx:
        application.folder = tmp_path / "uploads"
        yield application, nginx


def test_uploads_go_through_nginx_to_one_of_three_workers(services, tmp_path):
    application, nginx = services
    body = os.urandom(3_000_003)
    tmp_path.joinpath("file").write_bytes(body)
    url = "http://{}:{}/files/file".format(*nginx.address)
    assert b"\r\nHTTP/1.1 201 " in b"\r\n" + curl("-H", TOKEN, "-T", tmp_path / "file", url)
    assert application.folder.joinpath("file").read_bytes() == body
    assert sum("Booting worker" in line for line in application.lines) == 3


def test_all_workers_count_their_uploads_in_redis(services, shared):
    redis = pytest.importorskip("redis")
    application, nginx = services
    with contextlib.ExitStack() as stack:
        for name in range(AT_ONCE):
            client = stack.enter_context(Client(application))
            client.send(waiting(f"PUT /files/{name}", TOKEN, "Content-Length: 5"))
            assert client.receive_head() == CONTINUE
        with redis.from_url(shared.removeprefix("redis+")) as storage:
            assert storage.dbsize() > 0
        with Client(nginx) as client:
            client.send(waiting("PUT /files/more", TOKEN, "Content-Length: 5"), b"hello")
            assert client.receive_head() == CONTINUE  # nginx sends it by itself
            answer = client.receive_head()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: " in answer.lower()


def test_a_refusal_by_the_policy_reaches_the_client_through_nginx(services):
    _, nginx = services
    with Client(nginx) as client:
        client.send(waiting("PUT /files/big", TOKEN, f"Content-Length: {5 * 1024**3 + 1}"))
        assert client.receive_head() == CONTINUE
        assert client.receive_head().startswith(b"HTTP/1.1 413 ")


def test_the_health_check_of_compose_hears_whether_the_application_answers(services, compose):
    application, _ = services
    [kind, _, *arguments] = compose["application"]["healthcheck"]["test"]
    assert kind == "CMD"
    for address, healthy in ((application.address, True), (free_address(), False)):
        there = [x.replace("127.0.0.1:8000", "{}:{}".format(*address)) for x in arguments]
        assert there != arguments
        done = subprocess.run([sys.executable, *there], stderr=subprocess.DEVNULL, timeout=PATIENCE)
        assert (done.returncode == 0) == healthy


def test_the_probes_of_kubernetes_ask_for_a_page_that_is_there(services, pod):
    application, _ = services
    container = pod["containers"][0]
    for name in ("startupProbe", "readinessProbe"):
        with Client(application) as client:
            client.send(request(f"GET {container[name]['httpGet']['path']}"))
            assert client.receive_head().startswith(b"HTTP/1.1 204 ")

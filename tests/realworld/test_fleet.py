"""The fleet of examples/deploy: HAProxy, two nodes, and a redis that counts their uploads."""

import contextlib
import hashlib
import json
import os
import random
import re
import select
import shutil
import subprocess
import sys
import threading

import pytest

from realworld.daemon import Daemon, free_address
from support import CHECKOUT, PATIENCE, TESTS
from support.client import CONTINUE, Client, request, waiting
from support.installed import missing
from support.server import Server

DEPLOY = CHECKOUT / "examples" / "deploy" / "fleet"
TOKEN = "Authorization: Bearer letmein"
BODY = b"0123456789abcdef" * 1024


class Fleet(Daemon):
    """HAProxy with its file, in which only the ports are replaced, and the nodes behind it."""

    def __init__(self, storage, folder, at_once):
        super().__init__("haproxy")
        self.folder = folder
        self._backs = {name: free_address() for name in "ab"}
        self._env = {
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(CHECKOUT)]),
            "UPLOAD_FOLDER": str(folder),
            "UPLOAD_STORAGE": storage,
            "UPLOAD_AT_ONCE": str(at_once),
        }
        self._stack = contextlib.ExitStack()
        self.nodes = {}

    def __enter__(self):
        try:
            for name in self._backs:
                self.start(name)
            super().__enter__()
            self._stack.callback(super().__exit__)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def start(self, name):
        """Start a node, and wait until it serves."""
        command = [sys.executable, "-m", "gunicorn", "--config", str(DEPLOY / "gunicorn.conf.py")]
        command += ["--bind", "{}:{}".format(*self._backs[name]), "realworld.fleet_app:app"]
        env = self._env | {"UPLOAD_NODE": name}
        self.nodes[name] = self._stack.enter_context(Server.of(command, env=env, cwd=CHECKOUT))

    def kill(self, name):
        self.nodes[name].kill()

    def stored(self):
        return {file.name: file.read_bytes() for file in self.folder.iterdir() if file.is_file()}

    def _arguments(self, folder):
        text = DEPLOY.joinpath("haproxy.cfg").read_text("utf-8")
        ports = {8080: self.address, 8001: self._backs["a"], 8002: self._backs["b"]}
        for there, (_, here) in ports.items():
            text, times = re.subn(rf"^( +[^#\n]*\b){there}\b", rf"\g<1>{here}", text, flags=re.M)
            assert times, there
        file = folder / "haproxy.cfg"
        file.write_text(text, "utf-8")
        return ["-db", "-f", str(file)]


@pytest.fixture
def at_once():
    """How many uploads a node takes; tests that fill them have a parameter of that name."""
    return 100


@pytest.fixture
def fleet(shared, tmp_path, at_once):
    folder = tmp_path / "uploads"
    folder.mkdir()
    with Fleet(shared, folder, at_once) as fleet:
        yield fleet


def path(node, file):
    """Return the path of a file, on this node if one is named."""
    return f"/files/{file}" if node is None else f"/@{node}/files/{file}"


@contextlib.contextmanager
def upload_under_way(fleet, node, file):
    """Yield a client that has its 100 and has sent half of its body."""
    with Client(fleet) as client:
        client.send(waiting(f"PUT {path(node, file)}", TOKEN, f"Content-Length: {len(BODY)}"))
        assert client.receive_head() == CONTINUE
        client.send(BODY[: len(BODY) // 2])
        yield client


def finish(client):
    client.send(BODY[len(BODY) // 2 :])
    head, answer = client.receive_response()
    assert head.startswith(b"HTTP/1.1 201 ")
    assert json.loads(answer)["sha256"] == hashlib.sha256(BODY).hexdigest()


def asks(fleet, node=None, file="asking"):
    """Ask to upload; return the head of the first response."""
    with Client(fleet) as client:
        client.send(waiting(f"PUT {path(node, file)}", TOKEN, f"Content-Length: {len(BODY)}"))
        return client.receive_head()


@pytest.mark.parametrize("at_once", [1])
def test_an_upload_without_a_slot_is_redirected_to_a_node_that_has_one(fleet):
    with upload_under_way(fleet, "a", "first") as first:
        head = asks(fleet, "a", "second?version=2")
        assert head.startswith(b"HTTP/1.1 307 ")
        assert b"\r\nlocation: /@b/files/second?version=2\r\n" in head
        finish(first)


@pytest.mark.parametrize("at_once", [1])
def test_curl_goes_where_it_is_sent_and_sends_its_body_once(fleet, tmp_path):
    curl = shutil.which("curl") or missing("curl", "make realworld")
    file = tmp_path / "body"
    file.write_bytes(BODY)
    with upload_under_way(fleet, "a", "first") as first:
        done = subprocess.run(
            [
                *(curl, "-q", "-sL", "-H", TOKEN, "-H", "Expect: 100-continue", "-T", str(file)),
                *("-w", "\n%{http_code} %{num_redirects} %{size_upload}"),
                "http://{}:{}/@a/files/second".format(*fleet.address),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == f"201 1 {len(BODY)}"
        finish(first)
    assert fleet.stored() == {"first": BODY, "second": BODY}


@pytest.mark.parametrize("at_once", [1])
def test_an_upload_gets_503_and_no_redirection_when_no_node_has_a_slot(fleet):
    with (
        upload_under_way(fleet, "a", "first") as first,
        upload_under_way(fleet, "b", "second") as second,
    ):
        head = asks(fleet)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: " in head
        finish(first)
        finish(second)
    assert fleet.stored() == {"first": BODY, "second": BODY}


@pytest.mark.parametrize("at_once", [1])
def test_a_request_target_can_not_redirect_a_client_to_another_host(fleet):
    with upload_under_way(fleet, "a", "first"), Client(fleet) as client:
        client.send(waiting("PUT /@a//elsewhere.example/files/x", TOKEN, "Content-Length: 5"))
        head = client.receive_head()
        assert b"\r\nlocation: /@b/elsewhere.example/files/x\r\n" in head


def test_when_a_node_is_killed_nobody_hangs_and_nothing_is_stored_short(fleet):
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(Client(fleet))
        field = f"Content-Length: {len(BODY)}"
        held.send(waiting("PUT /@a/files/held", TOKEN, field, "X-Held: here"))
        sized = stack.enter_context(upload_under_way(fleet, "a", "sized"))
        chunked = stack.enter_context(Client(fleet))
        chunked.send(waiting("PUT /@a/files/chunked", TOKEN, "Transfer-Encoding: chunked"))
        assert chunked.receive_head() == CONTINUE
        chunked.send(b"5\r\nhello\r\n")
        unasked = stack.enter_context(Client(fleet))
        unasked.send(request("PUT /@a/files/unasked", TOKEN, field), BODY[:100])
        other = stack.enter_context(upload_under_way(fleet, "b", "other"))
        fleet.nodes["a"].board.wait("here")

        fleet.kill("a")
        fleet.nodes["a"].board.set("killed")
        for client in (held, sized, chunked, unasked):
            # HAProxy answers in its place. If a client hung, its socket would time out here.
            assert client.receive_all().startswith(b"HTTP/1.1 502 ")
        finish(other)
    assert fleet.stored() == {"other": BODY}

    for node in (None, "a", "b"):  # a client that is redirected to the dead node gets the other
        with upload_under_way(fleet, node, f"after-{node}") as client:
            finish(client)


@pytest.mark.parametrize("at_once", [8])
def test_a_crowd_of_uploads_gets_through_the_death_of_a_node_and_its_return(fleet):
    """Each upload is repeated until it is stored, on the node that the fleet names."""
    answers = []
    under_way, killed = threading.Event(), threading.Event()
    bodies = {
        str(number): random.Random(number).randbytes(4000 * number) for number in range(1, 121)
    }

    def attempt(target, body):
        """Return the status and the body of the response, or its Location."""
        with contextlib.suppress(ConnectionError), Client(fleet) as client:
            client.send(waiting(f"PUT {target}", TOKEN, f"Content-Length: {len(body)}"))
            head, answer = client.receive_head(), b""
            if head == CONTINUE:
                client.send(body[: len(body) // 2])
                if len(answers) > 30:
                    under_way.set()
                    killed.wait(PATIENCE)
                client.send(body[len(body) // 2 :])
                head, answer = client.receive_response()
            if head.startswith(b"HTTP/1.1 307 "):
                answer = re.search(rb"\r\nlocation: (.+?)\r\n", head)[1]
            if head:
                return int(head.split()[1]), answer.decode()
        return None, ""

    def upload(name, body):
        target = f"/files/{name}"
        for _ in range(200):
            status, answer = attempt(target, body)
            answers.append(status)
            # A node that is killed after the head of its response leaves a client without the rest.
            if status == 201 and answer:
                assert json.loads(answer)["sha256"] == hashlib.sha256(body).hexdigest()
                return
            target = answer if status == 307 else f"/files/{name}"
            select.select([], [], [], 0.1)  # a client waits before it asks again
        raise AssertionError(f"{name} was never stored: {answers}")

    remaining = iter(bodies.items())

    def client():
        for name, body in remaining:
            upload(name, body)

    threads = [threading.Thread(target=client) for _ in range(12)]
    for thread in threads:
        thread.start()
    assert under_way.wait(PATIENCE)
    fleet.kill("a")
    killed.set()
    fleet.start("a")
    for thread in threads:
        thread.join(3 * PATIENCE)
        assert not thread.is_alive(), "a client hangs"
    assert fleet.stored() == bodies
    assert {502, None} & set(answers)  # some uploads were broken by the kill
    assert set(answers) <= {201, 307, 502, 503, None}

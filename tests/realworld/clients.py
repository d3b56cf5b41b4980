"""The clients, and what each does with each response."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from realworld.counting import CountingRelay
from realworld.storage import Storage
from support import CHECKOUT, PATIENCE, SIZE_WITH_EXPECT
from support.server import Server

PROGRAMS = Path(__file__).parent / "clients"
SIZE = SIZE_WITH_EXPECT
#: More than the systems between client and server hold: only so can a test see that a client stops.
PLAIN_SIZE = 32 * 1024**2

#: Seconds for which a 100 is held back: to see whether a client begins without it after a while;
#: and to see whether it waits at all, which takes less than the second for which such clients wait.
HELD = 3
HELD_ELSEWHERE = 0.5
#: Seconds after the storage's refusal after which a client that prints nothing counts as hanging.
SILENT = 2

WORKERS = {"thread": "gunicorn_expect.Worker", "gevent": "gunicorn_expect.GeventWorker"}
REFUSALS = [401, 403, 413, 503]
STATUSES = [*REFUSALS, 417]
#: When a 104 is sent: before the body is asked for, in the middle of it, and after it.
INFORMS = ["before", "between", "behind"]


@dataclasses.dataclass(frozen=True)
class Program:
    file: str
    #: What must be installed: tools, or a module of Python.
    needs: str
    #: When it sends ``Expect``: "by itself", "when told" or "never".
    asks: str
    #: Whether it sends its body without a 100 when it has waited for a while.
    impatient: bool = False
    #: Whether it follows a 307.
    follows: bool = False
    #: Whether it sends Authorization again when it repeats a request at another host.
    keeps_authorization: bool = False
    #: Whether a response stops it while it sends.
    stops: bool = False
    #: How often it tries, by status, if not once.
    attempts: dict = dataclasses.field(default_factory=dict)

    @property
    def waits(self):
        return self.asks != "never"

    def missing(self):
        """Return what is not installed, if anything."""
        if self.file == "python.py":
            return None if importlib.util.find_spec(self.needs) else self.needs
        return next((tool for tool in self.needs.split() if not shutil.which(tool)), None)

    def command(self, env):
        """Return the command that starts it, compiled into this HOME if need be."""
        path = str(PROGRAMS / self.file)
        if path.endswith(".go"):
            run(["go", "build", "-o", f"{env['HOME']}/client", path], env)
            return [f"{env['HOME']}/client"]
        if path.endswith(".java"):
            run(["javac", "-d", env["HOME"], path], env)
            return ["java", "-cp", env["HOME"], "Client"]
        if path.endswith(".py"):
            return [sys.executable, path, self.needs]
        return [self.needs, path]


def run(command, env):
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


LIKE_CURL = {"asks": "by itself", "impatient": True, "follows": True, "stops": True}
CLIENTS = {
    "curl": Program("curl.py", "curl", **LIKE_CURL),
    "pycurl": Program("python.py", "pycurl", **LIKE_CURL),
    "botocore": Program("python.py", "botocore", "by itself", impatient=True, attempts={503: 3}),
    "aiohttp": Program("python.py", "aiohttp", "when told", follows=True, stops=True),
    "Node http": Program("node_http.js", "node", "when told", stops=True),
    "Go net/http": Program(
        "client.go", "go", "when told", impatient=True, follows=True, stops=True
    ),
    "Java HttpClient": Program(
        "Client.java", "java javac", "when told", follows=True, keeps_authorization=True
    ),
    "Ruby Net::HTTP": Program("client.rb", "ruby", "when told", impatient=True),
    "http.client": Program("python.py", "http.client", "never"),
    "requests": Program("python.py", "requests", "never", follows=True),
    "httpx": Program("python.py", "httpx", "never", follows=True),
    "Node fetch": Program("node_fetch.js", "node", "never", follows=True, stops=True),
}


class HangsError(AssertionError):
    """A client did not end its upload in time."""


class RunningClient:
    """A client program. It reads lines that say what to upload, and prints a line for each."""

    def __init__(self, command, env):
        self.process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that its children can be killed with it
        )
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.version = self.answer()

    def upload(self, way, size, *urls):
        """Upload to these addresses, one after the other; return what the caller saw of each."""
        self.begin(way, size, *urls)
        return self.answer()

    def begin(self, way, size, *urls):
        print(way, size, *urls, file=self.process.stdin, flush=True)

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stdin.close()
        self.process.stdout.close()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def answer(self, patience=2 * PATIENCE):
        try:
            line = self._lines.get(timeout=patience)
        except queue.Empty:
            raise HangsError("the client prints nothing") from None
        assert line, "the client has exited"
        return json.loads(line)


@dataclasses.dataclass
class Outcome:
    #: What the caller saw: a dict for each address.
    seen: list
    exchanges: list
    connections: int
    #: What crossed to the other server, if it was sent there.
    elsewhere: list
    #: What the storage has of it then: its length and digest.
    stored: str | None = None

    @property
    def statuses(self):
        return [seen["status"] for seen in self.seen]

    @property
    def uploads(self):
        """The requests that upload: botocore sends other requests, too."""
        return [exchange for exchange in self.exchanges if exchange.head.startswith(b"PUT ")]

    @property
    def bytes(self):
        """The bytes of bodies that crossed, in all."""
        return sum(exchange.body for exchange in self.exchanges)


def received(exchange):
    """Return what the server says that it received."""
    return next(
        line.split(b": ")[1].decode()
        for line in exchange.answer.split(b"\r\n")
        if line.startswith(b"X-Received: ")
    )


@functools.cache
def whole(size):
    body = b"0123456789abcdef" * (size // 16)
    return f"{size}:{hashlib.sha256(body).hexdigest()}"


class World(contextlib.ExitStack):
    """Servers, and the clients that are started when they are first asked for."""

    def __init__(self, folder):
        super().__init__()
        #: No proxies, no credentials and no ~/.curlrc.
        self._env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        self._servers = {
            worker: self.enter_context(Server(app="realworld.uploads:app", worker=place))
            for worker, place in WORKERS.items()
        }
        self._other = self.enter_context(Server(app="realworld.uploads:app"))
        self._folder = folder
        self._running = {}
        self._outcomes = {}

    def client(self, name):
        if name not in self._running:
            self._running[name] = RunningClient(CLIENTS[name].command(self._env), self._env)
            self.callback(self._running[name].close)
        return self._running[name]

    def outcome(self, worker, name, scenario):
        """Return what this client does in this scenario; it is tried once."""
        key = worker, name, str(scenario)
        if key not in self._outcomes:
            try:
                self._outcomes[key] = self._try(*key)
            except AssertionError as error:
                self._outcomes[key] = error
                if name in self._running:  # it may still be uploading
                    self._running.pop(name).close()
        if isinstance(self._outcomes[key], AssertionError):
            raise self._outcomes[key]
        return self._outcomes[key]

    @functools.cached_property
    def storage(self):
        return self.enter_context(Storage(hold=HELD_ELSEWHERE))

    @functools.cached_property
    def _redirecting(self):
        """A server that redirects uploads to the storage, by the function of docs/policies.md."""
        page = CHECKOUT.joinpath("docs/policies.md").read_text("utf-8")
        block = re.search(r"^# object_storage\.py$.*?(?=^```)", page, re.MULTILINE | re.DOTALL)[0]
        self._folder.joinpath("object_storage.py").write_text(block, "utf-8")
        server = self.enter_context(
            Server(
                *("--pythonpath", str(self._folder)),
                app="realworld.uploads:app",
                env=self.storage.account
                | {"GUNICORN_EXPECT_POLICY": "object_storage:to_object_storage"},
            )
        )
        server.get("/")  # imports boto3: that would take longer than the second that clients wait
        return server

    def _try(self, worker, name, scenario):
        if scenario == "storage":
            return self._try_storage(name)
        client = self.client(name)
        way = "plain" if CLIENTS[name].asks == "never" else "ask"
        size = SIZE
        paths = ["accept/file"]
        if scenario in ("default", "empty"):
            way = "default"
            size = SIZE if scenario == "default" else 0
        elif scenario == "twice":
            paths *= 2
        elif scenario == "after a refusal":
            paths = ["status/401", *paths]
        elif scenario == "plain":
            way, paths = "plain", ["status/413"]
        elif scenario == "307":
            paths = ["elsewhere/{port}"]
        elif scenario in (*INFORMS, "unforced"):
            paths = [f"inform/{scenario}"]
        elif scenario != "late":
            paths = [f"status/{scenario}"]
        if way == "plain" and scenario in ("plain", "307", *map(str, STATUSES)):
            size = PLAIN_SIZE
        with (
            CountingRelay(
                self._servers[worker],
                answer_first=way == "plain",
                hold={"late": HELD, "before": HELD_ELSEWHERE}.get(scenario, 0),
            ) as relay,
            CountingRelay(self._other, hold=HELD_ELSEWHERE) as other,
        ):
            urls = [
                f"http://127.0.0.1:{relay.address[1]}/" + path.format(port=other.address[1])
                for path in paths
            ]
            seen = client.upload(way, size, *urls)
            return Outcome(seen, relay.finish(), relay.connections, other.finish())

    def _try_storage(self, name):
        key = f"objects/{re.sub('[^a-z]', '-', name.lower())}"
        way, size = ("plain", PLAIN_SIZE) if CLIENTS[name].asks == "never" else ("ask", SIZE)
        before = len(self.storage.relay.exchanges)
        client = self.client(name)
        with CountingRelay(self._redirecting, answer_first=way == "plain") as relay:
            # Not by the storage's name, so that clients take the storage for another host.
            client.begin(way, size, f"http://localhost:{relay.address[1]}/{key}")
            seen = self._seen_of_storage(name, client, before)
            return Outcome(
                seen,
                relay.finish(),
                relay.connections,
                self.storage.relay.finish()[before:],
                self.storage.stored(key),
            )

    def _seen_of_storage(self, name, client, number):
        if not CLIENTS[name].keeps_authorization:
            return client.answer()
        assert self.storage.relay.exchange(number).answered.wait(PATIENCE)
        try:
            return client.answer(SILENT)
        except HangsError:
            self._running.pop(name).close()
            return [{"status": "hangs"}]

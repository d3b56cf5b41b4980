"""Each module of the package imports only the modules below it."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from support import CHECKOUT

PACKAGE = CHECKOUT / "gunicorn_expect"

#: From the leaves up: a room may import from the floors below its own.
FLOORS = [
    {"callers", "errors", "fields", "states", "transport", "head", "version"},
    {"exchange", "receiver", "decision", "testing.interim"},
    {"framing", "body", "settings", "counters", "admission", "endpoint"} | {"testing.clients"},
    {"host", "policies", "testing.server"},
    {"response", "plain", "advice", "testing.fixtures"},
    {"answer"},
    {"connection", "streams", "workers.pool"},
    {"workers", "workers.loop", "testing.memory"},
    {"workers.base", "testing.webtest"},
    {"workers.thread", "workers.gevent", "workers.sync"},
    {"testing"},
    {""},
    # Nobody but an application imports these.
    {"contrib"},
    {f"contrib.{framework}" for framework in ("bottle", "django", "falcon", "flask", "pyramid")}
    | {"contrib.prometheus"},
    # The probe stands apart: it is a client, and uses nothing of the server.
    {"probe", "probe.timeline", "probe.question"},
    {"probe.exchange", "probe.verdict"},
    {"probe.rendering"},
    {"probe.command", "check"},
    {"__main__"},
]
#: A connection of HTTP/2 is served by its streams, and each of them answers on the connection.
TOGETHER = {"connection", "streams"}

#: What a room may know of gunicorn besides `host`, which may know all: what is documented for
#: those who write a worker, and the types of what it hands over.
OF_GUNICORN = {
    # The ways of gunicorn to load a configuration and an application.
    "check": {
        *("gunicorn.app.base.Application", "gunicorn.app.wsgiapp.WSGIApplication"),
        "gunicorn.config.Config",
    },
    "answer": {"gunicorn.config.Config", "gunicorn.workers.base.Worker"},
    "contrib.prometheus": {"gunicorn.instrument.statsd.Statsd"},
    "plain": {"gunicorn.config.Config"},
    "settings": {"gunicorn.config.Config"},
    "testing.memory": {"gunicorn.config.Config", "gunicorn.workers.base"},
    "workers.base": {"gunicorn.config.Config", "gunicorn.glogging", "gunicorn.workers.base"},
    "workers.gevent": {"gunicorn.workers.ggevent"},
    "workers.sync": {"gunicorn.config.Config"},
    "workers.thread": {"gunicorn.config.Config", "gunicorn.glogging.Logger"},
}


def room(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


ROOMS = {room(path): path for path in PACKAGE.rglob("*.py")}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(name):
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def test_every_room_has_a_floor():
    assert set(ROOMS) == set().union(*FLOORS)


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_imports_go_down(name):
    for imported in imports(ROOMS[name]):
        if not imported.startswith("gunicorn_expect."):
            continue
        inside = imported.removeprefix("gunicorn_expect.")
        target = max((other for other in ROOMS if f"{inside}.".startswith(f"{other}.")), key=len)
        assert floor(target) < floor(name) or {target, name} == TOGETHER, f"{name} imports {target}"


PROBE = {name for name in ROOMS if f"{name}.".startswith("probe.")}


def test_the_probe_and_the_server_do_not_know_each_other():
    for name, path in ROOMS.items():
        if name == "__main__":  # it has a command of each
            continue
        ours = [x for x in imports(path) if f"{x}.".startswith("gunicorn_expect.")]
        of_the_probe = [x for x in ours if f"{x}.".startswith("gunicorn_expect.probe.")]
        assert of_the_probe == (ours if name in PROBE else []), name


@pytest.mark.parametrize("name", sorted({*ROOMS} - {"host"}))
def test_only_the_host_knows_more_of_gunicorn_than_is_documented(name):
    of_gunicorn = {x for x in imports(ROOMS[name]) if re.match(r"gunicorn(\.|$)", x)}
    assert of_gunicorn == OF_GUNICORN.get(name, set())


def test_only_the_host_touches_private_parts_of_anything():
    private = {
        name: {
            ast.unparse(node)
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr)
            if ast.unparse(node.value) not in ("self", "cls", *class_names(path))
        }
        for name, path in ROOMS.items()
        if name != "host"
    }
    assert {name: found for name, found in private.items() if found} == {
        # "Expects self._stream to be set" (django/http/request.py): there is no other way.
        "contrib.django": {"request._stream"},
    }


def class_names(path):
    """Return the names of the classes of a module: a class may use what is its own."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }


#: What our workers use of gunicorn's. How to write a worker is documented by `base.Worker` alone.
OF_A_WORKER = {
    *("cfg", "log", "alive", "sockets", "notify", "nr", "max_requests", "ppid"),
    *("PIPE", "load_wsgi", "handle_exit", "handle_quit", "handle_abort"),
}


def is_a_worker(expression, *, own):
    """Return whether this is a worker; in the modules of the workers, they themselves are."""
    of_another = expression.rpartition(".")[2] in ("worker", "_worker")
    return of_another or (own and expression in ("self", "cls", "super()"))


def test_our_workers_use_little_of_gunicorns():
    worker = Worker(1, os.getpid(), [], None, 30, Config(), Logger(Config()))
    worker.tmp.close()
    theirs = {*dir(worker)} - {*dir(object)}
    used = {
        node.attr
        for name, path in ROOMS.items()
        if name in ("answer", "connection") or name.startswith("workers.")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        if is_a_worker(ast.unparse(node.value), own=name.startswith("workers."))
    }
    assert used & theirs == OF_A_WORKER


def test_gevent_is_loaded_only_when_asked_for():
    code = (
        "import sys, gunicorn_expect; assert 'gevent' not in sys.modules; "
        "gunicorn_expect.GeventWorker; assert 'gevent' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT, timeout=60)


def test_no_room_is_named_after_nothing():
    names = {pathlib.PurePath(path).stem for path in ROOMS.values()}
    assert not names & {"utils", "common", "helpers", "core", "mixins", "compat"}

"""Each room of the package knows only the rooms below it."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest
from wire import CHECKOUT

PACKAGE = CHECKOUT / "gunicorn_expect"

#: From the leaves up: a room may import from the floors below its own.
FLOORS = [
    {
        "errors",
        "fields",
        "pool",
        "linger",
        "head",
        "front",
        "version",
        "testing.interim",
        "testing.server",
    },
    {"body", "receiver"},
    {"expectation", "decision", "framing", "testing.clients", "testing.fixtures"},
    {"settings", "record"},
    {"exchange", "gate"},
    {"worker", "admission", "testing.memory"},
    {"connection", "policies", "testing.webtest", "workers.inline"},
    {"testing"},
    {"workers", "workers.thread", "workers.gevent", "workers.sync"},
    {""},
    # The probe stands apart: it is a client, and uses nothing of the server.
    {"probe", "probe.timeline", "probe.question"},
    {"probe.exchange", "probe.verdict"},
    {"probe.rendering"},
    {"__main__"},
]
WITHOUT_GUNICORN = {
    "errors",
    "fields",
    "expectation",
    "decision",
    "body",
    "receiver",
    "framing",
    "linger",
    "head",
    "front",
    "record",
    "version",
    "gate",
    "admission",
    "policies",
    "testing",
    "testing.interim",
    "testing.memory",
    "testing.webtest",
    "testing.clients",
    "testing.server",
    "testing.fixtures",
    "probe.exchange",
    "__main__",
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
        assert floor(target) < floor(name), f"{name} imports {target}"


PROBE = {name for name in ROOMS if name == "__main__" or f"{name}.".startswith("probe.")}


def test_the_probe_and_the_server_do_not_know_each_other():
    for name, path in ROOMS.items():
        ours = [x for x in imports(path) if f"{x}.".startswith("gunicorn_expect.")]
        of_the_probe = [x for x in ours if f"{x}.".startswith("gunicorn_expect.probe.")]
        assert of_the_probe == (ours if name in PROBE else []), name


@pytest.mark.parametrize("name", sorted(WITHOUT_GUNICORN))
def test_the_rooms_of_the_protocol_do_not_know_gunicorn(name):
    assert not [x for x in imports(ROOMS[name]) if re.match(r"gunicorn(\.|$)", x)]


def test_only_the_exchange_touches_private_parts_of_gunicorn():
    private = {
        name: {
            ast.unparse(node)
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr)
            if ast.unparse(node.value) != "self"
        }
        for name, path in ROOMS.items()
        if name != "exchange"
    }
    assert {name: found for name, found in private.items() if found} == {}


def test_gevent_is_loaded_only_when_asked_for():
    code = (
        "import sys, gunicorn_expect; assert 'gevent' not in sys.modules; "
        "gunicorn_expect.GeventWorker; assert 'gevent' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT, timeout=60)


def test_no_room_is_named_after_nothing():
    names = {pathlib.PurePath(path).stem for path in ROOMS.values()}
    assert not names & {"utils", "common", "base", "helpers", "core", "mixins", "compat"}

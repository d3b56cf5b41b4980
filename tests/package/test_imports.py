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

#: The modules in layers, the lowest first. A module may import only from layers before its own.
LAYERS = [
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
    # Only applications import these.
    {"contrib"},
    {f"contrib.{framework}" for framework in ("bottle", "django", "falcon", "flask", "pyramid")}
    | {"contrib.prometheus"},
    # The probe is a client and uses nothing of the server.
    {"probe", "probe.timeline", "probe.question"},
    {"probe.exchange", "probe.verdict"},
    {"probe.rendering"},
    {"probe.command", "check"},
    {"__main__"},
]
#: These two import each other: a connection of HTTP/2 starts streams, and they answer on it.
IMPORT_EACH_OTHER = {"connection", "streams"}

#: What each module imports of gunicorn: what is documented for workers, and types. Only `host` may
#: import more.
GUNICORN_IMPORTS = {
    # It loads a configuration and an application as gunicorn does.
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


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name):
    return next(number for number, names in enumerate(LAYERS) if name in names)


def test_every_module_is_in_a_layer():
    assert set(MODULES) == set().union(*LAYERS)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_from_lower_layers(name):
    for imported in imports(MODULES[name]):
        if not imported.startswith("gunicorn_expect."):
            continue
        inside = imported.removeprefix("gunicorn_expect.")
        target = max((other for other in MODULES if f"{inside}.".startswith(f"{other}.")), key=len)
        assert layer(target) < layer(name) or {target, name} == IMPORT_EACH_OTHER, (
            f"{name} imports {target}"
        )


PROBE = {name for name in MODULES if f"{name}.".startswith("probe.")}


def test_the_probe_and_the_server_import_nothing_of_each_other():
    for name, path in MODULES.items():
        if name == "__main__":  # it has the commands of both
            continue
        ours = [x for x in imports(path) if f"{x}.".startswith("gunicorn_expect.")]
        of_the_probe = [x for x in ours if f"{x}.".startswith("gunicorn_expect.probe.")]
        assert of_the_probe == (ours if name in PROBE else []), name


@pytest.mark.parametrize("name", sorted({*MODULES} - {"host"}))
def test_only_host_imports_more_of_gunicorn_than_is_listed(name):
    of_gunicorn = {x for x in imports(MODULES[name]) if re.match(r"gunicorn(\.|$)", x)}
    assert of_gunicorn == GUNICORN_IMPORTS.get(name, set())


def test_only_host_uses_private_attributes_of_others():
    private = {
        name: {
            ast.unparse(node)
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr)
            if ast.unparse(node.value) not in ("self", "cls", *class_names(path))
        }
        for name, path in MODULES.items()
        if name != "host"
    }
    assert {name: found for name, found in private.items() if found} == {
        # "Expects self._stream to be set" (django/http/request.py): there is no other way.
        "contrib.django": {"request._stream"},
        # "Return a frame object from the call stack" (sys in Python's documentation), a deeper one.
        "body": {"sys._getframe"},
    }


def class_names(path):
    """Return the classes of a module; `Class._name` in its own module is not private."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }


#: The attributes of gunicorn's `base.Worker` that our workers use. gunicorn documents no others.
WORKER_ATTRIBUTES = {
    *("cfg", "log", "alive", "sockets", "notify", "nr", "max_requests", "ppid"),
    *("PIPE", "load_wsgi", "handle_exit", "handle_quit", "handle_abort"),
}


def is_a_worker(expression, *, own):
    """Return whether this expression is a worker; ``own``: in a module of a worker."""
    is_named_worker = expression.rpartition(".")[2] in ("worker", "_worker")
    return is_named_worker or (own and expression in ("self", "cls", "super()"))


def test_our_workers_use_only_the_listed_attributes_of_gunicorns_worker():
    worker = Worker(1, os.getpid(), [], None, 30, Config(), Logger(Config()))
    worker.tmp.close()
    theirs = {*dir(worker)} - {*dir(object)}
    used = {
        node.attr
        for name, path in MODULES.items()
        if name in ("answer", "connection") or name.startswith("workers.")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        if is_a_worker(ast.unparse(node.value), own=name.startswith("workers."))
    }
    assert used & theirs == WORKER_ATTRIBUTES


def test_gevent_is_imported_only_for_its_worker():
    code = (
        "import sys, gunicorn_expect; assert 'gevent' not in sys.modules; "
        "gunicorn_expect.GeventWorker; assert 'gevent' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT, timeout=60)


def test_no_module_has_a_name_that_says_nothing():
    names = {pathlib.PurePath(path).stem for path in MODULES.values()}
    assert not names & {"utils", "common", "helpers", "core", "mixins", "compat"}

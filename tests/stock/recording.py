"""The configuration of servers that are compared: each hook writes its name and its arguments."""

import json
import os
import sys
import time

from gunicorn import glogging
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.workers.base import Worker


def note(*what):
    os.write(1, f"NOTED {json.dumps(what)}\n".encode())


def described(thing):
    """Return what hooks use of an argument, in the types of JSON."""
    if isinstance(thing, Worker):
        names = ("age", "alive", "nr", "booted", "aborted", "max_requests", "timeout")
        return "worker", {name: getattr(thing, name) for name in names}
    if isinstance(thing, Arbiter):
        return "arbiter", thing.num_workers
    if isinstance(thing, dict):
        return {name: described_value(name, value) for name, value in sorted(thing.items())}
    if hasattr(thing, "status"):
        names = ("status", "headers", "headers_sent", "response_length", "sent")
        names += ("must_close", "upgrade", "status_code")
        return "response", {name: getattr(thing, name, None) for name in names}
    if hasattr(thing, "uri"):
        names = ("method", "uri", "path", "query", "fragment", "version", "headers", "scheme")
        names += ("proxy_protocol_info", "peer_addr", "remote_addr", "must_close")
        return "request", {
            # gevent's worker has an empty dict for None.
            name: getattr(thing, name, None) or None
            for name in names
        }
    return thing


def described_value(name, value):
    if name == "wsgi.input":
        return "has " + " ".join(x for x in ("read", "readline", "readlines") if hasattr(value, x))
    if value is None or isinstance(value, str | int | tuple):
        return value
    if name == "wsgi.early_hints":
        return "callable" if callable(value) else value
    kind = value.__name__ if isinstance(value, type) else type(value).__name__
    # gevent has a class of its own for each of these.
    return kind.lstrip("_")


def of_one(name):
    return lambda argument: note(name, described(argument))


def of_two(name):
    return lambda first, second: note(name, described(first), described(second))


# gunicorn checks how many arguments each hook takes.
on_starting = of_one("on_starting")
on_reload = of_one("on_reload")
when_ready = of_one("when_ready")
pre_fork = of_two("pre_fork")
post_fork = of_two("post_fork")
worker_abort = of_one("worker_abort")
pre_exec = of_one("pre_exec")
child_exit = of_two("child_exit")
worker_exit = of_two("worker_exit")
on_exit = of_one("on_exit")


def worker_int(worker):
    note("worker_int", described(worker), greenlet())


#: The worker of this process.
WORKERS = []


def post_worker_init(worker):
    WORKERS.append(worker)
    note("post_worker_init", described(worker))


def nworkers_changed(server, new, old):
    note("nworkers_changed", described(server), new, old)


def ssl_context(config, default_ssl_context_factory):
    note("ssl_context", isinstance(config, Config))
    return default_ssl_context_factory()


def pre_request(worker, req):
    note("pre_request", described(worker), described(req))
    if req.path == "/pre-request-fails":
        raise LookupError("pre_request failed")


def post_request(worker, req, environ, resp):
    note("post_request", *map(described, (worker, req, environ, resp)))
    if req.path == "/post-request-fails":
        raise LookupError("post_request failed")


def greenlet():
    """Return the class of the current greenlet, if gevent is used. In its hub, no code may wait."""
    gevent = sys.modules.get("gevent")
    return gevent and type(gevent.getcurrent()).__name__


class Logger(glogging.Logger):
    """Notes when its files are reopened, and then hangs if the test wants that."""

    def reopen_files(self):
        super().reopen_files()
        note("reopen_files", greenlet())
        if "LOGGER_HANGS" in os.environ:
            time.sleep(60)

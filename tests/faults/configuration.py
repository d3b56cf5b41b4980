"""The configuration of servers under faults: hooks that write what happened, or that exit."""

import os
import resource
import sys

from faults import inject

inject.install()
if "FAIL_AT_START" in os.environ:
    inject.let_fail(*os.environ["FAIL_AT_START"].split("*"))
if "FILES" in os.environ:
    resource.setrlimit(
        resource.RLIMIT_NOFILE,
        (int(os.environ["FILES"]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
    )


def say(what):
    os.write(1, f"{what}\n".encode())


def post_fork(server, worker):
    inject.install_in_gevent()


def post_worker_init(worker):
    say(f"worker {worker.pid} is ready")


def worker_exit(server, worker):
    say(f"worker_exit has run in {worker.pid}")


def pre_request(worker, req):
    if req.path == "/exit-in-pre-request":
        sys.exit(1)


def post_request(worker, req, environ, resp):
    if req.path == "/exit-in-post-request":
        sys.exit(1)

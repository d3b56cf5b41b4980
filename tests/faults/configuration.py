"""The configuration of the servers that are tried to destruction: hooks that tell, or exit."""

import os
import sys

import inject

inject.install()


def say(what):
    os.write(1, f"{what}\n".encode())


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

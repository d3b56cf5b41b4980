"""A node of a fleet: it takes so many uploads, and sends the others to a node that has room.

``UPLOAD_NODE=a gunicorn --config gunicorn.conf.py --bind 127.0.0.1:8001 app:app``
"""

from __future__ import annotations

import contextlib
import os
import random
from typing import Any

import gunicorn_expect
from gunicorn_expect import Decision, Refuse
from gunicorn_expect.policies import admission

worker_class = gunicorn_expect.Worker.checked
workers = 2
threads = 8

# One redis for all nodes: how many uploads each of them has.
STORAGE = os.environ.get("UPLOAD_STORAGE", "redis://127.0.0.1:6379")
NODES = ["a", "b"]
HERE = os.environ["UPLOAD_NODE"]
OTHERS = [node for node in NODES if node != HERE]
# Uploads at once on a node, all its workers together.
AT_ONCE = int(os.environ.get("UPLOAD_AT_ONCE", "100"))
# Seconds. A node that is killed does not release its slots: they are free after this time.
LONGEST_UPLOAD = 900

ROOM = {
    node: admission(AT_ONCE, storage=STORAGE, name=node, lease=LONGEST_UPLOAD) for node in NODES
}


def expect_policy(environ: dict[str, Any]) -> Decision:
    """Accept the upload, redirect it to a node with a free slot, or refuse it."""
    refusal = ROOM[HERE](environ)
    if refusal is None:
        return None
    for node in random.sample(OTHERS, len(OTHERS)):
        if has_room(node):
            # The proxy knows this path. The body has not been sent: the client sends it there.
            return Refuse(307, [("Location", f"/@{node}/{environ['RAW_URI'].lstrip('/')}")])
    return refusal  # 503, Retry-After


def has_room(node: str) -> bool:
    """Return whether a node would accept an upload now."""
    # This takes a slot there and releases it at once: the redirected client takes its own.
    with contextlib.ExitStack() as exits:
        return ROOM[node]({"gunicorn_expect.exits": exits}) is None

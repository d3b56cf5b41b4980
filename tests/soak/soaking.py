"""The application of the soak test.

For each complete body it stores the size and the digest, and answers with them. `faulted` answers
all other requests.
"""

import hashlib
import itertools
import json
import os
import pathlib

from faults import faulted

#: The ways to read a body; each request uses the next one.
WAYS = itertools.cycle(["pieces", "all", "lines", "into"])


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if not path.startswith("/store/"):
        return faulted.app(environ, start_response)
    digest = hashlib.sha256()
    size = 0
    for piece in pieces(environ["wsgi.input"], next(WAYS)):
        digest.update(piece)
        size += len(piece)
    seen = json.dumps({"size": size, "sha256": digest.hexdigest()})
    part = pathlib.Path(os.environ["SOAK_FOLDER"], "parts", path.removeprefix("/store/"))
    part.write_text(seen, "utf-8")  # the worker may be killed before the file is complete
    part.replace(part.parents[1] / "stored" / part.name)
    start_response("201 Created", [("Content-Length", str(len(seen)))])
    return [seen.encode()]


def pieces(body, way):
    if way == "pieces":
        yield from iter(lambda: body.read(50_000), b"")
    elif way == "all":
        yield body.read()
    elif way == "lines":
        yield from body
    else:
        buffer = bytearray(30_000)
        while size := body.readinto(buffer):
            yield buffer[:size]

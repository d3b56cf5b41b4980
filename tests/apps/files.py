"""Answering with a file."""

import io
import pathlib

from apps.routes import answer, route


@route("/file")
def file(environ, start_response):
    opened = pathlib.Path(__file__).open("rb")  # noqa: SIM115  the server closes it
    start_response("403 Forbidden", [])
    return environ["wsgi.file_wrapper"](opened)


@route("/memory-file")
def memory_file(environ, start_response):
    start_response("403 Forbidden", [("Content-Length", "6")])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"memory"))


@route("/echo-file")
def echo_file(environ, start_response):
    start_response("200 OK", [("Content-Length", environ["CONTENT_LENGTH"])])
    return environ["wsgi.file_wrapper"](environ["wsgi.input"])


@route("/echo-buffered")
def echo_buffered(environ, start_response):
    """Return a file-like object without a file number, which reads the input."""

    class Raw(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            return environ["wsgi.input"].readinto(buffer)

    start_response("200 OK", [("Content-Length", environ["CONTENT_LENGTH"])])
    return environ["wsgi.file_wrapper"](io.BufferedReader(Raw()))


@route("/open-files")
def open_files(environ, start_response):
    """Return the number of files that this worker has open."""
    return answer(start_response, len(list(pathlib.Path("/dev/fd").iterdir())))

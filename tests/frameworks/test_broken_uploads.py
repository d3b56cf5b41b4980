"""What the pages of the frameworks say of broken uploads: 400, 408 or 413, one line, no alert.

docs/frameworks.md has what they have in common.
"""

import contextlib
import functools
import json
import os
import re

import pytest

from support import CHECKOUT, TESTS
from support.client import Client, request, waiting
from support.http2_client import connect
from support.installed import INSTALLED, missing
from support.server import Server

GUIDES = "".join(
    CHECKOUT.joinpath(f"docs/{name}.md").read_text("utf-8")
    for name in ("flask", "django", "falcon", "bottle", "pyramid")
)
BLOCKS = re.findall(r"^```python\n# (with_\w+)\.py\n(.*?)^```$", GUIDES, re.MULTILINE | re.DOTALL)
FRAMEWORKS = [name.removeprefix("with_") for name, _ in BLOCKS]

#: The line of each page's application that the page explains.
EXPLAINED = {
    "flask": "uploads.init_app(app)\n",
    "django": '    MIDDLEWARE=["gunicorn_expect.contrib.django.UploadMiddleware"],\n',
    "falcon": "uploads.init_app(app)\n",
    "bottle": "app.install(uploads.plugin)\n",
    "pyramid": '    config.include("gunicorn_expect.contrib.pyramid")\n',
}

LENGTH = "Content-Length: 11"
CHUNKED = "Transfer-Encoding: chunked"
#: How an upload breaks: its framing, the bytes that are sent, the status and the error.
FAILURES = {
    "cut off": (LENGTH, b"hello", 400, "ClientDisconnected"),
    "cut off in a chunk": (CHUNKED, b"5\r\nhe", 400, "ClientDisconnected"),
    "stalls": (LENGTH, b"hello", 408, "BodyTimeout"),
    "malformed": (CHUNKED, b"5\r\nhello\r\nzz\r\n", 400, "MalformedBody"),
    "too large": (CHUNKED, b"15\r\n" + b"x" * 21 + b"\r\n0\r\n\r\n", 413, "ContentTooLarge"),
}

#: With a policy that limits chunked bodies, so that one can be too large.
CONFIGURATION = """
expect_body_timeout = 0.1


def expect_policy(environ):
    environ["wsgi.input"].limit(20)
"""


#: Which release of each framework a server uses.
RELEASES = ["oldest", "newest"]


def installed(release):
    """Return the folders from which a server imports these releases."""
    if release == "newest":
        return []
    folder = INSTALLED / "frameworks" / "oldest"
    if not folder.exists():
        missing("frameworks/oldest", "make test with Python 3.12 or earlier")
    return [folder]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the applications of the pages, with and without the explained line."""
    folder = tmp_path_factory.mktemp("page")
    folder.joinpath("configuration.py").write_text(CONFIGURATION, "utf-8")
    folder.joinpath("no_policy.py").write_text("expect_body_timeout = 0.1", "utf-8")
    for name, text in BLOCKS:
        folder.joinpath(f"{name}.py").write_text(text, "utf-8")
        without = text.replace(EXPLAINED[name.removeprefix("with_")], "")
        assert without != text
        folder.joinpath(f"{name.replace('with', 'without')}.py").write_text(without, "utf-8")
    return folder


def serve(folder, release, app, watched="", configuration="configuration.py"):
    path = os.pathsep.join(map(str, [*installed(release), folder, TESTS, CHECKOUT]))
    # Pyramid imports something deprecated, and that warning would be in the log.
    env = {"PYTHONPATH": path, "WATCHED": watched, "PYTHONWARNINGS": "ignore:::pyramid.path"}
    return Server("-c", str(folder / configuration), app=app, env=env)


@pytest.fixture(scope="module")
def servers(folder):
    """Yield a function that returns a server, with the explained line or without it."""

    @functools.cache
    def server_of(release, prefix="with"):
        watched = " ".join(f"{prefix}_{framework}" for framework in FRAMEWORKS)
        server = serve(folder, release, "apps.watched_by_sentry:app", watched)
        stack.enter_context(server).wait_for_log("Booting worker")
        return server

    with contextlib.ExitStack() as stack:
        yield server_of


EACH = [
    pytest.param(framework, release, id=f"{framework}-{release}")
    for release in RELEASES
    for framework in FRAMEWORKS
]


def upload(server, path, framing, body, *fields, leaves=False):
    """Upload; return the status and the body of the response, and the lines in the log."""
    start = len(server.lines)
    with Client(server) as client:
        client.send(request(f"PUT {path}", framing, "Connection: close", *fields), body)
        if leaves:
            client.shut_down()
        head, answer = client.receive_response()
        assert client.receive_all() == b""
    server.wait_for_log(r"PUT \S+ HTTP/1.1 -> ", start)
    lines = [line for line in server.lines[start:] if " HTTP/1.1 -> " not in line]
    return int(head.split(b" ")[1]), answer, lines


def upload_broken(server, path, failure, *fields):
    framing, body, *_ = FAILURES[failure]
    return upload(server, path, framing, body, *fields, leaves=failure.startswith("cut off"))


# The examples of the pages.


@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
@pytest.mark.parametrize(("framework", "release"), EACH)
def test_a_complete_upload_is_read(servers, framework, release, framing):
    body = b"hello world" if framing == LENGTH else b"b\r\nhello world\r\n0\r\n\r\n"
    path = f"/files/a.txt?with_{framework}"
    status, answer, lines = upload(servers(release), path, framing, body)
    assert (status, json.loads(answer), lines) == (200, {"size": 11}, [])


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(("framework", "release"), EACH)
def test_a_broken_upload_gets_its_status_and_one_log_line_and_no_alert(
    servers, framework, release, failure
):
    *_, expected, _ = FAILURES[failure]
    status, _, lines = upload_broken(servers(release), f"/files/a.txt?with_{framework}", failure)
    assert status == expected
    if framework == "django":  # its own logging says nothing by default
        assert lines == []
    else:
        [line] = lines
        message = f"PUT '/files/a.txt': the upload failed, answered with {expected}: ."
        assert re.match(message, line)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_the_line_that_the_page_explains_sentry_sends_an_alert(servers, framework):
    server = servers("newest", "without")
    status, _, lines = upload_broken(server, f"/files/a.txt?without_{framework}", "stalls")
    # Pyramid raises the error to the server, which answers; Sentry sees the error on its way.
    assert status == (408 if framework == "pyramid" else 500)
    error = "UnreadablePostError" if framework == "django" else "BodyTimeout"
    assert f"ALERT: {error}" in lines


# What else the pages say.


@pytest.fixture(scope="module", params=["oldest", "newest"])
def contrib(request, folder):
    with serve(folder, request.param, "apps.contrib_frameworks:app") as server:
        server.wait_for_log("Booting worker")
        yield server


@pytest.mark.parametrize("path", ["/flask/data", "/bottle"])
def test_an_error_page_of_the_application_is_the_response(contrib, path):
    status, answer, _ = upload_broken(contrib, path, "stalls")
    assert (status, answer) == (408, b"a page of the application")


def test_flasks_max_content_length_hides_no_status(contrib):
    """With MAX_CONTENT_LENGTH, Werkzeug raises the same error of its own for all of ours."""
    assert upload_broken(contrib, "/flask/data", "cut off")[0] == 400
    assert upload_broken(contrib, "/flask/data", "too large")[0] == 413


# The middleware for Django.


MULTIPART = "multipart/form-data; boundary=limit"
FORM = (
    b"--limit\r\n"
    b'Content-Disposition: form-data; name="a"\r\n\r\n'
    b"1\r\n"
    b"--limit\r\n"
    b'Content-Disposition: form-data; name="file"; filename="name"\r\n\r\n'
    b"hello world\r\n"
    b"--limit--\r\n"
)


@pytest.fixture(scope="module", params=RELEASES)
def django(request, folder):
    app = "apps.contrib_django:app"
    with serve(folder, request.param, app, configuration="no_policy.py") as server:
        server.wait_for_log("Booting worker")
        yield server


@pytest.mark.parametrize("failure", ["cut off", "stalls", "malformed"])
@pytest.mark.parametrize("way", ["body", "read", "pieces", "lines", "json"])
def test_the_status_is_that_of_the_error_however_a_django_view_reads(django, way, failure):
    assert upload_broken(django, f"/{way}", failure)[0] == FAILURES[failure][2]


@pytest.mark.parametrize("way", ["form", "file"])
def test_a_form_that_stalls_gets_408(django, way):
    content_type = MULTIPART if way == "file" else "application/x-www-form-urlencoded"
    with Client(django) as client:
        client.send(request(f"POST /{way}", LENGTH, f"Content-Type: {content_type}"), b"--l")
        assert client.receive_head().startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(("sent", "status"), [(52, b"200"), (51, b"403")])
def test_a_broken_form_that_djangos_csrf_check_reads_gets_403_without_a_traceback(
    django, sent, status
):
    form = b"csrfmiddlewaretoken=" + b"a" * 32
    fields = ("Cookie: csrftoken=" + "a" * 32, "Content-Type: application/x-www-form-urlencoded")
    start = len(django.lines)
    with Client(django) as client:
        client.send(request("POST /protected", f"Content-Length: {len(form)}", *fields))
        client.send(form[:sent])
        assert client.receive_head().startswith(b"HTTP/1.1 %b " % status)
    django.wait_for_log("POST /protected", start)
    assert "Traceback" not in "".join(django.lines[start:])


def test_a_broken_form_is_empty_for_django_if_the_client_sends_the_csrf_token_in_a_header(django):
    form = b"csrfmiddlewaretoken=" + b"a" * 32
    fields = ("Cookie: csrftoken=" + "a" * 32, "X-CSRFToken: " + "a" * 32)
    fields += ("Content-Type: application/x-www-form-urlencoded",)
    with Client(django) as client:
        client.send(request("POST /protected", f"Content-Length: {len(form)}", *fields))
        client.send(form[:-1])
        head, answer = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer) == {"read": {}}


def test_a_django_view_sees_the_error_and_can_clean_up(django):
    status, _, lines = upload_broken(django, "/clean-up", "cut off")
    assert status == 400
    assert "THE VIEW SAW ClientDisconnected" in lines


def post(server, way, content_type, *chunks, fields=(CHUNKED,)):
    """Post in chunks; return the status and what the view has read."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    with Client(server) as client:
        fields = (*fields, f"Content-Type: {content_type}", "Connection: close")
        client.send(request(f"POST /{way}", *fields), body if CHUNKED in fields else b"")
        head, answer = client.receive_response()
    status = int(head.split(b" ")[1])
    return status, json.loads(answer)["read"] if status == 200 else None


@pytest.mark.parametrize(
    ("way", "read", "nothing"),
    [
        *((way, "one\ntwo\n", "") for way in ("body", "read", "pieces")),
        ("lines", ["one\n", "two\n"], []),
    ],
)
def test_django_reads_a_chunked_body(django, way, read, nothing):
    assert post(django, way, "text/plain", b"one\ntw", b"o\n") == (200, read)
    assert post(django, way, "text/plain") == (200, nothing)
    assert post(django, way, "text/plain", fields=()) == (200, nothing)


def test_django_reads_chunked_json_and_forms(django):
    assert post(django, "json", "application/json", b'{"a": ', b"1}") == (200, {"a": 1})
    urlencoded = "application/x-www-form-urlencoded"
    assert post(django, "form", urlencoded, b"a=1", b"&b=2") == (200, {"a": "1", "b": "2"})
    assert post(django, "form", MULTIPART, FORM[:70], FORM[70:]) == (200, {"a": "1"})
    assert post(django, "form", MULTIPART, fields=()) == (200, {})


def test_django_keeps_the_file_of_a_chunked_form_on_disk(django):
    read = ["TemporaryUploadedFile", "hello world"]
    assert post(django, "file", MULTIPART, FORM) == (200, read)


@pytest.mark.parametrize("way", ["body", "read"])
def test_djangos_data_upload_max_memory_size_applies_to_chunked_bodies(django, way):
    assert post(django, way, "text/plain", b"x" * 100) == (200, "x" * 100)
    assert post(django, way, "text/plain", b"x" * 100, b"x") == (400, None)
    assert post(django, "pieces", "text/plain", b"x" * 100, b"x") == (200, "x" * 101)


def test_a_chunked_body_can_be_refused_before_it_is_read(django):
    with Client(django) as client:
        client.send(waiting("POST /refused", CHUNKED))
        assert client.receive_all().startswith(b"HTTP/1.1 200 ")


def test_django_reads_a_body_without_a_length_over_http_2():
    arguments = ("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge")
    with Server(*arguments, app="apps.contrib_django:app") as server, connect(server) as client:
        stream = client.open("POST /read", ("content-type", "text/plain"))
        client.send(stream, b"hello")
        status, answer, *_ = client.answer(stream)
        assert (status, json.loads(answer)) == ("200", {"read": "hello"})

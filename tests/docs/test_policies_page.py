"""What docs/policies.md and the pages of the frameworks say: their code runs, their claims hold."""

import contextlib
import hashlib
import http.client
import json
import re

import pytest

from gunicorn_expect import Refuse
from realworld.clients import whole
from realworld.storage import Storage
from support import CHECKOUT, SIZE_WITH_EXPECT
from support.client import CONTINUE, Client, request, waiting
from support.curl import curl
from support.relay import Relay
from support.server import Server

PAGE = CHECKOUT.joinpath("docs/policies.md").read_text("utf-8")
GUIDES = {
    framework: CHECKOUT.joinpath("docs", page).read_text("utf-8")
    for framework, page in {
        "Flask": "flask.md",
        "Django": "django.md",
        "Falcon": "falcon.md",
        "Bottle": "bottle.md",
        "Pyramid": "pyramid.md",
    }.items()
}
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$", "".join([PAGE, *GUIDES.values()]), re.MULTILINE | re.DOTALL
)
FILES = {block.split("\n", 1)[0].removeprefix("# "): block for _, block in BLOCKS}
STATUSES = re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)

RECIPES = {
    "Flask": "flask_files:app",
    "Django": "apps.django_project:app",
    "Falcon": "falcon_files:app",
    "Bottle": "bottle_files:app",
    "Pyramid": "pyramid_files:app",
}
TOKEN = "Authorization: Bearer letmein"
SIZED = "Content-Length: 11"
CHUNKED = "Transfer-Encoding: chunked"
SENT = b"hello world"
IN_CHUNKS = b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"


def check_refused_unread(client, status):
    """Check that the client receives only this refusal, with ``Connection: close``; return it."""
    head = client.receive_head()
    assert re.match(f"HTTP/1.1 {status} ".encode(), head)
    assert b"\r\nconnection: close\r\n" in head.lower()
    assert not re.search(rb"(?m)^HTTP/1.1 \d", client.receive_all())
    return head


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for name, text in FILES.items():
        folder.joinpath(name).write_text(text)
    text = FILES["gunicorn.conf.py"].replace("5 * 1024**3", "10")
    folder.joinpath("ten_bytes.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def big_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "big.iso"
    path.write_bytes(b"0123456789abcdef" * (SIZE_WITH_EXPECT // 16))
    return path


def serve(folder, policy, app):
    return Server("--pythonpath", str(folder), "-c", str(folder / policy), app=app)


@pytest.fixture(scope="module", params=RECIPES.values(), ids=RECIPES)
def recipe(request, folder):
    with serve(folder, "gunicorn.conf.py", request.param) as server:
        yield server


@pytest.fixture(scope="module", params=RECIPES.values(), ids=RECIPES)
def recipe_alone(request, folder):
    with Server("--pythonpath", str(folder), app=request.param) as server:
        yield server


def recipe_of(server):
    """Return the name of the framework that this server runs."""
    return next(name for name, app in RECIPES.items() if server.process.args[-1] == app)


def test_every_block_is_served_by_a_test():
    apps = {app.partition(":")[0] for app in RECIPES.values()} - {"apps.django_project"}
    policies = {"gunicorn.conf.py", "uploads_at_once.py", "object_storage.py"}
    assert {language for language, _ in BLOCKS} == {"python"}
    files = {name for name in FILES if not name.startswith("with_")}  # for test_broken_uploads.py
    assert files == policies | {"django_files.py"} | {f"{app}.py" for app in apps}


# The recipes.


@pytest.mark.parametrize("framing", [SIZED, CHUNKED], ids=["length", "chunked"])
def test_the_policy_refuses_a_client_without_a_token(recipe, framing):
    with Client(recipe) as client:
        client.send(waiting("PUT /files/ada/a.txt", framing))
        head = check_refused_unread(client, 401)
    assert b"\r\nWWW-Authenticate: Bearer\r\n" in head
    assert b"\r\nContent-Length: 0\r\n" in head


@pytest.mark.parametrize("framing", [SIZED, CHUNKED], ids=["length", "chunked"])
def test_the_application_refuses_by_the_user_that_the_policy_found(recipe, framing):
    with Client(recipe) as client:
        client.send(waiting("PUT /files/bob/a.txt", TOKEN, framing))
        head = check_refused_unread(client, 403)
    assert b"\r\ncontent-length: 0\r\n" in head.lower()


@pytest.mark.parametrize("owner", ["ada", "bob"])
def test_without_the_policy_nobody_may_write(recipe_alone, owner):
    with Client(recipe_alone) as client:
        client.send(waiting(f"PUT /files/{owner}/a.txt", TOKEN, SIZED))
        check_refused_unread(client, 403)


@pytest.mark.parametrize(
    ("framing", "body"), [(SIZED, SENT), (CHUNKED, IN_CHUNKS)], ids=["length", "chunked"]
)
def test_an_accepted_upload_gets_its_100_and_arrives_completely(recipe, framing, body):
    with Client(recipe) as client:
        client.send(waiting("PUT /files/ada/a.txt", TOKEN, framing))
        if framing == CHUNKED and recipe_of(recipe) == "Django":
            check_refused_unread(client, 411)
            return
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(body)
        head, answer = client.receive_response()
    assert head.startswith(b"HTTP/1.1 201 ")
    assert json.loads(answer) == {"sha256": hashlib.sha256(SENT).hexdigest()}


@pytest.mark.parametrize("authorized", [False, True], ids=["policy", "application"])
def test_curl_sends_no_byte_of_a_refused_upload(recipe, big_file, authorized):
    with Relay(recipe) as relay:
        url = "http://{}:{}/files/bob/big.iso".format(*relay.address)
        answer = curl(*(["-H", TOKEN] if authorized else []), "-T", big_file, url)
        [sent] = relay.sent_by_clients()
    assert answer.split()[1] == (b"403" if authorized else b"401")
    assert b"100 Continue" not in answer
    assert b"\r\nExpect: 100-continue\r\n" in sent
    assert sent.partition(b"\r\n\r\n")[2] == b""


def test_curl_uploads_an_accepted_file_completely(recipe, big_file):
    with Relay(recipe) as relay:
        url = "http://{}:{}/files/ada/big.iso".format(*relay.address)
        answer = curl("-H", TOKEN, "-T", big_file, url)
    interim, final, content = answer.split(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 100 Continue"
    assert final.startswith(b"HTTP/1.1 201 ")
    assert json.loads(content) == {"sha256": hashlib.sha256(big_file.read_bytes()).hexdigest()}


@pytest.fixture(scope="module", params=RECIPES.values(), ids=RECIPES)
def small(request, folder):
    """The recipes, behind the policy with a limit of ten bytes."""
    with serve(folder, "ten_bytes.py", request.param) as server:
        yield server


def test_the_policy_refuses_an_upload_that_announces_more_than_the_limit(small):
    with Client(small) as client:
        client.send(waiting("PUT /files/ada/a.txt", TOKEN, SIZED))
        check_refused_unread(client, 413)


def test_a_chunked_upload_over_the_limit_gets_413(small):
    with Client(small) as client:
        client.send(waiting("PUT /files/ada/a.txt", TOKEN, CHUNKED))
        if recipe_of(small) == "Django":
            check_refused_unread(client, 411)
            return
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(IN_CHUNKS)
        check_refused_unread(client, 413)


# The policy that sends clients to object storage.


@pytest.fixture(scope="module")
def storage():
    with Storage() as storage:
        yield storage


@pytest.fixture(scope="module")
def storing(folder, storage):
    """An application for the uploads that the policy does not redirect to the storage."""
    with Server(
        *("-c", str(folder / "object_storage.py")), app="realworld.uploads:app", env=storage.account
    ) as server:
        yield server


def test_curl_uploads_to_the_storage_and_sends_no_byte_here(storing, storage, big_file):
    with Relay(storing) as relay:
        url = f"http://localhost:{relay.address[1]}/accept/big.iso"
        answer = curl("--location", "-H", TOKEN, "-T", big_file, url)
        [sent] = relay.sent_by_clients()
    assert re.findall(rb"(?m)^HTTP/1.1 (\d+)", answer) == [b"307", b"100", b"200"]
    assert sent.partition(b"\r\n\r\n")[2] == b""
    assert storage.stored("accept/big.iso") == whole(SIZE_WITH_EXPECT)


def test_the_presigned_url_allows_only_this_length_method_and_path(storing, storage):
    with Client(storing) as client:
        client.send(waiting("PUT /accept/a.txt", TOKEN, SIZED))
        head = check_refused_unread(client, 307)
    path = re.search(rb"\r\nLocation: http://[^/]+(\S+)\r\n", head)[1].decode()
    other = path.replace("a.txt", "b.txt")
    attempts = [("PUT", path, SENT[:-1]), ("POST", path, SENT), ("PUT", other, SENT)]
    statuses = []
    for attempt in [*attempts, ("PUT", path, SENT)]:
        with contextlib.closing(http.client.HTTPConnection(*storage.relay.address)) as connection:
            connection.request(*attempt)
            statuses.append(connection.getresponse().status)
    assert statuses == [403, 403, 403, 200]
    assert storage.stored("accept/b.txt") is None


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (request("PUT /accept/mine", TOKEN, SIZED), SENT),
        (request("PUT /accept/mine", TOKEN, CHUNKED), IN_CHUNKS),
    ],
    ids=["length", "chunked"],
)
def test_an_upload_that_can_not_be_sent_to_the_storage_stays_here(storing, storage, head, body):
    with Client(storing) as client:
        client.send(head, body)
        assert client.receive_head().startswith(b"HTTP/1.1 200 ")
    assert storage.stored("accept/mine") is None


def test_the_policy_redirects_no_client_without_a_token_to_the_storage(storing):
    with Client(storing) as client:
        client.send(waiting("PUT /accept/a.txt", SIZED))
        check_refused_unread(client, 401)


# The form of the recipe for Django.

CSRF = "a" * 32
FORM = (
    b"--limit\r\n"
    b'Content-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n'
    b"%b\r\n"
    b"--limit\r\n"
    b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    b"hello world\r\n"
    b"--limit--\r\n"
)


@pytest.fixture(scope="module")
def django(folder):
    with serve(folder, "gunicorn.conf.py", RECIPES["Django"]) as server:
        yield server


def form(owner, body):
    """Return the head of a POST with the CSRF cookie, as a browser sends it."""
    fields = (TOKEN, f"Cookie: csrftoken={CSRF}", f"Content-Length: {len(body)}")
    return waiting(
        f"POST /files/{owner}", *fields, "Content-Type: multipart/form-data; boundary=limit"
    )


def test_django_refuses_a_form_before_the_csrf_check_reads_it(django):
    with Client(django) as client:
        client.send(form("bob", FORM))
        check_refused_unread(client, 403)


@pytest.mark.parametrize(("csrf", "status"), [(CSRF, 201), ("b" * 32, 403)])
def test_django_checks_the_csrf_token_of_a_form_that_it_accepts(django, csrf, status):
    body = FORM % csrf.encode()
    with Client(django) as client:
        client.send(form("ada", body))
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(body)
        head, answer = client.receive_response()
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    if status == 201:
        assert json.loads(answer) == {"sha256": hashlib.sha256(SENT).hexdigest()}


# What reads the body too early.

URLENCODED = ("application/x-www-form-urlencoded", b"a=hello")
MULTIPART = ("multipart/form-data; boundary=limit", FORM % b"c")
JSON = ("application/json", b'{"a": "hello"}')
OCTETS = ("application/octet-stream", b"hello")
TEXT = ("text/plain", URLENCODED[1])
COOKIE = f"Cookie: csrf={CSRF}"

READS = [
    *((f"Flask/{way}", URLENCODED) for way in ("form", "files", "values", "data", "get_data()")),
    *((f"Flask/{way}", MULTIPART) for way in ("form", "files", "values")),
    ("Flask/get_json()", JSON),
    ("Django/POST", URLENCODED),
    ("Django/POST", MULTIPART),
    ("Django/FILES", MULTIPART),
    ("Django/CSRF", URLENCODED, COOKIE),
    ("Django/CSRF", MULTIPART, COOKIE),
    ("Django/CSRF", MULTIPART, COOKIE, f"X-CSRFToken: {CSRF}"),
    ("Django/CSRF-then-login", MULTIPART, COOKIE),
    ("Django/PermissionDenied", MULTIPART, COOKIE),
    ("Django/Http404", MULTIPART, COOKIE),
    ("Django/no-view", MULTIPART, COOKIE),
    ("Django/error", MULTIPART, COOKIE),
    ("Django/error-DEBUG", MULTIPART),
    *((f"Falcon/{way}", type_) for way in ("media", "get_media()") for type_ in (URLENCODED, JSON)),
    ("Falcon-auto/content_length", URLENCODED),
    *((f"Bottle/{way}", OCTETS) for way in ("forms", "files", "POST", "params", "body")),
    ("Bottle/forms", MULTIPART),
    ("Bottle/json", JSON),
    *((f"Pyramid/{way}", URLENCODED) for way in ("POST", "params")),
    *((f"Pyramid/{way}", MULTIPART) for way in ("POST", "params")),
    *((f"Pyramid/{way}", OCTETS) for way in ("body", "json_body")),
    ("Pyramid/permission-request_param", URLENCODED),
    ("Pyramid/require_csrf", MULTIPART),
]
READS_NOT = [
    *((f"Flask/{way}", URLENCODED) for way in ("args", "authorization", "content_length")),
    ("Flask/is_json", JSON),
    ("Flask/stream", OCTETS),
    ("Flask-limited/data", OCTETS),
    ("Flask-limited/form", URLENCODED),
    ("Django/POST", JSON),
    ("Django/FILES", OCTETS),
    ("Django/CSRF", MULTIPART),
    ("Django/CSRF", JSON, COOKIE),
    ("Django/CSRF-exempt", MULTIPART, COOKIE),
    ("Django/CSRF-refused-before", MULTIPART, COOKIE),
    ("Django/login-then-CSRF", MULTIPART, COOKIE),
    ("Django/PermissionDenied", MULTIPART),
    ("Django/error-DEBUG", JSON),
    *((f"Falcon/{way}", URLENCODED) for way in ("params", "content_length", "bounded_stream")),
    ("Falcon/media", MULTIPART),
    ("Falcon/media", JSON, CHUNKED),
    *((f"Bottle/{way}", OCTETS) for way in ("query", "auth", "content_length")),
    ("Bottle/json", OCTETS),
    *((f"Pyramid/{way}", URLENCODED) for way in ("GET", "authorization", "content_length")),
    ("Pyramid/POST", OCTETS),
    ("Pyramid/body_file", OCTETS),
    ("Pyramid/permission", MULTIPART),
    ("Pyramid/permission-require_csrf", MULTIPART),
    ("Pyramid/require_csrf", MULTIPART, "X-CSRF-Token: b"),
]


def cases(tried, method="POST"):
    return [
        pytest.param(
            method, path, content, fields, id=" ".join((method, path, content[0], *fields))
        )
        for path, content, *fields in tried
    ]


@pytest.fixture(scope="module")
def looking():
    with Server(app="apps.refusing_frameworks:app") as server:
        yield server


def look(client, method, path, content_type, size, fields):
    framing = () if CHUNKED in fields else (f"Content-Length: {size}",)
    client.send(waiting(f"{method} /{path}", f"Content-Type: {content_type}", *framing, *fields))


@pytest.mark.parametrize(("method", "path", "content", "fields"), cases(READS))
def test_what_reads_the_body_according_to_the_page_does(looking, method, path, content, fields):
    content_type, body = content
    with Client(looking) as client:
        look(client, method, path, content_type, len(body), fields)
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(body)
        status = int(client.receive_head().split()[1])
    assert (status == 500) == ("error" in path)
    assert status >= 300  # refused, so the body was read for nothing


@pytest.mark.parametrize(
    ("method", "path", "content", "fields"),
    [
        *cases(READS_NOT),
        *cases([("Django/POST", URLENCODED), ("Django/CSRF", MULTIPART, COOKIE)], "PUT"),
    ],
)
def test_what_does_not_read_the_body_according_to_the_page_does_not(
    looking, method, path, content, fields
):
    content_type, body = content
    with Client(looking) as client:
        look(client, method, path, content_type, len(body), fields)
        check_refused_unread(client, "500" if "error" in path else "[34]..")


@pytest.mark.parametrize(
    ("path", "status", "fields"),
    [
        ("Flask-aborting/", 403, ()),
        ("Flask-aborting/", 403, ("-H", CHUNKED)),
        ("Flask-limited/data", 413, ()),
        ("Flask-limited/pieces", 413, ()),
        ("Flask-limited/form", 413, ("-H", f"Content-Type: {URLENCODED[0]}")),
        ("Flask-limited/form", 413, ("-H", f"Content-Type: {MULTIPART[0]}")),
        ("Django/body-DATA_UPLOAD", 400, ()),
        ("Django/post-DATA_UPLOAD", 400, ("-H", f"Content-Type: {URLENCODED[0]}")),
        ("Django/files-handler", 400, ("-H", f"Content-Type: {MULTIPART[0]}")),
    ],
)
def test_curl_sends_no_byte_of_an_upload_that_a_setting_of_the_framework_refuses(
    looking, big_file, path, status, fields
):
    with Relay(looking) as relay:
        url = "http://{}:{}/{}".format(*relay.address, path)
        answer = curl("-X", "POST", *fields, "-T", big_file, url)
        [sent] = relay.sent_by_clients()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    assert b"\r\nExpect: 100-continue\r\n" in sent
    assert sent.partition(b"\r\n\r\n")[2] == b""


@pytest.mark.parametrize(
    ("path", "status", "fields"),
    [
        ("post-DATA_UPLOAD", 400, ()),
        ("CSRF-DATA_UPLOAD", 400, (COOKIE,)),
        ("file_of_any_size-DATA_UPLOAD", 403, ()),
        ("file_of_any_size-FILE_UPLOAD", 403, ()),
    ],
)
def test_django_reads_a_multipart_form_despite_its_limits(looking, path, status, fields):
    """No limit counts the bytes of files; the view answers 403 after it has read a file."""
    content_type, body = MULTIPART
    if path == "file_of_any_size-DATA_UPLOAD":  # only the file, without the other field
        body = b"--limit\r\n" + body.split(b"--limit\r\n")[2]
    with Client(looking) as client:
        look(client, "POST", f"Django/{path}", content_type, len(body), fields)
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(body)
        head, answer = client.receive_response()
    assert int(head.split()[1]) == status
    assert (answer == SENT) == (status == 403)


def test_bottles_body_fails_on_chunks_that_are_already_decoded(looking):
    with Client(looking) as client:
        client.send(waiting("POST /Bottle/body", CHUNKED))
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(IN_CHUNKS)
        assert client.receive_head().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("way", "sent", "status", "expected"),
    [
        ("read()", TEXT, 200, b"a=h"),
        ("data", TEXT, 200, b"a=h"),
        ("form", URLENCODED, 200, b'{"a":"h"}\n'),
        ("form", MULTIPART, 413, None),
        ("pieces", TEXT, 413, None),
    ],
)
def test_flask_truncates_a_chunked_body_at_its_limit_unless_it_is_read_in_pieces(
    looking, way, sent, status, expected
):
    content_type, body = sent
    with Client(looking) as client:
        head = request(f"POST /Flask-limited/{way}", CHUNKED, f"Content-Type: {content_type}")
        client.send(head, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        head, answer = client.receive_response()
    assert int(head.split()[1]) == status
    assert expected in (None, answer)


@pytest.fixture(scope="module")
def limiting(tmp_path_factory):
    """The same applications behind a policy that allows two bytes."""
    folder = tmp_path_factory.mktemp("limiting")
    folder.joinpath("two_bytes.py").write_text(
        "def expect_policy(environ):\n    environ['wsgi.input'].limit(2)\n"
    )
    with serve(folder, "two_bytes.py", "apps.refusing_frameworks:app") as server:
        yield server


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("Flask/data", 500),
        *((f"Flask-limited/{way}", 400) for way in ("read()", "data", "pieces")),
        ("Falcon/stream", 500),
    ],
)
def test_frameworks_turn_the_error_of_a_policys_limit_into_400_or_500(limiting, path, status):
    """In the recipes the client gets 413."""
    with Client(limiting) as client:
        client.send(request(f"POST /{path}", CHUNKED), IN_CHUNKS)
        assert int(client.receive_head().split()[1]) == status


@pytest.mark.parametrize("framework", ["Flask", "Falcon", "Bottle", "Pyramid"])
def test_the_page_names_every_way_to_read_that_was_tried(framework):
    section = GUIDES[framework].split("\n## What reads the body\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\|(.*)\|(.*)\|$", section, re.MULTILINE)
    reads, reads_not = ("".join(cells) for cells in zip(*rows, strict=True))

    def missing(tried, cells):
        paths = [path for path, *_ in tried if path.startswith(f"{framework}/")]
        ways = {path.partition("/")[2].split("-")[-1] for path in paths}
        return {way for way in ways if f"`{way}`" not in cells}

    assert missing(READS, reads) == set()
    assert missing(READS_NOT, reads + reads_not) == set()


# The status codes.


@pytest.fixture(scope="module")
def refusing(folder):
    """A server whose policy refuses with the status that the path names."""
    text = """
from gunicorn_expect import Refuse


def expect_policy(environ):
    status = environ["PATH_INFO"].strip("/")
    if status.isdigit():
        return Refuse(int(status), [("Location", "/read")])
"""
    folder.joinpath("refusing.py").write_text(text)
    with serve(folder, "refusing.py", "apps.router:app") as server:
        yield server


@pytest.mark.parametrize("status", STATUSES)
def test_curl_sends_no_byte_of_an_upload_refused_with_a_status_of_the_page(
    refusing, big_file, status
):
    with Relay(refusing) as relay:
        answer = curl("-T", big_file, "http://{}:{}/{}".format(*relay.address, status))
        [sent] = relay.sent_by_clients()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in answer
    assert b"\r\nExpect: 100-continue\r\n" in sent
    assert sent.partition(b"\r\n\r\n")[2] == b""


def test_curl_follows_a_307_and_sends_its_upload_once(refusing, big_file):
    with Relay(refusing) as relay:
        answer = curl("-L", "-T", big_file, "http://{}:{}/307".format(*relay.address))
        first, second = relay.sent_by_clients()
    assert first.partition(b"\r\n\r\n")[2] == b""
    assert b"\r\nExpect: 100-continue\r\n" in second
    assert second.partition(b"\r\n\r\n")[2] == big_file.read_bytes()
    assert answer.count(b"HTTP/1.1 100 Continue\r\n") == 1


def test_a_status_without_a_known_reason_phrase_is_an_error():
    with pytest.raises(ValueError, match="reason phrase"):
        Refuse(499)


# Writing a policy.


@pytest.mark.parametrize("framing", [SIZED, CHUNKED], ids=["length", "chunked"])
def test_the_policy_is_called_for_a_body_even_if_the_client_does_not_wait(recipe, framing):
    with Client(recipe) as client:
        client.send(request("PUT /files/ada/a.txt", framing))
        assert client.receive_head().startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("fields", [(), ("Content-Length: 0",)])
def test_the_policy_is_not_called_for_a_request_without_a_body(recipe, fields):
    """The request reaches the application, which has to check it itself."""
    with Client(recipe) as client:
        client.send(request("PUT /files/ada/a.txt", *fields))
        assert client.receive_head().startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("header", ["REMOTE_USER", "Remote-User", "Remote_User"])
def test_a_client_can_not_set_remote_user(recipe_alone, header):
    with Client(recipe_alone) as client:
        client.send(waiting("PUT /files/ada/a.txt", f"{header}: ada", SIZED))
        check_refused_unread(client, "40[03]")


def test_a_policy_that_returns_proceed_sends_a_100_before_the_application_refuses(tmp_path):
    tmp_path.joinpath("proceeding.py").write_text(
        "from gunicorn_expect import Proceed\n\n"
        "def expect_policy(environ):\n    return Proceed([('Upload-Id', '7')])\n"
    )
    with (
        serve(tmp_path, "proceeding.py", "apps.refusing_frameworks:app") as server,
        Client(server) as client,
    ):
        client.send(waiting("POST /Flask/args", SIZED))
        assert client.receive_head() == b"HTTP/1.1 100 Continue\r\nUpload-Id: 7\r\n\r\n"
        client.send(SENT)
        assert client.receive_head().startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("end", ["raise ZeroDivisionError", "return True"])
def test_a_policy_that_fails_admits_no_upload(tmp_path, end):
    tmp_path.joinpath("failing.py").write_text(f"def expect_policy(environ):\n    {end}\n")
    with serve(tmp_path, "failing.py", "apps.router:app") as server, Client(server) as client:
        client.send(waiting("PUT /read", SIZED))
        check_refused_unread(client, 500)


def test_a_slot_is_free_again_when_the_upload_has_ended(folder):
    """Whether the upload is complete or cut off."""
    text = FILES["uploads_at_once.py"].replace("(8)", "(1)")
    folder.joinpath("one_upload.py").write_text(text)
    upload = waiting("PUT /read", SIZED, "Connection: close")
    with serve(folder, "one_upload.py", "apps.router:app") as server:
        for cut_off in (False, True):
            with Client(server) as first, Client(server) as second:
                first.send(upload)
                assert first.receive(len(CONTINUE)) == CONTINUE
                second.send(upload)
                head = check_refused_unread(second, 503)
                assert b"\r\nRetry-After: 5\r\n" in head
                first.send(SENT[:5] if cut_off else SENT)
                first.shut_down()
                status = b"400" if cut_off else b"200"
                assert first.receive_all().startswith(b"HTTP/1.1 %b " % status)


@pytest.mark.parametrize("where", ["file", "environment"])
def test_the_setting_can_be_the_import_path_of_a_policy(folder, where):
    [setting] = re.findall(r'`(expect_policy = "uploads.policy:decide")`', PAGE)
    [variable] = re.findall(r"`(GUNICORN_EXPECT_POLICY=uploads.policy:decide)`", PAGE)
    folder.joinpath("uploads").mkdir(exist_ok=True)
    text = FILES["gunicorn.conf.py"].replace("def expect_policy(", "def decide(")
    folder.joinpath("uploads", "policy.py").write_text(text)
    folder.joinpath("import_path.py").write_text(setting if where == "file" else "")
    env = dict([variable.split("=")]) if where == "environment" else {}
    arguments = ("--pythonpath", str(folder), "-c", str(folder / "import_path.py"))
    with Server(*arguments, app="apps.router:app", env=env) as server, Client(server) as client:
        client.send(waiting("PUT /read", SIZED))
        check_refused_unread(client, 401)

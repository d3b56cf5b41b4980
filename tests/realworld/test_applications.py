"""Applications of other projects, unchanged, with the clients that people use for them.

moto's S3 server with boto3, and WsgiDAV with curl. If one of them could do better, a test says so,
and says what the application does on gunicorn's own worker.
"""

import base64
import contextlib
import http.client
import importlib.util
import io
import os
import re
import urllib.parse
from pathlib import Path

import pytest
import requests

from support.client import CONTINUE, Client, request, waiting
from support.curl import curl
from support.installed import missing
from support.matrix import WORKERS
from support.relay import Relay
from support.server import Server

HERE = Path(__file__).parent
WAITS = re.compile(rb"\r\nExpect: 100-continue\r\n")
OURS = ["thread", "gevent"]
ALL = [*OURS, "stock"]

#: Not a multiple of anything.
BIG = os.urandom(20_000_003)


def class_of(worker):
    return "gthread" if worker == "stock" else WORKERS[worker][0]


def needs(module):
    if importlib.util.find_spec(module) is None:
        missing(module)


def check_asked_once(relay):
    """Check that there are as many 100s as requests with Expect; return how many there are."""
    asked = 0
    for sent, answered in zip(relay.sent_by_clients(), relay.sent_by_server(), strict=True):
        assert answered.count(CONTINUE) == len(WAITS.findall(sent))
        asked += answered.count(CONTINUE)
    return asked


# moto's S3 server.


@pytest.fixture(scope="module", params=ALL)
def s3(request):
    needs("moto")
    with Server(app="realworld.s3_server:app", worker=class_of(request.param)) as server:
        with boto3(server) as client:
            client.create_bucket(Bucket="bucket")
        server.is_stock = request.param == "stock"
        yield server


@contextlib.contextmanager
def boto3(server, **arguments):
    """Yield a client of boto3, which tries once."""
    needs("boto3")
    import boto3
    import botocore.config

    client = boto3.client(
        "s3",
        **{"endpoint_url": "http://{}:{}".format(*server.address)} | arguments,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=botocore.config.Config(
            s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}
        ),
    )
    with contextlib.closing(client):
        yield client


def got(client, key):
    return client.get_object(Bucket="bucket", Key=key)["Body"].read()


class Stream(io.RawIOBase):
    """A stream that can be read only once."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._data.readinto(buffer)


@pytest.mark.parametrize("body", [b"hello", BIG], ids=["small", "big"])
def test_boto3_puts_an_object_that_it_is_asked_for_once(s3, body):
    with Relay(s3) as relay:
        with boto3(relay) as client:
            client.put_object(Bucket="bucket", Key="object", Body=body)
            client.put_object(Bucket="bucket", Key="object", Body=io.BytesIO(body))
            assert got(client, "object") == body
        assert check_asked_once(relay) == 2
        assert len(relay.sent_by_clients()) == 1  # the connection is kept


def test_boto3_sends_expect_with_an_empty_object_and_only_gunicorns_own_worker_sends_100(s3):
    """The request has an Expect and a Content-Length of 0."""
    with Relay(s3) as relay:
        with boto3(relay) as client:
            client.put_object(Bucket="bucket", Key="empty", Body=b"")
            assert got(client, "empty") == b""
        [sent] = relay.sent_by_clients()
        [answered] = relay.sent_by_server()
    assert len(WAITS.findall(sent)) == 1
    assert answered.count(CONTINUE) == s3.is_stock


@pytest.mark.parametrize("way", ["file", "stream"])
def test_boto3_uploads_a_file_in_parts_at_once_and_each_is_asked_for_once(s3, tmp_path, way):
    from boto3.s3.transfer import TransferConfig

    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    path = tmp_path / "big.iso"
    path.write_bytes(BIG)
    with Relay(s3) as relay:
        with boto3(relay) as client:
            if way == "file":
                client.upload_file(str(path), "bucket", "parts", Config=parts)
            else:
                client.upload_fileobj(Stream(BIG), "bucket", "parts", Config=parts)
            assert got(client, "parts") == BIG
        assert check_asked_once(relay) == 4
    put = {re.search(r"partNumber=(\d)", line)[1] for line in s3.lines if "partNumber" in line}
    assert put == {"1", "2", "3", "4"}


@pytest.mark.parametrize("worker", ALL)
def test_boto3_sends_a_body_in_chunks_with_its_checksum_behind_it(certificates, worker):
    """As it does over TLS with a body that it can't read twice; S3 calls this aws-chunked."""
    needs("moto")
    with Server(
        app="realworld.s3_server:app",
        worker=class_of(worker),
        transport="tls",
        certificates=certificates,
    ) as server:
        url = f"https://localhost:{server.address[1]}"
        with boto3(server, endpoint_url=url, verify=certificates.authority) as client:
            client.create_bucket(Bucket="bucket")
            client.put_object(Bucket="bucket", Key="chunks", Body=io.BytesIO(BIG))
            assert got(client, "chunks") == BIG
        server.wait_for_log(
            "PUT /bucket/chunks .* 200 " + ("-" if worker == "stock" else "continued")
        )


def test_moto_reads_the_object_before_it_says_that_there_is_no_such_bucket(s3):
    """moto reads every body before it looks for the bucket, so the client gets a 100."""
    with Relay(s3) as relay:
        with boto3(relay) as client, pytest.raises(client.exceptions.NoSuchBucket):
            client.put_object(Bucket="nowhere", Key="object", Body=BIG)
        assert check_asked_once(relay) == 1
        [sent] = relay.sent_by_clients()
    assert sent.endswith(BIG)


def test_a_policy_refuses_what_moto_would_have_read(tmp_path):
    needs("moto")
    policy = tmp_path / "one_megabyte.py"
    policy.write_text(
        "from gunicorn_expect.policies import max_length\n\nexpect_policy = max_length(1_000_000)\n"
    )
    with Server("-c", str(policy), app="realworld.s3_server:app") as server:
        with boto3(server) as client:
            client.create_bucket(Bucket="bucket")
        with Relay(server) as relay:
            from botocore.exceptions import ClientError

            with boto3(relay) as client, pytest.raises(ClientError, match="413"):
                client.put_object(Bucket="bucket", Key="object", Body=BIG)
            [sent] = relay.sent_by_clients()
            [answered] = relay.sent_by_server()
    assert WAITS.search(sent)
    assert sent.partition(b"\r\n\r\n")[2] == b""
    assert CONTINUE not in answered
    assert b"\r\nConnection: close\r\n" in answered


def test_moto_stores_half_an_object_that_is_cut_off_only_on_gunicorns_own_worker(s3):
    with Client(s3) as client:
        client.send(request("PUT /bucket/half", "Content-Length: 100"), b"only this")
        client.shut_down()
        status = int(client.receive_head().split()[1])
    with boto3(s3) as client:
        if s3.is_stock:
            assert status == 200
            assert got(client, "half") == b"only this"
        else:
            assert status == 400
            with pytest.raises(client.exceptions.NoSuchKey):
                got(client, "half")


# WsgiDAV.


@pytest.fixture(scope="module", params=OURS)
def webdav(request, tmp_path_factory):
    with serve_webdav(request.param, tmp_path_factory.mktemp("webdav")) as server:
        yield server


@contextlib.contextmanager
def serve_webdav(worker, folder):
    needs("wsgidav")
    with Server(
        app="realworld.webdav_server:app",
        worker=class_of(worker),
        env={"WEBDAV_FOLDER": str(folder)},
    ) as server:
        server.folder = folder
        yield server


@pytest.fixture(scope="module")
def big_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "big.iso"
    path.write_bytes(BIG)
    return path


def url(server, path=""):
    return "http://{}:{}/{}".format(*server.address, path)


BASIC = ("--user", "ada:letmein")
DIGEST = ("--digest", *BASIC)
IN_CHUNKS = ("--header", "Transfer-Encoding: chunked")
AUTHORIZATION = "Authorization: Basic " + base64.b64encode(b"ada:letmein").decode()


@pytest.mark.parametrize(
    ("credentials", "path", "status"),
    [
        ((), "big.iso", 401),
        (("--user", "ada:wrong"), "big.iso", 401),
        (BASIC, "nowhere/big.iso", 409),
        ((*BASIC, "--header", "If-None-Match: *"), "there.txt", 412),
        ((*BASIC, "--header", "Content-Encoding: gzip"), "big.iso", 501),
    ],
)
@pytest.mark.parametrize("framing", [(), IN_CHUNKS], ids=["length", "chunked"])
def test_curl_sends_no_byte_of_what_webdav_refuses(
    webdav, big_file, framing, credentials, path, status
):
    webdav.folder.joinpath("there.txt").write_bytes(b"there")
    with Relay(webdav) as relay:
        answer = curl(*framing, *credentials, "-T", big_file, url(relay, path))
        [sent] = relay.sent_by_clients()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    assert WAITS.search(sent)
    assert sent.partition(b"\r\n\r\n")[2] == b""
    assert [path.name for path in webdav.folder.iterdir()] == ["there.txt"]
    assert webdav.folder.joinpath("there.txt").read_bytes() == b"there"


@pytest.mark.parametrize("credentials", [BASIC, DIGEST, ("--anyauth", *BASIC)])
@pytest.mark.parametrize("framing", [(), IN_CHUNKS], ids=["length", "chunked"])
def test_curl_puts_a_file_and_puts_it_again_and_gets_it(webdav, big_file, framing, credentials):
    """The challenge of a digest costs no byte of the file."""
    stored = webdav.folder / "big.iso"
    for status in (201, 204):
        with Relay(webdav) as relay:
            answer = curl(*framing, *credentials, "-T", big_file, url(relay, "big.iso"))
            sent = relay.sent_by_clients()
        assert answer.count(CONTINUE) == 1
        assert b"HTTP/1.1 %d " % status in answer
        assert sum(map(len, sent)) < len(BIG) * 1.1
        assert stored.read_bytes() == BIG
        stored.write_bytes(b"another")
    stored.write_bytes(BIG)
    assert curl(*credentials, url(webdav, "big.iso")).endswith(BIG)
    stored.unlink()


def test_curl_gets_one_100_for_the_body_of_a_propfind(webdav):
    webdav.folder.joinpath("there.txt").write_bytes(b"there")
    question = '<propfind xmlns="DAV:"><prop><getcontentlength/></prop></propfind>'
    with Relay(webdav) as relay:
        answer = curl(
            *("--request", "PROPFIND", "--header", "Expect: 100-continue"),
            *(*BASIC, "--data", question, url(relay)),
        )
        assert check_asked_once(relay) == 1
    assert b"HTTP/1.1 207 " in answer
    assert b"getcontentlength>5<" in answer


def test_a_python_client_without_expect_keeps_its_connection_to_webdav(webdav):
    body = BIG[:1_000_000]
    client = http.client.HTTPConnection(*webdav.address, timeout=20)
    with contextlib.closing(client):
        for method, path, sent, status in [
            ("MKCOL", "/folder", None, 201),
            ("PUT", "/folder/a.bin", body, 201),
            ("PUT", "/folder/a.bin", iter([body[:10], body[10:]]), 204),
            ("PUT", "/folder/empty", b"", 201),
            ("PROPFIND", "/folder", None, 207),
            ("MOVE", "/folder/a.bin", None, 201),
            ("GET", "/folder/b.bin", None, 200),
            ("DELETE", "/folder", None, 204),
        ]:
            fields = {"Authorization": AUTHORIZATION.partition(": ")[2]}
            if method == "MOVE":
                fields["Destination"] = urllib.parse.urljoin(url(webdav), "/folder/b.bin")
            client.request(method, path, sent, fields)
            response = client.getresponse()
            answer = response.read()
            assert (method, response.status) == (method, status)
            assert response.getheader("Connection") == "keep-alive"
            assert method != "GET" or answer == body
    assert not webdav.folder.joinpath("folder").exists()


@pytest.mark.parametrize("path", ["", "nowhere/"])
def test_a_python_client_without_expect_gets_the_refusal_of_webdav(webdav, path):
    """requests sends the whole file before it reads the response."""
    credentials = ("ada", "letmein") if path else None
    answer = requests.put(url(webdav, f"{path}big.iso"), data=BIG, auth=credentials, timeout=60)
    assert answer.status_code == (409 if path else 401)
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize(
    ("worker", "new", "old"), [*((x, 500, 500) for x in OURS), ("stock", 201, 204)]
)
def test_webdav_answers_500_to_a_file_that_is_cut_off_except_on_gunicorns_own_worker(
    tmp_path, worker, new, old
):
    """WsgiDAV writes into the file itself, on any server, so what was there before is lost."""
    tmp_path.joinpath("old").write_bytes(b"what was there before")
    with serve_webdav(worker, tmp_path) as server:
        for name, status in {"new": new, "old": old}.items():
            with Client(server) as client:
                client.send(request(f"PUT /{name}", AUTHORIZATION, "Content-Length: 100"), b"this")
                client.shut_down()
                assert client.receive_head().startswith(b"HTTP/1.1 %d " % status)
            assert tmp_path.joinpath(name).read_bytes() in {b"", b"this"}


@pytest.mark.parametrize("worker", ALL)
def test_only_gunicorns_own_worker_sends_100_for_a_file_that_webdav_refuses(tmp_path, worker):
    with serve_webdav(worker, tmp_path) as server, Client(server) as client:
        client.send(waiting("PUT /file", "Content-Length: 100"))
        first = client.receive_head()
    assert (first == CONTINUE) == (worker == "stock")
    assert first == CONTINUE or first.startswith(b"HTTP/1.1 401 ")

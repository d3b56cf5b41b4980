"""`policies.admission`: counting in one process, and in a real redis that processes share."""

import contextlib
import gc
import itertools
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
import weakref

import pytest
import redis

from gunicorn_expect import admission as admission_module
from gunicorn_expect.decision import EXITS_KEY
from gunicorn_expect.policies import admission
from support import PATIENCE, until
from support.client import CONTINUE, Client, request, waiting
from support.clock import Clock
from support.matrix import WORKERS
from support.server import Server

SIZED = "Content-Length: 5"
NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture
def inside(shared):
    """A client of the redis `shared`, to look into it."""
    with redis.from_url(shared.removeprefix("redis+"), decode_responses=True) as client:
        yield client


@pytest.fixture(params=["memory", "shared"])
def storage(request):
    return (
        admission_module.MEMORY if request.param == "memory" else request.getfixturevalue("shared")
    )


@pytest.fixture
def clock(monkeypatch):
    """The clock of the policies, which only the test advances."""
    clock = Clock()
    clock.time = time.time
    monkeypatch.setattr(admission_module, "time", clock)
    return clock


@pytest.fixture
def warnings(caplog):
    """The logged messages, whatever level a gunicorn in this process has set."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("gunicorn.error")
    logger.addHandler(handler)
    with caplog.at_level(logging.WARNING, logger.name):
        yield records
    logger.removeHandler(handler)


class Upload:
    """An upload for which the policy was called; the test decides when it ends."""

    def __init__(self, policy, **environ):
        self._exits = contextlib.ExitStack()
        self.refusal = policy({EXITS_KEY: self._exits, **environ})

    def end(self):
        self._exits.close()


def retry_after(upload):
    [(name, value)] = upload.refusal.headers
    assert name == "Retry-After"
    return int(value)


# Limits on concurrent uploads.


def test_as_many_uploads_as_the_limit_are_admitted_at_once_and_another_when_one_ends(storage):
    policy = admission(2, storage=storage)
    first, second = Upload(policy), Upload(policy)
    assert (first.refusal, second.refusal) == (None, None)
    third = Upload(policy)
    assert third.refusal.status == "503 Service Unavailable"
    assert retry_after(third) == admission_module.RETRY_AFTER
    third.end()
    assert Upload(policy).refusal
    first.end()
    assert Upload(policy).refusal is None
    assert Upload(policy).refusal


def test_each_key_has_a_limit_of_its_own(storage):
    policy = admission(1, storage=storage, key=lambda environ: environ["REMOTE_USER"])
    jo = Upload(policy, REMOTE_USER="jo")
    al = Upload(policy, REMOTE_USER="al")
    assert (jo.refusal, al.refusal) == (None, None)
    assert Upload(policy, REMOTE_USER="jo").refusal
    al.end()
    assert Upload(policy, REMOTE_USER="jo").refusal
    jo.end()
    assert Upload(policy, REMOTE_USER="jo").refusal is None


def test_the_status_and_the_retry_after_of_a_refusal_can_be_set(storage):
    policy = admission(1, storage=storage, status=429, retry_after=7)
    assert Upload(policy).refusal is None
    refused = Upload(policy)
    assert (refused.refusal.status, retry_after(refused)) == ("429 Too Many Requests", 7)


def test_of_many_threads_at_once_only_as_many_as_the_limit_are_admitted(storage):
    policy = admission(5, storage=storage)
    together = threading.Barrier(20)
    uploads = []

    def upload():
        together.wait(PATIENCE)
        uploads.append(Upload(policy))

    for _ in range(20):
        threads = [threading.Thread(target=upload) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(uploads) == 20
        assert sum(upload.refusal is None for upload in uploads) == 5
        while uploads:
            uploads.pop().end()


def test_a_key_is_forgotten_when_its_uploads_are_over():
    class Name(str):
        __slots__ = ("__weakref__",)

    policy = admission(1, key=lambda environ: environ["REMOTE_USER"])
    name = Name("jo")
    forgotten = weakref.ref(name)
    upload = Upload(policy, REMOTE_USER=name)
    assert Upload(policy, REMOTE_USER=name).refusal
    del name
    upload.end()
    del upload
    gc.collect()
    assert forgotten() is None


def test_policies_share_their_count_if_they_have_the_same_name(shared):
    assert Upload(admission(1, storage=shared)).refusal is None
    assert Upload(admission(1, storage=shared, name="photos")).refusal is None
    assert Upload(admission(1, storage=shared)).refusal


def test_a_slot_expires_if_nobody_releases_it(shared, inside):
    assert Upload(admission(1, storage=shared)).refusal is None
    [slot] = inside.keys()
    assert 0 < inside.ttl(slot) <= admission_module.LEASE
    inside.delete(slot)  # as redis does when the lease expires
    assert Upload(admission(1, storage=shared)).refusal is None


def test_a_refused_upload_does_not_extend_a_lease(shared, inside):
    assert Upload(admission(1, storage=shared)).refusal is None
    [slot] = inside.keys()
    inside.expire(slot, 100)
    assert Upload(admission(1, storage=shared)).refusal
    assert inside.ttl(slot) <= 100


def test_the_end_of_an_upload_whose_lease_has_expired_frees_no_slot_of_another_upload(
    shared, inside, clock
):
    policy = admission(1, storage=shared, lease=60)
    late = Upload(policy)
    inside.flushall()  # its lease has expired
    clock.now += 60
    following = Upload(policy)
    assert following.refusal is None
    late.end()
    assert Upload(policy).refusal
    following.end()
    clock.now += admission_module.FULL_FOR
    assert Upload(policy).refusal is None


def calls(inside):
    return sum(x["calls"] for name, x in inside.info("commandstats").items() if "eval" in name)


def test_many_refused_uploads_cost_the_storage_no_more_calls_than_one(shared, inside, clock):
    policy = admission(50, storage=shared)
    uploads = [Upload(policy) for _ in range(50)]
    other = admission(50, storage=shared)
    before = calls(inside)
    assert all(Upload(other).refusal for _ in range(100))
    assert calls(inside) == before + 50
    uploads[0].end()
    assert Upload(other).refusal
    clock.now += admission_module.FULL_FOR
    assert Upload(other).refusal is None


def test_a_process_that_frees_a_slot_admits_the_next_upload_at_once(shared, clock):
    policy = admission(1, storage=shared)
    first = Upload(policy)
    assert Upload(policy).refusal
    first.end()
    assert Upload(policy).refusal is None


def test_a_process_remembers_only_a_limited_number_of_full_groups(
    shared, inside, clock, monkeypatch
):
    monkeypatch.setattr(admission_module, "FULL_GROUPS", 3)
    policy = admission(1, storage=shared, key=lambda environ: environ["REMOTE_USER"])
    for user in "abcd":
        assert Upload(policy, REMOTE_USER=user).refusal is None
        assert Upload(policy, REMOTE_USER=user).refusal
    before = calls(inside)
    assert all(Upload(policy, REMOTE_USER=user).refusal for user in "da")
    assert calls(inside) == before + 1


# Rates.


def test_a_rate_refuses_with_the_time_until_it_admits_another_upload(storage):
    policy = admission("2/day", storage=storage)
    for _ in range(2):
        upload = Upload(policy)
        assert upload.refusal is None
        upload.end()
    refused = Upload(policy)
    assert refused.refusal.status == "429 Too Many Requests"
    assert 86000 < retry_after(refused) <= 86400


def test_the_retry_after_of_a_rate_is_at_least_one_second(storage, clock):
    clock.time = lambda: time.time() + 86400
    policy = admission("1/day", storage=storage)
    assert Upload(policy).refusal is None
    assert retry_after(Upload(policy)) == 1


def test_the_status_and_the_retry_after_of_a_rate_can_be_set(storage):
    policy = admission("1/day", storage=storage, retry_after=60, status=503)
    assert Upload(policy).refusal is None
    refused = Upload(policy)
    assert (refused.refusal.status, retry_after(refused)) == ("503 Service Unavailable", 60)


def test_each_key_has_a_rate_of_its_own(storage):
    policy = admission("1/day", storage=storage, key=lambda environ: environ["REMOTE_USER"])
    assert Upload(policy, REMOTE_USER="jo").refusal is None
    assert Upload(policy, REMOTE_USER="al").refusal is None
    assert Upload(policy, REMOTE_USER="jo").refusal


# A storage that fails.


@pytest.mark.parametrize("limit", [1, "1/day"])
def test_an_unreachable_storage_admits_all_uploads_and_logs_one_warning(limit, warnings, clock):
    policy = admission(limit, storage=NOWHERE)
    assert [Upload(policy).refusal for _ in range(3)] == [None] * 3
    assert len(warnings) == 1
    assert re.match(r"Uploads are admitted uncounted for 5 s: .*ConnectionError", warnings[0])
    clock.now += admission_module.PAUSE
    assert Upload(policy).refusal is None
    assert len(warnings) == 2


def test_a_storage_that_does_not_answer_admits_all_uploads(warnings, monkeypatch):
    monkeypatch.setattr(admission_module, "PATIENCE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        policy = admission(1, storage="redis://{}:{}".format(*silent.getsockname()))
        assert [Upload(policy).refusal for _ in range(3)] == [None] * 3
    assert len(warnings) == 1


def test_a_storage_has_a_second_to_answer_or_the_timeout_in_its_url(monkeypatch):
    made = []

    def from_url(url, **options):
        made.append(from_real_url(url, **options))
        return made[-1]

    from_real_url = redis.from_url
    monkeypatch.setattr(redis, "from_url", from_url)
    for url, timeout in [(NOWHERE, 1.0), (f"{NOWHERE}?socket_timeout=3", 3.0)]:
        admission(1, storage=url)
        assert made[-1].get_connection_kwargs()["socket_timeout"] == timeout


def test_a_slot_whose_upload_ended_while_the_storage_failed_is_freed_later(
    shared, inside, warnings, clock, monkeypatch
):
    policy = admission(2, storage=shared)
    uploads = [Upload(policy) for _ in range(2)]

    def lost(*arguments, **options):
        raise redis.ConnectionError("gone")

    with monkeypatch.context() as failing:
        failing.setattr(redis.Redis, "execute_command", lost)
        for upload in uploads:
            upload.end()
    assert len(warnings) == 1
    assert len(inside.keys()) == 2
    clock.now += admission_module.PAUSE
    assert [Upload(policy).refusal for _ in range(2)] == [None, None]
    assert len(inside.keys()) == 2
    assert Upload(policy).refusal


# Arguments.


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, None, [], "soon", "0/minute", "1/s;2/day", ""])
def test_a_bad_limit_is_an_error_when_the_policy_is_made(limit):
    with pytest.raises(ValueError, match=r"100/minute|admits nobody"):
        admission(limit)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"retry_after": 0}, "retry_after takes"),
        ({"retry_after": 1.5}, "retry_after takes"),
        ({"lease": 0}, "lease takes"),
        ({"status": 200}, "refuses nothing"),
        ({"status": 0}, "a status begins with"),
        ({"storage": "nosql://x"}, "storage: unknown storage scheme"),
        ({"storage": "async+memory://"}, "without 'async\\+'"),
        ({"storage": None}, "storage takes a URL"),
    ],
)
@pytest.mark.parametrize("limit", [1, "1/day"])
def test_a_bad_argument_is_an_error_when_the_policy_is_made(limit, settings, error):
    with pytest.raises(ValueError, match=error):
        admission(limit, **settings)


@pytest.mark.parametrize(
    "storage",
    [
        *("nosql://jo:s3c/ret@host", "redis://jo:s3c/ret@host", "redis+cluster://jo:s3c/ret@host"),
        *("jo:s3c/ret@host", b"redis://jo:s3c/ret@host"),
    ],
)
def test_the_password_of_a_storage_is_in_no_error(storage):
    with pytest.raises(ValueError, match="storage") as raised:
        admission(1, storage=storage)
    text = "".join(traceback.format_exception_only(raised.value))
    assert "s3c" not in text
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_the_key_must_be_callable():
    with pytest.raises(TypeError, match="key takes a callable, not an object of type str"):
        admission(1, key="REMOTE_ADDR")


@pytest.mark.parametrize(("limit", "url"), [("1/day", admission_module.MEMORY), (1, NOWHERE)])
def test_without_the_limits_package_the_error_names_the_extra(limit, url, monkeypatch):
    monkeypatch.setitem(sys.modules, "limits", None)
    with pytest.raises(ImportError, match=r"gunicorn-expect\[limits\]"):
        admission(limit, storage=url)
    assert Upload(admission(1)).refusal is None


# On the wire.

#: The configuration of a server: the query of a request names the policy that is called.
CONFIGURATION = """
from gunicorn_expect.policies import admission

POLICIES = {{
    "any": admission(1, storage={url!r}, name="any"),
    "turns": admission(1, storage={url!r}, name="turns"),
    "killed": admission(1, storage={url!r}, name="killed"),
    "three": admission(3, storage={url!r}, name="three"),
    "lease": admission(1, storage={url!r}, name="lease", lease=1),
    "rate": admission("2/day", storage={url!r}, name="rate"),
}}


def expect_policy(environ):
    return POLICIES[environ["QUERY_STRING"]](environ)
"""


def serving(folder, worker, url):
    file = folder / "admitting.py"
    file.write_text(CONFIGURATION.format(url=url), "utf-8")
    return Server("-c", str(file), worker=WORKERS[worker][0])


@pytest.fixture(scope="module")
def alone(worker, tmp_path_factory):
    """A gunicorn that counts in its memory."""
    with serving(tmp_path_factory.mktemp("alone"), worker, admission_module.MEMORY) as server:
        yield server


@pytest.fixture(scope="module")
def both(worker, redis_server, tmp_path_factory):
    """Two gunicorns that count in one redis."""
    folder = tmp_path_factory.mktemp("both")
    with (
        serving(folder, worker, redis_server) as one,
        serving(folder, worker, redis_server) as other,
    ):
        yield one, other


@pytest.fixture
def pair(both, shared):
    """Two gunicorns that count in one redis, which holds nothing yet."""
    return both


@pytest.fixture(params=["memory", "shared"])
def one(request, worker):
    """A gunicorn that counts in its memory, and one that counts in redis."""
    if request.param == "memory":
        return request.getfixturevalue("alone")
    return request.getfixturevalue("pair")[0]


def ask(client, policy):
    client.send(waiting(f"PUT /read?{policy}", SIZED))


@contextlib.contextmanager
def uploading(server, policy):
    """Yield the client of an upload that has been admitted."""
    with Client(server) as client:
        ask(client, policy)
        assert client.receive(len(CONTINUE)) == CONTINUE
        yield client


def finish(client):
    client.send(b"hello")
    assert client.receive_response()[1] == b"hello"


def refused(server, policy):
    """Send an upload that has to be refused; return the response."""
    with Client(server) as client:
        ask(client, policy)
        answer = client.receive_all()
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")
    return answer


def upload_when_admitted(server, policy):
    """Try until an upload is admitted."""

    def admitted():
        with Client(server) as client:
            ask(client, policy)
            head = client.receive_head()
            if head == CONTINUE:
                finish(client)
                return True
        assert head.startswith(b"HTTP/1.1 503 ")
        return False

    until(admitted)


def test_two_gunicorns_share_the_slots_in_one_redis(pair):
    for here, there in itertools.permutations(pair):
        with uploading(here, "turns") as client:
            answer = refused(there, "turns")
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nRetry-After: 5\r\n" in answer
            finish(client)
        upload_when_admitted(there, "turns")


def test_two_gunicorns_share_the_rate_in_one_redis(pair):
    for server in pair:
        with uploading(server, "rate") as client:
            finish(client)
    for server in pair:
        answer = refused(server, "rate")
        assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert 86000 < int(re.search(rb"\r\nRetry-After: (\d+)\r\n", answer)[1]) <= 86400


@pytest.mark.parametrize("worker", ["thread", "gevent"], indirect=True)
def test_concurrent_uploads_in_one_process_are_counted(one):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(uploading(one, "three")) for _ in range(3)]
        assert refused(one, "three").startswith(b"HTTP/1.1 503 ")
        finish(clients[0])
        upload_when_admitted(one, "three")


def kill_worker(server):
    """Kill the worker; wait until gunicorn has started another one."""
    seen = len(server.lines)
    pattern = r"Booting worker with pid: (\d+)"
    [*_, pid] = re.findall(pattern, "\n".join(server.lines))
    os.kill(int(pid), signal.SIGKILL)
    server.wait_for_log(pattern, seen)


def test_the_slots_of_a_killed_worker_stay_taken_until_their_lease_expires(pair, inside):
    one, other = pair
    with uploading(one, "killed"):
        kill_worker(one)
    assert refused(one, "killed").startswith(b"HTTP/1.1 503 ")
    assert refused(other, "killed").startswith(b"HTTP/1.1 503 ")
    [slot] = inside.keys()
    inside.expire(slot, 1)
    upload_when_admitted(other, "killed")
    upload_when_admitted(one, "killed")


@pytest.mark.parametrize("worker", ["thread"], indirect=True)
def test_the_duration_of_a_lease_can_be_set(pair):
    one, other = pair
    with uploading(one, "lease"):
        kill_worker(one)
    upload_when_admitted(other, "lease")


def test_slots_in_memory_are_free_again_after_the_worker_was_killed(alone):
    with uploading(alone, "killed"):
        kill_worker(alone)
    with uploading(alone, "killed") as client:
        finish(client)


#: How an upload ends: its path, the body that is sent, and the status that the client gets.
ENDS = {
    "success": ("/read", b"hello", "200"),
    "success of a generator": ("/read-while-yielding-nothing", b"hello", "200"),
    "refusal": ("/refuse", b"", "401"),
    "refusal by a file": ("/file", b"", "403"),
    "exception": ("/fail", b"", "500"),
    "exception after the first byte": ("/fail-after-first-byte", b"hello", "200"),
    "client that leaves": ("/read", b"hel", None),
    "client that leaves a generator": ("/read-while-yielding-nothing", b"hel", None),
}


@pytest.mark.parametrize(("path", "body", "status"), ENDS.values(), ids=ENDS)
def test_a_slot_is_free_again_however_the_upload_ends(one, path, body, status):
    with Client(one) as client:
        client.send(request(f"PUT {path}?any", SIZED, "Connection: close"), body)
        if status:
            assert client.receive_all().startswith(f"HTTP/1.1 {status} ".encode())
    upload_when_admitted(one, "any")

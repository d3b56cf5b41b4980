"""Uploads that continue where they broke off: *Resumable Uploads for HTTP*, and tus 1.0.

Start it with its policy, so that a refusal needs no thread::

    export GUNICORN_EXPECT_POLICY=examples.resumable_upload:policy
    gunicorn -k gunicorn_expect.Worker --threads 8 examples.resumable_upload:app

A client creates an upload by POST or PUT. A 104 response tells it the address of the upload before
the body is read. If the connection breaks, the client asks that address by HEAD how much is stored,
and sends the rest by PATCH. docs/resumable.md explains it.

UPLOAD_FOLDER is where complete files go. UPLOAD_LIMIT is how many bytes a file may have,
UPLOAD_APPEND_LIMIT how many the body of one request may have, and UPLOAD_AGE after how many seconds
without a byte an upload is removed. If UPLOAD_TOKEN is set, each request needs it as its bearer
token.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from flask import Blueprint, Flask, Response, abort, request, url_for
from werkzeug.http import parse_options_header
from werkzeug.utils import secure_filename

from gunicorn_expect import BodyError, Refuse, inline, policies
from gunicorn_expect.contrib import flask as contrib

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

    from _typeshed.wsgi import WSGIEnvironment

    from gunicorn_expect import Decision

FOLDER = Path(os.environ.get("UPLOAD_FOLDER", "uploads"))
STATES = FOLDER / ".uploads"
LIMIT = int(os.environ.get("UPLOAD_LIMIT", str(5 * 1024**3)))
APPEND_LIMIT = int(os.environ.get("UPLOAD_APPEND_LIMIT", str(LIMIT)))
AGE = int(os.environ.get("UPLOAD_AGE", str(24 * 3600)))
TOKEN = os.environ.get("UPLOAD_TOKEN")

#: Bytes per read. A server that is killed loses at most so many, and what it has not read yet.
PIECE = 256 * 1024
#: Bytes between two reports of the offset while the body arrives. Each report costs an fsync.
REPORT_EVERY = 32 * 1024**2

#: The Content-Type of an append in the draft (interop version 5 needs none), and in tus 1.0.
PARTIAL, TUS_PARTIAL = "application/partial-upload", "application/offset+octet-stream"
#: The digest algorithms of RFC 9530 that are supported, and their names in hashlib.
ALGORITHMS = {"sha-256": "sha256", "sha-512": "sha512"}

#: Sent with a 503: after a 5xx a client of the draft asks for the offset and goes on.
SUPERSEDED = "A newer request uses this upload."
GONE = "There is no such upload, or it has expired."


# The files of an upload.

#: How a generation is written in the .lock file.
GENERATION = b"%020d"


class NoUploadError(Exception):
    """There is no such upload, or it has expired."""


class SupersededError(Exception):
    """A newer request uses the upload."""


def fsync(path: Path) -> None:
    """Wait until the data of a file, or the names in a folder, survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_generation(lock: int) -> int:
    """Return the generation in a .lock file. A power failure may have left it empty, or zeros."""
    return int(os.pread(lock, 20, 0).strip(b"\0") or 0)


@dataclasses.dataclass
class Upload:
    """An upload. The workers share nothing but its files.

    ``.part`` has the bytes that have arrived; its size is the offset. ``.json`` has the fields of
    this class. ``.lock`` is locked for every change, and has the upload's generation: each request
    increases it, and a request that finds a newer number there stops writing.

    No request waits for its client while it holds the lock.
    """

    id: str
    name: str
    length: int | None = None
    complete: bool = False
    digests: dict[str, str] = dataclasses.field(default_factory=dict)

    def path(self, kind: str) -> Path:
        """Return the path of one of its files."""
        return STATES / f"{self.id}.{kind}"

    @classmethod
    def create(cls, name: str, length: int | None, digests: dict[str, str]) -> Upload:
        """Create an upload."""
        STATES.mkdir(parents=True, exist_ok=True)
        upload_id = uuid.uuid4().hex
        upload = cls(upload_id, name or upload_id, length, digests=digests)
        upload.path("lock").write_bytes(GENERATION % 0)
        upload.path("part").touch()
        upload.save()
        return upload

    @classmethod
    @contextlib.contextmanager
    def find(cls, upload_id: str) -> Iterator[Upload]:
        """Find an upload, and lock it.

        Raises:
            NoUploadError: there is none, or it has expired.

        """
        upload = cls(upload_id, "")
        if not re.fullmatch("[0-9a-f]{32}", upload_id):
            raise NoUploadError
        with upload.locked():
            try:
                upload = cls(**json.loads(upload.path("json").read_text("utf-8")))
                if upload.complete:
                    with contextlib.suppress(OSError):
                        upload.publish()  # the server may have been killed before it did
                expired = upload.age() >= AGE
            # The server was killed while it created or removed the upload, or the disk lost a part.
            except (FileNotFoundError, TypeError, ValueError):
                expired = True
            if expired:
                upload.remove()
                raise NoUploadError
            yield upload

    @contextlib.contextmanager
    def locked(self, generation: int | None = None) -> Iterator[int]:
        """Lock the upload, and yield the file descriptor of its .lock file.

        Raises:
            NoUploadError: it was removed.
            SupersededError: a newer request has changed its generation.

        """
        try:
            lock = os.open(self.path("lock"), os.O_RDWR)
        except FileNotFoundError:
            raise NoUploadError from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.fstat(lock).st_nlink:  # removed while this request waited
                raise NoUploadError
            if generation is not None and generation != read_generation(lock):
                raise SupersededError
            yield lock
        finally:
            os.close(lock)

    def supersede(self) -> int:
        """Stop older requests from writing, and return the generation of this one."""
        with self.path("lock").open("r+b", buffering=0) as lock:
            generation = read_generation(lock.fileno()) + 1
            # One write over the bytes that were there: it works even if the disk is full.
            lock.write(GENERATION % generation)
        return generation

    def offset(self) -> int:
        """Return how many bytes are stored."""
        if self.complete and self.length is not None:
            return self.length
        return self.path("part").stat().st_size

    def age(self) -> float:
        """Return the seconds since a byte was stored, or since the upload was complete."""
        for kind in ("part", "json", "lock"):
            with contextlib.suppress(FileNotFoundError):
                return time.time() - self.path(kind).stat().st_mtime
        raise NoUploadError

    def save(self) -> None:
        """Store the fields of the upload: after a crash, all of them are there or none."""
        self.path("tmp").write_text(json.dumps(dataclasses.asdict(self)), "utf-8")
        fsync(self.path("tmp"))
        self.path("tmp").replace(self.path("json"))
        fsync(STATES)

    def sync(self) -> None:
        """Wait until all bytes survive a power failure: only then may a client get the offset."""
        if not self.complete:
            fsync(self.path("part"))

    def finish(self) -> None:
        """Mark the upload as complete, and give the file its name."""
        self.sync()
        self.length = self.offset()
        self.complete = True
        self.save()
        self.publish()

    def publish(self) -> None:
        """Move the file to its final name, unless it is there already."""
        with contextlib.suppress(FileNotFoundError):
            try:
                self.path("part").replace(FOLDER / self.name)
            except IsADirectoryError:  # a folder has that name
                self.path("part").replace(FOLDER / self.id)
            fsync(FOLDER)

    def remove(self) -> None:
        """Remove the upload, but not the file that was published."""
        for kind in ("json", "tmp", "part", "lock"):
            self.path(kind).unlink(missing_ok=True)

    def digest(self, algorithm: str) -> str:
        """Return the digest of all bytes in base64."""
        digest = hashlib.new(algorithm)
        with self.path("part").open("rb") as part:
            while piece := part.read(PIECE):
                digest.update(piece)
        return base64.b64encode(digest.digest()).decode()


def sweep(*, at_start: bool = False) -> None:
    """Remove expired uploads; at the start, also publish those that were complete."""
    for lock in STATES.glob("*.lock"):
        # An upload that is being created has no .json yet.
        wanted = at_start and lock.with_suffix(".json").exists()
        # Another request may remove it meanwhile, and an error of one upload must not stop the
        # others. Only an upload that looks expired is locked: another request may hold its lock for
        # long, while it computes the digest of a large file.
        with contextlib.suppress(NoUploadError, OSError):
            if wanted or Upload(lock.stem, "").age() >= AGE:
                with Upload.find(lock.stem):
                    pass


class Running:
    """The running requests of this process, by upload: a newer one ends the read of an older one.

    An older request in another process finds the new generation when its next piece arrives.
    """

    def __init__(self) -> None:
        """Start with no requests."""
        self._lock = threading.Lock()
        self._environs: dict[str, WSGIEnvironment] = {}

    @contextlib.contextmanager
    def only(self, upload_id: str) -> Iterator[None]:
        """End the read of the older request, and note this one while it runs."""
        environ = request.environ
        with self._lock:
            older = self._environs.pop(upload_id, None)
            self._environs[upload_id] = environ
            # Over HTTP/2 the connection has other streams, so it stays open.
            if older and older["SERVER_PROTOCOL"].startswith("HTTP/1"):
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, after which the connection would go on without TLS.
                    socket.socket.shutdown(older["gunicorn.socket"], socket.SHUT_RD)
        try:
            yield
        finally:
            # Before the response ends, because after that the socket may have another request.
            with self._lock:
                if self._environs.get(upload_id) is environ:
                    del self._environs[upload_id]

    def is_this(self, upload_id: str) -> bool:
        """Return whether this is still the newest request for the upload."""
        with self._lock:
            return self._environs.get(upload_id) is request.environ


# The fields of requests and responses.


def integer(value: str) -> int | None:
    """Return the number in the value of an Integer field (RFC 9651); None: it is invalid."""
    found = re.fullmatch(r"([0-9]{1,15})(;.*)?", value)
    return int(found[1]) if found else None


def number(name: str) -> int | None:
    """Return the number in a field of the request; None: it is missing or invalid."""
    return integer(request.headers.get(name, ""))


def says_complete() -> bool | None:
    """Return the value of Upload-Complete; None: it is missing or invalid."""
    found = re.fullmatch(r"\?([01])(;.*)?", request.headers.get("Upload-Complete", ""))
    return found[1] == "1" if found else None


def digests(name: str) -> dict[str, str]:
    """Return the digests of a field (RFC 9530) in base64, by algorithm, without unknown ones."""
    found = re.findall(r"([a-z0-9-]+)=:([A-Za-z0-9+/=]*):", request.headers.get(name, ""))
    return {ALGORITHMS[key]: value for key, value in found if key in ALGORITHMS}


def is_tus() -> bool:
    """Return whether the client uses tus 1.0."""
    return "Tus-Resumable" in request.headers


def version() -> str | None:
    """Return the interop version of the draft, if the client names one."""
    return request.headers.get("Upload-Draft-Interop-Version")


def file_name() -> str:
    """Return the name that the client gave the file, made harmless."""
    name = parse_options_header(request.headers.get("Content-Disposition"))[1].get("filename", "")
    for item in request.headers.get("Upload-Metadata", "").split(","):
        key, _, value = item.strip().partition(" ")
        if key == "filename":
            with contextlib.suppress(ValueError):
                name = base64.b64decode(value, validate=True).decode()
    return harmless(name)


def harmless(name: str) -> str:
    """Return the name without characters that have a meaning in a path."""
    return secure_filename(name)[-200:].lstrip("._-")


def limits(age: float = 0) -> dict[str, str]:
    """Return the Upload-Limit field of an upload of this age."""
    value = f"max-size={LIMIT}, max-append-size={APPEND_LIMIT}, max-age={max(int(AGE - age), 0)}"
    return {"Upload-Limit": value}


def revision() -> dict[str, str]:
    """Return the field that names the version of the protocol that the client uses."""
    if is_tus():
        return {"Tus-Resumable": "1.0.0"}
    known = version()
    return {"Upload-Draft-Interop-Version": known} if known else {}


def answer(upload: Upload, status: int, text: str = "") -> Response:
    """Return a response that says what is stored. Call sync() first."""
    response = Response(text, status, mimetype="text/plain")
    response.headers.update(limits(upload.age()) | revision())
    response.headers["Upload-Offset"] = str(upload.offset())
    response.headers["Cache-Control"] = "no-store"
    if upload.length is not None:
        response.headers["Upload-Length"] = str(upload.length)
    if not is_tus():
        response.headers["Upload-Complete"] = "?1" if upload.complete else "?0"
    return response


def refuse(status: int, text: str, **fields: str) -> NoReturn:
    """Answer with an error, and leave the view."""
    response = Response(text, status, mimetype="text/plain")
    response.headers.update(limits() | revision() | fields)
    abort(response)


def inform(**fields: str) -> None:
    """Send a 104 to a client that knows what it means."""
    expectation = request.environ.get("gunicorn_expect.expectation")
    if expectation is not None and "Upload-Complete" in request.headers:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        # If the client has left, the next read raises.
        with contextlib.suppress(OSError):
            expectation.inform(104, [*named.items(), *revision().items()])


# The requests.

uploads = Blueprint("uploads", __name__)
running = Running()
sweep(at_start=True)


@inline
def policy(environ: WSGIEnvironment) -> Decision:
    """Refuse a request without the token, or one that is too large, before its body is sent."""
    if TOKEN and (decision := policies.bearer(policies.one_of(TOKEN))(environ)):
        return decision
    size = int(environ.get("CONTENT_LENGTH") or 0)
    length = integer(environ.get("HTTP_UPLOAD_LENGTH", "")) or 0
    if size > min(LIMIT, APPEND_LIMIT) or length > LIMIT:
        # "MUST include the Upload-Limit header" (the draft, section 4.1.4)
        return Refuse(413, [*limits().items()])
    return None


@uploads.before_request
def ask_policy() -> Response | None:
    """Call the policy also for requests without a body, and if `expect_policy` is not set."""
    decision = policy(request.environ)
    if isinstance(decision, Refuse):
        return Response(decision.body, decision.status, [*decision.headers])
    return None


@uploads.post("/uploads", provide_automatic_options=False)
@uploads.put("/files/<name>")
def create(name: str = "") -> Response:
    """Create an upload, with its first bytes, all of them, or none."""
    sweep()
    length = announced(None, 0)
    upload = Upload.create(harmless(name) or file_name(), length, digests("Repr-Digest"))
    location = url_for("uploads.change", upload_id=upload.id)
    inform(Location=location, Upload_Limit=limits()["Upload-Limit"])
    try:
        with running.only(upload.id):
            response = append(upload, 0)
    except NoUploadError:
        refuse(404, GONE)
    except BodyError:
        if says_complete() is None and not is_tus():  # this client can't resume
            upload.remove()
        raise
    if response.status_code < 300:
        response.status_code = 201
    response.headers["Location"] = location
    return response


@uploads.route("/uploads/<upload_id>", methods=["HEAD", "PATCH", "DELETE"])
def change(upload_id: str) -> Response:
    """Report the offset, append, or remove the upload; a running request for it ends."""
    try:
        with contextlib.ExitStack() as stack:
            with Upload.find(upload_id) as upload:
                upload.sync()
                if request.method == "PATCH":
                    check_append(upload)  # a late request with an old offset must not stop others
                generation = upload.supersede()
                stack.enter_context(running.only(upload_id))
                if request.method == "DELETE":
                    upload.remove()
                    return Response(status=204, headers=revision())
                if request.method == "HEAD":
                    return answer(upload, 200 if is_tus() else 204)
            return append(upload, generation)
    except NoUploadError:
        refuse(404, GONE)


@uploads.route("/uploads", methods=["OPTIONS"])
def options() -> Response:
    """Report what is supported."""
    response = Response(status=204, headers=limits())
    response.headers["Accept-Patch"] = f"{PARTIAL}, {TUS_PARTIAL}"
    response.headers["Tus-Resumable"] = response.headers["Tus-Version"] = "1.0.0"
    response.headers["Tus-Extension"] = "creation,creation-with-upload,termination"
    response.headers["Tus-Max-Size"] = str(LIMIT)
    return response


def announced(known: int | None, offset: int) -> int | None:
    """Return the length of the upload; 400 if this request contradicts what is known."""
    size = request.content_length
    lengths = {known, number("Upload-Length")}
    if size is not None and says_complete() is not False and not is_tus():
        lengths.add(offset + size)
    known_lengths = {length for length in lengths if length is not None}
    if len(known_lengths) > 1 or any(offset + (size or 0) > length for length in known_lengths):
        refuse(400, "The length is not the one that was announced.")
    return known_lengths.pop() if known_lengths else None


def check_append(upload: Upload) -> None:
    """Refuse an append that does not fit, before its body is read."""
    kind = TUS_PARTIAL if is_tus() else PARTIAL
    if version() != "5" and request.mimetype != kind:
        refuse(415, f"The Content-Type of an append must be {kind}.")
    offset = number("Upload-Offset")
    if offset is None:
        refuse(400, "Upload-Offset is missing or invalid.")
    if says_complete() is None and not is_tus():
        refuse(400, "Upload-Complete is missing or invalid.")
    if upload.complete or offset != upload.offset():
        abort(answer(upload, 409, "Upload-Offset is not where the upload is."))
    length = announced(upload.length, offset)
    if length != upload.length:
        upload.length = length
        upload.save()


def append(upload: Upload, generation: int) -> Response:
    """Store the body. If that completes the upload, give the file its name."""
    try:
        receive(upload, generation)
        with upload.locked(generation):
            if not completes(upload):
                upload.sync()
                return answer(upload, 204)
            check_whole(upload)
            upload.finish()
            return answer(upload, 204 if is_tus() else 200)
    except BodyError:
        if running.is_this(upload.id):
            raise
        refuse(503, SUPERSEDED)  # a newer request has ended the read
    except SupersededError:
        refuse(503, SUPERSEDED)
    except OSError:
        return Response("The file can't be stored now.", 507, mimetype="text/plain")


def receive(upload: Upload, generation: int) -> None:
    """Store the body as it arrives, and report the offset from time to time."""
    expected = digests("Content-Digest")
    seen = {algorithm: hashlib.new(algorithm) for algorithm in expected}
    taken = 0
    with upload.locked(generation):
        start = reported = upload.offset()
        part = upload.path("part").open("ab", buffering=0)
    with part:
        for piece in pieces():
            taken += len(piece)
            if taken > APPEND_LIMIT:  # a chunked body does not announce its length
                refuse(413, "The body is longer than that of one request may be.")
            with upload.locked(generation):
                end = write(upload, part, piece)
                # Bytes may be reported only after Content-Digest was checked.
                report = end - reported >= REPORT_EVERY and not expected
                if report:
                    os.fsync(part.fileno())
            if report:
                reported = end
                inform(Upload_Offset=str(end))
            for digest in seen.values():
                digest.update(piece)
    found = {key: base64.b64encode(digest.digest()).decode() for key, digest in seen.items()}
    if found != expected:
        # No client was told of these bytes: a request for the offset would have stopped this one.
        with upload.locked(generation):
            os.truncate(upload.path("part"), start)
        refuse(400, "The body does not match its Content-Digest.")


def pieces() -> Iterator[memoryview]:
    """Read the body in pieces. If it breaks off, yield what arrived, and then raise."""
    body = request.environ["wsgi.input"]
    # One buffer for all pieces: to allocate each one costs more than to receive it.
    buffer = memoryview(bytearray(PIECE))
    try:
        while size := body.readinto(buffer):
            yield buffer[:size]
    except BodyError as error:
        if error.partial:
            yield memoryview(error.partial)
        raise


def write(upload: Upload, part: FileIO, data: memoryview) -> int:
    """Write to the end of the file, and return the new offset."""
    end = part.tell() + len(data)
    if end > (LIMIT if upload.length is None else upload.length):
        # The draft: once the offset exceeds the length, the upload is invalid.
        upload.remove()
        refuse(413 if upload.length is None else 400, "The body is longer than was announced.")
    while data:
        data = data[part.write(data) :]
    return end


def completes(upload: Upload) -> bool:
    """Return whether the upload is complete with this request.

    tus-js-client sends Upload-Complete: ?0 with the last bytes of some sources, and tus 1.0 has
    no such field. For both, the length decides.
    """
    by_length = is_tus() or version() in ("5", "6")
    if by_length and upload.length is not None:
        return upload.offset() == upload.length
    return not is_tus() and says_complete() is not False


def check_whole(upload: Upload) -> None:
    """Refuse and remove a complete upload whose length or digest is not as announced."""
    if upload.length not in (None, upload.offset()):
        upload.remove()
        refuse(400, "The upload is shorter than was announced.")
    if any(upload.digest(algorithm) != value for algorithm, value in upload.digests.items()):
        upload.remove()
        refuse(400, "The file does not match its Repr-Digest.", **{"Upload-Complete": "?1"})


app = Flask(__name__)
app.register_blueprint(uploads)
contrib.init_app(app)  # a broken upload gets 400 or 408, not 500

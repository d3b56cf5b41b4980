"""One stream of HTTP/2 that several threads use: only one may use the connection at a time."""

import contextlib
import socket
import threading

import h2.events
import h2.exceptions
import h2.settings
import pytest

from gunicorn_expect import ClientDisconnected, streams
from gunicorn_expect.answer import KEY
from support.connections import connection, service
from support.http2_client import head_of, new_connection
from support.socket_pairs import connected

HTTP2 = {"http_protocols": "h1,h2", "http2_cleartext": "prior-knowledge"}
PIECES = [bytes([number]) * 4096 for number in range(1, 11)]


class Watched(socket.socket):
    """Records whether two threads call it at once: neither OpenSSL nor h2 allows that."""

    def __init__(self, sock):
        super().__init__(fileno=sock.detach())
        self.have_met = False
        self._inside = 0
        self._changed = threading.Condition()

    def recv(self, *arguments):
        with self._meeting():
            return super().recv(*arguments)

    def sendall(self, *arguments):
        with self._meeting():
            return super().sendall(*arguments)

    @contextlib.contextmanager
    def _meeting(self):
        with self._changed:
            self._inside += 1
            self.have_met |= self._inside > 1
            self._changed.notify_all()
            # Long enough for another thread to come in, if it does not wait its turn.
            self._changed.wait_for(lambda: self._inside > 1, 0.01)
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1


def served(application, sock):
    """Serve the streams of a connection."""
    with service(application, gunicorn=HTTP2) as made:
        streams.serve(connection(made, sock), b"")


def uploaded(theirs, window):
    """Upload the pieces, each when the server has received the one before; return the response.

    The server may send no more than ``window`` bytes before the client has received them.
    """
    client, answer = new_connection(), b""
    client.initiate_connection()
    client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
    client.send_headers(1, head_of("PUT /"))
    pieces = iter(PIECES)
    client.ping(b"received")
    while True:
        theirs.sendall(client.data_to_send())
        for event in client.receive_data(theirs.recv(65536)):
            match event:
                case h2.events.PingAckReceived():
                    piece = next(pieces, None)
                    if piece is None:
                        client.end_stream(1)
                        continue
                    client.send_data(1, piece)
                    client.ping(b"received")
                case h2.events.DataReceived(data=data) if data:
                    answer += data
                    client.increment_flow_control_window(len(data))
                    with contextlib.suppress(h2.exceptions.StreamClosedError):
                        client.increment_flow_control_window(len(data), 1)
                case h2.events.StreamEnded():
                    return answer


def while_it_is_read(environ, act):
    """Call ``act`` again and again while another thread reads the body; return what it read."""
    read = []
    reader = threading.Thread(target=lambda: read.append(environ["wsgi.input"].read()))
    reader.start()
    while reader.is_alive():
        act()
    reader.join()
    return read


def informing(environ, start_response):
    body = while_it_is_read(environ, lambda: environ[KEY].inform(104))
    start_response("200 OK", [])
    return body


def answering(environ, start_response):
    write = start_response("200 OK", [])
    return while_it_is_read(environ, lambda: write(bytes(2500)))


@pytest.mark.parametrize("window", [65535, 1000])
@pytest.mark.parametrize("application", [informing, answering])
def test_two_threads_of_a_stream_take_turns_on_its_connection(application, window, certificates):
    with connected("unix", certificates) as (ours, theirs), Watched(ours) as watched:
        server = threading.Thread(target=served, args=(application, watched))
        server.start()
        answer = uploaded(theirs, window)
        theirs.close()
        server.join()
        assert answer.lstrip(b"\0") == b"".join(PIECES)
        assert not watched.have_met


def test_a_thread_that_still_reads_after_its_response_takes_no_frame_of_the_next_stream(
    certificates,
):
    reads, failures = threading.Event(), []

    def read(body):
        reads.set()
        try:
            body.read()
        except ClientDisconnected as error:
            failures.append(error)

    def application(environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT":
            readers.append(threading.Thread(target=read, args=(environ["wsgi.input"],)))
            readers[0].start()
            reads.wait()
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    readers = []
    with connected("unix", certificates) as (ours, theirs), Watched(ours) as watched:
        server = threading.Thread(target=served, args=(application, watched))
        server.start()
        client = new_connection()
        client.initiate_connection()
        client.send_headers(1, head_of("PUT /"))
        assert answered(client, theirs) == b"ok"
        for stream in range(3, 101, 2):
            client.send_headers(stream, head_of("GET /"), end_stream=True)
            assert answered(client, theirs) == b"ok"
        theirs.close()
        server.join()
        readers[0].join()
        assert len(failures) == 1


def answered(client, theirs):
    """Return the response body of the next stream that ends."""
    answer, ended = b"", False
    while not ended:
        theirs.sendall(client.data_to_send())
        for event in client.receive_data(theirs.recv(65536)):
            match event:
                case h2.events.DataReceived(data=data):
                    answer += data
                case h2.events.StreamEnded():
                    ended = True
    return answer

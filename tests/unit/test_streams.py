"""One stream of HTTP/2 that several threads use at once, on a socket that sees them meet."""

import contextlib
import socket
import threading

import h2.events

from gunicorn_expect import streams
from gunicorn_expect.answer import KEY
from support.connections import connection, service
from support.http2_client import head_of, new_connection
from support.socket_pairs import connected

HTTP2 = {"http_protocols": "h1,h2", "http2_cleartext": "prior-knowledge"}
PIECES = [bytes([number]) * 4096 for number in range(10)]


class Watched(socket.socket):
    """Notes whether two threads call it at once: neither OpenSSL nor h2 allows that."""

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
            # Long enough for another thread that does not wait its turn.
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


def uploaded(theirs):
    """Upload the pieces, each when the server has received the one before; give the answer."""
    client, answer = new_connection(), b""
    client.initiate_connection()
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
                case h2.events.DataReceived(data=data):
                    answer += data
                case h2.events.StreamEnded():
                    return answer


def while_it_is_read(environ, act):
    """Do this again and again, while another thread reads the body; give that."""
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


def test_a_thread_that_informs_and_one_that_reads_take_turns_on_the_connection(certificates):
    with connected("unix", certificates) as (ours, theirs), Watched(ours) as watched:
        server = threading.Thread(target=served, args=(informing, watched))
        server.start()
        answer = uploaded(theirs)
        theirs.close()
        server.join()
        assert answer == b"".join(PIECES)
        assert not watched.have_met

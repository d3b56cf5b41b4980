"""The transport of one connection: sending and receiving without waiting, and closing."""

import contextlib
import os
import socket
import ssl
import threading

import pytest

from gunicorn_expect.transport import READ, WRITE, TLSTransport, Transport
from support import PATIENCE
from support.socket_pairs import (
    CLOSED,
    KINDS,
    connected,
    packets,
    raw,
    receive_rest,
    reset,
    transport_of,
)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def transport(ours):
    transport = transport_of(ours)
    yield transport
    transport.close()


of_plain_sockets = pytest.mark.parametrize("kind", ["tcp", "unix", "gevent"])
of_tcp = pytest.mark.parametrize("kind", ["tcp"])
of_tls = pytest.mark.parametrize("kind", ["tls"])


def discard(transport, size):
    """Discard this many bytes, or fewer if the client closes; return how many are missing."""
    buffer = bytearray(2**20)
    while size > 0:
        assert transport.wait(READ, PATIENCE)
        came = transport.discard(buffer)
        if came == 0:
            break
        size -= came or 0
    return size


# Without waiting.


def test_receive_returns_what_has_arrived_without_waiting(transport, theirs):
    assert transport.receive(10) is None
    theirs.sendall(b"hello")
    assert transport.wait(READ, PATIENCE) & READ
    assert transport.receive(2) == b"he"
    assert transport.receive(10) == b"llo"
    assert transport.receive(10) is None
    theirs.close()
    assert transport.wait(READ, PATIENCE)
    assert transport.receive(10) == b""


@of_tcp
def test_the_last_bytes_and_the_end_of_the_connection_are_one_packet(transport, theirs):
    before = packets(theirs)
    transport.sendall(b"hello", last=True)
    transport.half_close()
    assert theirs.recv(10) == b"hello"
    assert theirs.recv(10) == b""
    assert packets(theirs) - before == 1


@of_tcp
def test_the_last_bytes_are_sent_also_if_the_end_does_not_follow(transport, theirs):
    transport.sendall(b"hello", last=True)
    assert theirs.recv(10) == b"hello"


def test_send_sends_only_as_much_as_the_send_buffer_has_room_for(transport, theirs):
    piece = b"x" * 65536
    size = 0
    while sent := transport.send(piece):
        size += sent
    receiver = threading.Thread(target=receive_so_much, args=(theirs, size + 1))
    receiver.start()
    while not (sent := transport.send(piece)):
        assert transport.wait(WRITE, PATIENCE) & WRITE
    receiver.join()
    assert 0 < sent <= len(piece)


def receive_so_much(sock, size):
    while size > 0:
        size -= len(sock.recv(65536))


def test_a_wait_ends_only_for_the_events_that_it_was_called_with(transport, theirs):
    assert transport.wait(READ | WRITE, PATIENCE) == WRITE
    assert transport.wait(READ, 0) == 0
    theirs.sendall(b"x")
    assert transport.wait(READ, PATIENCE) == READ
    assert transport.wait(WRITE, PATIENCE) == WRITE


# The half-close.


@of_plain_sockets
def test_a_half_close_ends_our_side_and_leaves_unread_bytes_readable(transport, theirs):
    transport.send(b"the answer")
    assert transport.half_close()
    assert receive_rest(theirs) == b"the answer"
    buffer = bytearray(100)
    assert transport.discard(buffer) is None
    theirs.sendall(b"body")
    theirs.close()
    assert discard(transport, 5) == 1
    assert transport.discard(buffer) == 0


def test_receive_fails_on_a_connection_that_was_half_closed(transport, theirs):
    theirs.sendall(b"of nobody")
    transport.half_close()
    with pytest.raises(OSError, match="the connection is closed"):
        transport.receive(1)


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
def test_a_half_close_ends_the_connection_of_a_client_that_is_gone(transport, theirs, leave):
    leave(theirs)
    with contextlib.suppress(OSError):
        transport.half_close()
    assert transport.ended
    assert transport.discard(bytearray(10)) == 0


@of_tcp
def test_a_half_close_of_a_connection_that_was_reset_raises(transport, theirs):
    reset(theirs)
    assert transport.wait(READ, PATIENCE)
    with pytest.raises(OSError, match="not connected"):
        transport.half_close()


def test_discarding_from_a_client_that_was_reset_returns_the_end(transport, theirs):
    transport.half_close()
    reset(theirs if theirs.family == socket.AF_UNIX else raw(theirs))
    assert discard(transport, 1) == 1


@of_tls
def test_a_tls_connection_ends_with_a_close_notify_and_then_a_fin(transport, theirs):
    transport.send(b"the answer")
    assert transport.half_close()
    assert theirs.recv(100) == b"the answer"
    theirs.suppress_ragged_eofs = False  # a FIN without a close_notify would raise
    assert theirs.recv(100) == b""
    with raw(theirs) as sock:
        assert sock.recv(1) == b""


@of_tls
def test_bytes_after_the_close_notify_are_discarded_without_decryption(transport, theirs):
    transport.half_close()
    assert theirs.recv(1) == b""
    with raw(theirs) as sock:
        sender = threading.Thread(target=sock.sendall, args=(b"no TLS at all" * 100_000,))
        sender.start()
        assert discard(transport, 1_300_000) == 0
        sender.join()


@of_tls
def test_a_tls_client_that_is_still_sending_gets_the_response_and_its_end(transport, theirs):
    theirs.sendall(b"x" * 100_000)
    assert transport.wait(READ, PATIENCE)
    transport.receive(1)  # unread records of the client stay in the socket's buffer
    transport.send(b"the answer")
    assert transport.half_close()
    assert receive_rest(theirs) == b"the answer"
    sender = threading.Thread(target=theirs.sendall, args=(b"x" * 10_000_000,))
    sender.start()
    discard(transport, 10_000_000)
    sender.join()


@of_tls
def test_the_half_close_of_a_tls_connection_waits_for_room_in_the_send_buffer(transport, theirs):
    while transport.send(b"x" * 65536):
        pass
    assert not transport.half_close()
    assert not transport.half_closed
    receiver = threading.Thread(target=receive_rest, args=(theirs,))
    receiver.start()
    while not transport.half_close():
        assert transport.wait(WRITE, PATIENCE)
    receiver.join()  # the client has received everything and the end
    assert transport.half_closed


@of_tcp
def test_a_tls_connection_without_a_finished_handshake_can_be_half_closed(
    certificates, ours, theirs
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    wrapped = context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
    transport = TLSTransport(wrapped)
    assert transport.handshake() == READ
    assert transport.half_close()
    assert theirs.recv(1) == b""
    assert transport.discard(bytearray(10)) is None
    transport.close()


# What the client has received.


def test_a_response_is_acknowledged_when_the_kernel_of_the_client_has_it():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(listener.getsockname())
        transport = Transport(listener.accept()[0])
    with peer:
        peer.settimeout(PATIENCE)
        size = 0
        while sent := transport.send(b"x" * 65536):
            size += sent
        transport.half_close()
        assert not transport.is_acknowledged()
        receive_so_much(peer, size)
        assert peer.recv(1) == b""
        give_up = threading.Event()
        for _ in range(100 * PATIENCE):  # there is no event to wait for
            if transport.is_acknowledged():
                break
            give_up.wait(0.01)
        assert transport.is_acknowledged()
        transport.close()
        assert transport.is_acknowledged()  # of a closed socket nothing is known any more


# Closing.


@pytest.mark.parametrize("ended", [False, True])
def test_a_close_ends_the_connection_even_if_another_process_has_the_socket_open(
    transport, theirs, ended
):
    """For example a process that the application has started."""
    copy = os.dup(transport.fileno())
    try:
        if ended:
            transport.half_close()
        transport.close()
        assert transport.fileno() == -1
        with contextlib.suppress(ssl.SSLError):
            assert theirs.recv(1) == b""
    finally:
        os.close(copy)


def test_a_closed_transport_can_be_closed_again_and_not_used(transport, theirs):
    transport.close()
    transport.close()
    assert transport.fileno() == -1
    with pytest.raises(OSError, match=r"descriptor|closed"):
        transport.receive(1)
    theirs.settimeout(PATIENCE)

    def send():
        for _ in range(1000):
            theirs.sendall(b"more")

    with pytest.raises(CLOSED):
        send()


@pytest.mark.parametrize(
    "act",
    [lambda it: it.receive(1), lambda it: it.send(b"x"), TLSTransport.half_close],
    ids=["receive", "send", "half_close"],
)
def test_the_reset_of_one_tls_client_does_not_appear_as_an_error_of_another(certificates, act):
    """Python leaves it in OpenSSL's error queue, where the next call finds it (since 3.13)."""
    with connected("tls", certificates) as (a, client), connected("tls", certificates) as (b, _):
        transport, other = TLSTransport(a), TLSTransport(b)
        reset(client)
        assert transport.wait(READ, PATIENCE)
        with contextlib.suppress(OSError):
            act(transport)
        assert other.receive(1) is None

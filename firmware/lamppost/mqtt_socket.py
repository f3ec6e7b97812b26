"""A TCP connection, with TLS if asked, opened without blocking and within a time-out."""

import asyncio
import errno
import select
import socket
from binascii import a2b_base64
from time import ticks_add, ticks_diff, ticks_ms

from .mqtt_packets import MqttError


def tls_context(path):
    """An SSLContext that accepts a broker only with a certificate from an authority in the file `path` (PEM or DER).

    PEM is taken apart here, since not every port of MicroPython can. Raises OSError, ValueError or ImportError (a port without ssl).
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # MicroPython's ssl module starts with CERT_NONE, whatever CPython's does: without this line any certificate would do.
    context.verify_mode = ssl.CERT_REQUIRED  # type: ignore[attr-defined] # the stubs lack it
    with open(path, "rb") as file:
        data = file.read()
    if b"-----BEGIN" not in data:
        context.load_verify_locations(cadata=data)
        return context
    for block in data.split(b"-----BEGIN CERTIFICATE-----")[1:]:
        context.load_verify_locations(cadata=a2b_base64(block.split(b"-----END")[0]))
    return context


async def open_socket(host, port, timeout_ms, ssl=None, server_hostname=None):
    """A connected non-blocking socket, wrapped by the SSLContext `ssl` if there is one (its handshake comes with the first write).

    Tries each address of `host`, all within `timeout_ms`; raises OSError. The look-up of a name blocks the whole program, since
    MicroPython's getaddrinfo does. asyncio.open_connection would leave the socket open when a time-out cuts it short.
    """
    deadline = ticks_add(ticks_ms(), timeout_ms)
    failure = None
    for address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        sock = socket.socket(address[0], address[1], address[2])
        try:
            sock.setblocking(False)
            await _connected(sock, address[-1], deadline)
            _send_at_once(sock)
            if ssl is None:
                return sock
            return ssl.wrap_socket(
                sock, server_hostname=server_hostname or host, do_handshake_on_connect=False
            )
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure or MqttError(f"no address for {host}")


async def _connected(sock, address, deadline):
    """Connect a non-blocking socket."""
    try:
        sock.connect(address)
    except OSError as error:
        if error.errno != errno.EINPROGRESS:
            raise
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    pause = 1
    while True:
        ready = poller.poll(0)
        if ready:
            if ready[0][1] & (select.POLLERR | select.POLLHUP):
                sock.read(1)  # raises what is wrong, where the port knows it
                raise MqttError("the connection was refused")
            return
        if ticks_diff(deadline, ticks_ms()) <= 0:
            raise MqttError("no answer to the connection request")
        await asyncio.sleep_ms(pause)
        pause = min(pause * 2, 50)


def _send_at_once(sock):
    """TCP_NODELAY where the port has it: the buffer gathers already, and Nagle's wait would add to each round trip."""
    level, option = getattr(socket, "IPPROTO_TCP", None), getattr(socket, "TCP_NODELAY", None)
    if level is not None and option is not None:
        try:
            sock.setsockopt(level, option, 1)
        except OSError:
            pass

"""Whether a broker takes a connection: one CONNECT, by hand, so that starting one does not import an MQTT library."""

import contextlib
import secrets
import socket
import ssl
from pathlib import Path

from lamppost_host.errors import LamppostError

_CONNACK = b"\x20\x02"


def connect_code(
    host: str,
    port: int,
    user: str | None,
    password: str | None,
    *,
    certificate: Path | None = None,
    timeout: float = 2.0,
) -> int | None:
    """The return code of the broker's CONNACK (0: accepted; 4 and 5: refused), or None when it gave none.

    `certificate` is the broker's own, for TLS; nothing else is trusted, and LamppostError says
    what is wrong with it. The session is clean and ends at once.
    """
    body = b"\x00\x04MQTT\x04" + bytes((2 | (0xC0 if user is not None else 0),)) + b"\x00\x0a"
    for text in (f"lamppost-probe-{secrets.token_hex(4)}", user, password):
        if text is not None:
            body += len(text.encode()).to_bytes(2, "big") + text.encode()
    low, high = len(body) & 127, len(body) >> 7
    packet = b"\x10" + (bytes((low | 128, high)) if high else bytes((low,))) + body
    try:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((host, port), timeout))
            connection.settimeout(timeout)
            if certificate is not None:
                context = ssl.create_default_context(cafile=str(certificate))
                context.check_hostname = False  # we pin the certificate, and reach it by an address
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
                connection = stack.enter_context(context.wrap_socket(connection))
            connection.sendall(packet)
            answer = b""
            while len(answer) < 4:
                more = connection.recv(4 - len(answer))
                if not more:
                    return None
                answer += more
            with contextlib.suppress(OSError):
                connection.sendall(b"\xe0\x00")
            return answer[3] if answer[:2] == _CONNACK else None
    except ssl.SSLCertVerificationError as error:
        raise LamppostError(
            f"the broker's certificate is not valid: {error.verify_message}",
            "Renew the files that --cert and --key name.",
        ) from error
    except OSError:
        return None

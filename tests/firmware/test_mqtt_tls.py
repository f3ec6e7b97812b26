"""TLS: the right authority and name are let in, everything else is refused with a reason."""

import datetime
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from lamppost_host.broker import Credentials, RunningBroker, start_broker
from tests.firmware.conftest import RunFirmware
from tests.firmware.mqtt_peer import PRELUDE, Connection, Peer

SCRIPT = (
    PRELUDE
    + """
from lamppost.mqtt_socket import tls_context
async def main():
    context = tls_context(sys.argv[3])
    c = client(int(sys.argv[1]), user="alpha/one", password=sys.argv[2], ssl=context, server_hostname=sys.argv[4])
    task = asyncio.create_task(c.run())
    await until(lambda: c.connected or c.error)
    if c.connected:
        got = []
        c.on_message = lambda topic, payload, retained: got.append(len(payload))
        print(await c.subscribe("lamppost/1/alpha/one/cmd", 1))
        for i in range(300):
            await c.publish("lamppost/1/alpha/one/obs", bytes(8000 if i % 10 == 0 else 100), 1)
        await c.drain(5000)
        await c.disconnect()
        await task
        print("sent", c.connections, c.error)
    else:
        task.cancel()
asyncio.run(main())
"""
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def has_tls(micropython: list[str]) -> None:
    if subprocess.run([*micropython, "-c", "import ssl"], capture_output=True, check=False).returncode:
        pytest.skip("this MicroPython was built without ssl")


def certificate(authority: trustme.CA, folder: Path, **options: object) -> tuple[Path, Path]:
    issued = authority.issue_cert("broker.lamppost.example", **options)  # type: ignore[arg-type]
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return cert, key


@pytest.fixture
def tls_broker(mosquitto: str, authority: trustme.CA, tmp_path: Path) -> Iterator[RunningBroker]:
    cert, key = certificate(authority, tmp_path)
    folder = tmp_path / "broker"
    folder.mkdir()
    Credentials(folder).add("alpha/one")
    with start_broker(folder, "mosquitto", cert=cert, key=key) as broker:
        yield broker


def run(
    run_firmware: RunFirmware, broker: RunningBroker, trusted: trustme.CA, folder: Path, name: str
) -> str:
    authority_file = folder / "ca.pem"
    trusted.cert_pem.write_to_path(authority_file)
    return run_firmware(
        SCRIPT, str(broker.port), broker.credentials.get("alpha/one"), str(authority_file), name
    )


@pytest.mark.usefixtures("has_tls")
def test_the_right_authority_and_name(
    run_firmware: RunFirmware, tls_broker: RunningBroker, authority: trustme.CA, tmp_path: Path
) -> None:
    out = run(run_firmware, tls_broker, authority, tmp_path, "broker.lamppost.example")
    assert out.splitlines() == ["1", "sent 1 None"]


@pytest.mark.usefixtures("has_tls")
def test_a_foreign_authority(run_firmware: RunFirmware, tls_broker: RunningBroker, tmp_path: Path) -> None:
    out = run(run_firmware, tls_broker, trustme.CA(), tmp_path, "broker.lamppost.example")
    assert out.startswith("error:")
    assert "sent" not in out


@pytest.mark.usefixtures("has_tls")
def test_another_hosts_name(
    run_firmware: RunFirmware, tls_broker: RunningBroker, authority: trustme.CA, tmp_path: Path
) -> None:
    out = run(run_firmware, tls_broker, authority, tmp_path, "other.lamppost.example")
    assert out.startswith("error:")
    assert "sent" not in out


@pytest.mark.usefixtures("has_tls")
def test_a_broker_without_tls(
    run_firmware: RunFirmware, authority: trustme.CA, mosquitto: str, tmp_path: Path
) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    Credentials(folder).add("alpha/one")
    with start_broker(folder, "mosquitto") as broker:
        out = run(run_firmware, broker, authority, tmp_path, "broker.lamppost.example")
    assert out.startswith("error:")
    assert "sent" not in out


@pytest.mark.usefixtures("has_tls")
def test_an_expired_certificate(run_firmware: RunFirmware, authority: trustme.CA, tmp_path: Path) -> None:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    cert, key = certificate(
        authority, tmp_path, not_before=yesterday - datetime.timedelta(days=1), not_after=yesterday
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    def script(connection: Connection) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError)):  # the client ends the handshake
            context.wrap_socket(connection.sock, server_side=True).recv(1)

    with Peer(script) as peer:
        out = run_firmware(
            SCRIPT, str(peer.port), "password", str(tmp_path / "ca.pem"), "broker.lamppost.example"
        )
    assert out.startswith("error:")
    assert "sent" not in out


@pytest.mark.usefixtures("has_tls")
def test_a_context_that_checks_nothing_is_refused(run_firmware: RunFirmware) -> None:
    out = run_firmware(
        PRELUDE
        + """
import ssl
try:
    client(1, ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # MicroPython's default is CERT_NONE
except ValueError as error:
    print(error)
"""
    )
    assert "checks no certificate" in out

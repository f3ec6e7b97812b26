"""The embedded broker's process: `python -m lamppost_host.broker.embedded_child CONFIG`.

It writes its process id to standard output, and ends when its standard input closes.
"""

import contextlib
import logging
import os
import sys
import threading


def _end_with_input() -> None:
    """The kernel closes our input when whoever started us is gone, however it went."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os._exit(0)


def _told(record: logging.LogRecord) -> bool:
    """rumqttd logs the trace of every packet as an error; its real errors begin with that word."""
    return record.getMessage().startswith("Error")


def main(config: str) -> None:
    """Run the broker in this process until standard input closes."""
    from iotcore.iotcore import IotCoreBroker  # the class that iotcore's own child process runs

    handler = logging.StreamHandler()
    handler.addFilter(_told)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", handlers=[handler])
    threading.Thread(target=_end_with_input, daemon=True).start()
    os.write(1, f"{os.getpid()}\n".encode())
    IotCoreBroker(config_path=config).run_forever()


if __name__ == "__main__":
    main(sys.argv[1])

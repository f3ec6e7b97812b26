"""The MQTT broker: Mosquitto where it is installed, an embedded one on loopback where it is not.

`start_broker` runs either as a child process; `Credentials` keeps who may connect; `lamppost broker` is the command.
"""

from lamppost_host.broker.credentials import BRIDGE_USER, Credentials
from lamppost_host.broker.running import RunningBroker, read_address, start_broker

__all__ = ["BRIDGE_USER", "Credentials", "RunningBroker", "read_address", "start_broker"]

"""Building the world of a virtual board from its description."""

from simulated.bme280 import BME280
from simulated.ds18b20 import DS18B20
from simulated.pms5003 import PMS5003
from simulated.world import world

SENSORS = {"bme280": BME280, "pms5003": PMS5003, "ds18b20": DS18B20}
_DEFAULT_BUS = {"i2c": 0, "uart": 2, "onewire": 4}


def attach(description, open_file=open):
    """Put the sensor that `description` names on its bus, and return it.

    `sensor`: its kind; `i2c`, `uart` (bus id) or `onewire` (pin): where; the rest is the sensor's own (its class says what).
    """
    kind = description.get("sensor")
    if kind not in SENSORS:
        raise ValueError("no simulated sensor %s; there are: %s" % (kind, ", ".join(sorted(SENSORS))))
    device = SENSORS[kind](description, open_file)
    world.bus(device.bus, description.get(device.bus, _DEFAULT_BUS[device.bus])).devices.append(device)
    return device


def build_world(description, open_file=open):
    """Attach every sensor of a board's description ("sensors"), and set the faults of its buses ("buses"). Returns the devices.

    `buses`: a list such as {"i2c": 0, "error_every": 20}.
    """
    world.clear()
    devices = [attach(sensor, open_file) for sensor in description.get("sensors", [])]
    for bus in description.get("buses", []):
        for kind in _DEFAULT_BUS:
            if kind in bus:
                world.bus(kind, bus[kind]).error_every = bus.get("error_every", 0)
    return devices

"""Sensor drivers, one a file, each for the bus that is handed to it.

A driver has `model`, `sensor_id` (the sensor's own hardware id as text, or None), `datastreams` (a tuple of Datastream), `conversion_ms`, and

- `start()`: begin a measurement;
- `read(out)`: `conversion_ms` later, write one scaled integer or MISSING a Datastream into `out` (array of 'i').

Neither waits, and neither allocates once the sensor has answered for the first time. Both raise OSError (SensorError where the driver
knows what is wrong). A driver makes ready in `start()` what it needs, so a sensor that is plugged in later, or again, works from then on.
"""

AVAILABLE = ("bme280", "ds18b20", "pms5003")
"""The modules in this package, each with one driver: the class of the same name in capitals."""


class SensorError(OSError):
    """A sensor answered, but not with a measurement; or it did not answer. The text says which."""

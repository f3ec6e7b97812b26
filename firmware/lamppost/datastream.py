"""A Datastream: what one column of readings means."""

from micropython import const

# A value that is not there: outside the range of every value, and a small integer on a 32-bit board.
MISSING = const(-0x40000000)
# The largest value either way. The difference of any two stays a small integer on a 32-bit board (31 bits).
LIMIT = const(0x1FFFFFFF)


class Datastream:
    """One observed property of one sensor, with the form of its values on the wire.

    `key`: names the Datastream in its node, 1 to 32 of a-z 0-9 _ -. `property`: key of the host's vocabulary, such as
    "air_temperature". `unit`: UCUM code, such as "Cel". `decimals`: a value is `result × 10^decimals`, 0 to 9. `low`, `high`: the range the
    sensor's maker states, as values (scaled integers); a value outside is kept and flagged. Raises ValueError.
    """

    def __init__(self, key, property, unit, decimals, low=None, high=None):
        check_key(key)
        if not 0 <= decimals <= 9:
            raise ValueError("Datastream " + key + ": decimals must be 0 to 9")
        low = -LIMIT if low is None else low
        high = LIMIT if high is None else high
        if not -LIMIT <= low <= high <= LIMIT:
            raise ValueError("Datastream " + key + ": low and high must be in order and within " + str(LIMIT))
        self.key = key
        self.property = property
        self.unit = unit
        self.decimals = decimals
        self.low = low
        self.high = high


def check_key(key):
    """Raise ValueError unless `key` is 1 to 32 characters of a-z, 0-9, _ and -."""
    if not 1 <= len(key) <= 32 or not all(c in "abcdefghijklmnopqrstuvwxyz0123456789_-" for c in key):
        raise ValueError("a Datastream's key is 1 to 32 of a-z 0-9 _ -, not " + repr(key))

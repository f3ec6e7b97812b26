"""The node's settings: `node.json`, read and checked.

Errors name the key and say what to do; they never show a value, since it may be a secret in the wrong place.
"""

import json

_NAME = "abcdefghijklmnopqrstuvwxyz0123456789-"

# section -> key -> default
_SECTIONS = {
    "broker": {"host": None, "port": None, "user": None, "password": None, "ca": None, "tls": False},
    "batch": {"rows": 60, "seconds": 60},
    "journal": {"path": "/journal", "bytes": 262144, "segment": 16384},
    "mqtt": {"keepalive": 60, "window": 8, "timeout_s": 10, "backoff_s": [1, 60]},
    "clock": {"calendar": True, "tolerance_ms": 100},
    "wifi": {"ssid": None, "password": None},
}
_DEFAULTS = {
    "description": None,
    "location": None,
    "place": None,
    "properties": None,
    "i2c": None,
    "uart": None,
    "onewire": None,
    "every": None,
    "resend_s": 30,
    "undated_s": 600,
    "status_s": 10,
    "stop_s": 10,
    "board": "unknown",
}
_OPTIONAL = ("wifi",)
_DEFAULT_NTP = "pool.ntp.org"

_INTEGERS = (
    ("broker", "port", 1, 65535),
    ("batch", "rows", 1, 255),
    ("batch", "seconds", 1, 86400),
    ("journal", "segment", 4096, 1048576),
    ("mqtt", "keepalive", 5, 65535),
    ("mqtt", "window", 1, 100),
    ("mqtt", "timeout_s", 1, 300),
    ("clock", "tolerance_ms", 0, 10000),
    (None, "resend_s", 1, 3600),
    (None, "undated_s", 0, 500000),  # ticks can be compared over six days
    (None, "status_s", 0, 3600),
    (None, "stop_s", 0, 600),
)


class ConfigError(ValueError):
    """A setting is missing or wrong; the text names it and says what to do."""


def read(path="node.json"):
    """The settings in a file, not checked yet. Raises ConfigError."""
    try:
        with open(path) as file:
            text = file.read(16385)
    except OSError as error:
        raise ConfigError(
            "{} can't be read ({}): put the node's settings there".format(path, error)
        ) from None
    if len(text) > 16384:
        raise ConfigError("{} is longer than 16 KiB: that can't be a node's settings".format(path))
    try:
        settings = json.loads(text)
    except ValueError:
        text = "{} is not JSON: look for a missing quote, comma or bracket, or write it anew".format(path)
        raise ConfigError(text) from None
    if not isinstance(settings, dict):
        raise ConfigError(path + " must hold one JSON object: { ... }")
    return settings


def check(settings):
    """A copy of `settings` (dict as in node.json) with every default filled in. Raises ConfigError."""
    if not isinstance(settings, dict):
        raise ConfigError("the settings must be one JSON object: { ... }")
    config = dict(_DEFAULTS)
    for key in settings:
        if key in _SECTIONS or key in ("tenant", "node", "name", "ntp") or key in _DEFAULTS:
            config[key] = settings[key]
    for name in _SECTIONS:
        config[name] = _section(settings, name)
    for key in ("tenant", "node"):
        _check_name(config, key)
    if config.get("name") is None:
        config["name"] = config["node"]
    for key, longest in (("name", 256), ("description", 1024), ("place", 256), ("board", 256)):
        _check_text(config, key, longest, config[key] is None)
    _check_broker(config)
    for section, key, low, high in _INTEGERS:
        _check_integer(config if section is None else config[section], section, key, low, high)
    journal = config["journal"]
    _check_text(journal, "path", 128, False, "journal.")
    _check_integer(journal, "journal", "bytes", 2 * journal["segment"], 0x3FFFFFFF)
    if not isinstance(config["clock"]["calendar"], bool):
        raise ConfigError("clock.calendar must be true or false")
    backoff = config["mqtt"]["backoff_s"]
    if (
        not isinstance(backoff, (list, tuple))
        or len(backoff) != 2
        or not all([_is_number(seconds) for seconds in backoff])
        or not 0.01 <= backoff[0] <= backoff[1] <= 3600
    ):
        raise ConfigError(
            "mqtt.backoff_s must be two numbers of seconds, shortest and longest, such as [1, 60]"
        )
    every = config["every"]
    if every is not None and (isinstance(every, bool) or not isinstance(every, (int, float)) or every < 0.01):
        raise ConfigError("every must be seconds between samples, such as 60; without it main.py decides")
    _check_location(config["location"])
    _check_properties(config["properties"])
    for bus in ("i2c", "uart", "onewire"):
        if config[bus] is not None and not isinstance(config[bus], dict):
            raise ConfigError(bus + " must be an object with the bus's pins")
    if config["wifi"] is not None:
        _check_text(config["wifi"], "ssid", 32, False, "wifi.")
        _check_text(config["wifi"], "password", 64, True, "wifi.")
    if "ntp" not in config:
        # Only a board with a network of its own needs one; elsewhere the system keeps the time.
        config["ntp"] = _DEFAULT_NTP if config["wifi"] is not None else None
    _check_text(config, "ntp", 128, True)
    return config


def _section(settings, name):
    given = settings.get(name)
    if given is None:
        if name in _OPTIONAL:
            return None
        given = {}
    if not isinstance(given, dict):
        raise ConfigError(name + " must be an object: { ... }")
    section = dict(_SECTIONS[name])
    section.update(given)
    return section


def _check_name(config, key):
    name = config.get(key)
    if name is None:
        raise ConfigError(key + " is missing: add it, as given when the node was registered")
    if (
        not isinstance(name, str)
        or not 1 <= len(name) <= 32
        or not all(c in _NAME for c in name)
        or name[0] == "-"
    ):
        raise ConfigError(key + " must be 1 to 32 of a-z, 0-9 and -, and begin with a letter or a digit")


def _check_text(section, key, longest, may_lack, prefix=""):
    text = section.get(key)
    if text is None and may_lack:
        return
    if not isinstance(text, str) or not text or len(text) > longest:
        raise ConfigError("{}{} must be text of 1 to {} characters".format(prefix, key, longest))


def _check_broker(config):
    broker = config["broker"]
    for key in ("host", "user", "password", "ca"):
        _check_text(broker, key, 256, key != "host", "broker.")
    if not isinstance(broker["tls"], bool):
        raise ConfigError("broker.tls must be true or false")
    if broker["ca"] is not None and not broker["tls"]:
        raise ConfigError("broker.ca is given, but broker.tls is not true: set it, or take broker.ca away")
    if broker["tls"] and broker["ca"] is None:
        raise ConfigError(
            "broker.ca is missing: broker.tls needs the file of the certificate authority to check the broker by"
        )
    if broker["port"] is None:
        broker["port"] = 8883 if broker["tls"] else 1883
    if broker["user"] is None and broker["password"] is not None:
        broker["user"] = config["tenant"] + "/" + config["node"]


def _is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _check_integer(section, name, key, low, high):
    if not _is_integer(section[key]) or not low <= section[key] <= high:
        full = key if name is None else name + "." + key
        raise ConfigError("{} must be a whole number from {} to {}".format(full, low, high))


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _integers(value, count):
    return (
        isinstance(value, (list, tuple))
        and len(value) == count
        and all([_is_integer(item) for item in value])
    )


def _check_location(location):
    if location is None:
        return
    right = _integers(location, 2) or _integers(location, 3)
    if (
        not right
        or not -1800000000 <= location[0] <= 1800000000
        or not -900000000 <= location[1] <= 900000000
        or (len(location) == 3 and not -1200000 <= location[2] <= 10000000)
    ):
        raise ConfigError(
            "location must be [longitude, latitude] or [longitude, latitude, height]: whole numbers of 10^-7 degree, and cm"
        )


def _check_properties(properties):
    if properties is None:
        return
    if not isinstance(properties, dict):
        raise ConfigError("properties must be an object: { ... }")
    for key in properties:
        if not isinstance(properties[key], (str, int, float, bool)):
            raise ConfigError("properties." + key + " must be text, a number, true or false")

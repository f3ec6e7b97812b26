"""`esp32` of the virtual board: NVS, kept in a file of the host beside the flash's."""

import json

_ESP_ERR_NVS_NOT_FOUND = -4354


class _Store:
    """The partition: {namespace: {key: integer, or {"blob": hexadecimal}}}. `save(text)` keeps it; None: in memory only."""

    content = {}
    save = None


store = _Store()


def load(text, save):
    """Take over what an earlier run saved ("" : nothing)."""
    store.content = json.loads(text) if text else {}
    store.save = save


class NVS:
    """A namespace of 32-bit integers and blobs; what is not committed is lost with the power."""

    def __init__(self, namespace):
        self._namespace = namespace
        self._values = dict(store.content.get(namespace, {}))

    def set_i32(self, key, value):
        if not -0x80000000 <= value <= 0x7FFFFFFF:
            raise OverflowError("not a 32-bit integer")
        self._values[key] = value

    def get_i32(self, key):
        value = self._get(key)
        if isinstance(value, dict):
            raise OSError(_ESP_ERR_NVS_NOT_FOUND, "ESP_ERR_NVS_NOT_FOUND")
        return value

    def set_blob(self, key, value):
        self._values[key] = {"blob": bytes(value).hex()}

    def get_blob(self, key, buffer):
        value = self._get(key)
        if not isinstance(value, dict):
            raise OSError(_ESP_ERR_NVS_NOT_FOUND, "ESP_ERR_NVS_NOT_FOUND")
        data = bytes.fromhex(value["blob"])
        buffer[: len(data)] = data
        return len(data)

    def erase_key(self, key):
        self._get(key)
        del self._values[key]

    def commit(self):
        store.content[self._namespace] = dict(self._values)
        if store.save is not None:
            store.save(json.dumps(store.content))

    def _get(self, key):
        if key not in self._values:
            raise OSError(_ESP_ERR_NVS_NOT_FOUND, "ESP_ERR_NVS_NOT_FOUND")
        return self._values[key]

"""The root document: where the collections are, and which requirements of the standard this service meets."""

from typing import Any

from lamppost_host.platform.model import COLLECTIONS

_REQUIREMENTS = "http://www.opengis.net/spec/iot_sensing/1.1/req/"

# Only what is there in full. Not yet: the spatial functions of $filter, batch requests, MultiDatastreams, MQTT.
_MET = (
    "datamodel",
    "resource-path/resource-path-to-entities",
    "request-data/order",
    "request-data/expand",
    "request-data/select",
    "request-data/status-code",
    "request-data/orderby",
    "request-data/top",
    "request-data/skip",
    "request-data/count",
    "request-data/filter",
    "request-data/built-in-filter-operations",
    "request-data/pagination",
    "create-update-delete/create-entity",
    "create-update-delete/link-to-existing-entities",
    "create-update-delete/deep-insert",
    "create-update-delete/deep-insert-status-code",
    "create-update-delete/update-entity",
    "create-update-delete/delete-entity",
    "data-array/data-array",
)


def root_document(root: str) -> dict[str, Any]:
    """`root`: the service's URL with the version, without a trailing slash."""
    return {
        "value": [{"name": name, "url": f"{root}/{name}"} for name in COLLECTIONS],
        "serverSettings": {"conformance": [_REQUIREMENTS + each for each in _MET]},
    }

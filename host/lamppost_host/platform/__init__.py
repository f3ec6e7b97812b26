"""The embedded SensorThings 1.1 service on SQLite, and its page."""

from lamppost_host.platform.server import serve

__all__ = ["serve"]

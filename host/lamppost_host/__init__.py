"""Lamppost's host side: from MQTT frames to a city's data platform."""

__version__ = "0.1.0"

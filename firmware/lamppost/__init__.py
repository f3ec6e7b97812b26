"""Lamppost on the node: sensors' readings, kept in flash until a city's platform has them."""

from .datastream import MISSING, Datastream
from .node import Node

__all__ = ("MISSING", "Datastream", "Node")

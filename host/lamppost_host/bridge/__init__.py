"""The bridge: from MQTT into a spool on disk, and from there, by sinks that each keep their own place, to the platforms."""

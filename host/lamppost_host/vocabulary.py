"""Observed properties and units: keys on the wire to the full SensorThings entities.

Definitions: observed properties from the CF Standard Names and the European Environment Agency's pollutant vocabulary where they have one; units
from QUDT, with the UCUM code as the symbol's authority.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lamppost_host.errors import LamppostError

_CF = "http://vocab.nerc.ac.uk/standard_name/"
_EEA = "http://dd.eionet.europa.eu/vocabulary/aq/pollutant/"
_QUDT = "http://qudt.org/vocab/unit/"


class VocabularyError(LamppostError):
    """A key or unit that the vocabulary does not have."""


@dataclass(frozen=True, slots=True)
class ObservedProperty:
    """SensorThings ObservedProperty (OGC 18-088, 8.2.6). `units`: the UCUM codes in which it may be measured."""

    key: str
    name: str
    definition: str
    description: str
    units: tuple[str, ...]


_PROPERTIES = (
    ObservedProperty(
        "air_temperature", "Air temperature", _CF + "air_temperature/", "Temperature of the air.", ("Cel",)
    ),
    ObservedProperty(
        "relative_humidity",
        "Relative humidity",
        _CF + "relative_humidity/",
        "Water vapour in the air, as a share of what it can hold at its temperature.",
        ("%",),
    ),
    ObservedProperty(
        "air_pressure",
        "Air pressure",
        _CF + "air_pressure/",
        "Pressure of the air where the sensor is; not reduced to sea level.",
        ("hPa",),
    ),
    ObservedProperty(
        "pm1", "PM1", _EEA + "6002", "Mass of particles up to 1 µm in a volume of air.", ("ug/m3",)
    ),
    ObservedProperty(
        "pm2_5", "PM2.5", _EEA + "6001", "Mass of particles up to 2.5 µm in a volume of air.", ("ug/m3",)
    ),
    ObservedProperty(
        "pm10", "PM10", _EEA + "5", "Mass of particles up to 10 µm in a volume of air.", ("ug/m3",)
    ),
    ObservedProperty(
        "water_temperature",
        "Water temperature",
        "http://qudt.org/vocab/quantitykind/Temperature",
        "Temperature of a body of water.",
        ("Cel",),
    ),
    ObservedProperty(
        "soil_temperature",
        "Soil temperature",
        _CF + "soil_temperature/",
        "Temperature of the ground.",
        ("Cel",),
    ),
    ObservedProperty(
        "illuminance",
        "Illuminance",
        "http://qudt.org/vocab/quantitykind/Illuminance",
        "Light that falls on a surface, as the eye sees it.",
        ("lx",),
    ),
    ObservedProperty(
        "co2",
        "Carbon dioxide",
        _CF + "mole_fraction_of_carbon_dioxide_in_air/",
        "Share of carbon dioxide in the air.",
        ("[ppm]",),
    ),
    ObservedProperty(
        "sound_level_laeq",
        "Equivalent A-weighted sound level (LAeq)",
        "http://qudt.org/vocab/quantitykind/SoundPressureLevel",
        "A-weighted sound pressure level, averaged by energy over the interval.",
        ("dB",),
    ),
    ObservedProperty(
        "battery_voltage",
        "Battery voltage",
        "http://qudt.org/vocab/quantitykind/Voltage",
        "Voltage of the node's own supply.",
        ("V",),
    ),
)
PROPERTIES: Final = MappingProxyType({item.key: item for item in _PROPERTIES})

_UNITS: Final = MappingProxyType(
    {
        "Cel": ("degree Celsius", "°C", "DEG_C"),
        "%": ("percent", "%", "PERCENT"),
        "hPa": ("hectopascal", "hPa", "HectoPA"),
        "ug/m3": ("microgram per cubic metre", "µg/m³", "MicroGM-PER-M3"),
        "[ppm]": ("parts per million", "ppm", "PPM"),
        "lx": ("lux", "lx", "LUX"),
        "dB": ("A-weighted decibel", "dB(A)", "DeciB_A"),
        "V": ("volt", "V", "V"),
    }
)


def observed_property(key: str) -> ObservedProperty:
    """The observed property behind a key on the wire."""
    found = PROPERTIES.get(key)
    if found is None:
        raise VocabularyError(
            f"the vocabulary has no observed property {key!r}", f"It has: {', '.join(PROPERTIES)}."
        )
    return found


def unit_of_measurement(ucum: str) -> dict[str, str]:
    """SensorThings unitOfMeasurement (OGC 18-088, table 12): name, symbol, definition."""
    found = _UNITS.get(ucum)
    if found is None:
        raise VocabularyError(
            f"the vocabulary has no unit {ucum!r}", f"It has the UCUM codes {', '.join(_UNITS)}."
        )
    name, symbol, qudt = found
    return {"name": name, "symbol": symbol, "definition": _QUDT + qudt}

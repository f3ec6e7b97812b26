"""Makes static/basemap.json from the TopoJSON file of Natural Earth's countries (see README.md beside this file).

    python -m lamppost_host.platform.page.make_basemap countries-50m.json static/basemap.json

The result: {"scale", "land": [polygon, ...], "borders": [line, ...]}. A polygon is an array of rings, a ring or line a flat
array of integers x0, y0, dx, dy, dx, dy, ... in units of `scale` degrees: the first point, then steps from point to point.
"""

import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

Point = tuple[float, float]
Line = list[Point]

SCALE = 0.01
TOLERANCE = 0.02  # degrees: what a line may be off by; about 2 km
SMALLEST_AREA = 0.001  # square degrees: smaller islands are left out


def _decode(topology: dict[str, Any]) -> list[Line]:
    """The topology's arcs in degrees."""
    scale_x, scale_y = topology["transform"]["scale"]
    offset_x, offset_y = topology["transform"]["translate"]
    arcs = []
    for arc in topology["arcs"]:
        x = y = 0
        line: Line = []
        for step_x, step_y in arc:
            x, y = x + step_x, y + step_y
            line.append((x * scale_x + offset_x, y * scale_y + offset_y))
        arcs.append(line)
    return arcs


def _distance(point: Point, start: Point, end: Point) -> float:
    """From a point to a segment, longitudes shortened by the latitude."""
    shorten = math.cos(math.radians((start[1] + end[1]) / 2))
    step_x, step_y = (end[0] - start[0]) * shorten, end[1] - start[1]
    x, y = (point[0] - start[0]) * shorten, point[1] - start[1]
    length = step_x * step_x + step_y * step_y
    along = min(1.0, max(0.0, (x * step_x + y * step_y) / length)) if length else 0.0
    return math.hypot(x - along * step_x, y - along * step_y)


def _simplify(line: Line) -> Line:
    """Douglas and Peucker's reduction to TOLERANCE; a closed line keeps the point farthest from its ends."""
    keep = {0, len(line) - 1}
    spans = [(0, len(line) - 1)]
    if line[0] == line[-1] and len(line) > 3:
        middle = max(range(len(line)), key=lambda index: math.dist(line[index], line[0]))
        keep.add(middle)
        spans = [(0, middle), (middle, len(line) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        farthest = max(
            range(first + 1, last), key=lambda index: _distance(line[index], line[first], line[last])
        )
        if _distance(line[farthest], line[first], line[last]) > TOLERANCE:
            keep.add(farthest)
            spans += [(first, farthest), (farthest, last)]
    return [line[index] for index in sorted(keep)]


def _ring(arcs: list[Line], numbers: list[int]) -> Line:
    ring: Line = []
    for number in numbers:
        arc = arcs[number] if number >= 0 else arcs[~number][::-1]
        ring += arc[1:] if ring else arc
    return ring


def _unwrap(ring: Line) -> Line:
    """Longitudes without jumps: a ring that crosses the antimeridian goes on beyond 180."""
    unwrapped = [ring[0]]
    for longitude, latitude in ring[1:]:
        turns = round((unwrapped[-1][0] - longitude) / 360)
        unwrapped.append((longitude + 360 * turns, latitude))
    if abs(unwrapped[-1][0] - unwrapped[0][0]) > 180:  # around the pole: Antarctica
        unwrapped += [(unwrapped[-1][0], -90.0), (unwrapped[0][0], -90.0), unwrapped[0]]
    return unwrapped


def _clip(ring: Line, limit: float, sign: int) -> Line:
    """The part of a ring on one side of a meridian (Sutherland and Hodgman): sign 1 keeps the west, -1 the east."""
    clipped: Line = []
    for start, end in pairwise(ring):
        start_in, end_in = (limit - start[0]) * sign >= 0, (limit - end[0]) * sign >= 0
        if start_in:
            clipped.append(start)
        if start_in != end_in:
            share = (limit - start[0]) / (end[0] - start[0])
            clipped.append((limit, start[1] + share * (end[1] - start[1])))
    return [*clipped, clipped[0]] if clipped else []


def _within_the_map(ring: Line) -> list[Line]:
    """A ring cut at the antimeridian into rings between -180 and 180."""
    unwrapped = _unwrap(ring)
    parts = []
    for turn in (-1, 0, 1):
        shifted = [(longitude - 360 * turn, latitude) for longitude, latitude in unwrapped]
        part = _clip(shifted, 180.0, 1)
        part = _clip(part, -180.0, -1) if part else part
        if len(part) > 3:
            parts.append(part)
    return parts


def _area(ring: Line) -> float:
    shorten = math.cos(math.radians(sum(latitude for _, latitude in ring) / len(ring)))
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring))) / 2 * shorten


def _steps(line: Line) -> list[int]:
    """A line as its first point and the steps between the points that differ after rounding."""
    points = [(round(x / SCALE), round(y / SCALE)) for x, y in line]
    steps = [*points[0]]
    for before, after in pairwise(points):
        if before != after:
            steps += [after[0] - before[0], after[1] - before[1]]
    return steps


def _polygons(geometry: dict[str, Any]) -> list[list[list[int]]]:
    arcs: list[list[list[int]]] = geometry["arcs"]
    return arcs if geometry["type"] == "MultiPolygon" else [arcs]  # type: ignore[list-item]


def convert(topology: dict[str, Any]) -> dict[str, Any]:
    arcs = [_simplify(arc) for arc in _decode(topology)]
    land = []
    for geometry in topology["objects"]["land"]["geometries"]:
        for polygon in _polygons(geometry):
            rings = [_ring(arcs, numbers) for numbers in polygon]
            holes = [_steps(ring) for ring in rings[1:] if len(ring) > 3 and _area(ring) > SMALLEST_AREA]
            parts = [part for part in _within_the_map(rings[0]) if _area(part) > SMALLEST_AREA]
            # No hole is near the antimeridian: they belong to the largest part.
            parts.sort(key=_area, reverse=True)
            land += [[_steps(part), *(holes if index == 0 else [])] for index, part in enumerate(parts)]
    users: dict[int, set[int]] = {}
    for country, geometry in enumerate(topology["objects"]["countries"]["geometries"]):
        for polygon in _polygons(geometry):
            for ring in polygon:
                for number in ring:
                    users.setdefault(max(number, ~number), set()).add(country)
    borders = [_steps(arcs[number]) for number, countries in users.items() if len(countries) > 1]
    return {"scale": SCALE, "land": land, "borders": [line for line in borders if len(line) > 2]}


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    basemap = convert(json.loads(source.read_text(encoding="utf-8")))
    target.write_text(json.dumps(basemap, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

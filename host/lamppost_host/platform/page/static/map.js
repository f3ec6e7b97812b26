// The map: Natural Earth's outlines, and a pin for each node that has a place.

import * as format from "./format.js";

const L = window.L;
// Closer than this the outlines, right to about 2 km, tell little.
const CLOSEST_AT_START = 9;

// A flat array x0, y0, dx, dy, ... -> [[latitude, longitude], ...]
function points(steps, scale) {
  const line = [];
  let x = 0;
  let y = 0;
  for (let index = 0; index < steps.length; index += 2) {
    x += steps[index];
    y += steps[index + 1];
    line.push([y * scale, x * scale]);
  }
  return line;
}

const onEdge = ([latitude, longitude]) => Math.abs(longitude) > 179.99 || latitude < -89.9;

// A ring without the stretches along the antimeridian and the pole, which are no coast.
function coasts(ring) {
  const lines = [];
  let line = [ring[0]];
  for (let index = 1; index < ring.length; index += 1) {
    if (onEdge(ring[index - 1]) && onEdge(ring[index])) {
      lines.push(line);
      line = [];
    }
    line.push(ring[index]);
  }
  lines.push(line);
  return lines.filter((each) => each.length > 1);
}

async function drawOutlines(map) {
  const answer = await fetch("page/basemap.json");
  const { scale, land, borders } = await answer.json();
  const rings = land.map((polygon) => polygon.map((ring) => points(ring, scale)));
  const plain = { interactive: false, smoothFactor: 1.2 };
  L.polygon(rings, { ...plain, className: "land", stroke: false, fillOpacity: 1 }).addTo(map);
  L.polyline(rings.flat().flatMap(coasts), { ...plain, className: "coast" }).addTo(map);
  L.polyline(borders.map((line) => points(line, scale)), { ...plain, className: "border" }).addTo(map);
}

// [latitude, longitude] of a GeoJSON geometry or feature, or null: a point, else the middle of what there is.
function placeOf(location) {
  const geometry = location?.type === "Feature" ? location.geometry : location;
  if (!geometry || !Array.isArray(geometry.coordinates)) {
    return null;
  }
  const flat = geometry.coordinates.flat(Infinity);
  if (geometry.type === "Point") {
    return flat.length >= 2 && flat.slice(0, 2).every(Number.isFinite) ? [flat[1], flat[0]] : null;
  }
  const bounds = L.geoJSON(geometry).getBounds();
  const middle = bounds.isValid() ? bounds.getCenter() : null;
  return middle && [middle.lat, middle.lng];
}

export class NodeMap {
  constructor(element, chosen) {
    this.chosen = chosen;
    this.pins = new Map();
    this.touched = false; // by the viewer: from then on the map stays where they put it
    for (const type of ["pointerdown", "wheel", "keydown"]) {
      element.addEventListener(type, () => {
        this.touched = true;
      }, { passive: true });
    }
    this.map = L.map(element, { worldCopyJump: true, minZoom: 1, maxZoom: 16, zoomSnap: 0.5, attributionControl: false });
    this.map.setView([30, 10], 1.5);
    L.control.scale({ imperial: false }).addTo(this.map);
    new ResizeObserver(() => {
      this.map.invalidateSize({ animate: false });
      this.#fit();
    }).observe(element);
    drawOutlines(this.map).catch(() => {}); // without outlines the pins are still right
  }

  // things: as data.js gives them.
  show(things) {
    const known = new Set();
    for (const thing of things) {
      const place = placeOf(thing.Locations?.[0]?.location);
      if (place) {
        known.add(thing["@iot.id"]);
        this.#pin(thing, place);
      }
    }
    for (const [id, pin] of this.pins) {
      if (!known.has(id)) {
        pin.marker.remove();
        this.pins.delete(id);
      }
    }
    if (this.pins.size !== this.fitted) {
      this.#fit();
    }
  }

  #fit() {
    if (this.touched || !this.pins.size) {
      return;
    }
    this.fitted = this.pins.size;
    const bounds = L.latLngBounds([...this.pins.values()].map((pin) => pin.marker.getLatLng()));
    // A pin stands above its place and reaches to both sides of it.
    const padding = { paddingTopLeft: [100, 80], paddingBottomRight: [100, 40] };
    this.map.fitBounds(bounds, { ...padding, maxZoom: CLOSEST_AT_START, animate: false });
  }

  #pin(thing, place) {
    const id = thing["@iot.id"];
    const existing = this.pins.get(id);
    if (existing) {
      existing.marker.setLatLng(place);
      existing.name.textContent = thing.name;
      return;
    }
    const body = document.createElement("div");
    body.className = "pin-body";
    const name = document.createElement("span");
    name.className = "pin-name";
    name.textContent = thing.name;
    const value = document.createElement("span");
    value.className = "pin-value";
    body.append(name, value);
    const icon = L.divIcon({ className: "pin", html: body, iconSize: null });
    const marker = L.marker(place, { icon, keyboard: true, riseOnHover: true, alt: thing.name });
    marker.on("click", () => this.chosen(id));
    marker.addTo(this.map);
    marker.getElement().setAttribute("aria-label", thing.name);
    this.pins.set(id, { marker, body, name, value });
  }

  // The pin's value: the latest result of the node's first Datastream.
  update(thing, datastream, latest, now) {
    const pin = this.pins.get(thing["@iot.id"]);
    if (!pin) {
      return;
    }
    const text = latest ? format.withUnit(latest.result, datastream) : "no reading";
    if (pin.value.textContent !== text) {
      pin.value.textContent = text;
      pin.marker.getElement()?.setAttribute("aria-label", `${thing.name}: ${text}`);
    }
    pin.body.dataset.age = latest ? format.ageClass(now - latest.time) : "silent";
  }

  goTo(id) {
    const pin = this.pins.get(id);
    if (pin && !this.map.getBounds().pad(-0.1).contains(pin.marker.getLatLng())) {
      this.map.panTo(pin.marker.getLatLng());
    }
  }
}

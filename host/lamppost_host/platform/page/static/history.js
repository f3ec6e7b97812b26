// The chosen Datastream's recent values: a line, and the same as a table.

import * as data from "./data.js";
import * as format from "./format.js";

const COUNT = 500;
const ROWS = 20;
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 152;
const MARGIN = { top: 10, right: 12, bottom: 20, left: 48 };

function make(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  if (text !== undefined) {
    element.textContent = text;
  }
  return element;
}

// Round values between low and high, about three.
function levels(low, high) {
  const rough = (high - low) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let level = Math.ceil(low / step) * step; level <= high + step / 1000; level += step) {
    found.push(Number(level.toPrecision(10)));
  }
  return found;
}

export class History {
  constructor() {
    this.section = document.getElementById("history");
    this.chart = document.getElementById("chart");
    this.datastream = null;
    this.points = [];
    this.chart.hidden = true;
    new ResizeObserver(() => this.draw()).observe(this.section);
  }

  async choose(thing, datastream) {
    this.datastream = datastream;
    this.points = [];
    this.section.dataset.open = "";
    document.getElementById("history-title").textContent = `${datastream.ObservedProperty?.name ?? datastream.name}, ${thing.name}`;
    document.getElementById("history-note").textContent = "Loading";
    const id = datastream["@iot.id"];
    let found;
    try {
      found = await data.history(id, COUNT);
    } catch (error) {
      document.getElementById("history-note").textContent = `Can't load the history: ${error.message}`;
      return;
    }
    if (this.datastream === datastream) {
      const newer = this.points;
      this.points = [];
      for (const each of found) {
        this.#add(format.timeOf(each.phenomenonTime), each.result);
      }
      newer.forEach(([time, result]) => this.#add(time, result));
      this.draw();
    }
  }

  arrived(datastream, time, result) {
    if (this.datastream?.["@iot.id"] === datastream) {
      this.#add(time, result);
      this.draw();
    }
  }

  #add(time, result) {
    const last = this.points.at(-1);
    if (!last || time > last[0]) {
      this.points.push([time, result]);
      this.points.splice(0, this.points.length - COUNT);
    }
  }

  draw() {
    if (!this.datastream) {
      return;
    }
    const last = this.points.at(-1);
    const note = document.getElementById("history-note");
    document.getElementById("history-value").textContent = last ? format.withUnit(last[1], this.datastream) : "";
    note.textContent = last ? `${this.points.length} values, the last at ${format.moment(last[0])}` : "No readings yet.";
    this.#rows();
    const numbers = this.points.filter(([, result]) => typeof result === "number");
    this.chart.hidden = numbers.length < 2;
    this.chart.replaceChildren();
    if (numbers.length > 1) {
      this.#line(numbers);
    }
  }

  #rows() {
    const rows = this.points.slice(-ROWS).reverse().map(([time, result]) => {
      const row = document.createElement("tr");
      const when = document.createElement("td");
      const value = document.createElement("td");
      when.textContent = format.moment(time);
      value.textContent = format.withUnit(result, this.datastream);
      value.className = "number";
      row.append(when, value);
      return row;
    });
    document.getElementById("history-rows").replaceChildren(...rows);
    document.getElementById("history-details").hidden = rows.length === 0;
  }

  #line(numbers) {
    const width = Math.max(200, this.chart.clientWidth);
    const values = numbers.map(([, result]) => result);
    let low = Math.min(...values);
    let high = Math.max(...values);
    const spare = (high - low || Math.abs(high) || 1) * 0.08;
    const summary = `${numbers.length} values between ${format.withUnit(low, this.datastream)} and ${format.withUnit(high, this.datastream)}`;
    low -= spare;
    high += spare;
    const first = numbers[0][0];
    const span = numbers.at(-1)[0] - first || 1;
    const bottom = HEIGHT - MARGIN.bottom;
    const x = (time) => MARGIN.left + ((time - first) / span) * (width - MARGIN.left - MARGIN.right);
    const y = (level) => bottom - ((level - low) / (high - low)) * (bottom - MARGIN.top);
    const svg = make("svg", { role: "img", "aria-label": summary, viewBox: `0 0 ${width} ${HEIGHT}` });
    for (const level of levels(low, high)) {
      svg.append(make("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(level), y2: y(level) }));
      svg.append(make("text", { x: MARGIN.left - 6, y: y(level) + 4, "text-anchor": "end" }, format.value(level)));
    }
    const ticks = width > 480 ? [0, 0.5, 1] : [0, 1];
    for (const share of ticks) {
      const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
      const label = format.tick(first + share * span, span);
      svg.append(make("text", { x: x(first + share * span), y: HEIGHT - 4, "text-anchor": anchor }, label));
    }
    const path = numbers.map(([time, result]) => `${x(time).toFixed(1)},${y(result).toFixed(1)}`).join(" L");
    const [lastTime, lastResult] = numbers.at(-1);
    svg.append(make("path", { class: "area", d: `M${x(first)},${bottom} L${path} L${x(lastTime)},${bottom} Z` }));
    svg.append(make("path", { class: "curve", d: `M${path}` }));
    svg.append(make("circle", { class: "end", cx: x(lastTime), cy: y(lastResult), r: 4.5 }));
    this.chart.replaceChildren(svg);
  }
}

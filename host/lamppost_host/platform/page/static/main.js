// The page: nodes in a list and on a map, their latest readings kept up to date, one history.
// Names and values come from devices and are untrusted: they enter the page as text only.

import * as data from "./data.js";
import * as format from "./format.js";
import { History } from "./history.js";
import { NodeMap } from "./map.js";

const nodes = new Map(); // Thing id -> {thing, card, age, datastreams: [ids]}
const streams = new Map(); // Datastream id -> {node, datastream, latest, valueCell, button}
const history = new History();
const map = new NodeMap(document.getElementById("map"), (id) => chooseNode(id));
let pressed = null;
let reloading = null;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) {
    made.className = className;
  }
  if (text !== undefined) {
    made.textContent = text;
  }
  return made;
}

function readingRow(node, datastream) {
  const row = element("tr");
  const name = element("th");
  name.scope = "row";
  const button = element("button", "", datastream.ObservedProperty?.name ?? datastream.name);
  button.type = "button";
  button.title = datastream.name;
  button.setAttribute("aria-pressed", "false");
  name.append(button);
  const cell = element("td");
  const value = element("span", "value", "–");
  cell.append(value, element("span", "unit", format.unit(datastream)));
  row.append(name, cell);
  const stream = { node, datastream, latest: null, value, button };
  button.addEventListener("click", () => chooseStream(stream));
  return { row, stream };
}

function nodeCard(thing) {
  const card = element("article", "node");
  const head = element("div", "node-head");
  const title = element("h3", "", thing.name);
  title.id = `node-${thing["@iot.id"]}`;
  card.setAttribute("aria-labelledby", title.id);
  const age = element("span", "age");
  const place = element("p", "quiet", thing.Locations?.[0]?.name ?? thing.description ?? "");
  head.append(title, age, place);
  const table = element("table", "readings");
  table.setAttribute("aria-label", `Latest readings of ${thing.name}`);
  card.append(head, table);
  return { thing, card, title, place, age, table, streams: [] };
}

function keep(thing) {
  let node = nodes.get(thing["@iot.id"]);
  if (!node) {
    node = nodeCard(thing);
    nodes.set(thing["@iot.id"], node);
  }
  node.thing = thing;
  node.title.textContent = thing.name;
  for (const datastream of thing.Datastreams ?? []) {
    const id = datastream["@iot.id"];
    let stream = streams.get(id);
    if (!stream) {
      const made = readingRow(node, datastream);
      stream = made.stream;
      streams.set(id, stream);
      node.streams.push(stream);
      node.table.append(made.row);
    }
    const latest = datastream.Observations?.[0];
    if (latest) {
      arrive(stream, format.timeOf(latest.phenomenonTime), latest.result);
    }
  }
  return node;
}

function arrive(stream, time, result) {
  if (stream.latest && time < stream.latest.time) {
    return false; // a repeated or late delivery; the page shows the newest
  }
  const changed = !stream.latest || stream.latest.time !== time;
  stream.latest = { time, result };
  stream.value.textContent = format.value(result);
  if (changed) {
    stream.value.classList.remove("new");
    requestAnimationFrame(() => stream.value.classList.add("new"));
  }
  return changed;
}

function showAges() {
  const now = Date.now();
  for (const node of nodes.values()) {
    const times = node.streams.filter((stream) => stream.latest).map((stream) => stream.latest.time);
    const newest = times.length ? Math.max(...times) : null;
    node.age.textContent = newest === null ? "no reading yet" : `as of ${format.age(now - newest)}`;
    node.age.dataset.age = newest === null ? "silent" : format.ageClass(now - newest);
    node.age.title = newest === null ? "" : format.moment(newest);
    const first = node.streams[0];
    if (first) {
      map.update(node.thing, first.datastream, first.latest, now);
    }
  }
}

function chooseStream(stream, { moveMap = true } = {}) {
  pressed?.button.setAttribute("aria-pressed", "false");
  pressed = stream;
  stream.button.setAttribute("aria-pressed", "true");
  if (moveMap) {
    map.goTo(stream.node.thing["@iot.id"]);
  }
  history.choose(stream.node.thing, stream.datastream);
}

function chooseNode(id) {
  const node = nodes.get(id);
  if (!node) {
    return;
  }
  node.card.scrollIntoView({ block: "nearest" });
  const stream = node.streams[0];
  if (stream) {
    stream.button.focus({ preventScroll: true });
    chooseStream(stream);
  }
}

function showFound() {
  const wanted = document.getElementById("find").value.trim().toLocaleLowerCase();
  let shown = 0;
  for (const node of nodes.values()) {
    const place = node.place.textContent;
    const matches = `${node.thing.name} ${place}`.toLocaleLowerCase().includes(wanted);
    node.card.hidden = !matches;
    shown += matches ? 1 : 0;
  }
  const message = document.getElementById("message");
  if (!nodes.size) {
    message.textContent = "No nodes yet. A node appears here when it has told the platform about itself.";
  } else {
    message.textContent = shown ? "" : "No node has such a name.";
  }
  const readings = streams.size === 1 ? "1 quantity" : `${streams.size} quantities`;
  document.getElementById("summary").textContent = nodes.size
    ? `${nodes.size === 1 ? "1 node" : `${nodes.size} nodes`}, ${readings}`
    : "";
}

async function load() {
  const things = await data.things();
  const list = document.getElementById("nodes");
  const known = new Set(things.map((thing) => thing["@iot.id"]));
  for (const [id, node] of nodes) {
    if (!known.has(id)) {
      node.card.remove();
      node.streams.forEach((stream) => streams.delete(stream.datastream["@iot.id"]));
      nodes.delete(id);
    }
  }
  for (const thing of things) {
    const node = keep(thing);
    if (!node.card.isConnected) {
      list.append(node.card);
    }
  }
  map.show(things);
  showFound();
  showAges();
  if (!pressed) {
    const first = [...streams.values()].find((stream) => stream.latest);
    if (first) {
      chooseStream(first, { moveMap: false });
    }
  }
}

// Loads again soon, once, however often it is asked for meanwhile.
function reload(delay) {
  reloading ??= setTimeout(() => {
    load()
      .catch((error) => {
        document.getElementById("message").textContent = `Can't load the nodes: ${error.message}`;
        setTimeout(() => reload(0), 3000);
      })
      .finally(() => {
        reloading = null;
      });
  }, delay);
}

function arrived(news) {
  for (const { datastream, phenomenonTime, result } of news) {
    const stream = streams.get(datastream);
    if (!stream) {
      reload(1000); // a node that is new here
      continue;
    }
    const time = format.timeOf(phenomenonTime);
    if (arrive(stream, time, result)) {
      history.arrived(datastream, time, result);
    }
  }
  showAges();
}

function connection(state) {
  const shown = document.getElementById("connection");
  if (shown.dataset.state !== state) {
    shown.dataset.state = state;
    shown.textContent = state === "live" ? "Live" : "Connection lost, trying again";
  }
  if (state === "live") {
    reload(0); // what came while there was no connection
  }
}

document.getElementById("zone").textContent = format.zone;
document.getElementById("find").addEventListener("input", showFound);
data.listen(arrived, connection);
reload(0);
setInterval(showAges, 1000);

// What the service holds, read over SensorThings, and what arrives, over server-sent events.

const THINGS = new URLSearchParams({
  $select: "id,name,description",
  $orderby: "name",
  $top: "500",
  $expand:
    "Locations($select=name,location)," +
    "Datastreams($top=200;$orderby=id;$select=id,name,unitOfMeasurement;$expand=ObservedProperty($select=name)," +
    "Observations($top=1;$orderby=phenomenonTime desc;$select=phenomenonTime,result))",
});
const MOST_THINGS = 5000;

async function json(address) {
  const answer = await fetch(address, { headers: { Accept: "application/json" } });
  if (!answer.ok) {
    throw new Error(`the service answered ${answer.status}`);
  }
  return answer.json();
}

// A next link as this page reaches the service: a proxy may have given it another host.
function here(link) {
  const address = new URL(link);
  return `v1.1/${address.pathname.split("/v1.1/")[1]}${address.search}`;
}

// All Things with their Locations, Datastreams and latest Observations.
export async function things() {
  const found = [];
  let address = `v1.1/Things?${THINGS}`;
  while (address && found.length < MOST_THINGS) {
    const page = await json(address);
    found.push(...page.value);
    address = page["@iot.nextLink"] ? here(page["@iot.nextLink"]) : null;
  }
  return found;
}

// The last Observations of a Datastream, oldest first.
export async function history(datastream, count) {
  const query = new URLSearchParams({ $orderby: "phenomenonTime desc", $top: count, $select: "phenomenonTime,result" });
  const page = await json(`v1.1/Datastreams(${datastream})/Observations?${query}`);
  return page.value.reverse();
}

// Calls arrived([{datastream, phenomenonTime, result}, ...]) and state("live" | "lost") until the page is closed.
export function listen(arrived, state) {
  const source = new EventSource("events");
  source.addEventListener("open", () => state("live"));
  source.addEventListener("error", () => state("lost"));
  source.addEventListener("message", (event) => arrived(JSON.parse(event.data)));
  window.addEventListener("pagehide", () => source.close());
}

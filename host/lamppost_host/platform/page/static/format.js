// Numbers, times and ages as a person reads them, in the viewer's language and time zone.

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "always", style: "short" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const short = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

// The time a result stands for, in ms: an interval's end.
export function timeOf(phenomenonTime) {
  return Date.parse(phenomenonTime.slice(phenomenonTime.lastIndexOf("/") + 1));
}

export function value(result) {
  if (typeof result === "number") {
    return result.toLocaleString(undefined, { maximumFractionDigits: Math.abs(result) < 1 ? 4 : 2 });
  }
  if (result === null || result === undefined) {
    return "–";
  }
  return typeof result === "object" ? JSON.stringify(result) : String(result);
}

export function unit(datastream) {
  const symbol = datastream.unitOfMeasurement?.symbol;
  return typeof symbol === "string" ? symbol : "";
}

export function withUnit(result, datastream) {
  const symbol = unit(datastream);
  return symbol ? `${value(result)}\u202f${symbol}` : value(result);
}

export function age(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 2) {
    return "now";
  }
  if (seconds < 120) {
    return relative.format(-seconds, "second");
  }
  if (seconds < 7200) {
    return relative.format(-Math.round(seconds / 60), "minute");
  }
  if (seconds < 172800) {
    return relative.format(-Math.round(seconds / 3600), "hour");
  }
  return relative.format(-Math.round(seconds / 86400), "day");
}

// How much a reading's age should worry: most nodes report every minute or two.
export function ageClass(milliseconds) {
  if (milliseconds < 180_000) {
    return "fresh";
  }
  return milliseconds < 3_600_000 ? "late" : "silent";
}

export function moment(milliseconds) {
  return day.format(milliseconds);
}

// A label for a time axis that spans `span` ms.
export function tick(milliseconds, span) {
  return (span < 43_200_000 ? clock : short).format(milliseconds);
}

"use strict";

// Everything is set as text: nothing that comes from a database becomes markup.

const STALE_SECONDS = 8;
const MOST_ROWS = 200;
const BADGES = {
  ok: "good", active: "good", done: "good", finished: "good", succeeded: "good",
  readonly: "warn", degraded: "warn", maintenance: "warn", moving: "warn", paused: "warn",
  unreachable: "bad", invalid: "bad", failed: "bad", "not open": "bad",
};

let latest = null;
let receivedAt = 0;
let paused = false;
let order = "total";

const find = (selector) => document.querySelector(selector);

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function cell(text, label, kind) {
  const attributes = label ? { "data-label": label } : {};
  if (kind) attributes.class = kind;
  return element("td", attributes, text);
}

function badge(text) {
  return element("span", { class: `badge ${BADGES[text] || ""}` }, text);
}

function seconds(value) {
  if (value === null) return "never";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${(value * 1000).toPrecision(3)} ms`;
  if (value < 120) return `${value.toFixed(1)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return `${Math.round(value / 3600)} h`;
}

function ago(value) {
  return value < 1 ? "just now" : `${seconds(Math.floor(value)).replace(".0 s", " s")} ago`;
}

const count = (value) => value.toLocaleString("en");

function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function sparkline(database) {
  const values = database.in_use;
  const most = Math.max(1, ...values);
  const made = svg("svg", {
    class: "spark", viewBox: "0 0 89 28", preserveAspectRatio: "none", role: "img",
    "aria-label": `connections in use: now ${values.at(-1) ?? 0}, at most ${Math.max(0, ...values)}`,
  });
  const start = 89 - (values.length - 1);
  const points = values.map((value, index) => `${start + index},${26 - (value / most) * 23}`);
  if (points.length > 1) {
    made.append(
      svg("polygon", { class: "area", points: `${start},27 ${points.join(" ")} 89,27` }),
      svg("polyline", { class: "line", points: points.join(" ") }),
    );
  }
  database.waiting.forEach((value, index) => {
    if (value) made.append(svg("rect", { class: "waiting", x: start + index - 0.5, y: 0, width: 1, height: 5 }));
  });
  return made;
}

const isTroubled = (database) =>
  !["active", "readonly", "inactive", "maintenance", "moving"].includes(database.state)
  || (database.pool !== null && (database.pool.circuit === "open" || database.pool.waiting > 0));

function address(database) {
  const [host, name] = (database.address || "–").split("/");
  const made = cell(host, "", "wide address");
  if (name) made.append(element("span", { class: "label" }, name));
  return made;
}

function databaseRow(database) {
  const pool = database.pool;
  const name = element("td", { class: "wide name" }, element("strong", {}, database.name));
  if (database.label) name.append(element("span", { class: "label" }, database.label));
  const state = element("td", { class: "wide text" }, badge(database.state));
  if (pool !== null && pool.circuit === "open") {
    state.append(" ", element("span", { class: "badge bad" }, "circuit open"));
  }
  if (database.reason) state.append(element("span", { class: "reason" }, database.reason));
  return element(
    "tr", {}, name, state, address(database),
    cell(pool ? `${pool.in_use} / ${pool.limit}` : "–", "In use", "number"),
    cell(pool ? count(pool.idle) : "–", "Idle", "number"),
    cell(pool ? count(pool.waiting) : "–", "Waiting", "number"),
    cell(pool ? count(pool.timeouts) : "–", "Timeouts", "number"),
    cell(pool ? sparkline(database) : "", "", "wide"),
  );
}

function showDatabases(status) {
  const wanted = find("#filter").value.trim().toLowerCase();
  const onlyTroubled = find("#troubled").checked;
  const shown = status.databases.filter((database) => {
    const text = `${database.name} ${database.label || ""} ${database.state} ${database.address || ""}`;
    return text.toLowerCase().includes(wanted) && (!onlyTroubled || isTroubled(database));
  });
  shown.sort((a, b) => isTroubled(b) - isTroubled(a));
  find("#databases tbody").replaceChildren(...shown.slice(0, MOST_ROWS).map(databaseRow));
  const more = find("#databases .more");
  more.hidden = shown.length <= MOST_ROWS;
  more.textContent = `${count(shown.length - MOST_ROWS)} more: use the filter.`;
  find("#databases-title").textContent =
    shown.length === status.databases.length ? "Databases" : `Databases (${count(shown.length)} of ${count(status.databases.length)})`;
}

function showStatements(status) {
  const rows = [...status.statements].sort((a, b) => b[order] - a[order]).map((each) => element(
    "tr", {},
    element("td", { class: "wide" }, element("code", {}, each.statement)),
    cell(count(each.calls), "Calls", "number"), cell(seconds(each.total), "Total", "number"),
    cell(seconds(each.mean), "Mean", "number"), cell(seconds(each.p95), "p95", "number"),
    cell(seconds(each.longest), "Longest", "number"), cell(count(each.rows), "Rows", "number"),
    cell(count(each.errors), "Errors", "number"),
  ));
  fill("#statements", rows);
}

function showErrors(status) {
  fill("#errors", status.errors.map((each) => element(
    "tr", {}, cell(ago(status.at - each.at)), cell(count(each.times), "Times", "number"),
    cell(each.target), cell(each.code ? `${each.error} ${each.code}` : each.error, "", "text"),
    element("td", { class: "wide" }, element("code", {}, each.statement)),
  )));
}

function showJobs(status) {
  const failure = find("#jobs-failure");
  failure.hidden = !status.jobs_failure;
  failure.textContent = status.jobs_failure ? `The jobs cannot be read: ${status.jobs_failure}` : "";
  fill("#jobs", status.jobs.map((job) => {
    const progress = element("td", {});
    if (job.total) {
      progress.append(element("progress", { max: job.total, value: job.done, "aria-label": `progress of ${job.name}` }), " ");
    }
    progress.append(job.total ? `${count(job.done)} of ${count(job.total)}` : count(job.done));
    return element(
      "tr", {}, cell(job.name, "", "wide text"), cell(job.kind), element("td", {}, badge(job.state)),
      progress, cell(job.updated_at || "", "", "text"),
    );
  }));
  find("#jobs .empty").hidden ||= Boolean(status.jobs_failure);
}

function fill(section, rows) {
  find(`${section} tbody`).replaceChildren(...rows);
  find(`${section} table`).hidden = rows.length === 0;
  find(`${section} .empty`).hidden = rows.length > 0;
}

function showSummary(status) {
  const pools = status.databases.map((database) => database.pool).filter((pool) => pool !== null);
  const sum = (field) => pools.reduce((total, pool) => total + pool[field], 0);
  const up = status.databases.filter((database) => !isTroubled(database)).length;
  const figures = {
    "Map version": count(status.map.version),
    "Map age": seconds(status.map.age),
    "Without problems": `${up} of ${status.databases.length}`,
    "Connections in use": count(sum("in_use")),
    "Callers waiting": count(sum("waiting")),
    "Calls": count(status.calls),
    "Failed calls": count(status.failures),
  };
  find("#summary").replaceChildren(...Object.entries(figures).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function showProblems(status) {
  const found = [...status.map.problems];
  if (status.map.failure) found.unshift(`The shard table cannot be read, the last map stays in use: ${status.map.failure}`);
  for (const [address, left] of Object.entries(status.draining)) {
    found.push(`${address} is being drained: ${left} connections are still in use`);
  }
  find("#problems").hidden = found.length === 0;
  find("#problems ul").replaceChildren(...found.map((text) => element("li", {}, text)));
}

function show() {
  if (latest === null) return;
  const state = find("#state");
  if (state.textContent !== latest.state) state.textContent = latest.state;
  state.className = `badge ${BADGES[latest.state] || ""}`;
  document.title = `${latest.state === "ok" ? "" : "⚠ "}dualdb: ${latest.state}`;
  find("#address").textContent = latest.databases[0].address;
  for (const part of [showProblems, showSummary, showDatabases, showStatements, showErrors, showJobs]) part(latest);
}

function showAge() {
  const updated = find("#updated");
  const age = (performance.now() - receivedAt) / 1000;
  const stale = receivedAt > 0 && age > STALE_SECONDS && !paused;
  updated.className = stale ? "badge bad" : "muted";
  if (paused) updated.textContent = "paused";
  else if (stale) updated.textContent = `no update for ${Math.round(age)} s`;
  else updated.textContent = receivedAt > 0 ? "live" : "connecting";
}

function receive(event) {
  receivedAt = performance.now();
  if (!paused) {
    latest = JSON.parse(event.data);
    show();
  }
  showAge();
}

function sort(header) {
  order = header.dataset.sort;
  for (const each of document.querySelectorAll("th[aria-sort]")) each.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", "descending");
  show();
}

find("#pause").addEventListener("click", (event) => {
  paused = !paused;
  event.target.setAttribute("aria-pressed", String(paused));
  event.target.textContent = paused ? "Resume" : "Pause";
  showAge();
});
find("#filter").addEventListener("input", show);
find("#troubled").addEventListener("change", show);
for (const header of document.querySelectorAll("th[data-sort]")) {
  header.querySelector("button").addEventListener("click", () => sort(header));
}
const source = new EventSource("events");
source.addEventListener("message", receive);
source.addEventListener("error", () => {
  // a browser gives up after a response that is none of events, such as a login page
  if (source.readyState === EventSource.CLOSED) find("#updated").textContent = "disconnected: reload the page";
});
setInterval(showAge, 1000);

// The draft of the routes: checked, tried on one series, replayed over days, applied.
import { ask, call, element } from "/static/app.js";

const field = (id) => document.getElementById(id);
const result = field("draft-result");
const alert = field("draft-alert");

function table(head, rows) {
  const made = element("table");
  const top = element("tr");
  for (const name of head) top.append(element("th", name));
  made.createTHead().append(top);
  const body = made.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    for (const cell of cells) {
      if (cell instanceof Node) row.insertCell().append(cell);
      else row.insertCell().textContent = cell ?? "";
    }
  }
  return made;
}

function link(path, text) {
  const made = element("a", text);
  made.href = path;
  return made;
}

async function attempt(work) {
  alert.textContent = "";
  result.replaceChildren(element("p", "One moment …", "dim"));
  try {
    result.replaceChildren(...(await work(field("draft-text").value)));
  } catch (problem) {
    result.replaceChildren();
    alert.textContent = problem.lines ?? String(problem);
  }
}

async function check(text) {
  const routes = await call("POST", "/api/v1/rules/validate", { text });
  const list = element("ol", undefined, "rules");
  for (const route of routes) {
    const item = element("li");
    item.append(element("h3", route.name), element("p", `When ${route.when}: ${route.action}${route.send_to.length ? `, send to ${route.send_to.join(", ")}` : ""}.`));
    list.append(item);
  }
  return [element("h3", "The draft is sound. In plain words:"), list];
}

async function dryRun(text) {
  const series = Number(field("dry-series").value);
  if (!series) throw new Error("Name the number of a stored series.");
  const found = await call("POST", "/api/v1/rules/dry-run", { text, series_id: series });
  const taken = found.taken_by ? `taken by ${found.taken_by}: ${found.action}${found.send_to.length ? `, to ${found.send_to.join(", ")}` : ""}` : "taken by no route";
  return [
    element("h3", `Series ${found.series_id} (${found.modality}, ${found.slice_count} images) would be ${taken}.`),
    table(["Route", "When", "Outcome"], found.checks.map((c) => [c.route, c.when, c.matched ? element("span", "matches", "matched") : `fails: ${c.failed_clause}`])),
  ];
}

function load(found) {
  const sent = Object.entries(found.instances).map(([name, count]) => `${count} to ${name}`).join(", ") || "nothing";
  return [String(found.series), found.seconds === null ? "unknown" : `${Math.round(found.seconds)} s`, sent];
}

async function replay(text) {
  const days = Number(field("replay-days").value) || 7;
  const found = await call("POST", "/api/v1/rules/replay", { text, days });
  const told = element("p", `${found.looked_at} series of the last ${days} days: ${found.counts.gained ?? 0} gained, ${found.counts.lost ?? 0} lost, ${found.counts.changed ?? 0} taken by another route.`);
  if (!found.complete) told.append(" Time ran out before all were looked at.");
  if (found.unreadable) told.append(` ${found.unreadable} could not be read.`);
  const rows = ["gained", "lost", "changed"].flatMap((kind) => found[kind].map((c) => [kind, link(`/series/${c.series_id}`, `Series ${c.series_id}`), c.modality, c.calling_ae, c.now ?? "none", c.then ?? "none"]));
  const parts = [told, table(["Load", "Series", "Processing", "Instances"], [["now", ...load(found.load_now)], ["with the draft", ...load(found.load_then)]])];
  if (rows.length) parts.push(element("h3", "What changes"), table(["", "Series", "Modality", "From", "Now", "Then"], rows));
  return parts;
}

async function apply() {
  if (!(await ask("Put this draft in force, at once and for every series that is not closed yet?"))) return;
  alert.textContent = "";
  const version = field("draft").dataset.version;
  try {
    const kept = await call("POST", "/api/v1/rules/apply", { text: field("draft-text").value, comment: field("apply-comment").value, expected: version ? Number(version) : null });
    sessionStorage.setItem("said", `Version ${kept.id} is in force.`);
    location.assign("/routes");
  } catch (problem) {
    alert.textContent = problem.lines ?? String(problem);
  }
}

field("validate")?.addEventListener("click", () => attempt(check));
field("dry-run")?.addEventListener("click", () => attempt(dryRun));
field("replay")?.addEventListener("click", () => attempt(replay));
field("apply")?.addEventListener("click", apply);

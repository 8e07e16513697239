// What every page does: calls of the API, buttons and forms that make them, live parts, the colour scheme.
// Text from the node is only ever put in as text; live parts are the server's own escaped page.

const csrf = document.querySelector("meta[name=csrf]")?.content ?? "";

export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? `The node answered ${status}.`);
    this.status = status;
    this.errors = body?.errors ?? [];
  }
  // The sentence, and every mistake with its line or place.
  get lines() {
    const told = this.errors.map((e) => {
      const at = e.line ? `line ${e.line}` : Array.isArray(e.at) ? e.at.join(".") : e.at;
      return at ? `${at}: ${e.message}` : e.message;
    });
    return [this.message, ...told].join("\n");
  }
}

// One call of the API. A write carries the session's token and a key, so that a repeated click has one effect.
export async function call(method, path, body, signal) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") {
    headers["X-CSRF-Token"] = csrf;
    headers["Idempotency-Key"] = crypto.randomUUID();
  }
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, credentials: "same-origin", body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The node does not answer." });
  }
  const text = await answer.text();  // empty where there is nothing to say (204), whatever its type is called
  const json = text && /json/.test(answer.headers.get("Content-Type") ?? "") ? JSON.parse(text) : null;
  // A wrong old password is a 401 as well, and no reason to leave the page.
  if (answer.status === 401 && csrf && json?.type?.endsWith(":not-signed-in")) toLogin();
  if (!answer.ok) throw new Problem(answer.status, json);
  return json;
}

export function say(text, bad = false) {
  const line = document.createElement("p");
  line.textContent = text;
  if (bad) line.className = "bad";
  document.getElementById("said").append(line);
  setTimeout(() => line.remove(), bad ? 12000 : 6000);
}

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function ask(question) {
  const dialog = document.getElementById("confirm");
  dialog.querySelector("p").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

let leaving = false;
function toLogin() {
  if (leaving) return;
  location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
}

// --- live parts: the same page is fetched again and what changed is put in its place

let looking = false;
export async function refresh() {
  const parts = document.querySelectorAll("[data-live][id]");
  if (!parts.length || looking) return;
  looking = true;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (answer.redirected && new URL(answer.url).pathname === "/login") return toLogin();
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of parts) replace(old, fresh.getElementById(old.id));
    localTimes();
  } catch { /* the next look tries again */ } finally {
    looking = false;
  }
}

function replace(old, fresh) {
  if (!fresh) return old.replaceChildren();
  if (fresh.innerHTML === old.dataset.shown || old.matches(":has(input:focus, select:focus, textarea:focus)")) return;
  const held = old.contains(document.activeElement) ? document.activeElement : null;
  const signature = held && `${held.tagName}|${held.dataset.call ?? held.getAttribute("href") ?? ""}`;
  const scrolls = [...old.querySelectorAll(".trail, .scroll")].map((box) => [box.scrollTop, box.scrollLeft]);
  old.dataset.shown = fresh.innerHTML;
  old.replaceChildren(...document.importNode(fresh, true).childNodes);
  old.querySelectorAll(".trail, .scroll").forEach((box, i) => scrolls[i] && ([box.scrollTop, box.scrollLeft] = scrolls[i]));
  if (held) [...old.querySelectorAll("a, button")].find((e) => `${e.tagName}|${e.dataset.call ?? e.getAttribute("href") ?? ""}` === signature)?.focus();
}

// After a while without a hand on mouse or keys nothing is fetched any more, so that an unattended session ends.
const ATTENDED_MS = 5 * 60 * 1000;
let touchedAt = Date.now();
for (const kind of ["pointermove", "pointerdown", "keydown", "wheel"]) addEventListener(kind, () => { touchedAt = Date.now(); }, { passive: true });
const every = Number(document.getElementById("main")?.dataset.every ?? 0);
if (every) {
  setInterval(() => {
    if (document.hidden || document.querySelector("dialog[open]") || Date.now() - touchedAt > ATTENDED_MS) return;
    refresh();
  }, every);
}

function localTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.valueOf())) time.title = `${at.toLocaleString()} here, ${time.dateTime.slice(0, 19).replace("T", " ")} UTC`;
  }
}

// --- buttons

// An answer as names and values, for eyes only: it is never put into the page's own copy.
function unfold(panel, answer) {
  const lines = Object.entries(answer).flatMap(([name, value]) => [element("dt", name.replaceAll("_", " ")), element("dd", value || "not said")]);
  panel.querySelector("dl").replaceChildren(...lines);
  panel.hidden = false;
}

function told(element_, answer) {
  if (element_.dataset.said === "echo") {
    return answer.answered ? `${answer.peer} answered in ${Math.round(answer.seconds * 1000)} ms.` : `${answer.peer} did not answer. ${answer.message}`;
  }
  if (element_.dataset.said === "alerts") {
    if (!answer.length) return "No channel is configured: nobody would be told.";
    return answer.map((told) => `${told.channel}: ${told.error ?? "told"}`).join("; ");
  }
  return element_.dataset.said ?? "";
}

async function after(source, answer) {
  if (source.dataset.into) return unfold(document.getElementById(source.dataset.into), answer);
  const text = told(source, answer);
  const next = source.dataset.next;
  if (next) {
    if (text) sessionStorage.setItem("said", text);
    leaving = true;
    location.assign(next);
    return;
  }
  if (text) say(text, answer?.answered === false);
  await refresh();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-call]");
  if (!button) return;
  event.preventDefault();
  if (button.dataset.confirm && !(await ask(button.dataset.confirm))) return;
  const [method, path] = button.dataset.call.split(" ");
  button.disabled = true;
  try {
    await after(button, await call(method, path, button.dataset.body ? JSON.parse(button.dataset.body) : undefined));
  } catch (problem) {
    say(problem.lines ?? String(problem), true);
    await refresh();
  } finally {
    button.disabled = false;
  }
});

// --- forms

export function values(form) {
  const found = {};
  let path = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled) continue;
    if (field.dataset.inPath !== undefined) path[field.name] = field.value;
    else if (field.dataset.type === "list") { (found[field.name] ??= []); if (field.checked) found[field.name].push(field.value); }
    else if (field.type === "radio") { if (field.checked) found[field.name] = field.value; }
    else if (field.dataset.type === "flag") found[field.name] = field.type === "checkbox" ? field.checked : field.value === "true";
    else if (field.dataset.type === "number") found[field.name] = field.value === "" ? null : Number(field.value);
    else found[field.name] = field.value;
  }
  return { found, path };
}

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-call]");
  if (!form) return;
  event.preventDefault();
  const { found, path } = values(form);
  const [method, target] = form.dataset.call.split(" ");
  const address = target.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(path[name]));
  const alert = form.querySelector("[role=alert]");
  const button = form.querySelector("button:not([type=button])");
  if (alert) alert.textContent = "";
  if (button) button.disabled = true;
  try {
    const answer = await call(method, address, found);
    if (form.dataset.show) form.querySelector("output").textContent = answer[form.dataset.show];
    if (form.dataset.reset !== undefined) form.reset();
    await after(form, answer);
  } catch (problem) {
    if (alert) alert.textContent = problem.lines ?? String(problem);
    else say(problem.lines ?? String(problem), true);
  } finally {
    if (button) button.disabled = false;
  }
});

// --- small things

const theme = document.getElementById("theme");
function showTheme() {
  const now = document.documentElement.dataset.theme ?? "auto";
  theme.textContent = { auto: "Auto", light: "Light", dark: "Dark" }[now];
  theme.setAttribute("aria-label", `Colour scheme: ${now}`);
}
theme.addEventListener("click", () => {
  const next = { auto: "light", light: "dark", dark: "auto" }[document.documentElement.dataset.theme ?? "auto"];
  if (next === "auto") { delete document.documentElement.dataset.theme; localStorage.removeItem("theme"); }
  else { document.documentElement.dataset.theme = next; localStorage.setItem("theme", next); }
  showTheme();
});
showTheme();
localTimes();

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, textarea, select")) return;
  const search = document.querySelector("input[type=search]");
  if (search) { event.preventDefault(); search.focus(); }
});

const kept = sessionStorage.getItem("said");
if (kept) { sessionStorage.removeItem("said"); say(kept); }

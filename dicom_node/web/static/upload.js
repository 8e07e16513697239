// Uploads: one file at a time, in the order they were found; what was stored stays, whatever happens later.
import { Problem, call, element } from "/static/app.js";

const field = (id) => document.getElementById(id);
const csrf = document.querySelector("meta[name=csrf]").content;
let stop = null;

async function bring(id, file, signal) {
  const answer = await fetch(`/api/v1/uploads/${id}/files`, {
    method: "POST", body: file, signal, credentials: "same-origin", headers: { "X-CSRF-Token": csrf, "Content-Type": "application/octet-stream" },
  });
  const json = await answer.json().catch(() => null);
  if (!answer.ok) throw new Problem(answer.status, json);
  return json;
}

function tell(done, total, state) {
  field("bar").max = total;
  field("bar").value = done;
  const refused = Object.values(state.refused).reduce((sum, count) => sum + count, 0);
  field("told").textContent = `${done} of ${total} files: ${state.received} images stored, ${state.skipped} skipped as no DICOM, ${refused} refused.`;
}

async function upload(files) {
  if (!files.length || stop) return;
  stop = new AbortController();
  field("upload-alert").textContent = "";
  field("upload-result").replaceChildren();
  field("upload-progress").hidden = false;
  let opened = null;
  try {
    opened = await call("POST", "/api/v1/uploads");
    let state = opened;
    tell(0, files.length, state);
    for (const [index, file] of files.entries()) {
      state = await bring(opened.id, file, stop.signal);
      tell(index + 1, files.length, state);
    }
    show(await call("POST", `/api/v1/uploads/${opened.id}/finish`));
  } catch (problem) {
    field("upload-alert").textContent = problem.name === "AbortError" ? "Stopped. What was stored stays; its series count as interrupted." : problem.message;
    if (opened) await call("DELETE", `/api/v1/uploads/${opened.id}`).catch(() => {});
  } finally {
    stop = null;
    for (const id of ["files", "folder"]) field(id).value = "";
  }
}

function show(done) {
  const list = element("ul");
  for (const number of done.series) {
    const item = element("li");
    const link = element("a", `Series ${number}`);
    link.href = `/series/${number}`;
    item.append(link);
    list.append(item);
  }
  const parts = [element("h2", done.series.length ? "Brought, and on its way through the line" : "Nothing of this was DICOM that the node takes"), list];
  for (const [reason, count] of Object.entries(done.refused)) parts.push(element("p", `${count} refused: ${reason}`));
  field("upload-result").replaceChildren(...parts);
}

// A dropped folder, walked through to the end; a reader hands out its entries in portions.
async function walk(entry) {
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const portion = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!portion.length) return found;
    for (const inner of portion) found.push(...(await walk(inner)));
  }
}

const drop = field("drop");
drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [];
  for (const entry of entries) files.push(...(await walk(entry)));
  await upload(files.length ? files : [...event.dataTransfer.files]);
});
for (const id of ["files", "folder"]) {
  field(id).addEventListener("change", (event) => upload([...event.target.files]));
  field(id).parentElement.tabIndex = 0;
  field(id).parentElement.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); field(id).click(); } });
}
field("stop").addEventListener("click", () => stop?.abort());

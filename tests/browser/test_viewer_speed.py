"""How soon the viewer shows the first image, and whether it keeps up with a fast hand: `pytest -m drill -s`."""

from __future__ import annotations

import statistics

import pytest

from dicom_node.desk.roles import Role

SLICES, SIDE = 200, 512
FIRST_MS, STEP_MS = 500.0, 50.0

# Notes when each slice stood on the page, in milliseconds since the navigation began.
WATCH = """
window.shown = {};
addEventListener("DOMContentLoaded", () => {
  const viewer = document.getElementById("viewer");
  if (viewer) new MutationObserver(() => { window.shown[viewer.dataset.ready] ??= performance.now(); })
    .observe(viewer, { attributes: true, attributeFilter: ["data-ready"] });
});
"""
# Presses the arrow at an even pace and returns how long each slice took to stand there; null for one that never did.
SCROLL = """
async ([steps, pace]) => {
  const viewer = document.getElementById("viewer");
  const press = (key) => viewer.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const until = async (condition) => { while (!condition()) await new Promise(requestAnimationFrame); };
  press("Home");
  await until(() => viewer.dataset.ready === "0");
  window.shown = {};
  const pressed = [];
  const start = performance.now();
  for (let step = 1; step <= steps; step += 1) {
    await new Promise((done) => setTimeout(done, start + step * pace - performance.now()));
    pressed[step] = performance.now();
    press("ArrowDown");
    if (viewer.dataset.ready === String(step)) window.shown[step] ??= performance.now();
  }
  const took = performance.now() - start;
  await until(() => viewer.dataset.ready === String(steps));
  return [took, pressed.slice(1).map((at, i) => (window.shown[i + 1] === undefined ? null : window.shown[i + 1] - at))];
}
"""


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_the_first_image_comes_at_once_and_scrolling_keeps_up(browser, line, store):
    looks = {
        "received series": [f"/series/{line.series(slices=SLICES, side=SIDE)}/view" for _ in range(2)],
        "source, derived, difference": [f"/jobs/{line.enhanced(slices=SLICES, side=SIDE)}/view"],
    }
    page = browser.page(Role.VIEWER, "/overview")
    page.add_init_script(WATCH)
    found = {}
    for name, paths in looks.items():
        firsts, delays = [], []
        for path in paths:
            page.goto(path)
            page.wait_for_selector("#viewer:not([data-ready=''])[data-ready]")
            firsts.append(
                min(page.evaluate("Object.entries(shown).filter(([k]) => k !== '').map(([, at]) => at)"))
            )
            took, seen = page.evaluate(SCROLL, [SLICES // 2, STEP_MS])
            delays += [float("inf") if delay is None else delay for delay in seen]
            print(f"{name}: first image {firsts[-1]:.0f} ms, {SLICES // 2} slices in {took / 1000:.1f} s")
        on_time = sum(delay <= STEP_MS for delay in delays) / len(delays)
        late = sorted(delays)[int(len(delays) * 0.95)]
        print(
            f"{name}: median {statistics.median(delays):.0f} ms, p95 {late:.0f} ms, {on_time:.0%} within a step"
        )
        found[name] = (max(firsts), on_time)
    page.close()

    assert max(first for first, _ in found.values()) < FIRST_MS
    assert min(share for _, share in found.values()) >= 0.95

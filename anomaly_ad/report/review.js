"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SPAN_FLOOR = 1e-3;  // as in calibration.py

  // The limit that some good images give: the same steps in the same order as
  // calibration.Limit.from_good. null where too few are left.
  function limitOf(kept) {
    if (kept.length < 2) return null;
    const sizes = new Map();
    const groupOf = (n) => data.groups === null ? n : data.groups[n];
    for (const n of kept) sizes.set(groupOf(n), (sizes.get(groupOf(n)) || 0) + 1);
    const share = (n) => 1 / sizes.get(groupOf(n));
    const order = [...kept].sort((a, b) => data.scores[a] - data.scores[b] || share(a) - share(b));
    const needed = (sizes.size + 1) * (1 - data.rate) - 1e-9;
    let sum = 0, rank = order.length - 1;
    for (const [place, n] of order.entries()) {
      sum += share(n);
      if (Math.round(sum * 1e9) / 1e9 >= needed) { rank = place; break; }
    }
    const half = order.length >> 1;
    const upper = data.scores[order[half]];
    const median = order.length % 2 ? upper : (data.scores[order[half - 1]] + upper) / 2;
    return median + Math.max(data.scores[order[rank]] - median, SPAN_FLOOR * Math.abs(median), 1e-9);
  }

  // Four digits, without zeros that say nothing, as Python's format .4g.
  const four = (value) => Number(value.toPrecision(4)).toString();
  const whole = (count) => count.toLocaleString("en-US");
  const boxes = [...document.querySelectorAll("[data-n]")];
  const out = () => boxes.filter((box) => !box.checked).map((box) => data.images[box.dataset.n]);

  function tell() {
    const left = out(), gone = new Set(left.map((image) => image.index));
    const kept = data.scores.map((_, n) => n).filter((n) => !gone.has(n));
    const limit = limitOf(kept);
    const all = `Limit with all ${whole(data.scores.length)} images: ${four(data.limit)}`;
    const without = limit === null ? "too few images are left" : `${four(limit)} (estimate)`;
    byId("sum-text").textContent = left.length ? `${all}; without the ${whole(left.length)} unticked: ${without}` : all;
    byId("list-text").textContent = left.length || data.excluded.length
      ? `${whole(left.length)} unticked here${data.excluded.length ? `, ${whole(data.excluded.length)} excluded before` : ""}.`
      : "No image is unticked.";
    byId("list").value = [...data.excluded, ...left.map((image) => image.line)].map((line) => `${line}\n`).join("");
    byId("download").disabled = byId("list").value === "";
    for (const box of boxes) {
      box.closest(".one").classList.toggle("out", !box.checked);
      box.parentElement.querySelector("[data-word]").textContent = box.checked ? "Good part" : "Leave out";
    }
  }
  for (const box of boxes) box.addEventListener("change", tell);

  byId("download").addEventListener("click", () => {
    download(new Blob([byId("list").value], { type: "text/plain" }), data.file);
  });
  for (const button of document.querySelectorAll("[data-copy]")) copyOnClick(button, byId(button.dataset.copy));

  tell();
})();

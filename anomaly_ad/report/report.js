"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const Z = 1.959963984540054;  // as in intervals.py
  const CHUNK = 48;  // cards that are made at a time
  const NEAR = 1200;  // pixels below the window where the next ones are made

  // ---------- counts, as in evaluation.py

  let threshold = data.threshold;
  const rawOf = (score) => rawThreshold(data, score);

  function wilson(count, total) {
    const share = count / total, squared = Z * Z;
    const centre = (share + squared / (2 * total)) / (1 + squared / total);
    const spread = Math.sqrt(share * (1 - share) / total + squared / (4 * total * total));
    const half = Z * spread / (1 + squared / total);
    return [Math.max(centre - half, 0), Math.min(centre + half, 1)];
  }

  // How many of an ascending list lie above a value.
  function above(sorted, value) {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] > value) high = middle; else low = middle + 1;
    }
    return sorted.length - low;
  }

  const inspected = data.images.filter((image) => image.error === null);
  const ascending = (images) => Float64Array.from(images, (image) => image.raw).sort();
  const raws = {
    good: ascending(inspected.filter((image) => image.kind === data.good)),
    bad: ascending(inspected.filter((image) => image.kind !== data.good)),
    all: ascending(inspected),
  };
  const rawsOfKind = data.kinds.map((kind) => ascending(inspected.filter((image) => image.kind === kind)));

  const whole = (count) => count.toLocaleString("en-US");
  // A half is rounded to the even digit, as Python does; with one decimal only odd quarters are halves.
  function perCent(share) {
    const value = 100 * share;
    if (4 * value % 2 !== 1) return value.toFixed(1);
    const below = Math.floor(10 * value);
    return ((below + below % 2) / 10).toFixed(1);
  }
  function withInterval(count, total) {
    const [low, high] = wilson(count, total);
    return `${perCent(count / total)} (${perCent(low)} to ${perCent(high)})`;
  }

  const sentences = {
    good: (count, total) => `of ${whole(total)} good parts ${count === 1 ? "is" : "are"} rejected`,
    bad: (count, total) => `of ${whole(total)} defective parts ${count === 1 ? "slips" : "slip"} through`,
    all: (count, total) => `of ${whole(total)} parts ${count === 1 ? "is" : "are"} anomalous`,
  };

  function count(raw) {
    for (const tile of document.querySelectorAll("[data-tile]")) {
      const what = tile.dataset.tile, total = raws[what].length;
      if (!total) continue;
      const rejected = above(raws[what], raw);
      const number = what === "bad" ? total - rejected : rejected;
      tile.querySelector("[data-count]").textContent = whole(number);
      tile.querySelector("[data-text]").textContent = sentences[what](number, total);
      tile.querySelector("[data-interval]").textContent = `${withInterval(number, total)} %`;
    }
    for (const row of document.querySelectorAll("#kinds tbody tr")) {
      const some = rawsOfKind[row.dataset.kind], found = above(some, raw);
      const put = (name, value, text) => {
        const cell = row.querySelector(`[data-${name}]`);
        cell.dataset.value = value;
        cell.textContent = text;
      };
      put("found", found, found);
      put("missed", some.length - found, some.length - found);
      put("share", found / some.length, withInterval(found, some.length));
    }
  }

  // ---------- drawings

  const SVG = "http://www.w3.org/2000/svg";
  function draw(parent, name, attributes, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }
  function canvas(home, width, height, label) {
    return draw(home, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  }

  // In words what the histogram shows.
  function describe() {
    const told = (name, images) => {
      const scores = images.map((image) => image.score).sort((a, b) => a - b);
      if (!scores.length) return "";
      const at = (share) => scores[Math.round(share * (scores.length - 1))].toFixed(3);
      return `${whole(scores.length)} ${name}: lowest ${at(0)}, median ${at(.5)}, highest ${at(1)}. `;
    };
    if (!data.labelled) return `Histogram of scores. ${told("parts", inspected)}`;
    const isGood = (image) => image.kind === data.good;
    return `Histogram of scores. ${told("good parts", inspected.filter(isGood))}${told("defective parts", inspected.filter((image) => !isGood(image)))}`;
  }

  // Good parts above the line, defective ones below it, over the score.
  const drawHistogram = (() => {
    const home = byId("histogram"), bins = 50, side = 8;  // side: half a slider's thumb
    const scores = (images) => {
      const counts = new Array(bins).fill(0);
      for (const image of images) counts[Math.max(Math.ceil(image.score * bins) - 1, 0)] += 1;
      return counts;
    };
    const upper = scores(data.labelled ? inspected.filter((i) => i.kind === data.good) : inspected);
    const lower = scores(data.labelled ? inspected.filter((i) => i.kind !== data.good) : []);
    const most = Math.max(...upper, ...lower, 1);
    const both = upper.some(Boolean) && lower.some(Boolean);
    return () => {
      home.replaceChildren();
      const width = Math.max(home.clientWidth, 280), bar = both ? 78 : 130;
      const onlyLower = !upper.some(Boolean) && data.labelled;
      const base = onlyLower ? 24 : bar + 24, height = both ? 2 * bar + 44 : bar + 44;
      const x = (score) => side + score * (width - 2 * side);
      const svg = canvas(home, width, height, describe());
      const step = (width - 2 * side) / bins;
      const bars = (counts, name, className, up) => counts.forEach((value, n) => {
        if (!value) return;
        const tall = Math.max(bar * value / most, 2);
        const made = draw(svg, "rect", { x: x(n / bins) + .5, width: Math.max(step - 1, 1), y: up ? base - tall : base + 1, height: tall, class: className });
        draw(made, "title", {}, `${whole(value)} ${name} from ${n / bins} to ${(n + 1) / bins}`);
      });
      bars(upper, data.labelled ? "good images" : "images", data.labelled ? "good" : "all", true);
      bars(lower, "defective images", "bad", false);
      draw(svg, "line", { x1: x(0), x2: x(1), y1: base + .5, y2: base + .5, class: "grid" });
      for (let tick = 0; tick <= 10; tick += 2) {
        const anchor = tick === 0 ? "start" : tick === 10 ? "end" : "middle";
        draw(svg, "text", { x: x(tick / 10), y: height - 4, "text-anchor": anchor }, (tick / 10).toString());
      }
      const label = (y, name, counts) => draw(svg, "text", { x: x(0), y, class: "label" }, `${name} (highest bar: ${whole(Math.max(...counts))})`);
      if (upper.some(Boolean)) label(14, data.labelled ? "Good parts" : "Parts", upper);
      if (lower.some(Boolean)) label(height - 26, "Defective parts", lower);
      const top = 4, bottom = height - 20;
      if (data.best !== null) {
        const line = draw(svg, "line", { x1: x(data.best), x2: x(data.best), y1: top, y2: bottom, class: "best" });
        draw(line, "title", {}, `The limit with the best F1 on these images: ${data.best.toFixed(3)}`);
      }
      draw(svg, "line", { x1: x(LIMIT_SCORE), x2: x(LIMIT_SCORE), y1: top, y2: bottom, class: "calibrated" });
      draw(svg, "line", { x1: x(threshold), x2: x(threshold), y1: top, y2: bottom, class: "mark" });
    };
  })();

  // Points of a curve: [across, up] in 0..1 for each value of the raw score, highest first.
  function ranked() {
    const values = [...new Set(raws.all)].sort((a, b) => b - a);
    return values.map((value) => {
      const least = (sorted) => above(sorted, value) + equal(sorted, value);
      return [least(raws.good), least(raws.bad)];
    });
  }
  function equal(sorted, value) {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] >= value) high = middle; else low = middle + 1;
    }
    return sorted.length - low - above(sorted, value);
  }

  function drawCurve(home, points, dot, names) {
    home.replaceChildren();
    const size = 300, left = 46, bottom = 34;
    const words = dot ? `; at the limit ${perCent(dot[0])} % and ${perCent(dot[1])} %` : "";
    const svg = canvas(home, size, size, `${names[1]} over ${names[0]}${words}`);
    const x = (value) => left + value * (size - left - 8), y = (value) => 8 + (1 - value) * (size - bottom - 8);
    for (const tick of [0, .25, .5, .75, 1]) {
      draw(svg, "line", { x1: x(tick), x2: x(tick), y1: y(0), y2: y(1), class: "grid" });
      draw(svg, "line", { x1: x(0), x2: x(1), y1: y(tick), y2: y(tick), class: "grid" });
      if (tick % .5 === 0) {
        draw(svg, "text", { x: x(tick), y: size - bottom + 14, "text-anchor": "middle" }, tick.toString());
        draw(svg, "text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, tick.toString());
      }
    }
    draw(svg, "text", { x: x(.5), y: size - 4, "text-anchor": "middle" }, names[0]);
    draw(svg, "text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(10 ${y(.5)}) rotate(-90)` }, names[1]);
    draw(svg, "path", { d: points.map(([a, b], n) => `${n ? "L" : "M"}${x(a).toFixed(2)} ${y(b).toFixed(2)}`).join(""), class: "curve" });
    if (dot) draw(svg, "circle", { cx: x(dot[0]), cy: y(dot[1]), r: 5, class: "dot" });
  }

  let levels = null;
  function drawCurves(raw) {
    if (!byId("roc")) return;
    levels = levels || ranked();
    const goods = raws.good.length, bads = raws.bad.length;
    const rejected = above(raws.good, raw), found = above(raws.bad, raw);
    const roc = [[0, 0], ...levels.map(([good, bad]) => [good / goods, bad / bads])];
    drawCurve(byId("roc"), roc, [rejected / goods, found / bads], ["good parts rejected", "defects found"]);
    // Precision holds until the next image comes: steps, which have average precision as their area.
    const steps = [];
    let recall = 0;
    for (const [good, bad] of levels) {
      steps.push([recall, bad / (good + bad)], [bad / bads, bad / (good + bad)]);
      recall = bad / bads;
    }
    const dot = found + rejected ? [found / bads, found / (found + rejected)] : null;
    drawCurve(byId("pr"), steps, dot, ["defects found", "precision"]);
  }

  // Found and missed defects as ticks above and below, the fitted curve, a90 with its interval.
  function drawPod(curve) {
    const made = element("figure"), width = 260, height = 190, left = 34, right = 16, bottom = 30, top = 12;
    made.append(element("figcaption", "", curve.kind));
    const low = Math.log(Math.min(...curve.sizes)), high = Math.log(Math.max(...curve.sizes));
    const x = (size) => left + (Math.log(size) - low) / ((high - low) || 1) * (width - left - right);
    const y = (share) => top + (1 - share) * (height - top - bottom);
    const words = curve.a90 ? `; a90 ${curve.a90.toPrecision(3)}` : "";
    const svg = canvas(made, width, height, `Probability of detection of ${curve.kind} over size${words}`);
    for (const share of [0, .5, .9, 1]) {
      draw(svg, "line", { x1: left, x2: width - right, y1: y(share), y2: y(share), class: "grid" });
      draw(svg, "text", { x: left - 5, y: y(share) + 4, "text-anchor": "end" }, share);
    }
    if (curve.low && curve.high) draw(svg, "rect", { x: x(curve.low), width: x(curve.high) - x(curve.low), y: y(1), height: y(0) - y(1), class: "range" });
    if (curve.a90) draw(svg, "line", { x1: x(curve.a90), x2: x(curve.a90), y1: y(1), y2: y(0), class: "calibrated" });
    curve.sizes.forEach((size, n) => {
      const at = curve.found[n] ? y(1) : y(0), to = curve.found[n] ? at - 6 : at + 6;
      draw(svg, "line", { x1: x(size), x2: x(size), y1: at, y2: to, class: "tick" });
    });
    if (curve.intercept !== null) {
      const points = Array.from({ length: 61 }, (_, n) => low + (high - low) * n / 60);
      const pod = (log) => 1 / (1 + Math.exp(-(curve.intercept + curve.slope * (log - curve.shift))));
      draw(svg, "path", { d: points.map((log, n) => `${n ? "L" : "M"}${x(Math.exp(log)).toFixed(1)} ${y(pod(log)).toFixed(1)}`).join(""), class: "curve" });
    }
    for (const size of [Math.exp(low), Math.exp((low + high) / 2), Math.exp(high)]) {
      draw(svg, "text", { x: x(size), y: height - 8, "text-anchor": "middle" }, Number(size.toPrecision(2)).toString());
    }
    return made;
  }
  if (data.pod) byId("pod").append(...data.pod.map(drawPod));

  // ---------- the gallery

  const images = data.images.map((image, n) => ({ ...image, n })).filter((image) => image.shown);
  const isRejected = (image, raw) => image.error === null && image.raw > raw;
  function verdictOf(image, raw) {
    if (image.error !== null) return "error";
    const rejected = isRejected(image, raw);
    if (!data.labelled) return rejected ? "rejected" : "passed";
    if (image.kind === data.good) return rejected ? "false alarm" : "passed";
    return rejected ? "found" : "missed";
  }
  const isWrong = (verdict) => verdict === "false alarm" || verdict === "missed";
  const words = {
    "error": "not inspected", "false alarm": "FALSE ALARM", "missed": "MISSED", "found": "found",
    "passed": data.labelled ? "passed" : "good", "rejected": "anomalous",
  };

  const filters = {
    "All": () => true,
    ...(data.labelled ? {
      "False alarms and misses": (_, verdict) => isWrong(verdict),
      "False alarms": (_, verdict) => verdict === "false alarm",
      "Misses": (_, verdict) => verdict === "missed",
      "Good parts": (image) => image.kind === data.good,
      "Defective parts": (image) => image.kind !== data.good,
    } : {}),
    [data.labelled ? "Rejected" : "Anomalous"]: (image, _, raw) => isRejected(image, raw),
    [data.labelled ? "Passed" : "Good"]: (image, _, raw) => image.error === null && !isRejected(image, raw),
    ...(data.images.some((image) => image.error !== null) ? { "Not inspected": (image) => image.error !== null } : {}),
  };
  // Each gives the number by which pictures are put in order, highest first; then comes the name.
  const score = (image) => image.error === null ? image.score : -1;
  const orders = {
    // At the limit where the page stands: what is wrong, farthest beyond it first, then what is close.
    ...(data.labelled ? { "Worst first": (image, verdict) => {
      const distance = Math.abs(score(image) - threshold);
      return isWrong(verdict) ? 2 + distance : -distance;
    } } : {}),
    "Highest score first": score,
    "Lowest score first": (image) => -score(image),
    "Name": () => 0,
  };

  function picture(image) {
    const [photo, heat] = byId(`p${image.n}`).textContent.split("|");
    const box = document.createElement("span");
    box.className = "picture";
    box.style.display = "block";
    if (!image.size || !photo) return box;
    const [height, width] = image.size;
    box.style.aspectRatio = `${width} / ${height}`;
    if (height > width) box.style.width = `${100 * width / height}%`;
    const layer = (type, content, name) => {
      const element = new Image();
      element.src = `data:image/${type};base64,${content}`;
      element.className = name;
      element.alt = "";
      element.decoding = "async";
      box.append(element);
    };
    layer("jpeg", photo, "photo");
    const marks = { box, image, map: null };
    if (heat) {
      marks.canvas = element("canvas", "heat");
      box.append(marks.canvas);
      heatLevels(`data:image/webp;base64,${heat}`).then((map) => {
        marks.map = map;
        mark(box);
      });
    }
    marks.svg = draw(box, "svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    pictures.set(box, marks);
    mark(box);
    return box;
  }

  const pictures = new WeakMap(); // what is needed to mark a picture again
  let isRawMap = false;

  // Marks follow the limit: what is rejected has some, what passes has none.
  function mark(box) {
    const marks = pictures.get(box);
    if (!marks) return;
    const { image, map, canvas, svg } = marks, isBad = isRejected(image, rawOf(threshold));
    box.classList.toggle("framed", isBad && !canvas);
    svg.replaceChildren();
    for (const polygon of image.mask || []) draw(svg, "polygon", { points: polygon.join(" "), class: "mask" });
    if (!map) return;
    const marked = heatMarks(map, threshold, isBad);
    paintHeat(canvas, map, marked, threshold, isRawMap);
    const [height, width] = image.size, across = width / map.width, down = height / map.height;
    const regions = heatRegions(map, marked);
    for (const { x1, y1, x2, y2 } of regions) {
      draw(svg, "rect", { x: x1 * across, y: y1 * down, width: (x2 - x1) * across, height: (y2 - y1) * down });
    }
    if (box.parentElement === byId("large-picture")) tellRegions(regions, across * down);
  }
  function tellRegions(regions, scale) {
    const area = ({ area }) => `${whole(Math.max(Math.round(area * scale), 1))} pixels`;
    const told = regions.slice(0, 5).map((region) => `${area(region)}, peak ${region.score.toFixed(3)}`);
    if (regions.length > 5) told.push(`${regions.length - 5} more`);
    byId("large-regions").textContent = told.join("; ") || "none";
  }

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function card(image, raw) {
    const verdict = verdictOf(image, raw);
    const made = element("button", isWrong(verdict) ? "card wrong" : "card");
    made.type = "button";
    made.dataset.n = image.n;
    const frame = element("span", "frame");
    frame.append(picture(image));
    const lines = element("span", "words"), last = element("span", "verdict");
    const parts = image.name.split(/[\\/]/), file = parts.pop();
    const name = element("span", "name", file);
    name.title = image.name;
    last.append(element("span", "tag", words[verdict]), element("span", "number", image.error === null ? image.score.toFixed(3) : ""));
    lines.append(name, element("span", "name dim", parts.join("/") || image.kind || ""), last);
    made.append(frame, lines);
    made.addEventListener("click", () => open(order.indexOf(image)));
    return made;
  }

  let order = [], made = 0;
  function grow() {
    const raw = rawOf(threshold), some = order.slice(made, made + CHUNK);
    byId("gallery").append(...some.map((image) => card(image, raw)));
    made += some.length;
    byId("more").hidden = made >= order.length;
  }
  // The observer tells changes only: as long as the end stays near, it says nothing.
  function growWhileNear() {
    while (made < order.length && byId("more").getBoundingClientRect().top < window.innerHeight + NEAR) grow();
  }
  function arrange() {
    const raw = rawOf(threshold), keep = filters[byId("show").value];
    const kind = byId("kind") ? byId("kind").value : "", name = byId("name").value.trim().toLowerCase();
    const rank = orders[byId("order").value];
    order = images
      .map((image) => [image, verdictOf(image, raw)])
      .filter(([image, verdict]) => keep(image, verdict, raw) && (kind === "" || image.kind === data.kinds[kind]) && image.name.toLowerCase().includes(name))
      .map(([image, verdict]) => [rank(image, verdict), image])
      .sort(([a, one], [b, other]) => b - a || (one.name < other.name ? -1 : 1))
      .map(([, image]) => image);
    byId("gallery").replaceChildren();
    made = 0;
    grow();
    growWhileNear();
    tellShown("");
  }
  function tellShown(more) {
    byId("shown").textContent = order.length ? `${whole(order.length)} of ${whole(images.length)} pictures${more}` : "No pictures match.";
  }
  // The cards that are there already, after the limit was moved.
  function retell() {
    const raw = rawOf(threshold);
    for (const made of byId("gallery").children) {
      const verdict = verdictOf(data.images[made.dataset.n], raw);
      made.classList.toggle("wrong", isWrong(verdict));
      made.querySelector(".tag").textContent = words[verdict];
      const { top, bottom } = made.getBoundingClientRect();
      if (bottom > 0 && top < window.innerHeight) mark(made.querySelector(".picture"));
    }
  }
  function remark() {
    for (const box of document.querySelectorAll(".picture")) mark(box);
  }
  new IntersectionObserver(growWhileNear, { rootMargin: `${NEAR}px` }).observe(byId("more"));
  window.addEventListener("scroll", growWhileNear, { passive: true });
  window.addEventListener("resize", growWhileNear);
  byId("more").addEventListener("click", grow);

  // ---------- one picture, large

  const large = byId("large");
  let current = 0;
  function open(place) {
    if (place < 0 || place >= order.length) return;
    current = place;
    const image = order[place], verdict = verdictOf(image, rawOf(threshold));
    byId("large-name").textContent = image.name;
    const shown = picture(image);
    if (image.size) shown.style.width = `min(100%, ${70 * image.size[1] / image.size[0]}vh)`;
    for (const photo of shown.querySelectorAll(".photo")) photo.alt = image.name;
    byId("large-picture").replaceChildren(shown);
    const facts = { "Verdict": words[verdict] };
    if (data.labelled) facts["Label"] = image.kind;
    if (image.error === null) {
      facts["Score"] = `${image.score.toFixed(4)}, limit ${formatted(threshold)}`;
      facts["Raw score"] = `${image.raw.toPrecision(6)}, limit ${Number.isFinite(rawOf(threshold)) ? rawOf(threshold).toPrecision(6) : "none"}`;
      facts["Original"] = `${image.size[1]} x ${image.size[0]} pixels`;
      facts["Regions"] = "";
    } else facts["Reason"] = image.error;
    byId("large-facts").replaceChildren(...Object.entries(facts).map(([name, value]) => {
      const row = element("div");
      row.append(element("dt", "", name), element("dd", "number", value));
      if (name === "Regions") row.lastChild.id = "large-regions";
      return row;
    }));
    // Not disabled, which would take the focus away.
    byId("before").setAttribute("aria-disabled", place === 0);
    byId("after").setAttribute("aria-disabled", place === order.length - 1);
    if (!large.open) large.showModal();
  }
  byId("before").addEventListener("click", () => open(current - 1));
  byId("after").addEventListener("click", () => open(current + 1));
  byId("close").addEventListener("click", () => large.close());
  large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
  large.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") open(current - 1);
    if (event.key === "ArrowRight") open(current + 1);
  });

  // ---------- tables that sort

  for (const button of document.querySelectorAll(".sortable thead button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), place = head.cellIndex;
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const body = head.closest("table").tBodies[0];
      const value = (row) => row.cells[place].dataset.value;
      body.append(...[...body.rows].sort((a, b) => sign * (place
        ? value(a) - value(b)
        : a.cells[0].textContent.localeCompare(b.cells[0].textContent))));
    });
  }

  // ---------- controls

  const formatted = (value) => value === Number(value.toFixed(3)) ? value.toFixed(3).replace(/0$/, "") : value.toString();
  function move(value) {
    threshold = value;
    const raw = rawOf(threshold);
    byId("limit").value = threshold;
    byId("limit").setAttribute("aria-valuetext", formatted(threshold));
    byId("limit-value").textContent = formatted(threshold);
    byId("raw-value").textContent = Number.isFinite(raw) ? `Raw score ${raw.toPrecision(6)}.` : "Nothing is rejected.";
    byId("reset").disabled = threshold === data.threshold;
    const settable = threshold !== LIMIT_SCORE && Number.isFinite(raw) && raw > data.median;
    byId("set-it").hidden = !settable;
    byId("command").textContent = `${data.command}${raw}`;
    count(raw);
    drawHistogram();
    drawCurves(raw);
    drawHeatScale(byId("heat-scale"), threshold);
  }
  function settle() {
    const told = [...document.querySelectorAll("[data-tile] .tile-count")].map((tile) => tile.textContent.trim());
    byId("live").textContent = `At ${formatted(threshold)}: ${told.join("; ")}.`;
    arrange();
  }
  const fill = (select, names) => select.append(...names.map((name) => new Option(name, name)));
  fill(byId("show"), Object.keys(filters));
  fill(byId("order"), Object.keys(orders));
  if (byId("kind")) byId("kind").append(new Option("All", ""), ...data.kinds.map((kind, n) => new Option(kind, n)));
  byId("reset").textContent = `Back to ${formatted(data.threshold)}`;
  byId("reset").addEventListener("click", () => { move(data.threshold); settle(); });
  byId("limit").addEventListener("input", (event) => { move(Number(event.target.value)); retell(); });
  byId("limit").addEventListener("change", settle);
  for (const id of ["show", "kind", "order"]) if (byId(id)) byId(id).addEventListener("change", arrange);
  byId("name").addEventListener("input", arrange);
  byId("heat").addEventListener("input", (event) => document.documentElement.style.setProperty("--heat", event.target.value));
  if (data.best !== null) {
    byId("best").textContent = `Best F1 at ${data.best.toFixed(3)}`;
    byId("best").addEventListener("click", () => { move(data.best); settle(); });
  }
  copyOnClick(byId("copy"), byId("command"));
  byId("raw-map").addEventListener("change", (event) => { isRawMap = event.target.checked; remark(); });
  byId("boxes").addEventListener("change", (event) => document.body.classList.toggle("no-boxes", !event.target.checked));
  let width = 0;
  new ResizeObserver(() => {
    if (byId("histogram").clientWidth !== width) { width = byId("histogram").clientWidth; drawHistogram(); }
  }).observe(byId("histogram"));
  window.addEventListener("beforeprint", () => {
    drawHistogram();
    if (made < order.length) tellShown(`; the first ${whole(made)} are printed`);
  });
  window.addEventListener("afterprint", () => tellShown(""));

  move(data.threshold);
  arrange();
})();

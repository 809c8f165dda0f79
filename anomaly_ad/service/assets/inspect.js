"use strict";

const KEPT = 24; // recent results, with their images, in this page's memory
const TRIES = 5; // where the queue of the service is full

const $ = (id) => document.getElementById(id);
const limits = new Map(); // digest of a model -> its facts: a replaced model's results stay right
const items = []; // newest first
let token = "";
let standard = LIMIT_SCORE; // the threshold that the service uses by itself
let current = null;
let boxTimer = 0;

// ---------------------------------------------------------------------------- the service

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  for (let tries = 1; ; tries += 1) {
    const answer = await fetch(path, { ...options, headers });
    if (answer.status === 503 && tries < TRIES) {
      const seconds = Number(answer.headers.get("Retry-After")) || 1;
      await new Promise((done) => setTimeout(done, 1000 * seconds));
      continue;
    }
    if (answer.status === 401) $("login").hidden = false;
    const body = await answer.json().catch(() => ({ error: `Status ${answer.status}.` }));
    if (!answer.ok) throw new Error(body.error);
    return body;
  }
}

async function loadModels() {
  const { models, threshold } = await ask("/models");
  for (const facts of models) limits.set(facts.digest, facts);
  const chosen = $("model").value;
  $("model").replaceChildren(...models.map((facts) => new Option(facts.name)));
  if (models.some((facts) => facts.name === chosen)) $("model").value = chosen;
  $("model-label").hidden = models.length < 2;
  $("about").textContent = `anomaly_ad · ${models.map((m) => `${m.name} (${m.method})`).join(", ")}`;
  $("login").hidden = true;
  standard = threshold;
  $("reset").textContent = `Back to ${threshold}`;
}

function predict(item) {
  const form = new FormData();
  form.append("image", item.file, item.name);
  const query = new URLSearchParams({ heatmap: !item.answer, thresh: threshold(), model: item.model });
  return ask(`/predict?${query}`, { method: "POST", body: form });
}

// ------------------------------------------------------------------------------ verdicts

const threshold = () => Number($("limit").value);
const factsOf = (item) => limits.get(item.answer.digest);
const isAnomalous = (item) => item.answer.raw_score > rawThreshold(factsOf(item), threshold());

// -------------------------------------------------------------------------------- images

function take(files) {
  say("");
  const fresh = [...files].map((file) => ({
    file, name: file.name || "image.png", model: $("model").value, url: URL.createObjectURL(file),
  }));
  if (!fresh.length) return;
  for (const item of fresh) {
    item.thumbnail = element("img", ""); // kept, so that a large photograph is decoded once
    item.thumbnail.alt = "";
    item.thumbnail.src = item.url;
  }
  items.unshift(...[...fresh].reverse());
  for (const old of items.splice(KEPT)) URL.revokeObjectURL(old.url);
  drawGallery();
  inspectAll(fresh);
}

async function inspectAll(fresh) {
  for (const item of fresh) {
    if (!items.includes(item)) continue;
    try {
      const answer = await predict(item);
      if (!limits.has(answer.digest)) await loadModels();
      if (!limits.has(answer.digest)) throw new Error("The model was replaced. Send the image again.");
      item.answer = answer;
      show(item);
      speak(item);
    } catch (error) {
      item.error = error.message;
      say(`${item.name}: ${error.message}`);
    }
    drawGallery();
  }
}

// Boxes hang on the threshold, and only the service can find them: asked for when the slider rests.
function renewBoxes() {
  clearTimeout(boxTimer);
  const item = current;
  if (!item || item.answer.threshold === threshold()) return;
  boxTimer = setTimeout(async () => {
    try {
      const fresh = await predict(item);
      if (fresh.digest === item.answer.digest && fresh.threshold === threshold()) {
        item.answer = { ...item.answer, boxes: fresh.boxes, threshold: fresh.threshold };
        if (item === current) draw();
      }
    } catch (error) {
      say(error.message);
    }
  }, 250);
}

// ------------------------------------------------------------------------------- drawing

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

const word = (item) => (isAnomalous(item) ? "Anomalous" : "Good");

function speak(item) {
  $("spoken").textContent = `${item.name}: ${word(item)}, score ${shown(item.answer.score)}`;
}

function show(item) {
  current = item;
  const [height, width] = item.answer.image_size;
  $("picture").style.aspectRatio = `${width} / ${height}`;
  $("picture").style.maxWidth = `calc(74vh * ${width / height})`;
  $("photo").src = item.url;
  $("photo").alt = `The inspected image ${item.name}`;
  $("boxes").setAttribute("viewBox", `0 0 ${width} ${height}`);
  const heat = item.answer.heatmap;
  $("heat").hidden = !heat;
  if (heat) $("heat").src = `data:image/png;base64,${heat}`;
  $("result").hidden = false;
  draw();
  drawGallery();
  renewBoxes();
}

function draw() {
  const { answer, name } = current;
  const bad = isAnomalous(current);
  const facts = factsOf(current);
  const raw = rawThreshold(facts, threshold());
  $("result").classList.toggle("bad", bad);
  $("name").textContent = $("model-label").hidden ? name : `${name} · ${current.answer.model}`;
  $("verdict").textContent = word(current);
  $("score").textContent = shown(answer.score);
  $("against").textContent = `score, ${bad ? "above" : "not above"} ${threshold()}`;
  $("fill").style.width = `${100 * answer.score}%`;
  $("tick").style.left = `${100 * threshold()}%`;
  $("limit-value").textContent = threshold();
  $("raw").textContent = `Raw score ${digits(answer.raw_score)}, threshold ${digits(raw)}.`;
  $("reset").disabled = threshold() === standard;
  drawBoxes(bad ? answer.boxes : []);
  $("no-map").hidden = facts.has_map;
  $("heat-setting").hidden = $("boxes-setting").hidden = !facts.has_map;
}

// Cut, not rounded: no score is 1, and none looks as if it were above the threshold.
const shown = (score) => (Math.floor(score * 1000) / 1000).toFixed(3);
const digits = (value) => (Number.isFinite(value) ? value.toPrecision(5) : "none");

function drawBoxes(boxes) {
  $("boxes").replaceChildren(...boxes.map(([x1, y1, x2, y2]) => {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const sides = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
    for (const [key, value] of Object.entries(sides)) rect.setAttribute(key, value);
    return rect;
  }));
  $("box-count").textContent = boxes.length;
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

function card(item) {
  const file = element("span", "file", item.name);
  const said = item.answer ? [word(item), shown(item.answer.score)] : [item.error ? "Not inspected" : "…", ""];
  const verdict = element("span", "verdict number", ...said.map((text) => element("span", "", text)));
  const made = element("button", "card", element("span", "frame", item.thumbnail), element("span", "words", file, verdict));
  made.type = "button";
  made.title = item.error || item.name;
  made.classList.toggle("bad", Boolean(item.error || (item.answer && isAnomalous(item))));
  made.classList.toggle("waiting", !item.answer && !item.error);
  made.setAttribute("aria-current", item === current);
  made.addEventListener("click", () => (item.answer ? show(item) : say(item.error || "")));
  return made;
}

function drawGallery() {
  const place = [...$("gallery").children].indexOf(document.activeElement);
  $("gallery").replaceChildren(...items.map(card));
  if (place >= 0) $("gallery").children[items.indexOf(current)]?.focus();
  $("recent").hidden = !items.length;
  const judged = items.filter((item) => item.answer);
  const bad = judged.filter(isAnomalous).length;
  $("counts").textContent = judged.length ? `${bad} of ${judged.length} anomalous` : "";
}

function step(by) {
  const judged = items.filter((item) => item.answer);
  const next = judged[judged.indexOf(current) + by];
  if (next) {
    show(next);
    speak(next);
  }
}

// -------------------------------------------------------------------------------- camera

let stream = null;

async function toggleCamera() {
  if (stream) {
    for (const track of stream.getTracks()) track.stop();
    stream = null;
  } else {
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment", width: { ideal: 1920 } },
      });
      $("video").srcObject = stream;
      await $("video").play();
    } catch (error) {
      say(`The camera cannot be used: ${error.message}`);
    }
  }
  $("live-view").hidden = !stream;
  $("camera").setAttribute("aria-expanded", Boolean(stream));
  $("camera").textContent = stream ? "Camera off" : "Camera";
}

async function shoot() {
  const canvas = document.createElement("canvas");
  canvas.width = $("video").videoWidth;
  canvas.height = $("video").videoHeight;
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
  take([new File([blob], `camera ${new Date().toLocaleTimeString()}.jpg`, { type: blob.type })]);
}

// -------------------------------------------------------------------------------- events

$("choose").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => {
  take($("files").files);
  $("files").value = ""; // the same file can be chosen again
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // anywhere: a file dropped beside would replace the page
    $("drop").classList.toggle("over", kind.endsWith("over") || kind.endsWith("enter"));
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (typing || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
$("limit").addEventListener("input", () => {
  if (current) draw();
  drawGallery();
  renewBoxes();
});
$("limit").addEventListener("change", () => current && speak(current));
$("reset").addEventListener("click", () => {
  $("limit").value = standard;
  $("limit").dispatchEvent(new Event("input"));
});
$("opacity").addEventListener("input", () => {
  $("picture").style.setProperty("--heat", $("opacity").value / 100);
  $("opacity-value").textContent = `${$("opacity").value} %`;
});
$("show-boxes").addEventListener("change", () => {
  $("result").classList.toggle("no-boxes", !$("show-boxes").checked);
});
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  begin();
});
$("camera").addEventListener("click", toggleCamera);
$("shoot").addEventListener("click", shoot);

async function begin() {
  say("");
  try {
    await loadModels();
    $("limit").value = standard;
  } catch (error) {
    say(error.message);
  }
}

// Browsers give a camera to pages of this machine and to encrypted ones only.
$("camera").hidden = !navigator.mediaDevices;
$("opacity").dispatchEvent(new Event("input"));
begin();

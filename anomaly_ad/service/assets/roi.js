// Outlines are drawn on the photograph, in its pixels.
const facts = JSON.parse(document.getElementById("facts").textContent);
const byId = (id) => document.getElementById(id);
const drawing = byId("drawing");
const outlines = ["inspect", "ignore"].flatMap((kind) => facts[kind].map((corners) => ({ kind, corners })));
let corners = []; // of the outline that is being drawn
let from = null; // where the pointer went down
let isSaved = true;

byId("name").textContent = facts.name;
drawing.setAttribute("viewBox", `0 0 ${facts.width} ${facts.height}`);
drawing.setAttribute("preserveAspectRatio", "none");

const kind = () => document.querySelector("input[name=kind]:checked").value;

function place(event) {
  const box = drawing.getBoundingClientRect();
  const along = (value, side) => Math.min(Math.max(Math.round(value * side), 0), side);
  return [
    along((event.clientX - box.left) / box.width, facts.width),
    along((event.clientY - box.top) / box.height, facts.height),
  ];
}

// Whether two places are the same to a hand.
function isNear(a, b) {
  const reach = (8 * facts.width) / drawing.getBoundingClientRect().width;
  return Math.hypot(a[0] - b[0], a[1] - b[1]) <= reach;
}

function shape(name, kind, corners) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  element.setAttribute("points", corners.map((corner) => corner.join(",")).join(" "));
  element.setAttribute("class", kind);
  return element;
}

function listed() {
  const of = (wanted) => outlines.filter((one) => one.kind === wanted).map((one) => one.corners);
  return { inspect: of("inspect"), ignore: of("ignore") };
}

function show(more = []) {
  const shapes = outlines.map((one) => shape("polygon", one.kind, one.corners));
  if (corners.length) shapes.push(shape("polyline", kind(), [...corners, ...more]));
  drawing.replaceChildren(...shapes);
  byId("text").value = JSON.stringify(listed());
}

function changed() {
  isSaved = false;
  byId("said").textContent = "";
  show();
}

function finish() {
  if (corners.length < 3) return;
  outlines.push({ kind: kind(), corners });
  corners = [];
  changed();
}

const rectangle = ([a, b], [c, d]) => [[Math.min(a, c), Math.min(b, d)], [Math.max(a, c), Math.min(b, d)], [Math.max(a, c), Math.max(b, d)], [Math.min(a, c), Math.max(b, d)]];

drawing.addEventListener("pointerdown", (event) => {
  from = place(event);
  drawing.setPointerCapture(event.pointerId);
});
drawing.addEventListener("pointermove", (event) => {
  const here = place(event);
  if (from && !corners.length && !isNear(from, here)) {
    show();
    drawing.append(shape("polygon", kind(), rectangle(from, here)));
  } else show([here]);
});
drawing.addEventListener("pointerup", (event) => {
  const here = place(event);
  if (from && !corners.length && !isNear(from, here)) {
    corners = rectangle(from, here);
    finish();
  } else if (corners.length > 2 && isNear(corners[0], here)) finish();
  else if (!corners.length || !isNear(corners.at(-1), here)) {
    corners.push(here);
    show();
  }
  from = null;
});
drawing.addEventListener("dblclick", finish);
drawing.addEventListener("keydown", (event) => {
  if (event.key === "Enter") finish();
  if (event.key === "Escape") { corners = []; show(); }
});
byId("undo").addEventListener("click", () => {
  if (corners.length) corners.pop();
  else outlines.pop();
  changed();
});
byId("clear").addEventListener("click", () => {
  outlines.length = 0;
  corners = [];
  changed();
});
byId("apply").addEventListener("click", () => {
  try {
    const { inspect = [], ignore = [] } = JSON.parse(byId("text").value);
    const made = [["inspect", inspect], ["ignore", ignore]].flatMap(([kind, some]) => some.map((corners) => ({ kind, corners })));
    outlines.splice(0, outlines.length, ...made);
    corners = [];
    changed();
  } catch (error) {
    byId("said").textContent = `The corners cannot be read: ${error.message}`;
  }
});
byId("save").addEventListener("click", async () => {
  finish();
  try {
    const answer = await fetch("", { method: "POST", body: JSON.stringify(listed()) });
    byId("said").textContent = await answer.text();
    isSaved = answer.ok;
  } catch {
    byId("said").textContent = "The command has ended. Start it again, and paste the corners.";
  }
});
window.addEventListener("beforeunload", (event) => { if (!isSaved) event.preventDefault(); });
show();

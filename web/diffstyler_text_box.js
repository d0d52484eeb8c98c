// The box with a node's words, inside the node's frame in both renderings. Lines break between words, and where they
// were broken when they were written.
import { app } from "../../scripts/app.js";

const NAME = "diffstyler_words";
const MARGIN = 6;
const LONGEST = 2000; // characters; an out-of-memory error of torch can be a page
// [letters, ground]: what went wrong is readable on nodes of every colour.
const COLOURS = { error: ["#ffdcdc", "#6b1f1f"], cancelled: ["#ffe7bd", "#5a4211"] };
const PLAIN = ["var(--input-text, #ddd)", "transparent"];
const STYLE = {
  boxSizing: "border-box",
  borderRadius: "4px",
  padding: "2px 6px",
  font: "12px/17px Inter, Arial, sans-serif",
  whiteSpace: "pre-wrap",
  overflowWrap: "anywhere",
  overflow: "hidden",
  userSelect: "text",
};

const boxOf = (node) => node.widgets?.find((widget) => widget.name === NAME);

// What a node shows now: "working", "result", "error", "cancelled", or undefined.
export const kindOf = (node) => boxOf(node)?.element.dataset.kind;

// What to show on it when the run is cancelled now.
export const cancelledOf = (node) => boxOf(node)?.element.dataset.cancelled || "cancelled, nothing saved";

// Shows words on a node in place of those that it has.
export function show(node, text, kind, cancelled = "") {
  const snug = isSnug(node);
  const { element } = boxOf(node) ?? addBox(node);
  element.textContent = text.length > LONGEST ? `${text.slice(0, LONGEST)} ...` : text;
  [element.style.color, element.style.background] = COLOURS[kind] ?? PLAIN;
  Object.assign(element.dataset, { kind, cancelled });
  fit(node, snug);
}

export function hide(node) {
  const box = boxOf(node);
  if (!box) return;
  const snug = isSnug(node);
  node.removeWidget(box);
  fit(node, snug);
}

function addBox(node) {
  const element = document.createElement("div");
  Object.assign(element.style, STYLE);
  element.dataset.testid = NAME;
  element.addEventListener("wheel", (event) => app.canvas.processMouseWheel(event));
  const box = node.addDOMWidget(NAME, NAME, element, {
    margin: MARGIN,
    serialize: false,
    getValue: () => element.textContent,
    getMinHeight: () => heightOf(element, node.size[0] - 2 * MARGIN) + 2 * MARGIN,
  });
  box.serialize = false;
  return box;
}

// The height of the words in a box of that width, in the graph's own units. A node that is not on the screen has one
// too, so it is a copy that is measured.
function heightOf(element, width) {
  const asked = `${width} ${element.textContent}`;
  if (element.dataset.asked !== asked) {
    const copy = element.cloneNode(true);
    Object.assign(copy.style, { position: "absolute", visibility: "hidden", width: `${width}px`, height: "auto" });
    document.body.append(copy);
    Object.assign(element.dataset, { asked, height: copy.offsetHeight });
    copy.remove();
  }
  return Number(element.dataset.height);
}

// A node that is no higher than it must be stays so; one that was drawn out by hand keeps its size while that is enough.
const isSnug = (node) => node.size[1] <= node.computeSize()[1] + 1;

function fit(node, snug) {
  const height = node.computeSize()[1];
  // The new rendering measures its nodes itself.
  if (!LiteGraph.vueNodesMode && (snug || height > node.size[1])) node.setSize([node.size[0], height]);
  node.setDirtyCanvas(true, true);
}

// The frontend shows a node's progress text in a box of two lines that hangs out of the node, and forgets it on reload.
// Here the node grows to hold all lines, and the text that came with a node's (cached) result is shown again.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const BOX = "$$node-text-preview"; // the frontend's own name for that widget
const LINE = 18;
const PADDING = 34;
const CHARACTER = 5.8;

const ours = (node) => node?.comfyClass?.startsWith("DiffStyler_");

function lines(text, width) {
  const perLine = Math.max(20, Math.floor((width - 40) / CHARACTER));
  return text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / perLine)), 0);
}

function fit(node) {
  const box = node.widgets?.find((widget) => widget.name === BOX);
  if (!box?.options) return;
  const height = PADDING + LINE * lines(String(box.value ?? ""), node.size[0]);
  box.options.getMinHeight = () => height;
  const wanted = node.computeSize()[1];
  if (wanted > node.size[1]) node.setSize([node.size[0], wanted]);
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "DiffStyler.Text",
  setup() {
    api.addEventListener("progress_text", ({ detail }) => {
      const node = app.graph?.getNodeById(detail?.nodeId);
      if (ours(node)) requestAnimationFrame(() => fit(node));
    });
  },
  nodeCreated(node) {
    if (!ours(node)) return;
    const onExecuted = node.onExecuted;
    node.onExecuted = function (output) {
      onExecuted?.apply(this, arguments);
      const text = output?.text?.join?.("\n");
      if (text) api.dispatchCustomEvent("progress_text", { nodeId: String(this.id), text });
    };
  },
});

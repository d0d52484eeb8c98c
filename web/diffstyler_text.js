// Words on our nodes: how far the work is, what it did, that it was cancelled, or why it failed.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { cancelledOf, hide, kindOf, show } from "./diffstyler_text_box.js";
import { lastWords, nodeAt, ourNodes, ours } from "./diffstyler_text_graph.js";

const still = (kind) => ourNodes().filter((node) => kindOf(node) === kind);

function on(id, then) {
  const node = nodeAt(id);
  if (ours(node)) then(node);
}

// What the host and host/text.py tell of a run -> what the nodes show.
const EVENTS = {
  execution_start: () => [...still("error"), ...still("cancelled")].forEach(hide),
  // A node that was left without words of its own (it shows none, or what it waited for was blocked) is not at work.
  executing: (id) => {
    still("working").forEach(hide);
    if (id) on(id, (node) => show(node, "working ...", "working"));
  },
  "diffstyler.words": ({ node: id, text, cancelled }) => on(id, (node) => show(node, text, "working", cancelled)),
  executed: ({ node: id, output }) => output?.text && on(id, (node) => show(node, output.text.join("\n"), "result")),
  execution_interrupted: () => still("working").forEach((node) => show(node, cancelledOf(node), "cancelled")),
  execution_error: ({ node_id, exception_message }) =>
    on(node_id, (node) => show(node, exception_message.trim(), "error")),
};

// Nodes that say something of their own by then, because they run, keep it.
async function recall() {
  for (const [node, text] of await lastWords()) if (!kindOf(node)) show(node, text, "result");
}

app.registerExtension({
  name: "DiffStyler.Text",
  setup() {
    for (const [type, then] of Object.entries(EVENTS)) api.addEventListener(type, ({ detail }) => then(detail));
  },
  afterConfigureGraph() {
    recall().catch((error) => console.warn("DiffStyler: the words of earlier runs are not shown again:", error));
  },
});

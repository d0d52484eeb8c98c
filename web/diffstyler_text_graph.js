// Our nodes in the graph and in its subgraphs, and the words that the server still has of them.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const RUNS = 32; // how far back words are looked for
const ALWAYS = 0; // the mode of a node that is neither muted nor bypassed

export const ours = (node) => node?.comfyClass?.startsWith("DiffStyler_");

// Every node of ours, also in subgraphs that are not open.
export function ourNodes() {
  const graphs = [app.rootGraph, ...app.rootGraph.subgraphs.values()];
  return graphs.flatMap((graph) => graph.nodes).filter(ours);
}

// The node that a run calls "12:5:3": node 3 in the subgraph of node 5 in the subgraph of node 12.
export function nodeAt(id) {
  let node = null;
  let graph = app.rootGraph;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part);
    graph = node?.subgraph;
  }
  return node;
}

// The last words of every node that the graph still asks the same of: [node, words].
export async function lastWords() {
  if (!ourNodes().length) return [];
  const answer = await api.fetchApi(`/history?max_items=${RUNS}`);
  if (!answer.ok) throw new Error(`the history could not be read: ${answer.status} ${answer.statusText}`);
  const found = new Map();
  for (const { prompt, outputs } of Object.values(await answer.json()).reverse()) {
    for (const [id, output] of Object.entries(outputs)) {
      const node = nodeAt(id);
      if (!ours(node) || found.has(node) || !output?.text || !asksTheSame(prompt[2], id)) continue;
      found.set(node, output.text.join("\n"));
    }
  }
  return [...found];
}

// Whether the node, and all that feeds it, is what a run had: the same kinds of nodes with the same values.
function asksTheSame(prompt, id, seen = new Set()) {
  if (seen.has(id)) return true;
  seen.add(id);
  const asked = prompt[id];
  const node = nodeAt(id);
  if (!asked || node?.comfyClass !== asked.class_type || node.mode !== ALWAYS) return false;
  return Object.entries(asked.inputs).every(([name, value]) =>
    Array.isArray(value) ? asksTheSame(prompt, String(value[0]), seen) : holds(node, name, value),
  );
}

// A value that comes from outside of a subgraph is not the node's own: it cannot be compared here.
function holds(node, name, value) {
  const widget = node.widgets?.find((candidate) => candidate.name === name);
  const linked = node.inputs?.some((slot, index) => slot.widget?.name === name && node.isInputConnected(index));
  return !widget || linked || JSON.stringify(widget.value) === JSON.stringify(value);
}

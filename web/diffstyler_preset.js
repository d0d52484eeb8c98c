// A preset chosen on the sampler or guider fills the values it stands for; a value changed by hand is "custom" again.
// The node itself uses the preset too, so that prompts queued without this page mean the same.
import { app } from "../../scripts/app.js";

const NODES = ["DiffStyler_InjectedSampler", "DiffStyler_InjectedGuider"];
const PRESETS = {
  "paper 2026": [0.6, 0.5, "adaptive", "qk"],
  "paper 2024": [0.6, 0.5, "fixed", "qk"],
  "keep more content": [0.8, 0.8, "adaptive", "qk"],
  "take more style": [0.4, 0.3, "adaptive", "qk"],
};
const FILLED = ["feature_steps", "attention_steps", "attention_mode", "blend"];

const widget = (node, name) => node.widgets?.find((candidate) => candidate.name === name);

// The steps of the DDIM Invert that the features come from; the paper's 50 where there is none to see.
function stepsOf(node) {
  const capture = node.getInputNode?.(node.findInputSlot("features"));
  const slot = capture?.findInputSlot?.("trajectory") ?? -1;
  const invert = slot < 0 ? null : capture.getInputNode(slot);
  return widget(invert ?? {}, "steps")?.value ?? 50;
}

// As Python rounds: halves to the even neighbour.
function round(value) {
  const floor = Math.floor(value);
  if (Math.abs(value - floor - 0.5) > 1e-9) return Math.round(value);
  return floor % 2 ? floor + 1 : floor;
}

function fill(node, name) {
  const preset = PRESETS[name];
  if (!preset) return;
  const steps = stepsOf(node);
  const values = [round(preset[0] * steps), round(preset[1] * steps), preset[2], preset[3]];
  FILLED.forEach((key, i) => (widget(node, key).value = values[i]));
  node.setDirtyCanvas(true, true);
}

function after(target, then) {
  const callback = target.callback;
  target.callback = function (value) {
    const result = callback?.apply(this, arguments);
    then(value);
    return result;
  };
}

app.registerExtension({
  name: "DiffStyler.Preset",
  nodeCreated(node) {
    const preset = NODES.includes(node.comfyClass) && widget(node, "preset");
    if (!preset) return;
    after(preset, (name) => fill(node, name));
    for (const name of FILLED) after(widget(node, name), () => (preset.value = "custom"));
  },
});

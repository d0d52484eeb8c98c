// A preset chosen on a node fills the values it stands for; a value changed by hand is "custom" again.
// The node itself uses the preset too, so that prompts queued without this page mean the same.
import { app } from "../../scripts/app.js";

const PRESETS = {
  "paper 2026": [0.6, 0.5, "adaptive", "qk"],
  "paper 2024": [0.6, 0.5, "fixed", "qk"],
  "keep more content": [0.8, 0.8, "adaptive", "qk"],
  "take more style": [0.4, 0.3, "adaptive", "qk"],
};
const IN_STEPS = ["feature_steps", "attention_steps", "attention_mode", "blend"];
const IN_SHARES = ["feature_end_percent", "attention_end_percent", "attention_mode", "blend"];
const FILLED = {
  DiffStyler_InjectedSampler: IN_STEPS,
  DiffStyler_InjectedGuider: IN_STEPS,
  DiffStyler_InjectionSettings: IN_SHARES,
};

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

function fill(node, names, preset) {
  const values = PRESETS[preset];
  if (!values) return;
  const ends = names === IN_SHARES ? values.slice(0, 2) : values.slice(0, 2).map((end) => round(end * stepsOf(node)));
  [...ends, ...values.slice(2)].forEach((value, i) => (widget(node, names[i]).value = value));
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
    const names = FILLED[node.comfyClass];
    const preset = names && widget(node, "preset");
    if (!preset) return;
    after(preset, (chosen) => fill(node, names, chosen));
    for (const name of names) after(widget(node, name), () => (preset.value = "custom"));
  },
});

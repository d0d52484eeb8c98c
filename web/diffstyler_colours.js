// The colours of our own types' slots and links. A colour palette that names one of them has the last word.
import { app } from "../../scripts/app.js";

const COLOURS = {
  DIFFSTYLER_TRAJECTORY: "#2bb3a3",
  DIFFSTYLER_FEATURES: "#ec4f83",
  DIFFSTYLER_INJECTION: "#c98a5b",
  DIFFSTYLER_LORA_SCHEDULE: "#6c7dfa",
  DIFFSTYLER_STYLES: "#b5c334",
  DIFFSTYLER_DEADIFF: "#8f6bd1",
  DIFFSTYLER_IMAGE_PROMPT: "#4fa3ec",
};

// The new rendering reads style properties. In a style sheet they stay when a palette is chosen.
function addStyleSheet() {
  const sheet = document.createElement("style");
  const rules = Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`);
  sheet.textContent = `:root { ${rules.join(" ")} }`;
  document.head.append(sheet);
}

// The canvas reads two dictionaries, which a palette empties of the types that it does not name.
function colourCanvas() {
  for (const colours of [app.canvas.default_connection_color_byType, LGraphCanvas.link_type_colors])
    for (const [type, colour] of Object.entries(COLOURS)) colours[type] ||= colour;
  app.canvas.setDirty(true, true);
}

app.registerExtension({
  name: "DiffStyler.Colours",
  setup() {
    addStyleSheet();
    for (const setting of ["Comfy.ColorPalette", "Comfy.Canvas.BackgroundImage"])
      app.ui.settings.addEventListener(`${setting}.change`, () => setTimeout(colourCanvas));
  },
  afterConfigureGraph: colourCanvas,
});

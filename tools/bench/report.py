"""results.json as a page of tables, and the plots of how cost grows. Everything here is made from the JSON alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE, DATA = "results.md", "results.json"
Row = Mapping[str, Any]


class Results(dict[str, Any]):
    """All parts' figures, as they are in a folder."""

    folder: Path

    @classmethod
    def read(cls, folder: Path) -> Results:
        """What the folder holds; nothing, where there is none yet."""
        file = folder / DATA
        made = cls(json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {})
        made.folder = folder
        return made

    def write(self) -> None:
        """Both files anew."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / DATA).write_text(json.dumps(self, indent=1) + "\n", encoding="utf-8")
        (self.folder / PAGE).write_text(page(self), encoding="utf-8")


def write_plots(results: Results, drawing: Any) -> None:
    """growth-*.png beside the page, drawn as the pack's nodes draw. drawing: the pack's room of that name."""
    from PIL import Image

    for entry in _rows(results, "growth"):
        highest = {key: max(p[key] for p in entry["points"]) or 1.0 for key in SHOWN}
        lines = tuple(
            drawing.plot.Line(
                title, tuple((p["x"], p[key] / highest[key]) for p in entry["points"]), drawing.palette.colour_of(i),
                f"{highest[key]:.4g} {unit} at the last",
            )
            for i, (key, (title, unit)) in enumerate(SHOWN.items())
        )  # fmt: skip
        pixels = drawing.plot.draw_plot(drawing.plot.Plot(lines, entry["across"], "share of the last", top=1.0))[0]
        Image.fromarray((pixels * 255).round().byte().numpy()).save(results.folder / f"growth-{entry['name']}.png")


SHOWN = {"cpu_s": ("CPU time", "s"), "gflop": ("arithmetic", "GFLOP"), "operator_calls": ("operator calls", "calls")}


def line(row: Row) -> str:
    """A row as one line for the console."""
    if "sizes" in row:
        sizes = row["sizes"]
        return f"{sizes['model']}: capture {sizes['capture_mb']:.2f} MB a step"
    if "stage" in row:
        return f"{row['stage']}: {row['peak_gb']:.2f} GB, {row['seconds_a_step']:.2f} s a step"
    if "points" in row:
        return f"{row['name']}: " + ", ".join(f"{p['x']:g}: {p['cpu_s']:.2f} s" for p in row["points"])
    ratio, cpu = row["ratio"], row["cpu_ratio"]
    return f"{row['model']}: {row['name']} / {row['peer']}: {ratio['median']:.3f} (CPU time {cpu['median']:.3f})"


def page(results: Mapping[str, Any]) -> str:
    """results.md."""
    parts = [
        *_head(results),
        *_stages(results),
        *_training(results),
        *_job(results),
        *_growth(results),
        *_memory(results),
    ]
    return "\n".join(parts) + "\n"


def _head(results: Mapping[str, Any]) -> list[str]:
    machine, versions = results["machine"], results["versions"]
    device = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    said = ", ".join(f"{name} {number}" for name, number in versions.items())
    return [
        "# Speed and memory beside other ways to do the same job",
        "",
        "Written by `python3 tools/dev.py bench` and `bench --memory`; the same figures: [results.json](results.json).",
        "",
        f"{device}, {machine['ram_gb']:g} GB, {machine['system']}. {said}.",
        "",
        "A ratio is ours over the peer's, both run in turns in one process: the median of the pairs, with the lowest",
        "and the highest. Wall time has in it what else the machine did meanwhile, CPU time hardly. Operator calls",
        "(aten, views left out; kernel launches on a GPU), GFLOP and UNet rows are counted in one run of each and free",
        "of noise; a node's set-up is shared out among the steps of its run.",
        "",
    ]


def _when(part: Row) -> str:
    load = part["load_before"]
    busy = "" if load is None else f", load {load:.1f} when it began"
    threads = f"{part['threads']} CPU thread{'s'[: part['threads'] > 1]}"
    return f"Measured {part['began_utc']} UTC at {part['commit']} in {part['seconds']:.0f} s, {threads}{busy}."


def _stages(results: Mapping[str, Any]) -> list[str]:
    if "stages" not in results:
        return []
    out = ["## Each stage", "", _when(results["stages"]), ""]
    rows = _rows(results, "stages")
    sizes = {row["sizes"]["model"]: row["sizes"] for row in rows if "sizes" in row}
    rows = [row for row in rows if "sizes" not in row]
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        kept = sizes.get(model)
        held = (
            f", a capture {kept['capture_mb']:g} MB a step at fp16, a trajectory {kept['trajectory_mb']:g}"
            if kept
            else ""
        )
        out += [
            f"### {model}",
            "",
            f"{own[0]['steps']} steps, {own[0]['repeats']} repeats{held}.",
            "",
            "| what | held against | s, ours / peer | wall | CPU | calls a step | GFLOP a step | rows a step |",
            "|---|---|---|---|---|---|---|---|",
        ]
        out += [
            f"| {row['name']} | {row['peer']} | {row['ours_s']:.2f} / {row['peer_s']:.2f} | {_spread(row['ratio'])} | "
            f"{_spread(row['cpu_ratio'])}{_bar(row)} | {_beside(row, 'operator_calls')} | {_beside(row, 'gflop')} | "
            f"{row['ours']['unet_rows']:g} / {row['peer_counts']['unet_rows']:g} |"
            for row in own
        ]
        out.append("")
    return out


def _training(results: Mapping[str, Any]) -> list[str]:
    if "training" not in results:
        return []
    return [
        "## A training step",
        "",
        _when(results["training"]),
        "",
        "Rank 16 on q, k, v of every attention, AdamW, fp32, batch 1. The plain loop has its latents and its prompt",
        "encoded before it begins, as ours has. Memory: what the process grew by, with the copy of the weights that",
        "each makes. The host's trainer puts a LoRA on every layer.",
        "",
        "| model | held against | s a step, ours / peer | wall | CPU | MB, ours / peer |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['model']} | {row['peer']} | {row['ours_s']:.3f} / {row['peer_s']:.3f} | {_spread(row['ratio'])} | "
            f"{_spread(row['cpu_ratio'])}{_bar(row)} | {row['ours_mb']:.0f} / {row['peer_mb']:.0f} |"
            for row in _rows(results, "training")
        ),
        "",
    ]


def _job(results: Mapping[str, Any]) -> list[str]:
    if "job" not in results:
        return []
    return [
        "## The whole job, one style",
        "",
        _when(results["job"]),
        "",
        "The plain script is organised as the method's original implementation: a UNet for each LoRA beside the base,",
        "three rows through each at every step, latents through files. Both train with the same settings, and inject",
        "the content's run of the LoRA's UNet in fixed windows, as the original does. Both sample with the LoRA that",
        "ours has trained, merged into the script's UNet; likeness is of these results. The second job of each model",
        "visits the 999 timesteps up and down again; a job of fewer steps visits as many fewer of them.",
        "",
        "| model | job | held against | s, ours / peer | ratio | CPU | without training | latents apart | PSNR |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {row['model']} | {row['name']} | {row['peer']} | {row['ours_s']:.1f} / {row['peer_s']:.1f} | "
            f"{row['ratio']['median']:.3f} | {row['cpu_ratio']['median']:.3f}{_bar(row)} | "
            f"{row['without_training']['ratio']['median']:.3f} | {row['latents_apart']:.2g} | {row['psnr']:.0f} dB |"
            for row in _rows(results, "job")
        ),
        "",
    ]


def _growth(results: Mapping[str, Any]) -> list[str]:
    if "growth" not in results:
        return []
    out = [
        "## How cost grows",
        "",
        _when(results["growth"]),
        "",
        "Sampling with a LoRA, injected from memory. The least CPU time of the repeats. *Off the line*: how far the",
        "farthest point lies from the straight line through all of them, in per cent of the highest. Arithmetic grows",
        "with size a little faster than a straight line, by its self-attention.",
        "",
    ]
    for entry in _rows(results, "growth"):
        points, fits = entry["points"], entry["fits"]
        out += [
            f"### {entry['name'].capitalize()} ({entry['model']})",
            "",
            "| " + " | ".join([entry["across"], *(f"{p['x']:g}" for p in points), "off the line"]) + " |",
            "|---" * (len(points) + 2) + "|",
            *(
                "| " + " | ".join([
                    f"{title}, {unit}", *(f"{p[key]:.4g}" for p in points), f"{100 * fits[key]['off_line']:.1f} %",
                ]) + " |"
                for key, (title, unit) in SHOWN.items()
            ),
            "",
            f"![{entry['name']}](growth-{entry['name']}.png)",
            "",
        ]  # fmt: skip
    return out


def _memory(results: Mapping[str, Any]) -> list[str]:
    if "memory" not in results:
        return []
    part = results["memory"]
    return [
        "## Memory of each stage",
        "",
        f"SD1.5's shape with {part['width']} channels (its own: 320), {part['side']} x {part['side']} pixels,",
        f"{part['steps']} steps, random weights; a process for each stage. {_when(part)}",
        "*Before* is the process with the model and what the stage takes from earlier ones. The last column is the",
        "share of the stage's time that is not spent within the UNet's evaluations.",
        "",
        "| stage | before | peak | s a step | outside the UNet |",
        "|---|---|---|---|---|",
        *(
            f"| {row['stage']} | {row['before_gb']:.2f} GB | {row['peak_gb']:.2f} GB | {row['seconds_a_step']:.2f} | "
            f"{_outside(row['inside_unet'])} |"
            for row in _rows(results, "memory")
        ),
        "",
    ]


def _outside(inside: float | None) -> str:
    return "" if inside is None else f"{100 * (1 - inside):.2f} %"


def _rows(results: Mapping[str, Any], part: str) -> Sequence[Row]:
    rows: Sequence[Row] = results.get(part, {}).get("rows", [])
    return rows


def _spread(figure: Mapping[str, float]) -> str:
    return f"{figure['median']:.3f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _bar(row: Row) -> str:
    return "" if row["bar"] is None else f", bar {row['bar']:.3g}"


def _beside(row: Row, key: str) -> str:
    ours, theirs = row["ours"][key], row["peer_counts"][key]
    share = f" ({ours / theirs:.2f})" if theirs else ""
    return f"{ours:.4g} / {theirs:.4g}{share}"

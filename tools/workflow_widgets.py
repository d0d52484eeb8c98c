"""Which of a node's inputs are widgets, in the order in which the editor stores their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "MARKDOWN", "TEXTAREA", "COLOR")
_DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
_NOT_STORED: dict[str, Any] = {"IMAGECOMPARE": ["", ""]}  # sent along, never saved
_BOX = "BOUNDING_BOX"
_NOT_READ = ("CHART", "GALLERIA", "PAINTER", "CURVE", "RANGE", "BOUNDING_BOXES", "COLORS")
_SEEDS = ("seed", "noise_seed")
_PLAIN_DEFAULTS: dict[str, Any] = {"INT": 0, "FLOAT": 0, "BOOLEAN": False}

Spec = tuple[str, str, dict[str, Any]]  # name, type, options


class WorkflowError(ValueError):
    """A workflow that cannot be converted, or a change that does not fit it."""


def widget_inputs(info: Mapping[str, Any], stored: Sequence[Any] | Mapping[str, Any] | None) -> dict[str, Any]:
    """The value of each widget of a node by input name: as stored, the default where nothing is stored."""
    inputs: dict[str, Any] = {}
    if isinstance(stored, Mapping):  # some packs store by name
        for name, kind, options in _specs(info["input"], info.get("input_order")):
            if _is_widget(kind, options):
                inputs[name] = _wrapped(stored.get(name, _default(kind, options)))
        return inputs
    _read(_specs(info["input"], info.get("input_order")), iter(stored or ()), inputs, info.get("name", "?"))
    return inputs


def _read(specs: Sequence[Spec], stored: Iterator[Any], inputs: dict[str, Any], node: str) -> None:
    for name, kind, options in specs:
        if options.get("widgetType", kind) in _NOT_READ and not options.get("forceInput"):
            raise WorkflowError(f"input {name!r} of {node} is a {kind} widget, which this converter does not read")
        if kind in _NOT_STORED:
            inputs[name] = _wrapped(_NOT_STORED[kind])
        if not _is_widget(kind, options):
            continue
        value = next(stored, _default(kind, options))
        inputs[name] = _wrapped(value)
        for _ in range(_extra_values(name, kind, options)):
            next(stored, None)
        if kind == _DYNAMIC_COMBO:
            _read(_chosen_specs(name, options, value), stored, inputs, node)


def _specs(groups: Mapping[str, Any], order: Mapping[str, Sequence[str]] | None = None) -> list[Spec]:
    found: list[Spec] = []
    for group in ("required", "optional"):
        entries = groups.get(group) or {}
        listed = [name for name in (order or {}).get(group, ()) if name in entries]
        names = [*listed, *(name for name in entries if name not in listed)]
        found += [_spec(name, entries[name]) for name in names]
    return found


def _spec(name: str, entry: Sequence[Any]) -> Spec:
    kind, options = entry[0], dict(entry[1]) if len(entry) > 1 and entry[1] else {}
    if isinstance(kind, list):  # the older way to write a combo
        return name, "COMBO", {"options": kind, **options}
    return name, str(kind), options


def _chosen_specs(name: str, options: Mapping[str, Any], value: object) -> list[Spec]:
    """The inputs that the chosen entry of a dynamic combo brings along."""
    chosen: dict[str, Any] = next((entry["inputs"] for entry in options["options"] if entry["key"] == value), {})
    return [(f"{name}.{inner}", kind, inner_options) for inner, kind, inner_options in _specs(chosen)]


def _is_widget(kind: str, options: Mapping[str, Any]) -> bool:
    known = options.get("widgetType", kind) in (*_WIDGETS, _BOX, _DYNAMIC_COMBO)
    return known and not options.get("forceInput")


def _extra_values(name: str, kind: str, options: Mapping[str, Any]) -> int:
    """How many stored values after an input's own are the editor's: what to do after a run, a box's four numbers."""
    if kind == _BOX:
        return 4
    if kind == "INT":
        return int(bool(options.get("control_after_generate", name in _SEEDS)))
    return 2 if kind == "COMBO" and options.get("control_after_generate") else 0


def _default(kind: str, options: Mapping[str, Any]) -> Any:
    if options.get("default") is not None:
        return options["default"]
    if kind == _DYNAMIC_COMBO:
        return next((entry["key"] for entry in options["options"]), None)
    if kind == "COMBO":
        return [] if options.get("multi_select") else next(iter(options.get("options", ())), None)
    if kind == _BOX:
        return {"x": 0, "y": 0, "width": 512, "height": 512}
    return _PLAIN_DEFAULTS.get(kind, "")


def _wrapped(value: Any) -> Any:
    """A list would be taken for a link."""
    return {"__value__": value} if isinstance(value, list) else value

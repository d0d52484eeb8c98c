"""Every node's inputs and outputs explain themselves, and its help page has its name and all of them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

PAGES = Path(__file__).parents[2] / "web" / "docs"


def schemas(pack):
    nodes = asyncio.run(pack.extension.DiffStylerExtension().get_node_list())
    return [node.define_schema() for node in nodes]


def slots_of(schema):
    """Inputs and outputs, with those that appear when an option is chosen."""
    return [*(slot for given in schema.inputs for slot in given.get_all()), *schema.outputs]


def options_of(schema):
    """The options that inputs appear with, as a page names them beside those."""
    options = [option for given in schema.inputs for option in getattr(given, "options", None) or ()]
    return {option.key for option in options if hasattr(option, "key")}


def test_every_input_and_output_explains_itself(pack):
    for schema in schemas(pack):
        assert [slot.id for slot in slots_of(schema) if not slot.tooltip] == [], schema.node_id
        assert schema.description


def test_every_help_page_has_the_nodes_name_inputs_and_outputs(pack):
    for schema in schemas(pack):
        text = (PAGES / f"{schema.node_id}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {schema.display_name}\n")
        assert [slot.id for slot in slots_of(schema) if f"`{slot.id}`" not in text] == [], schema.node_id


def test_no_help_page_names_an_input_that_the_node_has_not(pack):
    """The first column of the tables of inputs and outputs."""
    for schema in schemas(pack):
        known = {slot.id for slot in slots_of(schema)} | options_of(schema)
        assert listed(PAGES / f"{schema.node_id}.md") - known == set(), schema.node_id


def listed(page):
    """What the tables under 'Input' and 'Output' list."""
    found, table = set(), False
    for line in page.read_text(encoding="utf-8").splitlines():
        first = line.split("|")[1].strip() if line.startswith("|") else ""
        table = first in ("Input", "Output") or (table and bool(first))
        if table and first.startswith("`"):
            found |= set(re.findall("`([^`]+)`", first))
    return found


def test_no_page_without_a_node(pack):
    assert {page.stem for page in PAGES.glob("*.md")} == {schema.node_id for schema in schemas(pack)}

"""The pack's own kind of import contract: what is not listed is not imported. (The contracts: pyproject.toml.)"""

import grimp
import pytest

from tools.devkit.walls import OnlyContract


def checked(*imports: tuple[str, str]) -> list[tuple[str, str]]:
    """The imports that are too many in room `pack.room`, which may import torch."""
    graph = grimp.ImportGraph()
    for module in ("pack", "pack.room", "pack.room.inner", "pack.other"):
        graph.add_module(module)
    for importer, imported in imports:
        graph.add_module(imported, is_squashed=not imported.startswith("pack"))
        graph.add_import(importer=importer, imported=imported)
    options = {"rooms": ["pack.room"], "allowed": ["torch"]}
    contract = OnlyContract("only", {"root_packages": ["pack"]}, options)
    check = contract.check(graph, verbose=False)
    assert check.kept == (not check.metadata["outside"])
    return check.metadata["outside"]


@pytest.mark.parametrize("imported", ["torch", "json", "pack.other"])
def test_what_is_listed_pythons_own_and_the_packs_may_be_imported(imported):
    assert checked(("pack.room.inner", imported)) == []


@pytest.mark.parametrize("module", ["pack.room", "pack.room.inner"])
def test_anything_else_is_named_with_its_importer(module):
    assert checked((module, "torch"), (module, "requests")) == [(module, "requests")]


def test_other_rooms_are_their_own_affair():
    assert checked(("pack.other", "requests")) == []

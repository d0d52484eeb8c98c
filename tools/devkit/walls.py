"""A contract of import-linter (pyproject.toml): a room imports nothing from outside the pack but what is listed.

import-linter's own contracts forbid by name; a package that nobody has thought of would pass them.
"""

from __future__ import annotations

import sys
from typing import Any

from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    """`rooms` import, from outside the pack, only Python's own library and `allowed`."""

    rooms: Any = fields.ListField(subfield=fields.ModuleField())
    allowed: Any = fields.ListField(subfield=fields.StringField())

    def check(self, graph: Any, verbose: bool) -> ContractCheck:
        """Kept when no module of the rooms imports anything else, inside functions included."""
        allowed = {*self.allowed, *sys.stdlib_module_names}
        rooms = [room.name for room in self.rooms]
        modules = [module for room in rooms for module in (room, *graph.find_descendants(room))]
        outside = [
            (module, imported)
            for module in sorted(modules)
            for imported in sorted(graph.find_modules_directly_imported_by(module))
            if graph.is_module_squashed(imported) and imported not in allowed
        ]
        return ContractCheck(kept=not outside, metadata={"outside": outside})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Prints each import that is too many."""
        for module, imported in check.metadata["outside"]:
            output.print_error(f"{module} imports {imported}; only {', '.join(self.allowed)} may be imported here")

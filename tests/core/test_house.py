"""The house's rules that import-linter (pyproject.toml) cannot say: what is imported when, and what files hold."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = sorted((ROOT / "diffstyler_core").rglob("*.py"))
NODES = sorted((ROOT / "nodes").rglob("*.py"))
SOURCES = [ROOT / "__init__.py", *CORE, *NODES]
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "latent_preview", "server", "nodes"}
LAZY = {
    "peft", "ultralytics", "transformers", "diffusers", "lpips", "torchvision", "skimage", "sklearn", "scipy",
    "torchmetrics", "torch_fidelity", "kornia", "matplotlib", "cv2",
}  # fmt: skip


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """(top-level package or '.' * level, line, whether it is done when the file is) of every import in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(n) for part in ast.walk(tree) if is_later(part) for n in ast.walk(part)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], node.lineno, id(node) not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level if node.level else (node.module or "").split(".")[0]
            found.append((name, node.lineno, id(node) not in inside))
    return found


def is_later(part: ast.AST) -> bool:
    """A function, or what only a type checker reads."""
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(part, functions) or (isinstance(part, ast.If) and ast.unparse(part.test) == "TYPE_CHECKING")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_the_pack_imports_itself_by_relative_imports(path):
    """The host makes the pack's name up, and `nodes` is a module of its own."""
    assert not {name for name, _, _ in imports(path)} & {"diffstyler_core", "nodes"}


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_heavy_packages_are_imported_where_they_are_needed(path):
    assert not [(name, line) for name, line, top in imports(path) if top and name in LAZY]


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_sources_are_ascii(path):
    assert path.read_bytes().isascii()


def test_the_root_imports_nothing_of_the_host():
    assert not [(name, line) for name, line, top in imports(ROOT / "__init__.py") if top and name in HOST | {"."}]


def test_the_core_loads_without_the_host_and_without_peft():
    loaded = loaded_by("import " + ", ".join(dotted(path) for path in CORE))
    assert not loaded & (HOST | LAZY)
    assert "torch" in loaded


def test_the_root_loads_without_the_host_or_torch():
    code = f"import importlib.util as u; s = u.spec_from_file_location('pack', {str(ROOT / '__init__.py')!r}); "
    code += "m = u.module_from_spec(s); s.loader.exec_module(m); assert m.WEB_DIRECTORY"
    assert not loaded_by(code) & (HOST | LAZY | {"torch"})


def loaded_by(code: str) -> set[str]:
    """Top-level modules in a fresh Python after running ``code`` in the repository's folder."""
    code += "; import sys; print(*{name.split('.')[0] for name in sys.modules})"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_requirements_are_the_projects_dependencies():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ROOT / "requirements.txt").read_text().splitlines() == project["dependencies"]

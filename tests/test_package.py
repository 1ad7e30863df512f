"""The package as a whole: it starts fast, documents its names, and its layers import downwards only."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hist2scrna

ROOT = Path(hist2scrna.__file__).parent
HEAVY = {"anndata", "lightning", "matplotlib", "pandas", "scanpy", "squidpy", "torch", "torch_geometric"}
NAMESPACES = [name for name in hist2scrna.__all__ if name[0].islower() and name not in {"report", "settings"}]

# From the bottom up. A module may import from its own line and from lines above it in this list.
LAYERS = [
    {"keys", "files", "messages", "arguments", "processors", "verbosity", "cluster", "stored", "rehearsal"},
    {"zinb", "metrics"},
    {"models.contract", "models.prediction", "images"},
    {"encoders"},
    {"models", "spots"},
    {"fitting"},
    {"provenance"},
    {"trained"},
    {"evaluation"},
    {"benchmarking"},
    {"tl", "pl", "datasets", "pp", "io"},
    {"report", "reporting", "demo"},
    {"cli", "__main__"},
]
KNOW_NO_ANNDATA = ("images", "encoders", "models", "zinb", "metrics")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def module_names() -> dict[str, Path]:
    """Every module by its name below the package, `models.vit` for instance."""
    files = {file.relative_to(ROOT).with_suffix(""): file for file in sorted(ROOT.rglob("*.py"))}
    return {".".join(p for p in path.parts if p != "__init__"): file for path, file in files.items()}


def imports(file: Path) -> set[str]:
    """Names of all modules that a file imports, wherever in it; `from a import b` gives both `a` and `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def internal_imports(name: str) -> set[str]:
    """Modules and packages of hist2scrna that a module imports, by their names below the package."""
    known = module_names()
    inside = {m.removeprefix("hist2scrna.") for m in imports(known[name]) if m.startswith("hist2scrna.")}
    return {"trained" if m == "TrainedModel" else m for m in inside if m in known or m == "TrainedModel"}


def layer(name: str) -> int:
    for level, members in enumerate(LAYERS):
        if name in members:
            return level
    parent, _, _ = name.rpartition(".")
    assert parent, f"{name}.py has no layer: add it to LAYERS, in the place where DESIGN puts it"
    return layer(parent)


def public_names() -> list[str]:
    found = []
    for namespace in NAMESPACES:
        module = importlib.import_module(f"hist2scrna.{namespace}")
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
        found += [f"{namespace}.{name}" for name in names]
    return found + [name for name in hist2scrna.__all__ if name not in NAMESPACES]


def resolve(dotted: str) -> object:
    value: object = hist2scrna
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


def test_the_layers_are_those_of_the_developer_guide() -> None:
    text = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*) \|", text, flags=re.MULTILINE)
    assert [set(re.findall(r"`([^`]+)`", row)) for row in rows] == LAYERS


def test_every_progress_bar_has_a_name() -> None:
    bars = [
        (file.name, node.lineno, {keyword.arg for keyword in node.keywords})
        for file in module_names().values()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tqdm"
    ]
    assert bars
    assert [bar for bar in bars if not {"desc", "unit", "disable"} <= bar[2]] == []


def test_import_is_light() -> None:
    loaded = json.loads(run_python("import sys, json, hist2scrna; print(json.dumps(sorted(sys.modules)))"))
    assert "hist2scrna" in loaded
    assert HEAVY.isdisjoint(loaded)


def test_version_is_that_of_the_installed_package() -> None:
    assert hist2scrna.__version__ == importlib.metadata.version("hist2scrna")


def test_public_names_do_not_change_with_what_was_imported_before() -> None:
    # A function named as its module is hidden by it once somebody imports the module.
    modules = [f"hist2scrna.{name}".rstrip(".") for name in module_names()]
    code = f"""
import importlib, json, types
for name in {modules!r}:
    importlib.import_module(name)
import hist2scrna
kinds = {{}}
for name in {public_names()!r}:
    value = hist2scrna
    for part in name.split("."):
        value = getattr(value, part)
    kinds[name] = isinstance(value, types.ModuleType)
print(json.dumps(kinds))
"""
    kinds = json.loads(run_python(code))
    assert kinds
    assert [name for name, is_module in kinds.items() if is_module] == []


def test_public_names_are_documented() -> None:
    bare = []
    for name in public_names():
        value = resolve(name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        members = vars(value).items() if inspect.isclass(value) else ()
        parts = {name: value} | {
            f"{name}.{key}": member
            for key, member in members
            if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod))
        }
        bare += [part for part, member in parts.items() if not inspect.getdoc(member)]
    assert bare == []


@pytest.mark.parametrize(
    "namespace", [name for name in NAMESPACES if name in {"tl", "pl", "pp", "io", "datasets", "encoders"}]
)
def test_every_parameter_is_described(namespace: str) -> None:
    missing = []
    for name in [name for name in public_names() if name.startswith(f"{namespace}.")]:
        value = resolve(name)
        if inspect.isfunction(value):
            text = inspect.getdoc(value) or ""
            missing += [f"{name}({p})" for p in inspect.signature(value).parameters if not re.search(rf"\b{p}\b", text)]
    assert missing == []


def test_api_page_lists_every_public_name() -> None:
    page = ROOT.parent / "docs" / "api.md"
    if not page.is_file():
        pytest.skip("there is no docs/api.md: installed without the repository")
    text = page.read_text(encoding="utf-8")
    whole = {name for name in NAMESPACES if re.search(rf"^ +{name}$", text, flags=re.MULTILINE)}
    absent = [
        name
        for name in public_names()
        if name.split(".")[0] not in whole and not re.search(rf"^ +{re.escape(name)}$", text, flags=re.MULTILINE)
    ]
    assert absent == []


@pytest.mark.parametrize("name", [name for name, file in module_names().items() if file.name != "__init__.py"])
def test_imports_point_downwards(name: str) -> None:
    own = layer(name)
    upwards = [other for other in internal_imports(name) if layer(other) > own]
    assert upwards == [], f"{name} imports from higher layers"


def test_imports_go_in_no_circle() -> None:
    modules = {name for name, file in module_names().items() if file.name != "__init__.py"}
    order = list(TopologicalSorter({name: internal_imports(name) & modules for name in modules}).static_order())
    assert set(order) == modules


def test_spots_and_images_know_no_model() -> None:
    modules = [name for name in module_names() if name.split(".")[0] in {"images", "spots"}]
    known = {other for name in modules for other in internal_imports(name) if other.split(".")[0] == "models"}
    assert known <= {"models.contract", "models.prediction"}


@pytest.mark.parametrize("name", [name for name in module_names() if name.split(".")[0] in KNOW_NO_ANNDATA])
def test_maths_and_models_know_no_anndata(name: str) -> None:
    known = {module.split(".")[0] for module in imports(module_names()[name])}
    assert known.isdisjoint({"anndata", "mudata", "scanpy", "spatialdata", "squidpy"})
    assert "keys" not in internal_imports(name)


def test_slot_names_are_spelled_once() -> None:
    from hist2scrna import keys

    # Names that mean nothing else; "spatial" or "cell_type" are ordinary words too.
    names = {value for key, value in vars(keys).items() if key.isupper() and isinstance(value, str) and "_" in value}
    distinctive = names - {keys.CELL_TYPE}
    elsewhere = {
        f"{name}: {node.value!r}"
        for name, file in module_names().items()
        if name != "keys"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in distinctive
    }
    assert len(distinctive) >= 5
    assert elsewhere == set()

"""Imports point downwards only (the table of layers in CONTRIBUTING.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "worldswitch"

#: Layer to the layers that it may import from, beside itself and `errors`.
MAY_IMPORT: dict[str, set[str]] = {
    "arch": set(),
    "errors": set(),
    "guests": set(),
    "trace": {"arch"},
    "cpu": {"arch", "trace"},
    "board": {"arch", "trace", "cpu"},
    "host": {"arch", "trace", "cpu", "board"},
    "kvm": {"arch", "trace", "cpu", "board", "host"},
    "native": {"arch"},
    "vmm": {"arch", "kvm", "native", "guests"},
    "view": {"arch", "trace"},
    "explore": {"arch", "trace", "kvm", "vmm"},
    "cli": {"arch", "trace", "cpu", "board", "host", "kvm", "native", "vmm", "view", "explore", "guests"},
}


def imports(source: str, package: str) -> set[str]:
    """The layers that a module of `package` (dotted, below worldswitch) imports from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ("worldswitch." + package).split(".")
                base = ".".join(above[: len(above) - node.level + 1]) + ("." + base if base else "")
            names = [base] if base != "worldswitch" else [f"{base}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("worldswitch.")}
    return found


def violations(source: str, package: str) -> set[str]:
    layer = package.split(".")[0]
    return {name for name in imports(source, package) - {layer, "errors", "__version__"} if name not in MAY_IMPORT[layer]}


MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py") if len(path.relative_to(ROOT).parts) > 1)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_downwards(module: Path) -> None:
    package = ".".join(module.parts[:-1])
    assert violations((ROOT / module).read_text(), package) == set()


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("from worldswitch.kvm import Kvm", "cpu", {"kvm"}),
        ("import worldswitch.host.kernel", "board", {"host"}),
        ("from ..kvm import vm", "cpu", {"kvm"}),
        ("from ...board import Board", "cpu.vmx", {"board"}),
        ("from worldswitch import cli", "host", {"cli"}),
        ("if TYPE_CHECKING:\n    from worldswitch.kvm.vm import Vm", "host", {"kvm"}),
        ("from worldswitch.cpu.event import Event\nfrom worldswitch.errors import SimulationError", "kvm", set()),
        ("from . import state\nfrom .vmx import unit", "cpu", set()),
    ],
)
def test_the_check_sees_what_it_must(source: str, package: str, expected: set[str]) -> None:
    assert violations(source, package) == expected


def test_every_layer_is_in_the_table() -> None:
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} <= set(MAY_IMPORT)

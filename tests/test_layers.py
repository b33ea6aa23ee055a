"""Imports point downwards only: each layer imports from those that CONTRIBUTING.md says it knows, and from no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
ROOT = TOP / "src" / "worldswitch"
PACKAGE = "worldswitch"

_KVM_KNOWS = {"arch", "trace", "cpu", "board", "host"}
#: Layer to the layers that it may import from, beside itself and `EVERYWHERE`.
MAY_IMPORT: dict[str, set[str]] = {
    "arch": set(),
    "trace": {"arch"},
    "cpu": {"arch", "trace"},
    "board": {"arch", "trace", "cpu"},
    "host": {"arch", "trace", "cpu", "board"},
    "kvm": _KVM_KNOWS,
    "native": {"arch"},
    "guests": set(),
    "vmm": {"arch", "kvm", "native", "guests"},
    "view": {"arch", "trace"},
    "explore": {*_KVM_KNOWS, "kvm", "vmm"},
    "cli": {*_KVM_KNOWS, "kvm", "native", "guests", "vmm", "view", "explore"},
}
#: Layer to those of the above that it may import from their public package only, not from the modules below it.
PUBLIC_ONLY: dict[str, set[str]] = {"vmm": {"kvm", "native"}}
#: Modules beside the layers, which every layer may import from and which import from none; "" is `worldswitch` itself.
EVERYWHERE = {"", "errors"}
#: The module that `python -m worldswitch` runs belongs to the command line.
BELONGS = {"__main__": "cli"}


def imported(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that a module takes from this project, wherever the import stands.

    `from a import b` gives `a.b`: whether `b` is a module or a name in one, the first parts are the same. What `import worldswitch` makes
    reachable is found by its dotted use, and what is imported by name at run time by that name.
    """
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            names = [base if alias.name == "*" else f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {"import_module", "__import__"}:
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant) and isinstance(argument.value, str)]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name == PACKAGE or name.startswith(PACKAGE + "."))


def layer_of(name: str) -> str:
    """The layer that a dotted name of this project is in; "" for `worldswitch` itself and its own `__version__`."""
    part = [*name.split("."), ""][1]
    return BELONGS.get(part, "" if part.startswith("__") else part)


def violations(source: str, module: str, *, is_package: bool = False, modules: Collection[str] = ()) -> list[str]:
    """What a module must not import, as `line: name`. `modules` exist: they tell a module in a package from a name in it."""
    layer = layer_of(module)
    allowed = EVERYWHERE | {layer} | MAY_IMPORT.get(layer, set())
    public_only = PUBLIC_ONLY.get(layer, set())
    found = set()
    for line, name in imported(ast.parse(source, module), module, is_package=is_package):
        target = layer_of(name)
        inside = target in public_only and any(m.count(".") > 1 and f"{name}.".startswith(f"{m}.") for m in modules)
        if target not in allowed or inside:
            found.add((line, name))
    return [f"{line}: {name}" for line, name in sorted(found)]


def all_modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


MODULES = all_modules()


@pytest.mark.parametrize("layer", [*MAY_IMPORT, *sorted(EVERYWHERE)])
def test_imports_point_downwards(layer: str) -> None:
    wrong = [
        f"{path.relative_to(TOP)}:{violation}"
        for module, path in MODULES.items()
        if layer_of(module) == layer
        for violation in violations(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py", modules=MODULES)
    ]
    assert not wrong, f"{layer or PACKAGE} may import from {', '.join(sorted(MAY_IMPORT.get(layer, ()))) or 'no layer'}"


def test_every_module_is_in_the_table() -> None:
    assert {layer_of(module) for module in MODULES} <= MAY_IMPORT.keys() | EVERYWHERE


def test_the_table_has_a_downwards() -> None:
    order = list(TopologicalSorter(MAY_IMPORT).static_order())  # CycleError names the layers that know each other
    assert order[-1] == "cli"


def test_contributing_shows_this_table() -> None:
    rows = re.findall(r"^\| `worldswitch\.(\w+)` \|[^|]*\|([^|]*)\|$", (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    shown = {layer: set(MAY_IMPORT) - {layer} if knows.strip() == "all" else set(re.findall(r"`(\w+)`", knows)) for layer, knows in rows}
    assert shown == MAY_IMPORT


EXISTING = {"worldswitch.kvm", "worldswitch.kvm.vcpu", "worldswitch.native", "worldswitch.native.ioctl"}


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("cpu.x", "from worldswitch.kvm import Kvm", ["1: worldswitch.kvm.Kvm"]),
        ("board.x", "import worldswitch.host.kernel", ["1: worldswitch.host.kernel"]),
        ("board.x", "import os, worldswitch.host as h", ["1: worldswitch.host"]),
        ("host.x", "from worldswitch import cli", ["1: worldswitch.cli"]),
        ("arch.x", "from worldswitch.trace import *", ["1: worldswitch.trace"]),
        ("host.x", "if TYPE_CHECKING:\n    from worldswitch.kvm.vm import Vm", ["2: worldswitch.kvm.vm.Vm"]),
        ("host.x", "def f():\n    import worldswitch.kvm", ["2: worldswitch.kvm"]),
        ("native.x", "from worldswitch.kvm import Regs", ["1: worldswitch.kvm.Regs"]),
        ("view.x", "from worldswitch.cpu.state import State", ["1: worldswitch.cpu.state.State"]),
        ("kvm.x", "from worldswitch.explore import a, b", ["1: worldswitch.explore.a", "1: worldswitch.explore.b"]),
        ("arch.x", "from worldswitch.nowhere import a", ["1: worldswitch.nowhere.a"]),
        ("errors", "from worldswitch.arch.msr import Msr", ["1: worldswitch.arch.msr.Msr"]),
        # Relative imports: of a module, of a package's __init__, from deeper down.
        ("cpu.x", "from ..kvm import vm", ["1: worldswitch.kvm.vm"]),
        ("cpu.x", "from .. import kvm", ["1: worldswitch.kvm"]),
        ("cpu/", "from ..kvm import vm", ["1: worldswitch.kvm.vm"]),
        ("cpu.vmx.x", "from ...board import Board", ["1: worldswitch.board.Board"]),
        ("cpu.vmx/", "from ...board import Board", ["1: worldswitch.board.Board"]),
        # Without an import statement that names it.
        ("arch.x", "import worldswitch\nworldswitch.kvm.Kvm()", ["2: worldswitch.kvm", "2: worldswitch.kvm.Kvm"]),
        ("arch.x", "importlib.import_module('worldswitch.kvm')", ["1: worldswitch.kvm"]),
        # The API, and what is behind it.
        ("vmm.x", "from worldswitch.kvm.vcpu import Vcpu", ["1: worldswitch.kvm.vcpu.Vcpu"]),
        ("vmm.x", "from worldswitch.kvm import vcpu", ["1: worldswitch.kvm.vcpu"]),
        ("vmm.x", "import worldswitch.native.ioctl", ["1: worldswitch.native.ioctl"]),
        ("vmm.x", "from worldswitch.host import Kernel", ["1: worldswitch.host.Kernel"]),
        ("vmm.x", "from worldswitch.kvm import Vcpu\nfrom worldswitch.native import Kvm\nimport worldswitch.kvm", []),
        ("explore.x", "from worldswitch.kvm.vcpu import Vcpu", []),
        # What is right.
        ("kvm.x", "from worldswitch.cpu.event import Event\nfrom worldswitch.errors import SimulationError", []),
        ("arch.x", "from worldswitch import __version__\nfrom ..errors import WorldswitchError", []),
        ("cpu/", "from . import state\nfrom .vmx import unit\nfrom ..arch import msr", []),
        ("cpu.vmx.x", "from ..state import State\nfrom . import exit\nfrom ...trace import Recorder", []),
        ("cpu.x", "import kvm\nfrom worldswitches.kvm import a\nself.worldswitch.kvm", []),
        ("__main__", "from worldswitch.cli import main", []),
    ],
)
def test_the_check_sees_what_it_must(module: str, source: str, expected: list[str]) -> None:
    is_package = module.endswith("/")
    assert violations(source, f"{PACKAGE}.{module.rstrip('/')}", is_package=is_package, modules=EXISTING) == expected


def test_the_check_sees_an_import_added_to_a_real_module() -> None:
    source = MODULES["worldswitch.cpu.processor"].read_text(encoding="utf-8")
    assert violations(source + "\nfrom worldswitch.kvm import Kvm\n", "worldswitch.cpu.processor", modules=MODULES) != []

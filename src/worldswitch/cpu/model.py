"""Which processor this is: vendor, what CPUID says, widths, and how long things take.

Virtual time is counted in cycles. The figures of `Timing` are parameters of the machine, not measurements of a part: they decide how much happens between two
ticks, never what happens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from worldswitch.errors import ConfigurationError, UnknownCpuModel


@dataclass(frozen=True, slots=True)
class Timing:
    """What takes how many cycles."""

    instruction: int = 1
    """Every instruction, and every iteration of a repeated string instruction."""
    event_delivery: int = 60
    """Through the IDT."""
    vm_entry: int = 400
    vm_exit: int = 600

    def __post_init__(self) -> None:
        for name in ("instruction", "event_delivery", "vm_entry", "vm_exit"):
            value = getattr(self, name)
            least = 1 if name == "instruction" else 0
            if not isinstance(value, int) or not least <= value <= 1_000_000_000:
                raise ConfigurationError(f"timing.{name}", value, f"a number of cycles from {least} to 1000000000")


@dataclass(frozen=True, slots=True)
class Model:
    """A processor model. `vendor` is "intel" (VMX) or "amd" (SVM)."""

    name: str
    vendor: str
    family: int
    model: int
    stepping: int
    brand: str
    physical_bits: int = 40
    """MAXPHYADDR: physical address width in bits."""
    linear_bits: int = 48
    timing: Timing = field(default_factory=Timing)

    def with_timing(self, timing: Timing) -> Model:
        """The same processor, faster or slower."""
        return replace(self, timing=timing)


#: The models that can be asked for by name.
MODELS: Final[dict[str, Model]] = {
    "intel": Model("intel", "intel", 6, 0x9E, 9, "worldswitch virtual processor with VMX"),
    "amd": Model("amd", "amd", 0x17, 0x31, 0, "worldswitch virtual processor with SVM"),
}


def model_named(name: str) -> Model:
    """The model of this name. Raises `UnknownCpuModel`."""
    try:
        return MODELS[name]
    except KeyError:
        raise UnknownCpuModel(name, tuple(MODELS)) from None

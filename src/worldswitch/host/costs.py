"""What host work costs, in cycles: the host kernel is Python and executes no instructions, so its time is charged by this table.

The figures are parameters of the machine (round numbers of the magnitude that such paths have), not measurements; they decide when things happen, never what.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from worldswitch.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Costs:
    """Cycles of each named piece of host work."""

    irq_entry: int = 200
    irq_exit: int = 100
    timer_handler: int = 400
    tick: int = 600
    reschedule_handler: int = 50
    context_switch: int = 800
    idle_entry: int = 200
    vcpu_load: int = 300
    vcpu_put: int = 300
    vcpu_run_prepare: int = 250
    vcpu_run_finish: int = 150
    handle_exit: int = 300
    inject: int = 100
    page_fault: int = 900
    emulate: int = 700
    block: int = 400
    wake_up: int = 250
    user_exit: int = 500

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or not 0 <= value <= 1_000_000_000:
                raise ConfigurationError(f"costs.{field.name}", value, "a number of cycles from 0 to 1000000000")

    def of(self, what: str) -> int:
        """The cost of one piece of work. KeyError for a name that is not in the table."""
        if what not in self.__dataclass_fields__:
            raise KeyError(what)
        return int(getattr(self, what))

"""The demo's machine: one host processor, two VMs with one vCPU each, the tick between them. Building it, running it, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from worldswitch.board import Board
from worldswitch.cpu.model import Timing, model_named
from worldswitch.errors import ConfigurationError
from worldswitch.guests import COUNTER, LAST_STRANGER, PERIOD, STRANGERS, TIMER_INTERRUPTS, load_guest
from worldswitch.host import Kernel, RunEnd
from worldswitch.host.irq import LOCAL_TIMER_VECTOR
from worldswitch.kvm import Kvm, Params
from worldswitch.trace import Recorder
from worldswitch.vmm import FlatGuest, load_flat


@dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen. `frequency_hz`: cycles a second of virtual time; `cycles_per_instruction`: what a guest instruction takes."""

    cpu: str = "intel"
    ticks: int = 12
    hz: int = 250
    frequency_hz: int = 20_000_000
    cycles_per_instruction: int = 4
    ack_on_exit: bool = True
    intr_exiting: bool = True
    v_intr_masking: bool = True
    guest_cli: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.ticks <= 100_000:
            raise ConfigurationError("ticks", self.ticks, "from 1 to 100000")


#: Virtual time that the run is given beyond the ticks asked for, in ticks, before it is declared stuck.
_GRACE: Final = 4


@dataclass(slots=True)
class Machine:
    """A demo that is set up, or has run."""

    options: Options
    board: Board
    kernel: Kernel
    guests: dict[str, FlatGuest]
    end: RunEnd | None = None
    names: dict[int, str] = field(default_factory=dict)

    @property
    def ticks(self) -> int:
        """Ticks that the host has handled."""
        return self.kernel.cpus[0].tick.jiffies

    def microseconds(self, cycles: int) -> float:
        """Virtual time."""
        return cycles * 1e6 / self.options.frequency_hz

    def run(self) -> None:
        """Run until the host has handled the ticks asked for, or virtual time says that it never will."""
        limit = (self.options.ticks + _GRACE) * self.kernel.tick_period
        self.end = self.kernel.run(lambda: self.ticks >= self.options.ticks, max_time=limit)

    @property
    def starved(self) -> bool:
        """The host did not get its ticks."""
        return self.end is RunEnd.TIME


def build(options: Options) -> Machine:
    """Set the demo up. ConfigurationError for what cannot be."""
    model = model_named(options.cpu).with_timing(Timing(instruction=options.cycles_per_instruction))
    board = Board(model, frequency_hz=options.frequency_hz, trace=Recorder())
    kernel = Kernel(board, hz=options.hz)
    if options.cycles_per_instruction * 1000 > kernel.tick_period:
        raise ConfigurationError("cycles_per_instruction", options.cycles_per_instruction, "so small that a tick has room for a thousand instructions")
    kvm = Kvm(kernel, Params(options.ack_on_exit, options.intr_exiting, options.v_intr_masking))
    programs = ("count_cli", "count_cli") if options.guest_cli else ("count_timer", "count_cli")
    machine = Machine(options, board, kernel, {})
    for i, program in enumerate(programs):
        vm = kvm.create_vm()
        vm.create_irqchip()
        guest = load_flat(vm, load_guest(program).binary)
        # The guest's own timer: a little faster than the host's tick, and out of step with it.
        guest.set_mailbox(PERIOD, kernel.tick_period * 7 // 10 + 1234)
        name = f"vm{i}-{program.removeprefix('count_')}"
        machine.guests[name] = guest
        task = guest.vcpu.start(name)
        machine.names[task.pid] = name
    return machine


def vcpu_rows(machine: Machine) -> list[dict[str, Any]]:
    """One row per vCPU: what it did and what it cost."""
    cpu = machine.kernel.cpus[0]
    cpu.update_curr()
    total = max(1, cpu.now())
    rows: list[dict[str, Any]] = []
    for name, guest in machine.guests.items():
        stat, thread = guest.vcpu.stat, guest.vcpu.thread
        assert thread is not None
        assert thread.task is not None
        rows.append(
            {
                "vcpu": name,
                "instructions": guest.vcpu.instructions(),
                "iterations": guest.mailbox(COUNTER),
                "exits": stat.exits,
                "exits_by_reason": dict(sorted(stat.exits_by_reason.items())),
                "interrupts_injected": stat.irq_injections,
                "own_timer_interrupts": guest.mailbox(TIMER_INTERRUPTS),
                "stranger_interrupts": guest.mailbox(STRANGERS),
                "last_stranger_vector": guest.mailbox(LAST_STRANGER),
                "host_ticks": thread.task.ticks,
                "cpu_share": round(thread.task.se.sum_exec / total, 4),
            }
        )
    rows.append(
        {
            "vcpu": "idle",
            "instructions": 0, "iterations": 0, "exits": 0, "exits_by_reason": {}, "interrupts_injected": 0,
            "own_timer_interrupts": 0, "stranger_interrupts": 0, "last_stranger_vector": 0,
            "host_ticks": cpu.idle.ticks, "cpu_share": round(cpu.idle.se.sum_exec / total, 4),
        }
    )  # fmt: skip
    return rows


def explanations(machine: Machine) -> list[str]:
    """What the chosen options showed, and why: one sentence each, with the figures of this run."""
    o = machine.options
    rows = {row["vcpu"]: row for row in vcpu_rows(machine)}
    says: list[str] = []
    if o.cpu == "intel":
        says.append(
            "Intel: the pin-based control external-interrupt exiting makes a pending interrupt leave the guest whatever its "
            "RFLAGS.IF; the exit loads RFLAGS = 2, "
            "so the host continues with IF = 0 (SDM vol. 3 §26.2, §28.5.3)."
            if o.intr_exiting
            else "Intel: with external-interrupt exiting off, a physical interrupt does not leave the guest (SDM vol. 3 §26.2)."
        )
    else:
        says.append(
            "AMD: the INTR intercept makes a pending interrupt leave the guest; #VMEXIT clears GIF and brings back the host's own "
            "RFLAGS with IF = 1, so it is GIF that "
            "holds the interrupt until STGI (APM vol. 2 §15.13.1, §15.17)."
            if o.intr_exiting
            else "AMD: with the INTR intercept off, a physical interrupt does not leave the guest (APM vol. 2 §15.13.1)."
        )
    if o.intr_exiting and o.cpu == "intel":
        says.append(
            "Acknowledge interrupt on exit: the exit itself ran the acknowledge cycle, the vector is in the exit-interruption "
            "information, and KVM calls the handler before it "
            "enables interrupts (SDM vol. 3 §28.2.2)."
            if o.ack_on_exit
            else "No acknowledge on exit: the vector is still in IRR after the exit, the exit-interruption information is not "
            "valid, and the tick is taken at local_irq_enable."
        )
    if not o.intr_exiting:
        takers = [row for row in rows.values() if row["stranger_interrupts"]]
        if takers:
            row = takers[0]
            says.append(
                f"{row['vcpu']} took the host's tick (vector {row['last_stranger_vector']:#x}) through its own IDT: nobody told the "
                f"host's local APIC end of interrupt, its timer is not "
                f"armed again, and the host's scheduler starves. The host handled {machine.ticks} of {o.ticks} ticks; the run was ended "
                f"at the limit of virtual time."
            )
        else:
            says.append(
                f"The guest keeps interrupts off, so the tick stays pending in IRR (vector {LOCAL_TIMER_VECTOR:#x}) and nothing takes the "
                f"processor away: the host handled "
                f"{machine.ticks} of {o.ticks} ticks; the run was ended at the limit of virtual time."
            )
    if o.cpu == "amd" and not o.v_intr_masking:
        says.append(
            "V_INTR_MASKING off: physical interrupts are masked by the guest's RFLAGS.IF, so while the guest has IF = 0 the host's "
            "tick waits although INTR is intercepted "
            f"(APM vol. 2 §15.21.1). The host handled {machine.ticks} of {o.ticks} ticks"
            + ("; the run was ended at the limit of virtual time." if machine.starved else ".")
        )
    if o.guest_cli and not machine.starved:
        switched = sum(1 for row in rows.values() if row["host_ticks"] and row["vcpu"] != "idle")
        says.append(
            f"Both guests run with interrupts disabled, and still lose the processor at the tick: {switched} of 2 were interrupted by the host's ticks, shares "
            + ", ".join(f"{row['cpu_share']:.1%}" for row in rows.values() if row["vcpu"] != "idle")
            + ". The guest's IF masks the guest's interrupts, not the host's."
        )
    return says

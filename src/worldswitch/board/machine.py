"""The board: memory, clocks, and N processors each with its local APIC.

Time is counted in cycles, one unit for all. Each processor has its own clock (`Processor.cycles`), and the software above advances the one that is furthest
behind; what a processor sends to another arrives there at the moment at which it was sent, or at once if the receiver's clock is ahead. So a run depends on
nothing but its inputs. Relies on `cpu`; leaves which processor goes next, and the start of the others (INIT and start-up IPIs do nothing here), to the host's
software.
"""

from __future__ import annotations

from collections.abc import Callable

from worldswitch.arch.apic import DeliveryMode
from worldswitch.arch.registers import Rflags
from worldswitch.arch.vmx import ActivityState, Interruptibility
from worldswitch.board.events import EventQueue, Timer
from worldswitch.board.lapic import DEFAULT_BASE, Ipi, LocalApic
from worldswitch.board.memory import PhysicalMemory
from worldswitch.cpu.model import Model
from worldswitch.cpu.processor import NEVER, Processor, Stop
from worldswitch.cpu.state import MASK64
from worldswitch.errors import ConfigurationError
from worldswitch.trace import Recorder
from worldswitch.trace.events import HwApicAccept, HwApicAcknowledge, HwApicEoi

#: Instructions in one call of `Processor.run`: bounds how long a run without events goes on.
_CHUNK = 1 << 20
#: RAM ends below the I/O APICs' and local APICs' pages.
_MOST_MEMORY = 0xFEC00000
_ALL_BUT_SELF = 3


class _Clock:
    """The board's clock as one processor's local APIC sees it."""

    def __init__(self, board: Board, index: int) -> None:
        self._board, self._index = board, index

    def now(self) -> int:
        return self._board.processors[self._index].cycles

    def arm(self, time: int, callback: Callable[[int], None]) -> Timer:
        return self._board.events.schedule(time, callback, f"lapic{self._index} timer", self._index)

    def disarm(self, handle: object) -> None:
        if isinstance(handle, Timer):
            self._board.events.cancel(handle)

    def tsc(self) -> int:
        # Not `Processor.tsc`: a guest's TSC offset does not apply to the deadline (SDM vol. 3 §25.6.5).
        cpu = self._board.processors[self._index]
        return cpu.cycles + cpu.state.tsc_adjust & MASK64


class _ApicPage:
    """The page of memory at which each processor finds its own local APIC (SDM vol. 3 §11.4.1)."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def _apic(self) -> LocalApic | None:
        cpu = self._board.executing
        apic = self._board.apics[cpu.index] if cpu is not None else None
        return apic if apic is not None and apic.base >> 12 == DEFAULT_BASE >> 12 else None

    def mmio_read(self, offset: int, size: int) -> int:
        apic = self._apic()
        return (1 << 8 * size) - 1 if apic is None else apic.mmio_read(offset, size)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        apic = self._apic()
        if apic is not None:
            apic.mmio_write(offset, size, value)


class Board:
    """A machine without software.

    `frequency_hz`: cycles a second of virtual time, TSC frequency too. `memory_bytes`: RAM at physical address 0, whole pages.
    Raises `ConfigurationError` for what cannot be.
    """

    def __init__(
        self, model: Model, *, frequency_hz: int = 20_000_000, processors: int = 1, memory_bytes: int = 16 << 20, trace: Recorder | None = None
    ) -> None:
        if not 1000 <= frequency_hz <= 100_000_000_000:
            raise ConfigurationError("frequency_hz", frequency_hz, "from 1000 to 100000000000 cycles a second")
        if not 1 <= processors <= 64:
            raise ConfigurationError("processors", processors, "from 1 to 64")
        if not 0 < memory_bytes <= _MOST_MEMORY or memory_bytes % 4096:
            raise ConfigurationError("memory_bytes", memory_bytes, f"a positive number of whole 4096-byte pages, at most {_MOST_MEMORY}")
        self.model = model
        self.frequency_hz = frequency_hz
        self.trace = trace if trace is not None else Recorder(on=False)
        self.memory_bytes = memory_bytes
        self.events = EventQueue()
        self.memory = PhysicalMemory()
        self.memory.add_ram(0, bytearray(memory_bytes))
        self.memory.add_mmio(DEFAULT_BASE, 4096, _ApicPage(self))
        #: The processor that executes machine code now; None between slices.
        self.executing: Processor | None = None
        self.processors: list[Processor] = []
        self.apics: list[LocalApic] = []
        for index in range(processors):
            self._add_processor(index)

    def _add_processor(self, index: int) -> None:
        apic = LocalApic(
            index,
            _Clock(self, index),
            # Bound late: the processor needs its APIC to be built. Nothing is raised before.
            raised=lambda: self.processors[index].attend(),
            record=lambda event, vector, source: self._record(index, event, vector, source),
            send=lambda ipi: self._route(index, ipi),
            boot_processor=index == 0,
            physical_bits=self.model.physical_bits,
        )
        self.apics.append(apic)
        self.processors.append(Processor(self.model, self.memory, apic, self.trace, index))

    def _record(self, index: int, event: str, vector: int, source: str) -> None:
        if not self.trace.on:
            return
        time = self.processors[index].cycles
        match event:
            case "accept":
                self.trace.emit(HwApicAccept(index, time, vector, source))
            case "acknowledge":
                self.trace.emit(HwApicAcknowledge(index, time, vector))
            case "eoi":
                self.trace.emit(HwApicEoi(index, time, vector))

    # Interprocessor interrupts.

    def _route(self, sender: int, ipi: Ipi) -> None:
        if ipi.shorthand:  # "self" never gets here
            receivers = [i for i in range(len(self.apics)) if i != sender or ipi.shorthand != _ALL_BUT_SELF]
        else:
            receivers = [i for i, apic in enumerate(self.apics) if apic.addressed_by(ipi)]
        if ipi.mode is DeliveryMode.LOWEST_PRIORITY and receivers:
            receivers = [min(receivers, key=lambda i: (not self.apics[i].software_enabled, self.apics[i].apr, i))]
        for index in receivers:
            self._post(index, ipi, self.processors[sender].cycles)

    def _post(self, receiver: int, ipi: Ipi, time: int) -> None:
        apic = self.apics[receiver]
        if self.processors[receiver].cycles >= time:
            apic.accept_ipi(ipi)
        else:
            self.events.schedule(time, lambda _: apic.accept_ipi(ipi), f"ipi to lapic{receiver}", receiver)

    # Time.

    def catch_up(self, cpu: Processor) -> None:
        """Fire what has become due by this processor's clock."""
        self.events.run_until(cpu.cycles, cpu.index)

    def advance(self, cpu: Processor, cycles: int) -> None:
        """Software on this processor spends time. Interrupts that become due meanwhile are pending afterwards."""
        cpu.cycles += cycles
        self.catch_up(cpu)

    def run_guest_slice(self, cpu: Processor, limit: int) -> Stop:
        """Let the processor execute until it stops, or until its clock reaches `limit` (then `Stop.BUDGET`)."""
        self.executing = cpu
        try:
            while True:
                self.catch_up(cpu)
                if cpu.cycles >= limit:
                    return Stop.BUDGET
                due = self.events.next_time(cpu.index)
                stop = cpu.run(_CHUNK, limit if due is None else min(due, limit))
                if stop is not Stop.BUDGET:
                    self.catch_up(cpu)
                    return stop
        finally:
            self.executing = None

    def idle(self, cpu: Processor, limit: int) -> bool:
        """The processor waits for an interrupt: its clock goes from event to event until something is pending that wakes it (True), or to the limit (False).

        Wakes host software that waits with interrupts off as well. One that has executed HLT stays halted; `run_guest_slice` then goes on with what woke it.
        A limit of `NEVER` that comes first leaves the clock where the last event was.
        """
        self.catch_up(cpu)
        while not self._woken(cpu):
            due = self.events.next_time(cpu.index)
            if due is None or due >= limit:
                if limit < NEVER:
                    cpu.cycles = max(cpu.cycles, limit)
                return False
            cpu.cycles = max(cpu.cycles, due)
            self.catch_up(cpu)
        return True

    def _woken(self, cpu: Processor) -> bool:
        apic = self.apics[cpu.index]
        if cpu.state.activity == ActivityState.ACTIVE:
            return apic.pending() or apic.nmi_pending()
        # Executed HLT: what is masked does not end it, and what it has looked at already (no attention) is masked.
        if not cpu.attention or cpu.state.activity != ActivityState.HLT or not cpu.state.gif:
            return False
        if apic.nmi_pending() and not cpu.state.interruptibility & Interruptibility.BLOCKING_BY_NMI:
            return True
        recognised = cpu.guest.intr_possible() if cpu.guest is not None else bool(cpu.state.rflags & Rflags.IF)
        return apic.pending() and recognised

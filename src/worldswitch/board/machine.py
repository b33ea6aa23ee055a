"""The board: memory, clocks, and N processors each with its local APIC, advanced one at a time in a deterministic order.

Time is counted in cycles, one unit for all; each processor has its own clock (`Processor.cycles`), which runs ahead of the others' by at most one
slice. An event
fires when the first processor's clock has passed it.
"""

from __future__ import annotations

from collections.abc import Callable

from worldswitch.arch.vmx import ActivityState
from worldswitch.board.events import EventQueue, Timer
from worldswitch.board.lapic import Ipi, LocalApic
from worldswitch.board.memory import PhysicalMemory
from worldswitch.cpu.model import Model
from worldswitch.cpu.processor import Processor, Stop
from worldswitch.errors import ConfigurationError
from worldswitch.trace import Recorder
from worldswitch.trace.events import HwApicAccept, HwApicAcknowledge, HwApicEoi

#: Instructions in one call of `Processor.run`: bounds how long a run without events goes on.
_CHUNK = 1 << 20


class _Clock:
    """The board's clock as one processor's local APIC sees it."""

    def __init__(self, board: Board, index: int) -> None:
        self._board, self._index = board, index

    def now(self) -> int:
        return self._board.processors[self._index].cycles

    def arm(self, time: int, callback: Callable[[int], None]) -> object:
        return self._board.events.schedule(time, callback, f"lapic{self._index}")

    def disarm(self, handle: object) -> None:
        if isinstance(handle, Timer):
            self._board.events.cancel(handle)

    def tsc(self) -> int:
        return self._board.processors[self._index].tsc


class Board:
    """A machine without software.

    `frequency_hz`: cycles a second of virtual time. `memory_bytes`: RAM at physical address 0, whole pages.
    """

    def __init__(
        self, model: Model, *, frequency_hz: int = 1_000_000, processors: int = 1, memory_bytes: int = 16 << 20, trace: Recorder | None = None
    ) -> None:
        if not 1000 <= frequency_hz <= 100_000_000_000:
            raise ConfigurationError("frequency_hz", frequency_hz, "from 1000 to 100000000000 cycles a second")
        if not 1 <= processors <= 64:
            raise ConfigurationError("processors", processors, "from 1 to 64")
        if memory_bytes <= 0 or memory_bytes % 4096:
            raise ConfigurationError("memory_bytes", memory_bytes, "a positive number of whole 4096-byte pages")
        self.model = model
        self.frequency_hz = frequency_hz
        self.trace = trace if trace is not None else Recorder(on=False)
        self.memory_bytes = memory_bytes
        self.events = EventQueue()
        self.memory = PhysicalMemory()
        self.memory.add_ram(0, bytearray(memory_bytes))
        self.processors: list[Processor] = []
        self.apics: list[LocalApic] = []
        for index in range(processors):
            self._add_processor(index)

    def _add_processor(self, index: int) -> None:
        apic = LocalApic(
            index,
            _Clock(self, index),
            raised=lambda: self.processors[index].attend() if index < len(self.processors) else None,
            record=lambda event, vector, source: self._record(index, event, vector, source),
            send=lambda ipi: self._route(index, ipi),
            boot_processor=index == 0,
        )
        self.apics.append(apic)
        self.processors.append(Processor(self.model, self.memory, apic, self.trace, index))

    def _record(self, index: int, event: str, vector: int, source: str) -> None:
        if not self.trace.on:
            return
        time = self.processors[index].cycles
        if event == "accept":
            self.trace.emit(HwApicAccept(index, time, vector, source))
        elif event == "acknowledge":
            self.trace.emit(HwApicAcknowledge(index, time, vector))
        else:
            self.trace.emit(HwApicEoi(index, time, vector))

    def _route(self, sender: int, ipi: Ipi) -> None:
        for apic in self.apics:
            if ipi.shorthand == 3 and apic is self.apics[sender]:
                continue
            if ipi.shorthand in (2, 3) or apic.addressed_by(ipi):
                apic.accept_ipi(ipi)

    def catch_up(self, cpu: Processor) -> None:
        """Fire what has become due by this processor's clock."""
        self.events.run_until(cpu.cycles)

    def advance(self, cpu: Processor, cycles: int) -> None:
        """Software on this processor spends time. Interrupts that become due meanwhile are pending afterwards."""
        cpu.cycles += cycles
        self.catch_up(cpu)

    def run_guest_slice(self, cpu: Processor, limit: int) -> Stop:
        """Let the processor execute until it stops, or until its clock reaches `limit` (then `Stop.BUDGET`)."""
        while True:
            self.catch_up(cpu)
            if cpu.cycles >= limit:
                return Stop.BUDGET
            due = self.events.next_time()
            stop = cpu.run(_CHUNK, limit if due is None else min(due, limit))
            if stop is not Stop.BUDGET:
                self.catch_up(cpu)
                return stop

    def idle(self, cpu: Processor, limit: int) -> bool:
        """The processor waits in HLT: its clock goes to the next event until an interrupt or NMI is pending. False if the limit came first."""
        self.catch_up(cpu)
        while not (cpu.apic.pending() or cpu.apic.nmi_pending()):
            due = self.events.next_time()
            if due is None or due >= limit:
                cpu.cycles = max(cpu.cycles, limit)
                return False
            cpu.cycles = max(cpu.cycles, due)
            self.catch_up(cpu)
        cpu.state.activity = ActivityState.ACTIVE
        return True

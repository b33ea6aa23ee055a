"""One logical processor: state, caches, units, and the loop that executes instructions one after another.

The loop knows nothing of what an instruction means (`cpu.semantics`, `cpu.microcode`), of priorities between events (`cpu.events`) or of virtualization
(`cpu.vmx`, `cpu.svm`). Time passes here: each instruction and each event delivered adds to `cycles`.

Host software may be machine code like a guest's, or Python: the host kernel of `worldswitch.host` calls the same units' methods that the machine instructions
call (`cpu.vmx.vmlaunch()`), then `run()`; a VM exit gives control back to it as `Stop.VM_EXIT`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Cr0, Dr6, Efer, Rflags
from worldswitch.arch.vmx import ActivityState, InterruptionType
from worldswitch.cpu import events, microcode
from worldswitch.cpu.bus import Bus, InterruptController
from worldswitch.cpu.concrete import ConcreteCore
from worldswitch.cpu.cpuid import offered
from worldswitch.cpu.decode import MAX_LENGTH, Decoded, Undecodable, decode
from worldswitch.cpu.event import Event, Fault, TripleFault, VmExit, fault
from worldswitch.cpu.intercept import GuestMode
from worldswitch.cpu.mmu import Mmu
from worldswitch.cpu.model import Model
from worldswitch.cpu.msrs import Msrs
from worldswitch.cpu.semantics import SEMANTICS
from worldswitch.cpu.state import MASK64, State
from worldswitch.cpu.svm.unit import SvmUnit
from worldswitch.cpu.vmx.unit import VmxUnit
from worldswitch.errors import UnimplementedInstruction
from worldswitch.trace import Recorder

# Plain ints: IntFlag arithmetic is slow, and these are used for every instruction.
_RF: Final = int(Rflags.RF)
_VM: Final = int(Rflags.VM)
_LMA: Final = int(Efer.LMA)
#: A deadline that never comes.
NEVER: Final = 1 << 64


class Stop(Enum):
    """Why `Processor.run` came back."""

    BUDGET = auto()
    """The budget of instructions is used up, or the deadline has come."""
    VM_EXIT = auto()
    """A guest that Python code had entered has exited; host state is loaded."""
    HALTED = auto()
    """HLT (or MWAIT): nothing happens until an event arrives."""
    SHUTDOWN = auto()
    """Triple fault: only RESET goes on from here."""


class Processor:
    """A logical processor on a board.

    `index`: its number. `bus` and `apic`: see `cpu.bus`. `trace`: where events are recorded.
    """

    # Declared here because the units below refer to each other.
    model: Model
    state: State
    mmu: Mmu
    msrs: Msrs
    core: ConcreteCore
    vmx: VmxUnit
    svm: SvmUnit

    def __init__(self, model: Model, bus: Bus, apic: InterruptController, trace: Recorder, index: int = 0) -> None:
        self.model = model
        self.index = index
        self.bus = bus
        self.apic = apic
        self.trace = trace
        self.state = State()
        #: Cycles since power-on: this processor's clock.
        self.cycles = 0
        #: Instructions retired since power-on.
        self.retired = 0
        #: Where execution goes on after the current instruction.
        self.next_rip = 0
        #: Interrupt shadow that the current instruction casts over the next boundary (`Interruptibility` bits 0 and 1).
        self.shadow = 0
        #: Something may have to be done at the next boundary: look before executing the next instruction.
        self.attention = True
        #: RFLAGS.TF was set when the current instruction began: a debug trap follows it (SDM vol. 3 §18.3.1.4).
        self.stepping = False
        #: The current instruction has loaded RFLAGS.RF itself (IRET).
        self.keep_rf = False
        #: The event being delivered, while it is (IDT-vectoring information, EXITINTINFO).
        self.delivering: Event | None = None
        #: The unit that runs the current guest; None outside guests.
        self.guest: GuestMode | None = None
        self._codes: dict[int, dict[int, Decoded]] = {16: {}, 32: {}, 64: {}}
        self._pages: dict[int, set[tuple[int, int]]] = {}
        self.mmu = Mmu(self)
        self.msrs = Msrs(self)
        self.core = ConcreteCore(self)
        self.vmx = VmxUnit(self)
        self.svm = SvmUnit(self)
        self.reset()

    def reset(self) -> None:
        """Power-up state (SDM vol. 3 table 10-1): real mode at F000:FFF0."""
        s = self.state
        s.buffer[:] = bytes(len(s.buffer))
        s.rip, s.rflags, s.rdx = 0xFFF0, 2, self.model.family << 8 | self.model.model << 4 | self.model.stepping
        s.cr0 = Cr0.ET | Cr0.NW | Cr0.CD
        for segment in (s.es, s.ss, s.ds, s.fs, s.gs):
            segment.set(0, 0, 0xFFFF, 0x93)
        s.cs.set(0xF000, 0xFFFF0000, 0xFFFF, 0x9B)
        s.ldtr.set(0, 0, 0xFFFF, 0x82)
        s.tr.set(0, 0, 0xFFFF, 0x8B)
        s.gdtr_limit = s.idtr_limit = 0xFFFF
        s.dr6, s.dr7, s.xcr0 = 0xFFFF0FF0, 0x400, 1
        s.pat, s.mxcsr, s.fcw, s.ftw = 0x0007040600070406, 0x1F80, 0x40, 0x5555
        s.misc_enable, s.gif = 1, 1
        s.vmxon_pointer = s.vmcs_pointer = s.vmcb_pointer = MASK64
        self.guest = None
        self.context_changed()

    # Modes.

    @property
    def cpl(self) -> int:
        """Current privilege level: the DPL of SS (SDM vol. 3 §25.4.1)."""
        return self.state.ss.ar >> 5 & 3

    @property
    def long_mode(self) -> bool:
        """IA32_EFER.LMA."""
        return bool(self.state.efer & Efer.LMA)

    @property
    def protected(self) -> bool:
        """CR0.PE."""
        return bool(self.state.cr0 & Cr0.PE)

    @property
    def mode_bits(self) -> int:
        """16, 32 or 64: how code is decoded (CS.L, CS.D)."""
        ar = self.state.cs.ar
        if self.state.efer & _LMA and ar & 0x2000:
            return 64
        return 32 if ar & 0x4000 and not self.state.rflags & _VM else 16

    @property
    def stack_bits(self) -> int:
        """Width of the stack pointer."""
        return 64 if self.mode_bits == 64 else 32 if self.state.ss.ar & 0x4000 else 16

    @property
    def mode_name(self) -> str:
        """For people."""
        if not self.protected:
            return "real mode"
        if self.state.rflags & Rflags.VM:
            return "virtual-8086 mode"
        if self.long_mode:
            return "64-bit mode" if self.mode_bits == 64 else f"compatibility mode ({self.mode_bits}-bit code)"
        return f"protected mode ({self.mode_bits}-bit code)"

    def attend(self) -> None:
        """Look for events at the next boundary: an interrupt line rose, or something that masked one may have gone."""
        self.attention = True

    def context_changed(self) -> None:
        """Control registers, EFER, CS, the privilege level or the guest changed in a way that may change how addresses translate or code decodes."""
        self._code = self._codes[self.mode_bits]
        self.mmu.context_changed()
        self.attention = True

    @property
    def tsc(self) -> int:
        """The time-stamp counter as RDTSC gives it here and now."""
        offset = self.guest.tsc_offset() if self.guest is not None else 0
        return (self.cycles + self.state.tsc_adjust + offset) & MASK64

    def jump(self, offset: int) -> None:
        """Where to go on after the current instruction. #GP(0) if the offset cannot be executed at (SDM vol. 2, JMP)."""
        if self.mode_bits == 64:
            if (offset + (1 << self.model.linear_bits - 1) & MASK64) >> self.model.linear_bits:
                raise fault(Vector.GP, 0)
        elif offset > self.state.cs.limit:
            raise fault(Vector.GP, 0)
        self.next_rip = offset

    # Execution.

    def run(self, budget: int, deadline: int = NEVER) -> Stop:
        """Execute until `budget` instructions have begun or `cycles` has reached `deadline`, whichever is first, unless something stops it before.

        An iteration of a repeated string instruction counts as one instruction, since interrupts are taken between iterations; so does an instruction that ends
        in an exception or a VM exit. Raises `UnimplementedInstruction` where the guest uses what this processor offers and this version lacks.
        """
        state, timing = self.state, self.model.timing
        if state.activity != ActivityState.ACTIVE:
            self.attention = True  # still halted, unless something waits
        while budget > 0:
            if self.cycles >= deadline:
                return Stop.BUDGET
            try:
                if self.attention:
                    events.boundary(self)
                    if state.activity != ActivityState.ACTIVE:
                        return Stop.SHUTDOWN if state.activity == ActivityState.SHUTDOWN else Stop.HALTED
                    if self.cycles >= deadline:
                        return Stop.BUDGET
                budget -= 1
                self.cycles += timing.instruction
                self.step()
                self.retired += 1
            except Fault as raised:
                try:
                    events.raise_exception(self, raised.event)
                except VmExit:
                    if state.host_is_python:
                        return Stop.VM_EXIT
                except TripleFault:
                    state.activity = ActivityState.SHUTDOWN
                    return Stop.SHUTDOWN
            except VmExit:
                if state.host_is_python:
                    return Stop.VM_EXIT
            except TripleFault:
                state.activity = ActivityState.SHUTDOWN
                return Stop.SHUTDOWN
        return Stop.BUDGET

    def step(self) -> None:
        """Execute the instruction at RIP: no events, no time. Raises what it raises."""
        state = self.state
        ins = self.fetch()
        self.next_rip = (state.rip + ins.length) & (MASK64 if ins.mode_bits == 64 else 0xFFFFFFFF)
        shadow = state.interruptibility & 3
        self.core.enter(ins)
        action = ins.action
        if ins.microcode:
            action(self, ins)  # type: ignore[misc]
        else:
            action(self.core, *ins.operands)  # type: ignore[misc]
        state.rip = self.next_rip
        if shadow or self.shadow:
            state.interruptibility = state.interruptibility & ~3 | self.shadow
            self.shadow = 0
            self.attention = True
        if state.rflags & _RF and not self.keep_rf:
            state.rflags &= ~_RF  # an instruction that completes clears it (SDM vol. 3 §18.3.1.1)
        self.keep_rf = False
        if self.stepping:
            state.pending_debug |= Dr6.BS
            self.attention = True

    # Fetching and decoding.

    def fetch(self) -> Decoded:
        """The decoded instruction at CS:RIP. Raises `Fault` (#PF, #GP, #UD)."""
        state = self.state
        linear = state.rip
        if self._code is not self._codes[64]:
            linear = (linear + state.cs.base) & 0xFFFFFFFF
        page = self.mmu.fetch_pages.get(linear >> 12)
        if page is None:
            page = self.mmu.fetch_page(linear)
        ins = self._code.get(page | linear & 0xFFF)
        if ins is not None and (ins.length + (linear & 0xFFF) <= 0x1000):
            return ins
        return self._decode(linear, page | linear & 0xFFF)

    def _decode(self, linear: int, physical: int) -> Decoded:
        inside = 0x1000 - (physical & 0xFFF)
        code = self.bus.read_block(physical, min(inside, MAX_LENGTH))
        mode = self.mode_bits
        try:
            ins = decode(code, mode)
        except Undecodable as bad:
            if not bad.truncated or inside >= MAX_LENGTH:
                # 15 bytes that want more are too long (#GP); anything else is no instruction.
                raise fault(Vector.GP, 0) if bad.truncated else fault(Vector.UD) from None
            # It goes on in the next page, which may be anywhere or missing: such an instruction is decoded each time it is met.
            beyond = linear + inside & (MASK64 if mode == 64 else 0xFFFFFFFF)
            rest = self.mmu.fetch_pages.get(beyond >> 12)
            if rest is None:
                rest = self.mmu.fetch_page(beyond)
            code += self.bus.read_block(rest, MAX_LENGTH - inside)
            try:
                return self._bind(decode(code, mode))
            except Undecodable as worse:
                raise fault(Vector.GP, 0) if worse.truncated else fault(Vector.UD) from None
        self._bind(ins)
        self._code[physical] = ins
        number = physical >> 12
        known = self._pages.get(number)
        if known is None:
            known = self._pages[number] = set()
            self.bus.watch_code(number, self._drop_page)
        known.add((mode, physical))
        return ins

    def _bind(self, ins: Decoded) -> Decoded:
        if not offered(self.model, ins):
            raise fault(Vector.UD)  # CPUID does not announce it: the architecture says #UD (SDM vol. 1 §5.1.1)
        micro = microcode.lookup(ins)
        ins.microcode = micro is not None
        ins.action = micro if micro is not None else SEMANTICS.get(ins.mnemonic)
        if ins.action is None:
            raise UnimplementedInstruction(ins.code, self.state.rip, self.mode_name, str(ins.instruction))
        ins.operands = self.core.prepare(ins)
        if ins.instruction.has_lock_prefix and not ins.instruction.op_code().can_use_lock_prefix:
            raise fault(Vector.UD)
        return ins

    def forget_code(self) -> None:
        """Drop everything decoded."""
        for code in self._codes.values():
            code.clear()
        self._pages.clear()

    def _drop_page(self, number: int) -> None:
        for mode, physical in self._pages.pop(number, ()):
            self._codes[mode].pop(physical, None)

    # For host software in Python.

    def inject(self, vector: int) -> None:
        """Deliver an external interrupt through the IDT of whoever is running, now."""
        events.deliver(self, Event(vector, InterruptionType.EXTERNAL))

"""The VMX unit of one processor: its instructions, which host code in Python and machine code both call, and non-root operation as `cpu.intercept.GuestMode`.

VMX instructions give 0 for VMsucceed, -1 for VMfailInvalid, or the error number of VMfailValid, and set RFLAGS accordingly (SDM vol. 3 §31.2); they
raise `Fault` for #UD and #GP(0),
and `VmExit` where they exit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.msr import FeatureControl, Msr
from worldswitch.arch.registers import STATUS_FLAGS, Cr0, Cr4, Rflags
from worldswitch.arch.vmcs import VMCS_REVISION_ID, FieldType, Vmcs, type_of
from worldswitch.arch.vmx import (
    CrAccess,
    CrQualification,
    DrQualification,
    EptViolation,
    ExitReason,
    InstructionError,
    InstructionInfo,
    Interruptibility,
    InterruptionType,
    IoQualification,
    PinBased,
    ProcBased,
    ProcBased2,
)  # fmt: skip
from worldswitch.cpu.event import Event, fault, info_of
from worldswitch.cpu.intercept import Access, Intercept, IoAccess
from worldswitch.cpu.microcode.control import cr4_supported
from worldswitch.cpu.state import MASK64
from worldswitch.cpu.vmx import ept
from worldswitch.cpu.vmx.capability import CAPABILITIES, CR0_FIXED0, CR4_FIXED0
from worldswitch.cpu.vmx.entry import load_msrs, vm_entry
from worldswitch.cpu.vmx.exit import ExitInfo, vm_exit
from worldswitch.cpu.vmx.intercepts import INSTRUCTIONS
from worldswitch.cpu.vmx.vmcs import VmcsRegion, exists

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor

SUCCEED: Final = 0
FAIL_INVALID: Final = -1


class VmxUnit:
    """VMX of one processor. `pin`, `proc`, ... are copies of the current VMCS's controls, made at VM entry and valid in non-root operation."""

    def __init__(self, cpu: Processor) -> None:
        self.cpu = cpu
        self.vmcs = VmcsRegion(cpu.bus, MASK64)
        self.pin = self.proc = self.proc2 = 0
        self.exceptions = 0
        self.eptp = 0
        self.vpid = 0
        self.virtual_nmi_blocking = False

    # Capabilities and fixed bits.

    def capability(self, msr: int) -> int:
        """IA32_VMX_BASIC .. IA32_VMX_TRUE_ENTRY_CTLS."""
        if msr == Msr.IA32_VMX_CR4_FIXED1:
            return cr4_supported(self.cpu)
        return CAPABILITIES[msr]

    def check_fixed_cr0(self, new: int) -> None:
        """MOV to CR0 in VMX operation: #GP(0) for bits that must be 1 (SDM vol. 3 §24.8)."""
        if self.cpu.state.vmx_operation:
            ones = CR0_FIXED0
            if self.cpu.state.vmx_operation == 2 and self.proc2 & ProcBased2.UNRESTRICTED_GUEST:
                ones &= ~(Cr0.PE | Cr0.PG)
            if new & ones != ones:
                raise fault(Vector.GP, 0)

    def check_fixed_cr4(self, new: int) -> None:
        """MOV to CR4 in VMX operation."""
        if self.cpu.state.vmx_operation and new & CR4_FIXED0 != CR4_FIXED0:
            raise fault(Vector.GP, 0)

    # Instructions (SDM vol. 3 §31.3).

    def _begin(self, what: Intercept) -> None:
        """What every VMX instruction checks first: #UD outside of VMX operation, the exit in non-root operation, privilege."""
        cpu, s = self.cpu, self.cpu.state
        if not s.cr0 & Cr0.PE or s.rflags & Rflags.VM or (cpu.long_mode and cpu.mode_bits != 64):
            raise fault(Vector.UD)
        if what is Intercept.VMXON:
            if cpu.model.vendor != "intel" or not s.cr4 & Cr4.VMXE:
                raise fault(Vector.UD)
        elif not s.vmx_operation:
            raise fault(Vector.UD)
        if s.vmx_operation == 2:
            self.instruction(what)
        if cpu.cpl:
            raise fault(Vector.GP, 0)

    def _flags(self, flags: int) -> None:
        self.cpu.state.rflags = self.cpu.state.rflags & ~STATUS_FLAGS | flags

    def _succeed(self) -> int:
        self._flags(0)
        return SUCCEED

    def _fail(self, error: InstructionError) -> int:
        """VMfail: VMfailValid with a current VMCS, else VMfailInvalid."""
        if self.cpu.state.vmcs_pointer == MASK64:
            self._flags(Rflags.CF)
            return FAIL_INVALID
        self.vmcs[Vmcs.VM_INSTRUCTION_ERROR] = error
        self._flags(Rflags.ZF)
        return int(error)

    def _fail_invalid(self) -> int:
        self._flags(Rflags.CF)
        return FAIL_INVALID

    def _bad_address(self, address: int) -> bool:
        return bool(address & 0xFFF) or bool(address >> self.cpu.model.physical_bits)

    def vmxon(self, region: int) -> int:
        """VMXON: enter VMX operation."""
        self._begin(Intercept.VMXON)
        s = self.cpu.state
        if s.vmx_operation:
            return self._fail(InstructionError.VMXON_IN_VMX_ROOT)
        wanted = FeatureControl.LOCKED | FeatureControl.VMX_OUTSIDE_SMX
        if s.cr0 & CR0_FIXED0 != CR0_FIXED0 or s.feature_control & wanted != wanted:
            raise fault(Vector.GP, 0)
        if self._bad_address(region) or VmcsRegion(self.cpu.bus, region).revision != VMCS_REVISION_ID:
            return self._fail_invalid()
        s.vmx_operation, s.vmxon_pointer, s.vmcs_pointer = 1, region, MASK64
        return self._succeed()

    def vmxoff(self) -> int:
        """VMXOFF: leave VMX operation."""
        self._begin(Intercept.VMXOFF)
        s = self.cpu.state
        s.vmx_operation, s.vmxon_pointer, s.vmcs_pointer = 0, MASK64, MASK64
        return self._succeed()

    def vmclear(self, pointer: int) -> int:
        """VMCLEAR: the VMCS's launch state becomes clear; no processor has it active any more."""
        self._begin(Intercept.VMCLEAR)
        if self._bad_address(pointer):
            return self._fail(InstructionError.VMCLEAR_INVALID_ADDRESS)
        if pointer == self.cpu.state.vmxon_pointer:
            return self._fail(InstructionError.VMCLEAR_VMXON_POINTER)
        VmcsRegion(self.cpu.bus, pointer).launched = False
        if pointer == self.cpu.state.vmcs_pointer:
            self.cpu.state.vmcs_pointer = MASK64
        return self._succeed()

    def vmptrld(self, pointer: int) -> int:
        """VMPTRLD: make a VMCS current."""
        self._begin(Intercept.VMPTRLD)
        if self._bad_address(pointer):
            return self._fail(InstructionError.VMPTRLD_INVALID_ADDRESS)
        if pointer == self.cpu.state.vmxon_pointer:
            return self._fail(InstructionError.VMPTRLD_VMXON_POINTER)
        region = VmcsRegion(self.cpu.bus, pointer)
        if region.revision != VMCS_REVISION_ID:  # a set bit 31 is a shadow VMCS, which is not announced
            return self._fail(InstructionError.VMPTRLD_INCORRECT_REVISION)
        self.cpu.state.vmcs_pointer = pointer
        self.vmcs = region
        return self._succeed()

    def vmptrst(self) -> int:
        """VMPTRST: the current-VMCS pointer; all ones if there is none."""
        self._begin(Intercept.VMPTRST)
        self._succeed()
        return self.cpu.state.vmcs_pointer

    def vmread(self, encoding: int) -> tuple[int, int]:
        """VMREAD: (result, value); the value is 0 unless the result is VMsucceed."""
        self._begin(Intercept.VMREAD)
        if self.cpu.state.vmcs_pointer == MASK64:
            return self._fail_invalid(), 0
        if not exists(encoding):
            return self._fail(InstructionError.UNSUPPORTED_VMCS_COMPONENT), 0
        return self._succeed(), self.vmcs[encoding]

    def vmwrite(self, encoding: int, value: int) -> int:
        """VMWRITE."""
        self._begin(Intercept.VMWRITE)
        if self.cpu.state.vmcs_pointer == MASK64:
            return self._fail_invalid()
        if not exists(encoding):
            return self._fail(InstructionError.UNSUPPORTED_VMCS_COMPONENT)
        if type_of(encoding) is FieldType.READ_ONLY:
            return self._fail(InstructionError.VMWRITE_READ_ONLY_COMPONENT)
        self.vmcs[encoding] = value
        return self._succeed()

    def vmlaunch(self, *, python: bool = True) -> int:
        """VMLAUNCH. After VMsucceed the processor is in the guest -- or already back in the host, if `Processor.guest` is None: the entry failed late
        (exit reason bit 31)."""
        return self._enter(Intercept.VMLAUNCH, python)

    def vmresume(self, *, python: bool = True) -> int:
        """VMRESUME, likewise."""
        return self._enter(Intercept.VMRESUME, python)

    def _enter(self, what: Intercept, python: bool) -> int:
        self._begin(what)
        s = self.cpu.state
        if s.vmcs_pointer == MASK64:
            return self._fail_invalid()
        if s.interruptibility & Interruptibility.BLOCKING_BY_MOV_SS:
            return self._fail(InstructionError.ENTRY_EVENTS_BLOCKED_BY_MOV_SS)
        if what is Intercept.VMLAUNCH and self.vmcs.launched:
            return self._fail(InstructionError.VMLAUNCH_NONCLEAR_VMCS)
        if what is Intercept.VMRESUME and not self.vmcs.launched:
            return self._fail(InstructionError.VMRESUME_NONLAUNCHED_VMCS)
        s.host_is_python = int(python)
        error = vm_entry(self.cpu, self.vmcs, what.name)
        if error is not None:
            return self._fail(error)
        self.cpu.next_rip = s.rip
        self.cpu.attend()
        return SUCCEED

    def vmcall(self) -> int:
        """VMCALL: exits from non-root operation; in root operation there is no SMM monitor to call."""
        self._begin(Intercept.VMCALL)
        return self._fail(InstructionError.VMCALL_IN_VMX_ROOT)

    def invept(self, kind: int, descriptor: int) -> int:
        """INVEPT: type 1 (single context) or 2 (all); `descriptor` is the 128-bit operand."""
        self._begin(Intercept.INVEPT)
        if kind not in (1, 2) or (kind == 1 and descriptor & 7 not in (0, 6)):
            return self._fail(InstructionError.INVALID_OPERAND_INVEPT_INVVPID)
        self.cpu.mmu.context_changed()
        return self._succeed()

    def invvpid(self, kind: int, descriptor: int) -> int:
        """INVVPID: types 0 to 3; `descriptor` is the 128-bit operand."""
        self._begin(Intercept.INVVPID)
        vpid, linear = descriptor & 0xFFFF, descriptor >> 64
        bad = kind > 3 or descriptor >> 16 & 0xFFFFFFFFFFFF or (kind != 2 and not vpid) or (kind == 0 and not self.cpu.mmu.canonical(linear))
        if bad:
            return self._fail(InstructionError.INVALID_OPERAND_INVEPT_INVVPID)
        self.cpu.mmu.context_changed()
        return self._succeed()

    # Transitions.

    def entered(self) -> None:
        """Guest state is loaded: non-root operation begins."""
        vmcs, s = self.vmcs, self.cpu.state
        self.pin = vmcs[Vmcs.PIN_BASED_VM_EXEC_CONTROL]
        self.proc = vmcs[Vmcs.CPU_BASED_VM_EXEC_CONTROL]
        self.proc2 = vmcs[Vmcs.SECONDARY_VM_EXEC_CONTROL] if self.proc & ProcBased.SECONDARY_CONTROLS else 0
        self.exceptions = vmcs[Vmcs.EXCEPTION_BITMAP]
        self.eptp = vmcs[Vmcs.EPT_POINTER]
        self.vpid = vmcs[Vmcs.VIRTUAL_PROCESSOR_ID] if self.proc2 & ProcBased2.ENABLE_VPID else 0
        s.tsc_offset = vmcs[Vmcs.TSC_OFFSET] if self.proc & ProcBased.USE_TSC_OFFSETTING else 0
        s.vmx_operation = 2
        self.cpu.guest = self
        self.cpu.context_changed()

    def reload(self) -> None:
        """After `State.restore`: take up what the registers say."""
        self.vmcs = VmcsRegion(self.cpu.bus, self.cpu.state.vmcs_pointer)
        if self.cpu.state.vmx_operation == 2:
            self.entered()

    def load_exit_msrs(self, vmcs: VmcsRegion) -> int:
        """The VM-exit MSR-load area (SDM vol. 3 §28.6)."""
        return load_msrs(self.cpu, vmcs[Vmcs.VM_EXIT_MSR_LOAD_ADDR], vmcs[Vmcs.VM_EXIT_MSR_LOAD_COUNT])

    def _exit(self, reason: ExitReason, qualification: int = 0, *, length: int | None = None, **more: int) -> None:
        if length is None:
            length = self.cpu.core.instruction.length
        vm_exit(self.cpu, self.vmcs, ExitInfo(reason, qualification, instruction_length=length, **more))

    # GuestMode: instructions.

    def instruction(self, what: Intercept, *, linear: int = 0) -> None:
        if what is Intercept.RDTSCP and not self.proc2 & ProcBased2.ENABLE_RDTSCP:
            raise fault(Vector.UD)  # SDM vol. 3 §26.3
        if what is Intercept.CLTS:
            self._clts()
            return
        row = INSTRUCTIONS.get(what)
        if row is not None and row[0](self):
            self._exit(row[1], linear, instruction_info=self._instruction_info())

    def _clts(self) -> None:
        """CLTS exits if the host owns CR0.TS and shows it as 1 (SDM vol. 3 §26.1.3)."""
        if self.vmcs[Vmcs.CR0_GUEST_HOST_MASK] & self.vmcs[Vmcs.CR0_READ_SHADOW] & Cr0.TS:
            self._exit(ExitReason.CR_ACCESS, CrQualification.ACCESS.put(CrAccess.CLTS))

    def _instruction_info(self) -> int:
        """VM-exit instruction information for an instruction with operands (SDM vol. 3 tables 28-8 to 28-15): the memory operand and registers."""
        info = 0
        registers = []
        for operand in self.cpu.core.instruction.operands:
            if getattr(operand, "is_memory", False):
                o = operand  # a MemoryOperand
                base, index = getattr(o, "base", None), getattr(o, "index", None)
                info |= InstructionInfo.ADDRESS_SIZE.put({16: 0, 32: 1, 64: 2}[getattr(o, "abits", 64)]) | InstructionInfo.SEGMENT.put(getattr(o, "seg", 3))
                info |= InstructionInfo.SCALING.put(getattr(o, "scale", 1).bit_length() - 1)
                info |= InstructionInfo.INDEX_INVALID.put(1) if index is None else InstructionInfo.INDEX.put(index)
                info |= InstructionInfo.BASE_INVALID.put(1) if base is None else InstructionInfo.BASE.put(base)
            elif hasattr(operand, "index"):
                registers.append(operand.index)
        if len(registers) == 2:
            info |= InstructionInfo.IS_REGISTER.put(1) | InstructionInfo.REG1.put(registers[0]) | InstructionInfo.REG2.put(registers[1])
        elif registers:
            info |= InstructionInfo.REG2.put(registers[0])
        return info

    def io(self, access: IoAccess) -> None:
        if self.proc & ProcBased.USE_IO_BITMAPS:
            exits = access.port + access.size > 0x10000 or any(self._io_bit(access.port + i) for i in range(access.size))
        else:
            exits = bool(self.proc & ProcBased.UNCONDITIONAL_IO_EXITING)
        if exits:
            q = IoQualification
            qualification = q.SIZE.put(access.size - 1) | q.IN.put(not access.write) | q.STRING.put(access.string) | q.REP.put(access.repeat)
            qualification |= q.IMMEDIATE.put(access.immediate) | q.PORT.put(access.port)
            info = 0
            if access.string:
                info = InstructionInfo.ADDRESS_SIZE.put({16: 0, 32: 1, 64: 2}[access.address_bits]) | InstructionInfo.SEGMENT.put(access.segment)
            self._exit(ExitReason.IO_INSTRUCTION, qualification, linear=access.linear, instruction_info=info)

    def _io_bit(self, port: int) -> int:
        bitmap = self.vmcs[Vmcs.IO_BITMAP_B if port >= 0x8000 else Vmcs.IO_BITMAP_A]
        return self.cpu.bus.read(bitmap + (port & 0x7FFF) // 8, 1) >> port % 8 & 1

    def _msr_exits(self, msr: int, write: bool) -> bool:
        if not self.proc & ProcBased.USE_MSR_BITMAPS:
            return True
        low = msr & 0x1FFF
        if msr >> 13 == 0:
            part = 0
        elif msr >> 13 == 0xC0000000 >> 13:
            part = 1024
        else:
            return True  # outside of both ranges (SDM vol. 3 §26.1.3)
        return bool(self.cpu.bus.read(self.vmcs[Vmcs.MSR_BITMAP] + part + 2048 * write + low // 8, 1) >> low % 8 & 1)

    def rdmsr(self, msr: int) -> None:
        if self._msr_exits(msr, False):
            self._exit(ExitReason.RDMSR)

    def wrmsr(self, msr: int, value: int) -> None:
        if self._msr_exits(msr, True):
            self._exit(ExitReason.WRMSR)

    def cr_read(self, cr: int, gpr: int) -> int | None:
        if (cr == 3 and self.proc & ProcBased.CR3_STORE_EXITING) or (cr == 8 and self.proc & ProcBased.CR8_STORE_EXITING):
            self._cr_exit(cr, gpr, CrAccess.MOV_FROM_CR)
        if cr in (0, 4):
            mask, shadow = self._cr_shadow(cr)
            return (self.cpu.state.cr4 if cr else self.cpu.state.cr0) & ~mask | shadow & mask
        return None

    def _cr_shadow(self, cr: int) -> tuple[int, int]:
        if cr == 0:
            return self.vmcs[Vmcs.CR0_GUEST_HOST_MASK], self.vmcs[Vmcs.CR0_READ_SHADOW]
        return self.vmcs[Vmcs.CR4_GUEST_HOST_MASK], self.vmcs[Vmcs.CR4_READ_SHADOW]

    def _cr_exit(self, cr: int, gpr: int, access: CrAccess) -> None:
        self._exit(ExitReason.CR_ACCESS, CrQualification.NUMBER.put(cr) | CrQualification.ACCESS.put(access) | CrQualification.GPR.put(gpr))

    def cr_write(self, cr: int, gpr: int, value: int) -> int:
        if cr in (0, 4):
            mask, shadow = self._cr_shadow(cr)
            if (value ^ shadow) & mask:
                self._cr_exit(cr, gpr, CrAccess.MOV_TO_CR)
            return value & ~mask | (self.cpu.state.cr4 if cr else self.cpu.state.cr0) & mask
        if cr == 3 and self.proc & ProcBased.CR3_LOAD_EXITING:
            targets = (Vmcs.CR3_TARGET_VALUE0, Vmcs.CR3_TARGET_VALUE1, Vmcs.CR3_TARGET_VALUE2, Vmcs.CR3_TARGET_VALUE3)
            if value not in [self.vmcs[field] for field in targets[: self.vmcs[Vmcs.CR3_TARGET_COUNT]]]:
                self._cr_exit(cr, gpr, CrAccess.MOV_TO_CR)
        if cr == 8 and self.proc & ProcBased.CR8_LOAD_EXITING:
            self._cr_exit(cr, gpr, CrAccess.MOV_TO_CR)
        return value

    def lmsw(self, source: int, memory: bool, linear: int) -> int:
        """LMSW exits if it would change a host-owned bit as the guest sees it (SDM vol. 3 §26.1.3); PE only from 0 to 1."""
        mask, shadow = self._cr_shadow(0)
        owned = mask & 0xF
        changes = (source ^ shadow) & owned & ~1
        if changes or owned & source & ~shadow & 1:
            q = CrQualification
            self._exit(
                ExitReason.CR_ACCESS, q.ACCESS.put(CrAccess.LMSW) | q.LMSW_MEMORY.put(memory) | q.LMSW_SOURCE.put(source), linear=linear if memory else 0
            )  # fmt: skip
        return source & ~owned | self.cpu.state.cr0 & owned

    def dr_access(self, dr: int, gpr: int, write: bool) -> None:
        if self.proc & ProcBased.MOV_DR_EXITING:
            q = DrQualification
            self._exit(ExitReason.DR_ACCESS, q.NUMBER.put(dr) | q.FROM_DR.put(not write) | q.GPR.put(gpr))

    def invlpg(self, linear: int) -> None:
        if self.proc & ProcBased.INVLPG_EXITING:
            self._exit(ExitReason.INVLPG, linear)

    # GuestMode: events.

    def exception(self, event: Event) -> None:
        if not self._exception_exits(event):
            return
        # #PF: the faulting address; #DB: what would go into DR6 (SDM vol. 3 §28.2.1). CR2 and DR6 stay as they are.
        self._exit(
            ExitReason.EXCEPTION_OR_NMI, event.payload, length=event.length, interruption=info_of(event), error_code=event.error_code or 0
        )  # fmt: skip

    def _exception_exits(self, event: Event) -> bool:
        bit = bool(self.exceptions >> event.vector & 1)
        if event.vector == Vector.PF and event.type is InterruptionType.HARDWARE_EXCEPTION:
            # SDM vol. 3 §26.2: the bit applies if the masked error code matches, else its opposite.
            mask, match = self.vmcs[Vmcs.PAGE_FAULT_ERROR_CODE_MASK], self.vmcs[Vmcs.PAGE_FAULT_ERROR_CODE_MATCH]
            return bit if (event.error_code or 0) & mask == match else not bit
        return bit

    def triple_fault(self) -> None:
        self._exit(ExitReason.TRIPLE_FAULT, length=0)

    def task_switch(self, selector: int, source: int, error_code: int | None) -> None:
        self._exit(ExitReason.TASK_SWITCH, selector | source << 30)

    def tsc_offset(self) -> int:
        return self.cpu.state.tsc_offset

    @property
    def virtual_nmis(self) -> bool:
        """The pin-based control "virtual NMIs" of the current VMCS."""
        return bool(self.pin & PinBased.VIRTUAL_NMIS)

    def nmi_window(self) -> None:
        if self.proc & ProcBased.NMI_WINDOW_EXITING and not self.virtual_nmi_blocking:
            self._exit(ExitReason.NMI_WINDOW, length=0)

    def nmi(self) -> None:
        if self.pin & PinBased.NMI_EXITING and not self.cpu.state.interruptibility & Interruptibility.BLOCKING_BY_NMI:
            self.cpu.apic.take_nmi()
            self._exit(ExitReason.EXCEPTION_OR_NMI, length=0, interruption=info_of(Event(Vector.NMI, InterruptionType.NMI)))

    def interrupt_window(self) -> None:
        if self.proc & ProcBased.INTERRUPT_WINDOW_EXITING:
            self._exit(ExitReason.INTERRUPT_WINDOW, length=0)

    def intr_possible(self) -> bool:
        # With external-interrupt exiting the guest's RFLAGS.IF plays no part (SDM vol. 3 §26.2).
        return bool(self.pin & PinBased.EXTERNAL_INTERRUPT_EXITING) or bool(self.cpu.state.rflags & Rflags.IF)

    def interrupt(self) -> None:
        if self.pin & PinBased.EXTERNAL_INTERRUPT_EXITING:
            self._exit(ExitReason.EXTERNAL_INTERRUPT, length=0)

    def virtual_interrupt(self) -> int | None:
        return None

    def timer_expired(self) -> None:
        """The VMX-preemption timer is not announced."""

    def monitor_trap(self) -> None:
        """The monitor trap flag is not announced."""

    # GuestMode: memory.

    @property
    def second_level(self) -> bool:
        return bool(self.proc2 & ProcBased2.ENABLE_EPT)

    @property
    def tlb_tag(self) -> int:
        return self.vpid or 1

    def translate(self, gpa: int, access: Access, *, linear: int | None, walk: bool, user: bool) -> int:
        try:
            return ept.translate(self.cpu.bus, self.eptp, gpa, access, self.cpu.model.physical_bits)
        except ept.EptFault as bad:
            length = 0
            if bad.qualification is None:
                self._exit(ExitReason.EPT_MISCONFIGURATION, length=length, gpa=gpa)
            qualification = (bad.qualification or 0) | (0 if linear is None else EptViolation.LINEAR_VALID | (0 if walk else EptViolation.TRANSLATED))
            self._exit(ExitReason.EPT_VIOLATION, int(qualification), length=length, gpa=gpa, linear=linear or 0)
            raise AssertionError("vm_exit does not return") from bad

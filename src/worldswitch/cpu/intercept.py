"""What a hypervisor can be asked about: the one interface through which the rest of the processor meets VMX and SVM.

While a guest runs, `Processor.guest` is the unit that runs it (`cpu.vmx` in non-root operation, `cpu.svm` in guest mode), else None. Microcode and
event delivery ask it at the places where the manuals put the intercepts, after the checks that take priority over them (SDM vol. 3 §26.1.1: #UD
and privilege faults come first; APM vol. 2 §15.7). Each method either returns -- not intercepted -- or completes the exit and raises `VmExit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from worldswitch.cpu.event import Event


class Intercept(Enum):
    """Instructions whose intercept carries no further information, or information that the unit can read off the registers."""

    CPUID = auto()
    HLT = auto()
    RDTSC = auto()
    RDTSCP = auto()
    RDPMC = auto()
    PAUSE = auto()
    INVD = auto()
    WBINVD = auto()
    MONITOR = auto()
    MWAIT = auto()
    XSETBV = auto()
    RSM = auto()
    GETSEC = auto()
    ICEBP = auto()
    IRET = auto()
    PUSHF = auto()
    POPF = auto()
    INTN = auto()
    RDRAND = auto()
    RDSEED = auto()
    CLTS = auto()
    SMSW = auto()
    SIDT = auto()
    SGDT = auto()
    SLDT = auto()
    STR = auto()
    LIDT = auto()
    LGDT = auto()
    LLDT = auto()
    LTR = auto()
    # The virtualization instructions themselves: a guest hypervisor.
    VMCALL = auto()
    VMMCALL = auto()
    VMCLEAR = auto()
    VMLAUNCH = auto()
    VMPTRLD = auto()
    VMPTRST = auto()
    VMREAD = auto()
    VMRESUME = auto()
    VMWRITE = auto()
    VMXOFF = auto()
    VMXON = auto()
    INVEPT = auto()
    INVVPID = auto()
    VMRUN = auto()
    VMLOAD = auto()
    VMSAVE = auto()
    STGI = auto()
    CLGI = auto()
    SKINIT = auto()
    INVLPGA = auto()


@dataclass(frozen=True, slots=True)
class IoAccess:
    """One IN, OUT, INS or OUTS about to happen."""

    port: int
    size: int
    """Bytes: 1, 2 or 4."""
    write: bool
    string: bool = False
    repeat: bool = False
    immediate: bool = False
    """The port number is in the instruction, not in DX."""
    address_bits: int = 64
    segment: int = 3
    """Segment register number of the memory operand of INS/OUTS."""
    linear: int = 0
    """Linear address of the memory operand of INS/OUTS."""


class Access(Enum):
    """What a memory access is for."""

    READ = 0
    WRITE = 1
    EXECUTE = 2


class GuestMode(Protocol):
    """The unit that runs the current guest. Every method either returns or completes a VM exit and raises `VmExit`."""

    def instruction(self, what: Intercept, *, linear: int = 0) -> None:
        """An instruction is about to execute. `linear`: its memory operand's address or displacement where the exit information needs one."""

    def io(self, access: IoAccess) -> None:
        """A port access is about to happen (I/O bitmaps, IOPM)."""

    def rdmsr(self, msr: int) -> None:
        """RDMSR after its #GP checks for privilege (MSR bitmaps, MSRPM)."""

    def wrmsr(self, msr: int, value: int) -> None:
        """WRMSR likewise."""

    def cr_read(self, cr: int, gpr: int) -> int | None:
        """MOV from CR. None: read the register; an int: the value the guest sees (VMX read shadows)."""

    def cr_write(self, cr: int, gpr: int, value: int) -> int:
        """MOV to CR. The value that is really to be written (VMX guest/host masks keep the host's bits)."""

    def lmsw(self, source: int, memory: bool, linear: int) -> int:
        """LMSW of a 16-bit source. The value that is really to be loaded."""

    def dr_access(self, dr: int, gpr: int, write: bool) -> None:
        """MOV to or from a debug register."""

    def invlpg(self, linear: int) -> None:
        """INVLPG."""

    def exception(self, event: Event) -> None:
        """An exception (or software exception) is about to be delivered: exception bitmap / intercept vector."""

    def triple_fault(self) -> None:
        """A fault while delivering a double fault (SVM: SHUTDOWN intercept)."""

    def task_switch(self, selector: int, source: int, error_code: int | None) -> None:
        """A task switch. `source`: 0 CALL, 1 IRET, 2 JMP, 3 task gate in IDT."""

    def tsc_offset(self) -> int:
        """Cycles added to what RDTSC and RDMSR of IA32_TSC give, modulo 2**64; 0 if offsetting is off."""

    # Boundaries: asked by `cpu.events.boundary` in the order of their priority.
    def nmi_window(self) -> None:
        """Nothing blocks an NMI at this boundary."""

    def nmi(self) -> None:
        """An NMI is pending and not blocked."""

    def interrupt_window(self) -> None:
        """RFLAGS.IF is 1 and nothing blocks interrupts at this boundary."""

    def intr_possible(self) -> bool:
        """Whether a physical interrupt that is pending is recognised now, whatever becomes of it: VMX with external-interrupt exiting and SVM with
        V_INTR_MASKING do
        not look at the guest's RFLAGS.IF."""

    def interrupt(self) -> None:
        """A physical maskable interrupt is pending and recognised."""

    def virtual_interrupt(self) -> int | None:
        """SVM: the vector of a virtual interrupt (V_IRQ) to be taken through the guest's IDT now, or an exit (VINTR intercept). VMX
        (virtual-interrupt delivery): likewise. None: none."""

    def timer_expired(self) -> None:
        """VMX preemption timer."""

    def monitor_trap(self) -> None:
        """Monitor trap flag, once an instruction has retired."""

    def translate(self, gpa: int, access: Access, *, linear: int | None, walk: bool, user: bool) -> int:
        """Second-level translation: guest-physical to physical. `linear` is the linear address that led here (None if there is none), `walk` whether
        the access is to a
        paging-structure entry. Only called when `second_level` is true."""

    @property
    def second_level(self) -> bool:
        """EPT or nested paging is on."""

    @property
    def tlb_tag(self) -> int:
        """VPID or ASID with which translations are tagged (never 0)."""

"""VMX: controls, exit reasons, error numbers, and the formats of exit information, EPT and capability MSRs (SDM vol. 3 ch. 25-31,
appendices A and C).

In the real world these numbers are what a hypervisor writes into a VMCS and reads back from it. The VMCS's fields themselves are in
`worldswitch.arch.vmcs`, MSR addresses in `worldswitch.arch.msr`; what the processor does with all of them is left to `worldswitch.cpu`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from typing import Final

from worldswitch.arch.flags import BitFlag


@dataclass(frozen=True, slots=True)
class Bits:
    """A number inside a wider one: `count` bits from bit `low` upwards."""

    low: int
    count: int

    @property
    def mask(self) -> int:
        """The bits, in place."""
        return (1 << self.count) - 1 << self.low

    def get(self, value: int) -> int:
        """The number in `value`."""
        return value >> self.low & (1 << self.count) - 1

    def put(self, number: int) -> int:
        """`number` in place; bits that do not fit are dropped."""
        return (number & (1 << self.count) - 1) << self.low


# Controls


class PinBased(BitFlag):
    """Pin-based VM-execution controls (SDM vol. 3 table 25-5)."""

    EXTERNAL_INTERRUPT_EXITING = 1 << 0
    NMI_EXITING = 1 << 3
    VIRTUAL_NMIS = 1 << 5
    VMX_PREEMPTION_TIMER = 1 << 6
    POSTED_INTERRUPTS = 1 << 7


class ProcBased(BitFlag):
    """Primary processor-based VM-execution controls (SDM vol. 3 table 25-6)."""

    INTERRUPT_WINDOW_EXITING = 1 << 2
    USE_TSC_OFFSETTING = 1 << 3
    HLT_EXITING = 1 << 7
    INVLPG_EXITING = 1 << 9
    MWAIT_EXITING = 1 << 10
    RDPMC_EXITING = 1 << 11
    RDTSC_EXITING = 1 << 12
    CR3_LOAD_EXITING = 1 << 15
    CR3_STORE_EXITING = 1 << 16
    TERTIARY_CONTROLS = 1 << 17
    CR8_LOAD_EXITING = 1 << 19
    CR8_STORE_EXITING = 1 << 20
    USE_TPR_SHADOW = 1 << 21
    NMI_WINDOW_EXITING = 1 << 22
    MOV_DR_EXITING = 1 << 23
    UNCONDITIONAL_IO_EXITING = 1 << 24
    USE_IO_BITMAPS = 1 << 25
    MONITOR_TRAP_FLAG = 1 << 27
    USE_MSR_BITMAPS = 1 << 28
    MONITOR_EXITING = 1 << 29
    PAUSE_EXITING = 1 << 30
    SECONDARY_CONTROLS = 1 << 31


class ProcBased2(BitFlag):
    """Secondary processor-based VM-execution controls (SDM vol. 3 table 25-7)."""

    VIRTUALIZE_APIC_ACCESSES = 1 << 0
    ENABLE_EPT = 1 << 1
    DESCRIPTOR_TABLE_EXITING = 1 << 2
    ENABLE_RDTSCP = 1 << 3
    VIRTUALIZE_X2APIC_MODE = 1 << 4
    ENABLE_VPID = 1 << 5
    WBINVD_EXITING = 1 << 6
    UNRESTRICTED_GUEST = 1 << 7
    APIC_REGISTER_VIRTUALIZATION = 1 << 8
    VIRTUAL_INTERRUPT_DELIVERY = 1 << 9
    PAUSE_LOOP_EXITING = 1 << 10
    RDRAND_EXITING = 1 << 11
    ENABLE_INVPCID = 1 << 12
    ENABLE_VMFUNC = 1 << 13
    VMCS_SHADOWING = 1 << 14
    ENCLS_EXITING = 1 << 15
    RDSEED_EXITING = 1 << 16
    ENABLE_PML = 1 << 17
    EPT_VIOLATION_VE = 1 << 18
    CONCEAL_VMX_FROM_PT = 1 << 19
    ENABLE_XSAVES = 1 << 20
    PASID_TRANSLATION = 1 << 21
    MODE_BASED_EXECUTE = 1 << 22
    SUB_PAGE_WRITE_PERMISSIONS = 1 << 23
    PT_USES_GUEST_PHYSICAL = 1 << 24
    USE_TSC_SCALING = 1 << 25
    ENABLE_USER_WAIT_PAUSE = 1 << 26
    ENABLE_PCONFIG = 1 << 27
    ENCLV_EXITING = 1 << 28
    VMM_BUS_LOCK_DETECTION = 1 << 30
    INSTRUCTION_TIMEOUT = 1 << 31


class ProcBased3(BitFlag):
    """Tertiary processor-based VM-execution controls, a 64-bit field (SDM vol. 3 table 25-8)."""

    LOADIWKEY_EXITING = 1 << 0
    ENABLE_HLAT = 1 << 1
    EPT_PAGING_WRITE_CONTROL = 1 << 2
    GUEST_PAGING_VERIFICATION = 1 << 3
    IPI_VIRTUALIZATION = 1 << 4
    ENABLE_MSR_LIST = 1 << 6
    VIRTUALIZE_IA32_SPEC_CTRL = 1 << 7


class ExitControls(BitFlag):
    """Primary VM-exit controls (SDM vol. 3 table 25-13)."""

    SAVE_DEBUG_CONTROLS = 1 << 2
    HOST_ADDRESS_SPACE_SIZE = 1 << 9
    LOAD_PERF_GLOBAL_CTRL = 1 << 12
    ACKNOWLEDGE_INTERRUPT_ON_EXIT = 1 << 15
    SAVE_IA32_PAT = 1 << 18
    LOAD_IA32_PAT = 1 << 19
    SAVE_IA32_EFER = 1 << 20
    LOAD_IA32_EFER = 1 << 21
    SAVE_PREEMPTION_TIMER = 1 << 22
    CLEAR_IA32_BNDCFGS = 1 << 23
    CONCEAL_VMX_FROM_PT = 1 << 24
    CLEAR_IA32_RTIT_CTL = 1 << 25
    CLEAR_IA32_LBR_CTL = 1 << 26
    CLEAR_UINV = 1 << 27
    LOAD_CET_STATE = 1 << 28
    LOAD_PKRS = 1 << 29
    SAVE_PERF_GLOBAL_CTRL = 1 << 30
    SECONDARY_CONTROLS = 1 << 31


class ExitControls2(BitFlag):
    """Secondary VM-exit controls, a 64-bit field (SDM vol. 3 table 25-14)."""

    SAVE_IA32_FRED = 1 << 0
    LOAD_IA32_FRED = 1 << 1
    PREMATURELY_BUSY_SHADOW_STACK = 1 << 3


class EntryControls(BitFlag):
    """VM-entry controls (SDM vol. 3 table 25-16)."""

    LOAD_DEBUG_CONTROLS = 1 << 2
    IA32E_MODE_GUEST = 1 << 9
    ENTRY_TO_SMM = 1 << 10
    DEACTIVATE_DUAL_MONITOR = 1 << 11
    LOAD_PERF_GLOBAL_CTRL = 1 << 13
    LOAD_IA32_PAT = 1 << 14
    LOAD_IA32_EFER = 1 << 15
    LOAD_IA32_BNDCFGS = 1 << 16
    CONCEAL_VMX_FROM_PT = 1 << 17
    LOAD_IA32_RTIT_CTL = 1 << 18
    LOAD_UINV = 1 << 19
    LOAD_CET_STATE = 1 << 20
    LOAD_IA32_LBR_CTL = 1 << 21
    LOAD_PKRS = 1 << 22
    LOAD_IA32_FRED = 1 << 23


class VmFunctions(BitFlag):
    """VM-function controls (SDM vol. 3 table 25-10); the bit's number is the VM function's, in EAX of VMFUNC."""

    EPTP_SWITCHING = 1 << 0


EPTP_LIST_ENTRIES: Final = 512
"""EPT pointers on the page that EPTP_LIST_ADDRESS names (SDM vol. 3 §26.5.6.3)."""

#: Bits of the default1 class (SDM vol. 3 appendix A.2-A.5), which must be 1 unless a TRUE capability MSR says otherwise.
#: The secondary and tertiary processor-based and the secondary VM-exit controls have no such bits: all may be 0.
PIN_DEFAULT1: Final = 0x16
PROC_DEFAULT1: Final = 0x0401E172
EXIT_DEFAULT1: Final = 0x36DFF
ENTRY_DEFAULT1: Final = 0x11FF
#: ... and those that stay 1 under the TRUE capability MSRs: CR3-load/store exiting (primary) and the debug controls (exit, entry) may be 0 there.
PIN_TRUE_DEFAULT1: Final = PIN_DEFAULT1
PROC_TRUE_DEFAULT1: Final = PROC_DEFAULT1 & ~(ProcBased.CR3_LOAD_EXITING | ProcBased.CR3_STORE_EXITING)
EXIT_TRUE_DEFAULT1: Final = EXIT_DEFAULT1 & ~ExitControls.SAVE_DEBUG_CONTROLS
ENTRY_TRUE_DEFAULT1: Final = ENTRY_DEFAULT1 & ~EntryControls.LOAD_DEBUG_CONTROLS

CONTROL_DEFAULT1: Final[dict[type[IntFlag], int]] = {
    PinBased: PIN_DEFAULT1,
    ProcBased: PROC_DEFAULT1,
    ProcBased2: 0,
    ProcBased3: 0,
    ExitControls: EXIT_DEFAULT1,
    ExitControls2: 0,
    EntryControls: ENTRY_DEFAULT1,
}
"""Class of controls to its default1 bits."""
CONTROL_TRUE_DEFAULT1: Final[dict[type[IntFlag], int]] = {
    **CONTROL_DEFAULT1,
    ProcBased: PROC_TRUE_DEFAULT1,
    ExitControls: EXIT_TRUE_DEFAULT1,
    EntryControls: ENTRY_TRUE_DEFAULT1,
}
"""Class of controls to the bits that are 1 even where the TRUE capability MSRs exist."""


# VM exits


class ExitReason(IntEnum):
    """Basic exit reasons (SDM vol. 3 appendix C)."""

    EXCEPTION_OR_NMI = 0
    EXTERNAL_INTERRUPT = 1
    TRIPLE_FAULT = 2
    INIT = 3
    SIPI = 4
    IO_SMI = 5
    OTHER_SMI = 6
    INTERRUPT_WINDOW = 7
    NMI_WINDOW = 8
    TASK_SWITCH = 9
    CPUID = 10
    GETSEC = 11
    HLT = 12
    INVD = 13
    INVLPG = 14
    RDPMC = 15
    RDTSC = 16
    RSM = 17
    VMCALL = 18
    VMCLEAR = 19
    VMLAUNCH = 20
    VMPTRLD = 21
    VMPTRST = 22
    VMREAD = 23
    VMRESUME = 24
    VMWRITE = 25
    VMXOFF = 26
    VMXON = 27
    CR_ACCESS = 28
    DR_ACCESS = 29
    IO_INSTRUCTION = 30
    RDMSR = 31
    WRMSR = 32
    ENTRY_FAILURE_GUEST_STATE = 33
    ENTRY_FAILURE_MSR_LOADING = 34
    MWAIT = 36
    MONITOR_TRAP_FLAG = 37
    MONITOR = 39
    PAUSE = 40
    ENTRY_FAILURE_MACHINE_CHECK = 41
    TPR_BELOW_THRESHOLD = 43
    APIC_ACCESS = 44
    VIRTUALIZED_EOI = 45
    GDTR_IDTR_ACCESS = 46
    LDTR_TR_ACCESS = 47
    EPT_VIOLATION = 48
    EPT_MISCONFIGURATION = 49
    INVEPT = 50
    RDTSCP = 51
    PREEMPTION_TIMER = 52
    INVVPID = 53
    WBINVD = 54
    XSETBV = 55
    APIC_WRITE = 56
    RDRAND = 57
    INVPCID = 58
    VMFUNC = 59
    ENCLS = 60
    RDSEED = 61
    PML_FULL = 62
    XSAVES = 63
    XRSTORS = 64
    PCONFIG = 65
    SPP_EVENT = 66
    UMWAIT = 67
    TPAUSE = 68
    LOADIWKEY = 69
    ENCLV = 70
    ENQCMD_PASID = 72
    ENQCMDS_PASID = 73
    BUS_LOCK = 74
    INSTRUCTION_TIMEOUT = 75
    SEAMCALL = 76
    TDCALL = 77
    RDMSRLIST = 78
    WRMSRLIST = 79


#: The exit reason's format (SDM vol. 3 §25.9.1, table 25-18).
EXIT_REASON_BASIC: Final = 0xFFFF
EXIT_REASON_BUSY_SHADOW_STACK: Final = 1 << 25
EXIT_REASON_BUS_LOCK: Final = 1 << 26
EXIT_REASON_ENCLAVE: Final = 1 << 27
EXIT_REASON_PENDING_MTF: Final = 1 << 28
EXIT_REASON_FROM_VMX_ROOT: Final = 1 << 29
#: Bit 31 of the exit reason: the VM entry itself failed (SDM vol. 3 §27.8).
EXIT_REASON_ENTRY_FAILURE: Final = 1 << 31


class ExitKind(Enum):
    """When, relative to an instruction, the exit happens; it decides the guest RIP that is saved (SDM vol. 3 §28.1, §28.3.3)."""

    FAULT = "fault-like"
    """Instead of the instruction; RIP is the instruction's."""
    TRAP = "trap-like"
    """After the instruction that caused it; RIP is the next one's."""
    EVENT = "event"
    """At an instruction boundary, or instead of delivering an event; RIP is where the event found the guest."""
    ENTRY_FAILURE = "entry failure"
    """The guest never ran; no guest state is saved (SDM vol. 3 §27.8)."""


@dataclass(frozen=True, slots=True)
class BasicExit:
    """One basic exit reason.

    Every exit that occurs while an event of type software interrupt, privileged software exception or software exception is being
    delivered also has a valid instruction length, whatever its row says (SDM vol. 3 §28.2.5).
    """

    name: str
    section: str
    kind: ExitKind
    instruction_length: bool
    """VM_EXIT_INSTRUCTION_LEN is valid for every exit with this reason (SDM vol. 3 §28.2.5)."""
    length_when: str = ""
    """Where it is not always valid: when it is."""


def _exit(reason: ExitReason, name: str, section: str, kind: ExitKind = ExitKind.FAULT, length: bool = False, when: str = "") -> tuple[int, BasicExit]:
    return reason, BasicExit(name, f"SDM vol. 3 {section}", kind, length, when)


_FAULT, _TRAP, _EVENT, _FAILURE = ExitKind

BASIC_EXITS: Final[dict[int, BasicExit]] = dict(
    (
        _exit(ExitReason.EXCEPTION_OR_NMI, "exception or NMI", "§26.2", _EVENT, when="interruption type is (privileged) software exception"),
        _exit(ExitReason.EXTERNAL_INTERRUPT, "external interrupt", "§26.2", _EVENT),
        _exit(ExitReason.TRIPLE_FAULT, "triple fault", "§26.2", _EVENT),
        _exit(ExitReason.INIT, "INIT signal", "§26.2", _EVENT),
        _exit(ExitReason.SIPI, "start-up IPI", "§26.2", _EVENT),
        _exit(ExitReason.IO_SMI, "SMI right after an I/O instruction", "§32.15.2", _EVENT),
        _exit(ExitReason.OTHER_SMI, "other SMI", "§32.15.2", _EVENT),
        _exit(ExitReason.INTERRUPT_WINDOW, "interrupt window", "§26.2", _EVENT),
        _exit(ExitReason.NMI_WINDOW, "NMI window", "§26.2", _EVENT),
        _exit(ExitReason.TASK_SWITCH, "task switch", "§26.4.2", when="the source is CALL, IRET or JMP"),
        _exit(ExitReason.CPUID, "CPUID", "§26.1.2", length=True),
        _exit(ExitReason.GETSEC, "GETSEC", "§26.1.2", length=True),
        _exit(ExitReason.HLT, "HLT", "§26.1.3", length=True),
        _exit(ExitReason.INVD, "INVD", "§26.1.2", length=True),
        _exit(ExitReason.INVLPG, "INVLPG", "§26.1.3", length=True),
        _exit(ExitReason.RDPMC, "RDPMC", "§26.1.3", length=True),
        _exit(ExitReason.RDTSC, "RDTSC", "§26.1.3", length=True),
        _exit(ExitReason.RSM, "RSM", "§26.1.3", length=True),
        _exit(ExitReason.VMCALL, "VMCALL", "§26.1.2", length=True),
        _exit(ExitReason.VMCLEAR, "VMCLEAR", "§26.1.2", length=True),
        _exit(ExitReason.VMLAUNCH, "VMLAUNCH", "§26.1.2", length=True),
        _exit(ExitReason.VMPTRLD, "VMPTRLD", "§26.1.2", length=True),
        _exit(ExitReason.VMPTRST, "VMPTRST", "§26.1.2", length=True),
        _exit(ExitReason.VMREAD, "VMREAD", "§26.1.3", length=True),
        _exit(ExitReason.VMRESUME, "VMRESUME", "§26.1.2", length=True),
        _exit(ExitReason.VMWRITE, "VMWRITE", "§26.1.3", length=True),
        _exit(ExitReason.VMXOFF, "VMXOFF", "§26.1.2", length=True),
        _exit(ExitReason.VMXON, "VMXON", "§26.1.2", length=True),
        _exit(ExitReason.CR_ACCESS, "control-register access", "§26.1.3", length=True),
        _exit(ExitReason.DR_ACCESS, "MOV DR", "§26.1.3", length=True),
        _exit(ExitReason.IO_INSTRUCTION, "I/O instruction", "§26.1.3", length=True),
        _exit(ExitReason.RDMSR, "RDMSR", "§26.1.3", length=True),
        _exit(ExitReason.WRMSR, "WRMSR", "§26.1.3", length=True),
        _exit(ExitReason.ENTRY_FAILURE_GUEST_STATE, "VM-entry failure: guest state", "§27.3", _FAILURE),
        _exit(ExitReason.ENTRY_FAILURE_MSR_LOADING, "VM-entry failure: MSR loading", "§27.4", _FAILURE),
        _exit(ExitReason.MWAIT, "MWAIT", "§26.1.3", length=True),
        _exit(ExitReason.MONITOR_TRAP_FLAG, "monitor trap flag", "§26.5.2", _EVENT),
        _exit(ExitReason.MONITOR, "MONITOR", "§26.1.3", length=True),
        _exit(ExitReason.PAUSE, "PAUSE", "§26.1.3", length=True),
        _exit(ExitReason.ENTRY_FAILURE_MACHINE_CHECK, "VM-entry failure: machine check", "§27.9", _FAILURE),
        _exit(ExitReason.TPR_BELOW_THRESHOLD, "TPR below threshold", "§30.1.2", _TRAP),
        _exit(ExitReason.APIC_ACCESS, "APIC access", "§30.4"),
        _exit(ExitReason.VIRTUALIZED_EOI, "virtualized EOI", "§30.1.4", _TRAP),
        _exit(ExitReason.GDTR_IDTR_ACCESS, "LGDT, LIDT, SGDT or SIDT", "§26.1.3", length=True),
        _exit(ExitReason.LDTR_TR_ACCESS, "LLDT, LTR, SLDT or STR", "§26.1.3", length=True),
        _exit(ExitReason.EPT_VIOLATION, "EPT violation", "§29.3.3.2"),
        _exit(ExitReason.EPT_MISCONFIGURATION, "EPT misconfiguration", "§29.3.3.1"),
        _exit(ExitReason.INVEPT, "INVEPT", "§26.1.2", length=True),
        _exit(ExitReason.RDTSCP, "RDTSCP", "§26.1.3", length=True),
        _exit(ExitReason.PREEMPTION_TIMER, "VMX-preemption timer expired", "§26.5.1", _EVENT),
        _exit(ExitReason.INVVPID, "INVVPID", "§26.1.2", length=True),
        _exit(ExitReason.WBINVD, "WBINVD or WBNOINVD", "§26.1.3", length=True),
        _exit(ExitReason.XSETBV, "XSETBV", "§26.1.2", length=True),
        _exit(ExitReason.APIC_WRITE, "APIC write", "§30.4.3.3", _TRAP),
        _exit(ExitReason.RDRAND, "RDRAND", "§26.1.3", length=True),
        _exit(ExitReason.INVPCID, "INVPCID", "§26.1.3", length=True),
        _exit(ExitReason.VMFUNC, "VMFUNC", "§26.5.6.2", length=True),
        _exit(ExitReason.ENCLS, "ENCLS", "§26.1.3", length=True),
        _exit(ExitReason.RDSEED, "RDSEED", "§26.1.3", length=True),
        _exit(ExitReason.PML_FULL, "page-modification log full", "§29.3.6"),
        _exit(ExitReason.XSAVES, "XSAVES", "§26.1.3", length=True),
        _exit(ExitReason.XRSTORS, "XRSTORS", "§26.1.3", length=True),
        _exit(ExitReason.PCONFIG, "PCONFIG", "§26.1.3", length=True),
        _exit(ExitReason.SPP_EVENT, "SPP-related event", "§29.3.4"),
        _exit(ExitReason.UMWAIT, "UMWAIT", "§26.1.3", length=True),
        _exit(ExitReason.TPAUSE, "TPAUSE", "§26.1.3", length=True),
        _exit(ExitReason.LOADIWKEY, "LOADIWKEY", "§26.1.3", length=True),
        _exit(ExitReason.ENCLV, "ENCLV", "§26.1.3", length=True),
        _exit(ExitReason.ENQCMD_PASID, "ENQCMD: PASID translation failed", "§26.5.8"),
        _exit(ExitReason.ENQCMDS_PASID, "ENQCMDS: PASID translation failed", "§26.5.8"),
        _exit(ExitReason.BUS_LOCK, "bus lock", "§26.2", _TRAP),
        _exit(ExitReason.INSTRUCTION_TIMEOUT, "instruction timeout", "§26.2", _EVENT),
        _exit(ExitReason.SEAMCALL, "SEAMCALL", "appendix C", length=True),
        _exit(ExitReason.TDCALL, "TDCALL", "appendix C", length=True),
        _exit(ExitReason.RDMSRLIST, "RDMSRLIST", "§26.1.3", length=True),
        _exit(ExitReason.WRMSRLIST, "WRMSRLIST", "§26.1.3", length=True),
    )
)
"""Basic exit reason to what is to be known of it."""


# Exit qualifications (SDM vol. 3 §28.2.1)


class DebugQualification(BitFlag):
    """Exit qualification for debug exceptions (SDM vol. 3 table 28-1); like DR6, but nothing in it is inverted."""

    B0 = 1 << 0
    B1 = 1 << 1
    B2 = 1 << 2
    B3 = 1 << 3
    BLD = 1 << 11
    BD = 1 << 13
    BS = 1 << 14
    RTM = 1 << 16


class PendingDebug(BitFlag):
    """Pending debug exceptions, the guest-state field (SDM vol. 3 table 25-4)."""

    B0 = 1 << 0
    B1 = 1 << 1
    B2 = 1 << 2
    B3 = 1 << 3
    BLD = 1 << 11
    ENABLED_BREAKPOINT = 1 << 12
    """At least one data or I/O breakpoint that DR7 enables was met."""
    BS = 1 << 14
    RTM = 1 << 16


class TaskSwitchQualification:
    """Exit qualification for task switches (SDM vol. 3 table 28-2)."""

    SELECTOR: Final = Bits(0, 16)
    SOURCE: Final = Bits(30, 2)
    """A `TaskSwitchSource`."""


class TaskSwitchSource(IntEnum):
    """What started the task switch (SDM vol. 3 table 28-2)."""

    CALL = 0
    IRET = 1
    JMP = 2
    IDT_GATE = 3


class CrQualification:
    """Exit qualification for control-register accesses (SDM vol. 3 table 28-3)."""

    NUMBER: Final = Bits(0, 4)
    """0 for CLTS and LMSW."""
    ACCESS: Final = Bits(4, 2)
    """A `CrAccess`."""
    LMSW_MEMORY: Final = Bits(6, 1)
    """LMSW: 1 if the operand is in memory; its linear address is then in GUEST_LINEAR_ADDRESS."""
    GPR: Final = Bits(8, 4)
    """MOV CR: the general register."""
    LMSW_SOURCE: Final = Bits(16, 16)


class CrAccess(IntEnum):
    """Access type in `CrQualification` (SDM vol. 3 table 28-3)."""

    MOV_TO_CR = 0
    MOV_FROM_CR = 1
    CLTS = 2
    LMSW = 3


class DrQualification:
    """Exit qualification for MOV DR (SDM vol. 3 table 28-4)."""

    NUMBER: Final = Bits(0, 3)
    FROM_DR: Final = Bits(4, 1)
    """0: MOV to DR; 1: MOV from DR."""
    GPR: Final = Bits(8, 4)


class IoQualification:
    """Exit qualification for I/O instructions (SDM vol. 3 table 28-5)."""

    SIZE: Final = Bits(0, 3)
    """Bytes minus 1: 0, 1 or 3."""
    IN: Final = Bits(3, 1)
    """0: OUT, OUTS; 1: IN, INS."""
    STRING: Final = Bits(4, 1)
    REP: Final = Bits(5, 1)
    IMMEDIATE: Final = Bits(6, 1)
    """0: the port is in DX."""
    PORT: Final = Bits(16, 16)


class ApicAccessQualification:
    """Exit qualification for APIC accesses (SDM vol. 3 table 28-6)."""

    OFFSET: Final = Bits(0, 12)
    """Offset in the APIC page; undefined for guest-physical accesses."""
    ACCESS: Final = Bits(12, 4)
    """An `ApicAccessType`."""
    ASYNCHRONOUS: Final = Bits(16, 1)


class ApicAccessType(IntEnum):
    """Access type in `ApicAccessQualification` (SDM vol. 3 table 28-6)."""

    LINEAR_READ = 0
    LINEAR_WRITE = 1
    LINEAR_FETCH = 2
    LINEAR_EVENT_DELIVERY = 3
    LINEAR_MONITORING = 4
    PHYSICAL_EVENT_DELIVERY = 10
    PHYSICAL_MONITORING = 11
    PHYSICAL_INSTRUCTION = 15


class EptViolation(BitFlag):
    """Exit qualification for EPT violations (SDM vol. 3 table 28-7)."""

    READ = 1 << 0
    WRITE = 1 << 1
    FETCH = 1 << 2
    READABLE = 1 << 3
    WRITABLE = 1 << 4
    EXECUTABLE = 1 << 5
    """Under mode-based execute control: executable for supervisor-mode linear addresses."""
    USER_EXECUTABLE = 1 << 6
    LINEAR_VALID = 1 << 7
    TRANSLATED = 1 << 8
    """The access is to the page itself, not to a paging-structure entry on the way."""
    LINEAR_USER = 1 << 9
    """Bits 9 to 11 are defined if bits 7 and 8 are set and EPT_VPID_CAP reports advanced information: a user-mode linear address ..."""
    LINEAR_WRITABLE = 1 << 10
    LINEAR_EXECUTE_DISABLE = 1 << 11
    NMI_UNBLOCKING = 1 << 12
    SHADOW_STACK = 1 << 13
    SUPERVISOR_SHADOW_STACK = 1 << 14
    GUEST_PAGING_VERIFICATION = 1 << 15
    ASYNCHRONOUS = 1 << 16


#: Exit qualification after a failed VM entry (SDM vol. 3 §27.8). For MSR loading it is the number of the entry, from 1.
ENTRY_FAILURE_PDPTE: Final = 2
ENTRY_FAILURE_NMI: Final = 3
ENTRY_FAILURE_LINK_POINTER: Final = 4


class InstructionInfo:
    """VM-exit instruction information, fields that the formats share (SDM vol. 3 tables 28-8 to 28-15).

    VMREAD and VMWRITE have all but the sizes of operands; INVEPT, INVPCID and INVVPID the memory operand and `REG2`; VMCLEAR, VMPTRLD,
    VMPTRST, VMXON, XRSTORS and XSAVES the memory operand alone; RDRAND, RDSEED, TPAUSE and UMWAIT `REG1` and `OPERAND_SIZE`; LOADIWKEY
    `REG1` and `REG2`; INS and OUTS `ADDRESS_SIZE` and `SEGMENT`.
    """

    SCALING: Final = Bits(0, 2)
    """Log2 of the factor."""
    REG1: Final = Bits(3, 4)
    """The register operand where there is only one, or VMREAD's destination and VMWRITE's source if `IS_REGISTER`."""
    ADDRESS_SIZE: Final = Bits(7, 3)
    """0: 16 bits, 1: 32, 2: 64."""
    IS_REGISTER: Final = Bits(10, 1)
    OPERAND_SIZE: Final = Bits(11, 2)
    """RDRAND, RDSEED: 0: 16 bits, 1: 32, 2: 64. LGDT, LIDT, SGDT, SIDT use bit 11 alone: 0: 16 bits, 1: 32."""
    SEGMENT: Final = Bits(15, 3)
    """ES, CS, SS, DS, FS, GS."""
    INDEX: Final = Bits(18, 4)
    INDEX_INVALID: Final = Bits(22, 1)
    BASE: Final = Bits(23, 4)
    BASE_INVALID: Final = Bits(27, 1)
    REG2: Final = Bits(28, 4)
    """VMREAD, VMWRITE: the register with the encoding; INVEPT, INVPCID, INVVPID: with the type."""
    TABLE_IDENTITY: Final = Bits(28, 2)
    """LGDT ff.: 0 SGDT, 1 SIDT, 2 LGDT, 3 LIDT; LLDT ff.: 0 SLDT, 1 STR, 2 LLDT, 3 LTR."""


# Errors of VMX instructions


class InstructionError(IntEnum):
    """VM-instruction error numbers (SDM vol. 3 §31.4)."""

    VMCALL_IN_VMX_ROOT = 1
    VMCLEAR_INVALID_ADDRESS = 2
    VMCLEAR_VMXON_POINTER = 3
    VMLAUNCH_NONCLEAR_VMCS = 4
    VMRESUME_NONLAUNCHED_VMCS = 5
    VMRESUME_AFTER_VMXOFF = 6
    ENTRY_INVALID_CONTROL_FIELD = 7
    ENTRY_INVALID_HOST_STATE_FIELD = 8
    VMPTRLD_INVALID_ADDRESS = 9
    VMPTRLD_VMXON_POINTER = 10
    VMPTRLD_INCORRECT_REVISION = 11
    UNSUPPORTED_VMCS_COMPONENT = 12
    VMWRITE_READ_ONLY_COMPONENT = 13
    VMXON_IN_VMX_ROOT = 15
    ENTRY_INVALID_EXECUTIVE_VMCS = 16
    ENTRY_NONLAUNCHED_EXECUTIVE_VMCS = 17
    ENTRY_EXECUTIVE_NOT_VMXON = 18
    VMCALL_NONCLEAR_VMCS = 19
    VMCALL_INVALID_EXIT_CONTROL = 20
    VMCALL_INCORRECT_MSEG = 22
    VMXOFF_DUAL_MONITOR = 23
    VMCALL_INVALID_SMM_FEATURES = 24
    ENTRY_INVALID_VM_EXECUTION_FIELDS_EXECUTIVE = 25
    ENTRY_EVENTS_BLOCKED_BY_MOV_SS = 26
    INVALID_OPERAND_INVEPT_INVVPID = 28


INSTRUCTION_ERROR_TEXT: Final[dict[int, str]] = {
    InstructionError.VMCALL_IN_VMX_ROOT: "VMCALL ran in VMX root operation, where no dual-monitor SMM handler is set up to take it",
    InstructionError.VMCLEAR_INVALID_ADDRESS: "VMCLEAR's operand is not 4-KByte aligned or lies beyond the physical-address width",
    InstructionError.VMCLEAR_VMXON_POINTER: "VMCLEAR's operand is the address of the VMXON region",
    InstructionError.VMLAUNCH_NONCLEAR_VMCS: "VMLAUNCH needs launch state clear, and the current VMCS is launched: use VMRESUME, or VMCLEAR it first",
    InstructionError.VMRESUME_NONLAUNCHED_VMCS: "VMRESUME needs launch state launched, and the current VMCS is clear: use VMLAUNCH",
    InstructionError.VMRESUME_AFTER_VMXOFF: "VMXOFF and VMXON came between the VMLAUNCH of this VMCS and the VMRESUME",
    InstructionError.ENTRY_INVALID_CONTROL_FIELD: "VM entry: a control field fails the checks of SDM vol. 3 §27.2.1",
    InstructionError.ENTRY_INVALID_HOST_STATE_FIELD: "VM entry: a host-state field fails the checks of SDM vol. 3 §27.2.2-27.2.4",
    InstructionError.VMPTRLD_INVALID_ADDRESS: "VMPTRLD's operand is not 4-KByte aligned or lies beyond the physical-address width",
    InstructionError.VMPTRLD_VMXON_POINTER: "VMPTRLD's operand is the address of the VMXON region",
    InstructionError.VMPTRLD_INCORRECT_REVISION: (
        "the region that VMPTRLD names does not begin with this processor's VMCS revision identifier, or is a shadow VMCS without VMCS shadowing"
    ),
    InstructionError.UNSUPPORTED_VMCS_COMPONENT: "VMREAD or VMWRITE with an encoding that names no field of this processor",
    InstructionError.VMWRITE_READ_ONLY_COMPONENT: "VMWRITE to a VM-exit information field, which this processor does not allow",
    InstructionError.VMXON_IN_VMX_ROOT: "VMXON when the processor is in VMX root operation already",
    InstructionError.ENTRY_INVALID_EXECUTIVE_VMCS: "VM entry from SMM: the executive-VMCS pointer is no valid address",
    InstructionError.ENTRY_NONLAUNCHED_EXECUTIVE_VMCS: "VM entry from SMM: the executive VMCS is not launched",
    InstructionError.ENTRY_EXECUTIVE_NOT_VMXON: ("VM entry from SMM that ends the dual-monitor treatment: the executive-VMCS pointer is not the VMXON pointer"),
    InstructionError.VMCALL_NONCLEAR_VMCS: "VMCALL to turn on the dual-monitor treatment: the current VMCS is not clear",
    InstructionError.VMCALL_INVALID_EXIT_CONTROL: "VMCALL to turn on the dual-monitor treatment: the VM-exit controls are invalid",
    InstructionError.VMCALL_INCORRECT_MSEG: "VMCALL to turn on the dual-monitor treatment: MSEG has another revision identifier",
    InstructionError.VMXOFF_DUAL_MONITOR: "VMXOFF outside SMM while the dual-monitor treatment is on",
    InstructionError.VMCALL_INVALID_SMM_FEATURES: "VMCALL to turn on the dual-monitor treatment: the SMM-monitor features in MSEG are invalid",
    InstructionError.ENTRY_INVALID_VM_EXECUTION_FIELDS_EXECUTIVE: ("VM entry from SMM: a VM-execution control of the executive VMCS is invalid"),
    InstructionError.ENTRY_EVENTS_BLOCKED_BY_MOV_SS: "VM entry right after MOV SS or POP SS, which still blocks events",
    InstructionError.INVALID_OPERAND_INVEPT_INVVPID: "INVEPT or INVVPID with a type that is not supported or an invalid descriptor",
}
"""Error number to what went wrong. Numbers 14, 21 and 27 are not assigned."""


# Events


class InterruptionType(IntEnum):
    """Types in the interruption-information fields (SDM vol. 3 table 25-17)."""

    EXTERNAL = 0
    NMI = 2
    HARDWARE_EXCEPTION = 3
    SOFTWARE_INTERRUPT = 4
    PRIVILEGED_SOFTWARE_EXCEPTION = 5
    SOFTWARE_EXCEPTION = 6
    OTHER_EVENT = 7


#: The interruption-information fields (tables 25-17 to 25-20).
INTR_INFO_VECTOR: Final = 0xFF
INTR_INFO_TYPE: Final = 7 << 8
INTR_INFO_TYPE_SHIFT: Final = 8
INTR_INFO_ERROR_CODE: Final = 1 << 11
INTR_INFO_NMI_UNBLOCKING: Final = 1 << 12
"""Only in VM_EXIT_INTR_INFO; undefined in IDT_VECTORING_INFO_FIELD, reserved in VM_ENTRY_INTR_INFO_FIELD."""
INTR_INFO_RESERVED: Final = 0x7FFFF000
"""Bits that must be 0 in VM_ENTRY_INTR_INFO_FIELD (SDM vol. 3 §27.2.1.3)."""
INTR_INFO_VALID: Final = 1 << 31
ENTRY_MTF_VECTOR: Final = 0
"""With type OTHER_EVENT: a pending MTF VM exit is injected (SDM vol. 3 §27.6.2)."""


class Interruptibility(BitFlag):
    """Interruptibility state (SDM vol. 3 table 25-3)."""

    BLOCKING_BY_STI = 1 << 0
    BLOCKING_BY_MOV_SS = 1 << 1
    BLOCKING_BY_SMI = 1 << 2
    BLOCKING_BY_NMI = 1 << 3
    ENCLAVE_INTERRUPTION = 1 << 4


INTERRUPTIBILITY_RESERVED: Final = 0xFFFF_FFE0
"""Bits that must be 0 at VM entry (SDM vol. 3 §27.3.1.5)."""


class ActivityState(IntEnum):
    """Activity state (SDM vol. 3 §25.4.2)."""

    ACTIVE = 0
    HLT = 1
    SHUTDOWN = 2
    WAIT_FOR_SIPI = 3


# EPT and VPID


class Ept(BitFlag):
    """Bits of EPT paging-structure entries (SDM vol. 3 tables 29-1 to 29-6)."""

    READ = 1 << 0
    WRITE = 1 << 1
    EXECUTE = 1 << 2
    """Under mode-based execute control: for supervisor-mode linear addresses."""
    IGNORE_PAT = 1 << 6
    PAGE = 1 << 7
    """The entry maps a page (1 GByte or 2 MBytes); ignored at the lowest level, reserved in PML4E and PML5E."""
    ACCESSED = 1 << 8
    DIRTY = 1 << 9
    USER_EXECUTE = 1 << 10
    VERIFY_GUEST_PAGING = 1 << 57
    PAGING_WRITE = 1 << 58
    SUPERVISOR_SHADOW_STACK = 1 << 60
    SUB_PAGE_WRITE = 1 << 61
    SUPPRESS_VE = 1 << 63


EPT_MEMORY_TYPE: Final = Bits(3, 3)
"""In entries that map a page; reserved in the others."""
EPT_MEMORY_TYPES: Final = (0, 1, 4, 5, 6)
"""UC, WC, WT, WP, WB; other values of bits 5:3 of a leaf are misconfigurations (SDM vol. 3 §29.3.3.1)."""
EPT_ADDRESS_MASK: Final = 0x000F_FFFF_FFFF_F000
"""Bits 51:12 of an entry; those from the physical-address width upwards are reserved."""

#: The EPT pointer (SDM vol. 3 table 25-9).
EPTP_MEMORY_TYPE: Final = Bits(0, 3)
"""Of the EPT paging structures: 0 (UC) or 6 (WB)."""
EPTP_WALK_LENGTH: Final = Bits(3, 3)
"""Number of levels minus 1."""
EPTP_WALK_4: Final = 3 << 3
EPTP_WALK_5: Final = 4 << 3
EPTP_UC: Final = 0
EPTP_WB: Final = 6
EPTP_ACCESSED_DIRTY: Final = 1 << 6
EPTP_SUPERVISOR_SHADOW_STACK: Final = 1 << 7
EPTP_RESERVED: Final = 0xF00
"""Bits 11:8; so are those from the physical-address width upwards."""
EPTP_ADDRESS_MASK: Final = EPT_ADDRESS_MASK


class InveptType(IntEnum):
    """INVEPT type (SDM vol. 3 §31.3, INVEPT)."""

    SINGLE_CONTEXT = 1
    ALL_CONTEXT = 2


class InvvpidType(IntEnum):
    """INVVPID type (SDM vol. 3 §31.3, INVVPID)."""

    INDIVIDUAL_ADDRESS = 0
    SINGLE_CONTEXT = 1
    ALL_CONTEXT = 2
    SINGLE_CONTEXT_RETAINING_GLOBALS = 3


#: Memory operand of INVEPT and INVVPID: 16 bytes (SDM vol. 3 §31.3).
INVEPT_DESCRIPTOR_BYTES: Final = 16
INVEPT_EPTP: Final = Bits(0, 64)
INVEPT_RESERVED: Final = Bits(64, 64)
INVVPID_VPID: Final = Bits(0, 16)
INVVPID_RESERVED: Final = Bits(16, 48)
INVVPID_ADDRESS: Final = Bits(64, 64)


# Structures in memory that the VMCS names

MSR_ENTRY_BYTES: Final = 16
"""One entry of an MSR area: index, reserved dword, value (SDM vol. 3 table 25-15)."""
MSR_ENTRY_INDEX: Final = Bits(0, 32)
MSR_ENTRY_RESERVED: Final = Bits(32, 32)
MSR_ENTRY_VALUE: Final = Bits(64, 64)

#: The MSR bitmap page: byte offsets of its four parts; a bit for each of 8192 MSRs in each (SDM vol. 3 §25.6.9).
MSR_BITMAP_READ_LOW: Final = 0
MSR_BITMAP_READ_HIGH: Final = 1024
MSR_BITMAP_WRITE_LOW: Final = 2048
MSR_BITMAP_WRITE_HIGH: Final = 3072
MSR_BITMAP_LOW_FIRST: Final = 0x0000_0000
MSR_BITMAP_HIGH_FIRST: Final = 0xC000_0000
MSR_BITMAP_MSRS: Final = 0x2000
"""MSRs in each range; accesses to MSRs outside both always exit."""
IO_BITMAP_B_FIRST: Final = 0x8000
"""The first port that bitmap B covers (SDM vol. 3 §25.6.4)."""

#: The page-modification log: a page of 8-byte guest-physical addresses, filled from the last downwards (SDM vol. 3 §29.3.6).
PML_ENTRIES: Final = 512

#: The virtualization-exception information area (SDM vol. 3 table 26-1): byte offsets.
VE_INFO_REASON: Final = 0
VE_INFO_BUSY: Final = 4
VE_INFO_QUALIFICATION: Final = 8
VE_INFO_LINEAR_ADDRESS: Final = 16
VE_INFO_PHYSICAL_ADDRESS: Final = 24
VE_INFO_EPTP_INDEX: Final = 32

#: Posted-interrupt descriptor: 64 bytes, 256 request bits, then these (SDM vol. 3 table 30-1).
POSTED_INTR_DESC_BYTES: Final = 64
POSTED_INTR_OUTSTANDING: Final = 256
"""Number of the outstanding-notification bit."""


# Capability MSRs (SDM vol. 3 appendix A)


class VmxBasic(BitFlag):
    """IA32_VMX_BASIC above the revision identifier (SDM vol. 3 appendix A.1)."""

    ADDRESS_WIDTH_32 = 1 << 48
    DUAL_MONITOR = 1 << 49
    INS_OUTS_INFO = 1 << 54
    TRUE_CONTROLS = 1 << 55
    ERROR_CODE_ANY = 1 << 56
    """A hardware exception may be injected with or without error code, whatever its vector."""
    NESTED_EXCEPTION = 1 << 58
    """Bit 13 of the interruption information says that an exception is nested (FRED)."""


VMX_BASIC_REVISION: Final = Bits(0, 31)
VMX_BASIC_REGION_BYTES: Final = Bits(32, 13)
VMX_BASIC_MEMORY_TYPE: Final = Bits(50, 4)
"""Memory type of the VMCS and of what it points to: 0 (UC) or 6 (WB)."""


class VmxMisc(BitFlag):
    """IA32_VMX_MISC (SDM vol. 3 appendix A.6)."""

    STORE_LMA_ON_EXIT = 1 << 5
    """VM exits store IA32_EFER.LMA into the "IA-32e mode guest" VM-entry control."""
    ACTIVITY_HLT = 1 << 6
    ACTIVITY_SHUTDOWN = 1 << 7
    ACTIVITY_WAIT_FOR_SIPI = 1 << 8
    PT_IN_VMX = 1 << 14
    RDMSR_SMBASE_IN_SMM = 1 << 15
    SMM_MONITOR_CTL_BIT2 = 1 << 28
    VMWRITE_ANY_FIELD = 1 << 29
    """VMWRITE may write VM-exit information fields."""
    INJECT_ZERO_LENGTH = 1 << 30
    """A software event may be injected with instruction length 0."""


VMX_MISC_PREEMPTION_RATE: Final = Bits(0, 5)
"""The VMX-preemption timer counts down by 1 each time that this bit of the TSC changes."""
VMX_MISC_CR3_TARGETS: Final = Bits(16, 9)
VMX_MISC_MSR_LIST: Final = Bits(25, 3)
"""The recommended maximum of entries in an MSR area is 512 * (this + 1)."""
VMX_MISC_MSEG_REVISION: Final = Bits(32, 32)

#: IA32_VMX_PINBASED_CTLS and its like (SDM vol. 3 appendix A.2-A.5): bits that must be 1, bits that may be 1.
VMX_CTLS_ALLOWED0: Final = Bits(0, 32)
VMX_CTLS_ALLOWED1: Final = Bits(32, 32)
VMX_VMCS_ENUM_INDEX: Final = Bits(1, 9)
"""IA32_VMX_VMCS_ENUM: the highest index of any field (SDM vol. 3 appendix A.9)."""


class EptVpidCap(BitFlag):
    """IA32_VMX_EPT_VPID_CAP (SDM vol. 3 appendix A.10)."""

    EXECUTE_ONLY = 1 << 0
    WALK_LENGTH_4 = 1 << 6
    WALK_LENGTH_5 = 1 << 7
    MEMORY_TYPE_UC = 1 << 8
    MEMORY_TYPE_WB = 1 << 14
    PAGE_2M = 1 << 16
    PAGE_1G = 1 << 17
    INVEPT = 1 << 20
    ACCESSED_DIRTY = 1 << 21
    ADVANCED_EXIT_INFO = 1 << 22
    SUPERVISOR_SHADOW_STACK = 1 << 23
    INVEPT_SINGLE_CONTEXT = 1 << 25
    INVEPT_ALL_CONTEXT = 1 << 26
    INVVPID = 1 << 32
    INVVPID_INDIVIDUAL_ADDRESS = 1 << 40
    INVVPID_SINGLE_CONTEXT = 1 << 41
    INVVPID_ALL_CONTEXT = 1 << 42
    INVVPID_SINGLE_CONTEXT_RETAINING_GLOBALS = 1 << 43


EPT_VPID_CAP_HLAT_PREFIX: Final = Bits(48, 6)
"""The largest HLAT prefix size."""

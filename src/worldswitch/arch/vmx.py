"""VMX: controls, exit reasons, error numbers and the formats of exit information (SDM vol. 3 ch. 25-31, appendices A and C)."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final


class PinBased(IntFlag):
    """Pin-based VM-execution controls (SDM vol. 3 table 25-5)."""

    EXTERNAL_INTERRUPT_EXITING = 1 << 0
    NMI_EXITING = 1 << 3
    VIRTUAL_NMIS = 1 << 5
    VMX_PREEMPTION_TIMER = 1 << 6
    POSTED_INTERRUPTS = 1 << 7


class ProcBased(IntFlag):
    """Primary processor-based VM-execution controls (table 25-6)."""

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


class ProcBased2(IntFlag):
    """Secondary processor-based VM-execution controls (table 25-7)."""

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
    RDSEED_EXITING = 1 << 16
    ENABLE_PML = 1 << 17
    EPT_VIOLATION_VE = 1 << 18
    ENABLE_XSAVES = 1 << 20
    MODE_BASED_EXECUTE = 1 << 22
    USE_TSC_SCALING = 1 << 25


class ExitControls(IntFlag):
    """Primary VM-exit controls (table 25-13)."""

    SAVE_DEBUG_CONTROLS = 1 << 2
    HOST_ADDRESS_SPACE_SIZE = 1 << 9
    LOAD_PERF_GLOBAL_CTRL = 1 << 12
    ACKNOWLEDGE_INTERRUPT_ON_EXIT = 1 << 15
    SAVE_IA32_PAT = 1 << 18
    LOAD_IA32_PAT = 1 << 19
    SAVE_IA32_EFER = 1 << 20
    LOAD_IA32_EFER = 1 << 21
    SAVE_PREEMPTION_TIMER = 1 << 22


class EntryControls(IntFlag):
    """VM-entry controls (table 25-16)."""

    LOAD_DEBUG_CONTROLS = 1 << 2
    IA32E_MODE_GUEST = 1 << 9
    ENTRY_TO_SMM = 1 << 10
    DEACTIVATE_DUAL_MONITOR = 1 << 11
    LOAD_PERF_GLOBAL_CTRL = 1 << 13
    LOAD_IA32_PAT = 1 << 14
    LOAD_IA32_EFER = 1 << 15


#: Bits of the default1 class (SDM vol. 3 appendix A.2-A.5), which must be 1 unless a TRUE capability MSR says otherwise.
PIN_DEFAULT1: Final = 0x16
PROC_DEFAULT1: Final = 0x0401E172
EXIT_DEFAULT1: Final = 0x36DFF
ENTRY_DEFAULT1: Final = 0x11FF
#: ... and those that stay 1 under the TRUE capability MSRs: CR3-load/store exiting (primary) and the debug controls (exit, entry) may be 0 there.
PROC_TRUE_DEFAULT1: Final = PROC_DEFAULT1 & ~(ProcBased.CR3_LOAD_EXITING | ProcBased.CR3_STORE_EXITING)
EXIT_TRUE_DEFAULT1: Final = EXIT_DEFAULT1 & ~ExitControls.SAVE_DEBUG_CONTROLS
ENTRY_TRUE_DEFAULT1: Final = ENTRY_DEFAULT1 & ~EntryControls.LOAD_DEBUG_CONTROLS


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


#: Bit 31 of the exit reason: the VM entry itself failed (SDM vol. 3 §27.8).
EXIT_REASON_ENTRY_FAILURE: Final = 1 << 31


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
INTR_INFO_TYPE_SHIFT: Final = 8
INTR_INFO_ERROR_CODE: Final = 1 << 11
INTR_INFO_NMI_UNBLOCKING: Final = 1 << 12
INTR_INFO_RESERVED: Final = 0x7FFFF000
INTR_INFO_VALID: Final = 1 << 31


class Interruptibility(IntFlag):
    """Interruptibility state (table 25-3)."""

    BLOCKING_BY_STI = 1 << 0
    BLOCKING_BY_MOV_SS = 1 << 1
    BLOCKING_BY_SMI = 1 << 2
    BLOCKING_BY_NMI = 1 << 3
    ENCLAVE_INTERRUPTION = 1 << 4


class ActivityState(IntEnum):
    """Activity state (SDM vol. 3 §25.4.2)."""

    ACTIVE = 0
    HLT = 1
    SHUTDOWN = 2
    WAIT_FOR_SIPI = 3


class Ept(IntFlag):
    """Bits of EPT paging-structure entries (SDM vol. 3 tables 29-1 to 29-6)."""

    READ = 1 << 0
    WRITE = 1 << 1
    EXECUTE = 1 << 2
    IGNORE_PAT = 1 << 6
    PAGE = 1 << 7
    ACCESSED = 1 << 8
    DIRTY = 1 << 9
    USER_EXECUTE = 1 << 10
    SUPPRESS_VE = 1 << 63


EPT_MEMORY_TYPES: Final = (0, 1, 4, 5, 6)
"""UC, WC, WT, WP, WB; other values of bits 5:3 of a leaf are misconfigurations (SDM vol. 3 §29.3.3.1)."""
EPTP_WALK_4: Final = 3 << 3
EPTP_WB: Final = 6
EPTP_ACCESSED_DIRTY: Final = 1 << 6


class EptViolation(IntFlag):
    """Exit qualification for EPT violations (SDM vol. 3 table 28-7)."""

    READ = 1 << 0
    WRITE = 1 << 1
    FETCH = 1 << 2
    READABLE = 1 << 3
    WRITABLE = 1 << 4
    EXECUTABLE = 1 << 5
    LINEAR_VALID = 1 << 7
    TRANSLATED = 1 << 8
    """The access is to the page itself, not to a paging-structure entry on the way."""


class VmxBasic(IntFlag):
    """IA32_VMX_BASIC above the revision identifier (SDM vol. 3 appendix A.1)."""

    ADDRESS_WIDTH_32 = 1 << 48
    DUAL_MONITOR = 1 << 49
    INS_OUTS_INFO = 1 << 54
    TRUE_CONTROLS = 1 << 55
    ERROR_CODE_ANY = 1 << 56

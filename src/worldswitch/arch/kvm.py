"""The user-space interface of KVM on x86-64: exit reasons, ioctls, capabilities, flags, and the structures that ioctls and `kvm_run` exchange.

In the real world this is what <linux/kvm.h> and <asm/kvm.h> define, and what the kernel's Documentation/virt/kvm/api.rst ("KVM API") describes in
one section per ioctl (chapter 4), per exit (chapter 5, "The kvm_run structure") and per capability (chapters 6 to 8); a docstring that names an ioctl
names its section. Numbers and layouts are ABI and never change, new ones are added; here is the state of Linux 6.18, without what only other
architectures have and without PCI device assignment, which is gone. Names are those of the C interface, of enum members without the prefix.

The structures are little-endian and aligned as on x86-64. Arrays of variable length that end a structure in C are not part of it here, as they are not
part of its size there: the elements follow its last byte. Pointers are 64-bit numbers.
"""

from __future__ import annotations

import ctypes
from ctypes import LittleEndianStructure, LittleEndianUnion, sizeof
from enum import IntEnum, IntFlag, unique
from typing import Final, TypeVar

API_VERSION: Final = 12
"""What KVM_GET_API_VERSION returns."""
PIO_PAGE_OFFSET: Final = 1
"""Page of the vCPU's mapping that holds the data of KVM_EXIT_IO."""
COALESCED_MMIO_PAGE_OFFSET: Final = 2
"""Page of the vCPU's mapping that holds the `kvm_coalesced_mmio_ring`."""
DIRTY_LOG_PAGE_OFFSET: Final = 64
"""First page of the vCPU's dirty ring."""
NR_INTERRUPTS: Final = 256
APIC_REG_SIZE: Final = 0x400
IOAPIC_NUM_PINS: Final = 24
MAX_XCRS: Final = 16
SYNC_REGS_SIZE_BYTES: Final = 2048
MSR_FILTER_MAX_RANGES: Final = 16
MSR_FILTER_MAX_BITMAP_SIZE: Final = 0x600
"""Bytes."""

_U8 = ctypes.c_uint8
_U16 = ctypes.c_uint16
_U32 = ctypes.c_uint32
_U64 = ctypes.c_uint64
_S16 = ctypes.c_int16
_S32 = ctypes.c_int32
_S64 = ctypes.c_int64
_U8_16 = _U8 * 16
_T = TypeVar("_T")


def _each(kind: type[_T], names: str) -> tuple[tuple[str, type[_T]], ...]:
    """Fields of one type that follow each other."""
    return tuple((name, kind) for name in names.split())


@unique
class KvmExit(IntEnum):
    """`kvm_run.exit_reason` (KVM API, chapter 5). The gaps are other architectures'."""

    UNKNOWN = 0
    EXCEPTION = 1
    IO = 2
    HYPERCALL = 3
    DEBUG = 4
    HLT = 5
    MMIO = 6
    IRQ_WINDOW_OPEN = 7
    SHUTDOWN = 8
    FAIL_ENTRY = 9
    INTR = 10
    SET_TPR = 11
    TPR_ACCESS = 12
    NMI = 16
    INTERNAL_ERROR = 17
    SYSTEM_EVENT = 24
    IOAPIC_EOI = 26
    HYPERV = 27
    X86_RDMSR = 29
    X86_WRMSR = 30
    DIRTY_RING_FULL = 31
    AP_RESET_HOLD = 32
    X86_BUS_LOCK = 33
    XEN = 34
    NOTIFY = 37
    MEMORY_FAULT = 39
    TDX = 40


@unique
class KvmExitIo(IntEnum):
    """`kvm_run.io.direction`."""

    IN = 0
    OUT = 1


@unique
class KvmInternalError(IntEnum):
    """`kvm_run.internal.suberror` of KVM_EXIT_INTERNAL_ERROR."""

    EMULATION = 1
    SIMUL_EX = 2
    DELIVERY_EV = 3
    UNEXPECTED_EXIT_REASON = 4


INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES: Final = 1 << 0


@unique
class KvmSystemEvent(IntEnum):
    """`kvm_run.system_event.type`."""

    SHUTDOWN = 1
    RESET = 2
    CRASH = 3
    WAKEUP = 4
    SUSPEND = 5
    SEV_TERM = 6
    TDX_FATAL = 7


@unique
class KvmMsrExitReason(IntFlag):
    """`kvm_run.msr.reason`, and the argument of KVM_CAP_X86_USER_SPACE_MSR."""

    INVAL = 1 << 0
    UNKNOWN = 1 << 1
    FILTER = 1 << 2


@unique
class KvmRunFlag(IntFlag):
    """`kvm_run.flags`."""

    X86_SMM = 1 << 0
    X86_BUS_LOCK = 1 << 1
    X86_GUEST_MODE = 1 << 2


@unique
class KvmSync(IntFlag):
    """`kvm_run.kvm_valid_regs` and `.kvm_dirty_regs` (KVM_CAP_SYNC_REGS)."""

    X86_REGS = 1 << 0
    X86_SREGS = 1 << 1
    X86_EVENTS = 1 << 2


@unique
class KvmMpState(IntEnum):
    """`kvm_mp_state.mp_state` on x86."""

    RUNNABLE = 0
    UNINITIALIZED = 1
    INIT_RECEIVED = 2
    HALTED = 3
    SIPI_RECEIVED = 4
    AP_RESET_HOLD = 9


@unique
class KvmMem(IntFlag):
    """Flags of KVM_SET_USER_MEMORY_REGION and its successor."""

    LOG_DIRTY_PAGES = 1 << 0
    READONLY = 1 << 1
    GUEST_MEMFD = 1 << 2


MEMORY_ATTRIBUTE_PRIVATE: Final = 1 << 3
MEMORY_EXIT_FLAG_PRIVATE: Final = 1 << 3


@unique
class KvmVcpuEvent(IntFlag):
    """`kvm_vcpu_events.flags`: which of the fields are to be set, or are valid."""

    VALID_NMI_PENDING = 0x1
    VALID_SIPI_VECTOR = 0x2
    VALID_SHADOW = 0x4
    VALID_SMM = 0x8
    VALID_PAYLOAD = 0x10
    VALID_TRIPLE_FAULT = 0x20


@unique
class KvmX86Shadow(IntFlag):
    """`kvm_vcpu_events.interrupt.shadow`."""

    INT_MOV_SS = 0x1
    INT_STI = 0x2


@unique
class KvmGuestDebug(IntFlag):
    """`kvm_guest_debug.control`."""

    ENABLE = 0x1
    SINGLESTEP = 0x2
    USE_SW_BP = 0x10000
    USE_HW_BP = 0x20000
    INJECT_DB = 0x40000
    INJECT_BP = 0x80000
    BLOCKIRQ = 0x100000


@unique
class KvmCpuidFlag(IntFlag):
    """`kvm_cpuid_entry2.flags`. The first is spelt as in the kernel."""

    SIGNIFCANT_INDEX = 1 << 0
    STATEFUL_FUNC = 1 << 1
    STATE_READ_NEXT = 1 << 2


@unique
class KvmMsrFilterFlag(IntFlag):
    """`kvm_msr_filter_range.flags`."""

    READ = 1 << 0
    WRITE = 1 << 1


MSR_FILTER_DEFAULT_DENY: Final = 1 << 0
"""`kvm_msr_filter.flags`; 0 allows what no range covers."""


@unique
class KvmIrqchip(IntEnum):
    """`kvm_irqchip.chip_id`."""

    PIC_MASTER = 0
    PIC_SLAVE = 1
    IOAPIC = 2


@unique
class KvmPitFlag(IntFlag):
    """`kvm_pit_state2.flags`."""

    HPET_LEGACY = 0x1
    SPEAKER_DATA_ON = 0x2


PIT_SPEAKER_DUMMY: Final = 1
"""`kvm_pit_config.flags`."""


@unique
class KvmIrqRouting(IntEnum):
    """`kvm_irq_routing_entry.type` on x86."""

    IRQCHIP = 1
    MSI = 2
    HV_SINT = 4
    XEN_EVTCHN = 5


MSI_VALID_DEVID: Final = 1 << 0


@unique
class KvmIoeventfdFlag(IntFlag):
    """`kvm_ioeventfd.flags` on x86."""

    DATAMATCH = 1 << 0
    PIO = 1 << 1
    DEASSIGN = 1 << 2


@unique
class KvmIrqfdFlag(IntFlag):
    """`kvm_irqfd.flags`."""

    DEASSIGN = 1 << 0
    RESAMPLE = 1 << 1


@unique
class KvmClockFlag(IntFlag):
    """`kvm_clock_data.flags`."""

    TSC_STABLE = 1 << 1
    REALTIME = 1 << 2
    HOST_TSC = 1 << 3


@unique
class KvmDirtyLogFlag(IntFlag):
    """Argument of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2."""

    MANUAL_PROTECT_ENABLE = 1 << 0
    INITIALLY_SET = 1 << 1


@unique
class KvmDirtyGfnFlag(IntFlag):
    """`kvm_dirty_gfn.flags`: user space turns DIRTY into RESET after harvesting."""

    DIRTY = 1 << 0
    RESET = 1 << 1


@unique
class KvmX86DisableExits(IntFlag):
    """Argument of KVM_CAP_X86_DISABLE_EXITS."""

    MWAIT = 1 << 0
    HLT = 1 << 1
    PAUSE = 1 << 2
    CSTATE = 1 << 3
    APERFMPERF = 1 << 4


@unique
class KvmX86Quirk(IntFlag):
    """Argument of KVM_CAP_DISABLE_QUIRKS2 (KVM API §7.31)."""

    LINT0_REENABLED = 1 << 0
    CD_NW_CLEARED = 1 << 1
    LAPIC_MMIO_HOLE = 1 << 2
    OUT_7E_INC_RIP = 1 << 3
    MISC_ENABLE_NO_MWAIT = 1 << 4
    FIX_HYPERCALL_INSN = 1 << 5
    MWAIT_NEVER_UD_FAULTS = 1 << 6
    SLOT_ZAP_ALL = 1 << 7
    STUFF_FEATURE_MSRS = 1 << 8
    IGNORE_GUEST_PAT = 1 << 9


@unique
class KvmX2apicApi(IntFlag):
    """Argument of KVM_CAP_X2APIC_API."""

    USE_32BIT_IDS = 1 << 0
    DISABLE_BROADCAST_QUIRK = 1 << 1


@unique
class KvmBusLockDetection(IntFlag):
    """Argument of KVM_CAP_X86_BUS_LOCK_EXIT."""

    OFF = 1 << 0
    EXIT = 1 << 1


@unique
class KvmX86NotifyVmexit(IntFlag):
    """Bits 31:0 of the argument of KVM_CAP_X86_NOTIFY_VMEXIT; the window is in bits 63:32."""

    ENABLED = 1 << 0
    USER = 1 << 1


NOTIFY_CONTEXT_INVALID: Final = 1 << 0
"""`kvm_run.notify.flags`."""
PMU_CAP_DISABLE: Final = 1 << 0
SREGS2_FLAGS_PDPTRS_VALID: Final = 1 << 0
EXIT_HYPERCALL_LONG_MODE: Final = 1 << 0
"""`kvm_run.hypercall.flags`."""


@unique
class KvmPmuEvent(IntEnum):
    """`kvm_pmu_event_filter.action`."""

    ALLOW = 0
    DENY = 1


@unique
class KvmStateNestedFormat(IntEnum):
    """`kvm_nested_state.format`."""

    VMX = 0
    SVM = 1


@unique
class KvmStateNested(IntFlag):
    """`kvm_nested_state.flags`."""

    GUEST_MODE = 0x1
    RUN_PENDING = 0x2
    EVMCS = 0x4
    MTF_PENDING = 0x8
    GIF_SET = 0x100


@unique
class KvmStateNestedSmm(IntFlag):
    """`kvm_nested_state.hdr.vmx.smm.flags`."""

    GUEST_MODE = 0x1
    VMXON = 0x2


STATE_VMX_PREEMPTION_TIMER_DEADLINE: Final = 1 << 0
"""`kvm_nested_state.hdr.vmx.flags`."""
STATE_NESTED_VMX_VMCS_SIZE: Final = 0x1000
STATE_NESTED_SVM_VMCB_SIZE: Final = 0x1000


@unique
class KvmVmType(IntEnum):
    """Argument of KVM_CREATE_VM on x86."""

    DEFAULT = 0
    SW_PROTECTED = 1
    SEV = 2
    SEV_ES = 3
    SNP = 4
    TDX = 5


@unique
class KvmDevType(IntEnum):
    """`kvm_create_device.type` on x86."""

    VFIO = 4


class kvm_regs(LittleEndianStructure):
    """KVM_GET_REGS, KVM_SET_REGS."""

    _fields_ = _each(_U64, "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags")


class kvm_segment(LittleEndianStructure):
    """A segment register with its hidden part; `limit` is in bytes, scaled by `g`."""

    _fields_ = (("base", _U64), ("limit", _U32), ("selector", _U16), *_each(_U8, "type present dpl db s l g avl unusable padding"))


class kvm_dtable(LittleEndianStructure):
    """GDTR or IDTR."""

    _fields_ = (("base", _U64), ("limit", _U16), ("padding", _U16 * 3))


class kvm_sregs(LittleEndianStructure):
    """KVM_GET_SREGS, KVM_SET_SREGS. `interrupt_bitmap` has at most one bit set: the external interrupt that is queued."""

    _fields_ = (
        *_each(kvm_segment, "cs ds es fs gs ss tr ldt"),
        *_each(kvm_dtable, "gdt idt"),
        *_each(_U64, "cr0 cr2 cr3 cr4 cr8 efer apic_base"),
        ("interrupt_bitmap", _U64 * 4),
    )


class kvm_sregs2(LittleEndianStructure):
    """KVM_GET_SREGS2, KVM_SET_SREGS2: with the PDPTRs of PAE paging in place of the interrupt bitmap."""

    _fields_ = (
        *_each(kvm_segment, "cs ds es fs gs ss tr ldt"),
        *_each(kvm_dtable, "gdt idt"),
        *_each(_U64, "cr0 cr2 cr3 cr4 cr8 efer apic_base"),
        ("flags", _U64),
        ("pdptrs", _U64 * 4),
    )


class kvm_fpu(LittleEndianStructure):
    """KVM_GET_FPU, KVM_SET_FPU. `ftwx` is the abridged tag word of FXSAVE."""

    _fields_ = (
        ("fpr", _U8_16 * 8),
        *_each(_U16, "fcw fsw"),
        *_each(_U8, "ftwx pad1"),
        ("last_opcode", _U16),
        *_each(_U64, "last_ip last_dp"),
        ("xmm", _U8_16 * 16),
        *_each(_U32, "mxcsr pad2"),
    )


class kvm_lapic_state(LittleEndianStructure):
    """KVM_GET_LAPIC, KVM_SET_LAPIC: the register page's first KByte."""

    _fields_ = (("regs", _U8 * APIC_REG_SIZE),)


class kvm_interrupt(LittleEndianStructure):
    """KVM_INTERRUPT."""

    _fields_ = (("irq", _U32),)


class kvm_mp_state(LittleEndianStructure):
    """KVM_GET_MP_STATE, KVM_SET_MP_STATE."""

    _fields_ = (("mp_state", _U32),)


class kvm_translation(LittleEndianStructure):
    """KVM_TRANSLATE."""

    _fields_ = (*_each(_U64, "linear_address physical_address"), *_each(_U8, "valid writeable usermode"), ("pad", _U8 * 5))


class kvm_vcpu_events_exception(LittleEndianStructure):
    """The exception being delivered, or waiting."""

    _fields_ = (*_each(_U8, "injected nr has_error_code pending"), ("error_code", _U32))


class kvm_vcpu_events_interrupt(LittleEndianStructure):
    """The interrupt being delivered; `soft`: by INT n."""

    _fields_ = _each(_U8, "injected nr soft shadow")


class kvm_vcpu_events_nmi(LittleEndianStructure):
    """NMIs."""

    _fields_ = _each(_U8, "injected pending masked pad")


class kvm_vcpu_events_smi(LittleEndianStructure):
    """System-management mode and INIT."""

    _fields_ = _each(_U8, "smm pending smm_inside_nmi latched_init")


class kvm_vcpu_events_triple_fault(LittleEndianStructure):
    """A triple fault that waits (KVM_CAP_X86_TRIPLE_FAULT_EVENT)."""

    _fields_ = (("pending", _U8),)


class kvm_vcpu_events(LittleEndianStructure):
    """KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS."""

    _fields_ = (
        ("exception", kvm_vcpu_events_exception),
        ("interrupt", kvm_vcpu_events_interrupt),
        ("nmi", kvm_vcpu_events_nmi),
        *_each(_U32, "sipi_vector flags"),
        ("smi", kvm_vcpu_events_smi),
        ("triple_fault", kvm_vcpu_events_triple_fault),
        ("reserved", _U8 * 26),
        ("exception_has_payload", _U8),
        ("exception_payload", _U64),
    )


class kvm_debugregs(LittleEndianStructure):
    """KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS."""

    _fields_ = (("db", _U64 * 4), *_each(_U64, "dr6 dr7 flags"), ("reserved", _U64 * 9))


class kvm_xsave(LittleEndianStructure):
    """KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_XSAVE2 (which may have more than these 4 KBytes)."""

    _fields_ = (("region", _U32 * 1024),)


class kvm_xcr(LittleEndianStructure):
    """An extended control register."""

    _fields_ = (*_each(_U32, "xcr reserved"), ("value", _U64))


class kvm_xcrs(LittleEndianStructure):
    """KVM_GET_XCRS, KVM_SET_XCRS."""

    _fields_ = (*_each(_U32, "nr_xcrs flags"), ("xcrs", kvm_xcr * MAX_XCRS), ("padding", _U64 * 16))


class kvm_msr_entry(LittleEndianStructure):
    """An MSR and its value."""

    _fields_ = (*_each(_U32, "index reserved"), ("data", _U64))


class kvm_msrs(LittleEndianStructure):
    """KVM_GET_MSRS, KVM_SET_MSRS: `nmsrs` times `kvm_msr_entry` follow."""

    _fields_ = _each(_U32, "nmsrs pad")


class kvm_msr_list(LittleEndianStructure):
    """KVM_GET_MSR_INDEX_LIST, KVM_GET_MSR_FEATURE_INDEX_LIST: `nmsrs` 32-bit indices follow."""

    _fields_ = (("nmsrs", _U32),)


class kvm_msr_filter_range(LittleEndianStructure):
    """MSRs from `base`; a 0 bit at the address `bitmap` denies what `flags` name."""

    _fields_ = (*_each(_U32, "flags nmsrs base"), ("bitmap", _U64))


class kvm_msr_filter(LittleEndianStructure):
    """KVM_X86_SET_MSR_FILTER."""

    _fields_ = (("flags", _U32), ("ranges", kvm_msr_filter_range * MSR_FILTER_MAX_RANGES))


class kvm_cpuid_entry(LittleEndianStructure):
    """A CPUID leaf without index."""

    _fields_ = _each(_U32, "function eax ebx ecx edx padding")


class kvm_cpuid(LittleEndianStructure):
    """KVM_SET_CPUID: `nent` times `kvm_cpuid_entry` follow."""

    _fields_ = _each(_U32, "nent padding")


class kvm_cpuid_entry2(LittleEndianStructure):
    """A CPUID leaf or subleaf."""

    _fields_ = (*_each(_U32, "function index flags eax ebx ecx edx"), ("padding", _U32 * 3))


class kvm_cpuid2(LittleEndianStructure):
    """KVM_SET_CPUID2, KVM_GET_CPUID2, KVM_GET_SUPPORTED_CPUID: `nent` times `kvm_cpuid_entry2` follow."""

    _fields_ = _each(_U32, "nent padding")


class kvm_guest_debug_arch(LittleEndianStructure):
    """DR0 to DR7."""

    _fields_ = (("debugreg", _U64 * 8),)


class kvm_guest_debug(LittleEndianStructure):
    """KVM_SET_GUEST_DEBUG."""

    _fields_ = (*_each(_U32, "control pad"), ("arch", kvm_guest_debug_arch))


class kvm_debug_exit_arch(LittleEndianStructure):
    """What KVM_EXIT_DEBUG tells."""

    _fields_ = (*_each(_U32, "exception pad"), *_each(_U64, "pc dr6 dr7"))


class kvm_signal_mask(LittleEndianStructure):
    """KVM_SET_SIGNAL_MASK: `len` bytes of the set follow."""

    _fields_ = (("len", _U32),)


class kvm_tpr_access_ctl(LittleEndianStructure):
    """KVM_TPR_ACCESS_REPORTING."""

    _fields_ = (*_each(_U32, "enabled flags"), ("reserved", _U32 * 8))


class kvm_vapic_addr(LittleEndianStructure):
    """KVM_SET_VAPIC_ADDR."""

    _fields_ = (("vapic_addr", _U64),)


class kvm_x86_mce(LittleEndianStructure):
    """KVM_X86_SET_MCE."""

    _fields_ = (*_each(_U64, "status addr misc mcg_status"), ("bank", _U8), ("pad1", _U8 * 7), ("pad2", _U64 * 3))


class kvm_one_reg(LittleEndianStructure):
    """KVM_GET_ONE_REG, KVM_SET_ONE_REG."""

    _fields_ = _each(_U64, "id addr")


class kvm_reg_list(LittleEndianStructure):
    """KVM_GET_REG_LIST: `n` 64-bit numbers follow."""

    _fields_ = (("n", _U64),)


class kvm_enable_cap(LittleEndianStructure):
    """KVM_ENABLE_CAP."""

    _fields_ = (*_each(_U32, "cap flags"), ("args", _U64 * 4), ("pad", _U8 * 64))


class kvm_vmx_nested_state_hdr_smm(LittleEndianStructure):
    """VMX operation outside of system-management mode."""

    _fields_ = (("flags", _U16),)


class kvm_vmx_nested_state_hdr(LittleEndianStructure):
    """L1's VMX state; addresses are all ones if there is none."""

    _fields_ = (
        *_each(_U64, "vmxon_pa vmcs12_pa"),
        ("smm", kvm_vmx_nested_state_hdr_smm),
        ("pad", _U16),
        ("flags", _U32),
        ("preemption_timer_deadline", _U64),
    )


class kvm_svm_nested_state_hdr(LittleEndianStructure):
    """L1's SVM state."""

    _fields_ = (("vmcb_pa", _U64),)


class kvm_nested_state_hdr(LittleEndianUnion):
    """By format; with the fields before it 128 bytes."""

    _fields_ = (("vmx", kvm_vmx_nested_state_hdr), ("svm", kvm_svm_nested_state_hdr), ("pad", _U8 * 120))


class kvm_nested_state(LittleEndianStructure):
    """KVM_GET_NESTED_STATE, KVM_SET_NESTED_STATE: `size` counts this header and what follows, two VMCSs (current and shadow) or a VMCB."""

    _fields_ = (*_each(_U16, "flags format"), ("size", _U32), ("hdr", kvm_nested_state_hdr))


class kvm_pre_fault_memory(LittleEndianStructure):
    """KVM_PRE_FAULT_MEMORY."""

    _fields_ = (*_each(_U64, "gpa size flags"), ("padding", _U64 * 5))


# The virtual machine.


class kvm_userspace_memory_region(LittleEndianStructure):
    """KVM_SET_USER_MEMORY_REGION."""

    _fields_ = (*_each(_U32, "slot flags"), *_each(_U64, "guest_phys_addr memory_size userspace_addr"))


class kvm_userspace_memory_region2(LittleEndianStructure):
    """KVM_SET_USER_MEMORY_REGION2."""

    _fields_ = (
        *_each(_U32, "slot flags"),
        *_each(_U64, "guest_phys_addr memory_size userspace_addr guest_memfd_offset"),
        *_each(_U32, "guest_memfd pad1"),
        ("pad2", _U64 * 14),
    )


class kvm_memory_attributes(LittleEndianStructure):
    """KVM_SET_MEMORY_ATTRIBUTES."""

    _fields_ = _each(_U64, "address size attributes flags")


class kvm_create_guest_memfd(LittleEndianStructure):
    """KVM_CREATE_GUEST_MEMFD."""

    _fields_ = (*_each(_U64, "size flags"), ("reserved", _U64 * 6))


class kvm_dirty_log(LittleEndianStructure):
    """KVM_GET_DIRTY_LOG: one bit per page at the address `dirty_bitmap`."""

    _fields_ = (*_each(_U32, "slot padding1"), ("dirty_bitmap", _U64))


class kvm_clear_dirty_log(LittleEndianStructure):
    """KVM_CLEAR_DIRTY_LOG."""

    _fields_ = (*_each(_U32, "slot num_pages"), *_each(_U64, "first_page dirty_bitmap"))


class kvm_dirty_gfn(LittleEndianStructure):
    """An entry of the dirty ring; `slot` has the address space in bits 31:16."""

    _fields_ = (*_each(_U32, "flags slot"), ("offset", _U64))


class kvm_irq_level_target(LittleEndianUnion):
    """In: the GSI; out of KVM_IRQ_LINE_STATUS: what became of it."""

    _fields_ = (("irq", _U32), ("status", _S32))


class kvm_irq_level(LittleEndianStructure):
    """KVM_IRQ_LINE, KVM_IRQ_LINE_STATUS."""

    _anonymous_ = ("target",)
    _fields_ = (("target", kvm_irq_level_target), ("level", _U32))


class kvm_pic_state(LittleEndianStructure):
    """One 8259A."""

    _fields_ = (
        *_each(
            _U8, "last_irr irr imr isr priority_add irq_base read_reg_select poll special_mask init_state auto_eoi rotate_on_auto_eoi special_fully_nested_mode"
        ),
        *_each(_U8, "init4 elcr elcr_mask"),
    )


class kvm_ioapic_state(LittleEndianStructure):
    """The I/O APIC; the redirection entries are as in its registers."""

    _fields_ = (("base_address", _U64), *_each(_U32, "ioregsel id irr pad"), ("redirtbl", _U64 * IOAPIC_NUM_PINS))


class kvm_irqchip_chip(LittleEndianUnion):
    """By `chip_id`."""

    _fields_ = (("dummy", _U8 * 512), ("pic", kvm_pic_state), ("ioapic", kvm_ioapic_state))


class kvm_irqchip(LittleEndianStructure):
    """KVM_GET_IRQCHIP, KVM_SET_IRQCHIP."""

    _fields_ = (*_each(_U32, "chip_id pad"), ("chip", kvm_irqchip_chip))


class kvm_pit_config(LittleEndianStructure):
    """KVM_CREATE_PIT2."""

    _fields_ = (("flags", _U32), ("pad", _U32 * 15))


class kvm_pit_channel_state(LittleEndianStructure):
    """One counter of the 8254; `count` is up to 65536."""

    _fields_ = (
        ("count", _U32),
        ("latched_count", _U16),
        *_each(_U8, "count_latched status_latched status read_state write_state write_latch rw_mode mode bcd gate"),
        ("count_load_time", _S64),
    )


class kvm_pit_state(LittleEndianStructure):
    """KVM_GET_PIT, KVM_SET_PIT."""

    _fields_ = (("channels", kvm_pit_channel_state * 3),)


class kvm_pit_state2(LittleEndianStructure):
    """KVM_GET_PIT2, KVM_SET_PIT2."""

    _fields_ = (("channels", kvm_pit_channel_state * 3), ("flags", _U32), ("reserved", _U32 * 9))


class kvm_reinject_control(LittleEndianStructure):
    """KVM_REINJECT_CONTROL, by address."""

    _fields_ = (("pit_reinject", _U8), ("reserved", _U8 * 31))


class kvm_clock_data(LittleEndianStructure):
    """KVM_GET_CLOCK, KVM_SET_CLOCK: nanoseconds."""

    _fields_ = (("clock", _U64), *_each(_U32, "flags pad0"), *_each(_U64, "realtime host_tsc"), ("pad", _U32 * 4))


class kvm_irq_routing_irqchip(LittleEndianStructure):
    """To a pin."""

    _fields_ = _each(_U32, "irqchip pin")


class kvm_irq_routing_msi(LittleEndianStructure):
    """To a message."""

    _fields_ = _each(_U32, "address_lo address_hi data devid")


class kvm_irq_routing_hv_sint(LittleEndianStructure):
    """To a Hyper-V synthetic interrupt."""

    _fields_ = _each(_U32, "vcpu sint")


class kvm_irq_routing_xen_evtchn(LittleEndianStructure):
    """Also KVM_XEN_HVM_EVTCHN_SEND."""

    _fields_ = _each(_U32, "port vcpu priority")


class kvm_irq_routing_entry_u(LittleEndianUnion):
    """By `type`."""

    _fields_ = (
        ("irqchip", kvm_irq_routing_irqchip),
        ("msi", kvm_irq_routing_msi),
        ("hv_sint", kvm_irq_routing_hv_sint),
        ("xen_evtchn", kvm_irq_routing_xen_evtchn),
        ("pad", _U32 * 8),
        ("_align", _U64),
    )


class kvm_irq_routing_entry(LittleEndianStructure):
    """Where a GSI goes."""

    _fields_ = (*_each(_U32, "gsi type flags pad"), ("u", kvm_irq_routing_entry_u))


class kvm_irq_routing(LittleEndianStructure):
    """KVM_SET_GSI_ROUTING: `nr` times `kvm_irq_routing_entry` follow."""

    _fields_ = _each(_U32, "nr flags")


class kvm_msi(LittleEndianStructure):
    """KVM_SIGNAL_MSI."""

    _fields_ = (*_each(_U32, "address_lo address_hi data flags devid"), ("pad", _U8 * 12))


class kvm_ioeventfd(LittleEndianStructure):
    """KVM_IOEVENTFD."""

    _fields_ = (*_each(_U64, "datamatch addr"), ("len", _U32), ("fd", _S32), ("flags", _U32), ("pad", _U8 * 36))


class kvm_irqfd(LittleEndianStructure):
    """KVM_IRQFD."""

    _fields_ = (*_each(_U32, "fd gsi flags resamplefd"), ("pad", _U8 * 16))


class kvm_coalesced_mmio_zone(LittleEndianStructure):
    """KVM_REGISTER_COALESCED_MMIO, KVM_UNREGISTER_COALESCED_MMIO; `pio` is 1 for ports."""

    _fields_ = (("addr", _U64), *_each(_U32, "size pio"))


class kvm_coalesced_mmio(LittleEndianStructure):
    """A write that was put off."""

    _fields_ = (("phys_addr", _U64), *_each(_U32, "len pio"), ("data", _U8 * 8))


class kvm_coalesced_mmio_ring(LittleEndianStructure):
    """Head of the ring of `kvm_coalesced_mmio`."""

    _fields_ = _each(_U32, "first last")


class kvm_pmu_event_filter(LittleEndianStructure):
    """KVM_SET_PMU_EVENT_FILTER: `nevents` 64-bit events follow."""

    _fields_ = (*_each(_U32, "action nevents fixed_counter_bitmap flags"), ("pad", _U32 * 4))


class kvm_create_device(LittleEndianStructure):
    """KVM_CREATE_DEVICE."""

    _fields_ = _each(_U32, "type fd flags")


class kvm_device_attr(LittleEndianStructure):
    """KVM_SET_DEVICE_ATTR, KVM_GET_DEVICE_ATTR, KVM_HAS_DEVICE_ATTR."""

    _fields_ = (*_each(_U32, "flags group"), *_each(_U64, "attr addr"))


class kvm_enc_region(LittleEndianStructure):
    """KVM_MEMORY_ENCRYPT_REG_REGION, KVM_MEMORY_ENCRYPT_UNREG_REGION."""

    _fields_ = _each(_U64, "addr size")


class kvm_hyperv_eventfd(LittleEndianStructure):
    """KVM_HYPERV_EVENTFD."""

    _fields_ = (("conn_id", _U32), ("fd", _S32), ("flags", _U32), ("padding", _U32 * 3))


class kvm_xen_hvm_config(LittleEndianStructure):
    """KVM_XEN_HVM_CONFIG."""

    _fields_ = (
        *_each(_U32, "flags msr"),
        *_each(_U64, "blob_addr_32 blob_addr_64"),
        *_each(_U8, "blob_size_32 blob_size_64"),
        ("pad2", _U8 * 30),
    )


class kvm_xen_hvm_attr(LittleEndianStructure):
    """KVM_XEN_HVM_GET_ATTR, KVM_XEN_HVM_SET_ATTR; the value is in `u`, by `type`."""

    _fields_ = (("type", _U16), ("pad", _U16 * 3), ("u", _U64 * 8))


class kvm_xen_vcpu_attr(LittleEndianStructure):
    """KVM_XEN_VCPU_GET_ATTR, KVM_XEN_VCPU_SET_ATTR; the value is in `u`, by `type`."""

    _fields_ = (("type", _U16), ("pad", _U16 * 3), ("u", _U64 * 8))


class kvm_stats_header(LittleEndianStructure):
    """Start of a statistics file (KVM_GET_STATS_FD)."""

    _fields_ = _each(_U32, "flags name_size num_desc id_offset desc_offset data_offset")


class kvm_stats_desc(LittleEndianStructure):
    """Descriptor of one statistic; its name follows."""

    _fields_ = (("flags", _U32), ("exponent", _S16), ("size", _U16), *_each(_U32, "offset bucket_size"))


# kvm_run: one structure per exit, in a union of 256 bytes.


class kvm_run_hw(LittleEndianStructure):
    """KVM_EXIT_UNKNOWN."""

    _fields_ = (("hardware_exit_reason", _U64),)


class kvm_run_fail_entry(LittleEndianStructure):
    """KVM_EXIT_FAIL_ENTRY."""

    _fields_ = (("hardware_entry_failure_reason", _U64), ("cpu", _U32))


class kvm_run_ex(LittleEndianStructure):
    """KVM_EXIT_EXCEPTION."""

    _fields_ = _each(_U32, "exception error_code")


class kvm_run_io(LittleEndianStructure):
    """KVM_EXIT_IO: `count` times `size` bytes at `data_offset` from the start of `kvm_run`."""

    _fields_ = (*_each(_U8, "direction size"), ("port", _U16), ("count", _U32), ("data_offset", _U64))


class kvm_run_debug(LittleEndianStructure):
    """KVM_EXIT_DEBUG."""

    _fields_ = (("arch", kvm_debug_exit_arch),)


class kvm_run_mmio(LittleEndianStructure):
    """KVM_EXIT_MMIO."""

    _fields_ = (("phys_addr", _U64), ("data", _U8 * 8), ("len", _U32), ("is_write", _U8))


class kvm_run_hypercall_flags(LittleEndianUnion):
    """`longmode` is what `flags` was first."""

    _fields_ = (("longmode", _U32), ("flags", _U64))


class kvm_run_hypercall(LittleEndianStructure):
    """KVM_EXIT_HYPERCALL."""

    _anonymous_ = ("mode",)
    _fields_ = (("nr", _U64), ("args", _U64 * 6), ("ret", _U64), ("mode", kvm_run_hypercall_flags))


class kvm_run_tpr_access(LittleEndianStructure):
    """KVM_EXIT_TPR_ACCESS."""

    _fields_ = (("rip", _U64), *_each(_U32, "is_write pad"))


class kvm_run_internal(LittleEndianStructure):
    """KVM_EXIT_INTERNAL_ERROR."""

    _fields_ = (*_each(_U32, "suberror ndata"), ("data", _U64 * 16))


class kvm_run_emulation_failure(LittleEndianStructure):
    """KVM_EXIT_INTERNAL_ERROR with suberror EMULATION."""

    _fields_ = (*_each(_U32, "suberror ndata"), ("flags", _U64), ("insn_size", _U8), ("insn_bytes", _U8 * 15))


class kvm_run_system_event_data(LittleEndianUnion):
    """`flags` is what `data` was first."""

    _fields_ = (("flags", _U64), ("data", _U64 * 16))


class kvm_run_system_event(LittleEndianStructure):
    """KVM_EXIT_SYSTEM_EVENT."""

    _anonymous_ = ("values",)
    _fields_ = (*_each(_U32, "type ndata"), ("values", kvm_run_system_event_data))


class kvm_run_eoi(LittleEndianStructure):
    """KVM_EXIT_IOAPIC_EOI."""

    _fields_ = (("vector", _U8),)


class kvm_hyperv_exit_synic(LittleEndianStructure):
    """A write to a SynIC register."""

    _fields_ = (*_each(_U32, "msr pad2"), *_each(_U64, "control evt_page msg_page"))


class kvm_hyperv_exit_hcall(LittleEndianStructure):
    """A hypercall."""

    _fields_ = (*_each(_U64, "input result"), ("params", _U64 * 2))


class kvm_hyperv_exit_syndbg(LittleEndianStructure):
    """A write to a register of the debugger."""

    _fields_ = (*_each(_U32, "msr pad2"), *_each(_U64, "control status send_page recv_page pending_page"))


class kvm_hyperv_exit_u(LittleEndianUnion):
    """By `type`."""

    _fields_ = (("synic", kvm_hyperv_exit_synic), ("hcall", kvm_hyperv_exit_hcall), ("syndbg", kvm_hyperv_exit_syndbg))


class kvm_hyperv_exit(LittleEndianStructure):
    """KVM_EXIT_HYPERV; `type` is 1 for SynIC, 2 for a hypercall, 3 for the synthetic debugger."""

    _fields_ = (*_each(_U32, "type pad1"), ("u", kvm_hyperv_exit_u))


class kvm_run_msr(LittleEndianStructure):
    """KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR."""

    _fields_ = (("error", _U8), ("pad", _U8 * 7), *_each(_U32, "reason index"), ("data", _U64))


class kvm_xen_exit_hcall(LittleEndianStructure):
    """A hypercall."""

    _fields_ = (*_each(_U32, "longmode cpl"), *_each(_U64, "input result"), ("params", _U64 * 6))


class kvm_xen_exit_u(LittleEndianUnion):
    """By `type`."""

    _fields_ = (("hcall", kvm_xen_exit_hcall),)


class kvm_xen_exit(LittleEndianStructure):
    """KVM_EXIT_XEN; `type` is 1, a hypercall."""

    _fields_ = (("type", _U32), ("u", kvm_xen_exit_u))


class kvm_run_notify(LittleEndianStructure):
    """KVM_EXIT_NOTIFY."""

    _fields_ = (("flags", _U32),)


class kvm_run_memory_fault(LittleEndianStructure):
    """KVM_EXIT_MEMORY_FAULT."""

    _fields_ = _each(_U64, "flags gpa size")


class kvm_run_tdx(LittleEndianStructure):
    """KVM_EXIT_TDX: which of the guest's calls, the value to return, and its arguments."""

    _fields_ = (*_each(_U64, "flags nr ret"), ("data", _U64 * 5))


class kvm_run_exit(LittleEndianUnion):
    """By `exit_reason`."""

    _fields_ = (
        ("hw", kvm_run_hw),
        ("fail_entry", kvm_run_fail_entry),
        ("ex", kvm_run_ex),
        ("io", kvm_run_io),
        ("debug", kvm_run_debug),
        ("mmio", kvm_run_mmio),
        ("hypercall", kvm_run_hypercall),
        ("tpr_access", kvm_run_tpr_access),
        ("internal", kvm_run_internal),
        ("emulation_failure", kvm_run_emulation_failure),
        ("system_event", kvm_run_system_event),
        ("eoi", kvm_run_eoi),
        ("hyperv", kvm_hyperv_exit),
        ("msr", kvm_run_msr),
        ("xen", kvm_xen_exit),
        ("notify", kvm_run_notify),
        ("memory_fault", kvm_run_memory_fault),
        ("tdx", kvm_run_tdx),
        ("padding", _U8 * 256),
    )


class kvm_sync_regs(LittleEndianStructure):
    """KVM_CAP_SYNC_REGS: registers without extra ioctls."""

    _fields_ = (("regs", kvm_regs), ("sregs", kvm_sregs), ("events", kvm_vcpu_events))


class kvm_run_s(LittleEndianUnion):
    """By architecture."""

    _fields_ = (("regs", kvm_sync_regs), ("padding", _U8 * SYNC_REGS_SIZE_BYTES))


class kvm_run(LittleEndianStructure):
    """What a vCPU's file descriptor maps at offset 0. In: the first two bytes, `cr8`, `kvm_valid_regs`, `kvm_dirty_regs`; out: the rest."""

    _anonymous_ = ("exit",)
    _fields_ = (
        *_each(_U8, "request_interrupt_window immediate_exit"),
        ("padding1", _U8 * 6),
        ("exit_reason", _U32),
        *_each(_U8, "ready_for_interrupt_injection if_flag"),
        ("flags", _U16),
        *_each(_U64, "cr8 apic_base"),
        ("exit", kvm_run_exit),
        *_each(_U64, "kvm_valid_regs kvm_dirty_regs"),
        ("s", kvm_run_s),
    )


# Ioctl numbers (Linux: include/uapi/asm-generic/ioctl.h): direction in bits 31:30, bytes of the argument in 29:16, type in 15:8, number in 7:0.
KVMIO: Final = 0xAE
_WRITE: Final = 1
_READ: Final = 2


def _ioc(direction: int, nr: int, size: int) -> int:
    return direction << 30 | size << 16 | KVMIO << 8 | nr


def _io(nr: int) -> int:
    """No argument structure: the argument is a number, an address, or not used."""
    return _ioc(0, nr, 0)


def _iow(nr: int, argument: type[LittleEndianStructure | ctypes.c_uint64]) -> int:
    """User space passes the structure."""
    return _ioc(_WRITE, nr, sizeof(argument))


def _ior(nr: int, argument: type[LittleEndianStructure | ctypes.c_uint64]) -> int:
    """User space receives the structure."""
    return _ioc(_READ, nr, sizeof(argument))


def _iowr(nr: int, argument: type[LittleEndianStructure | ctypes.c_uint64]) -> int:
    """Both."""
    return _ioc(_READ | _WRITE, nr, sizeof(argument))


@unique
class KvmIoctl(IntEnum):
    """Request numbers, by the descriptor that takes them (KVM API, chapter 4). Directions are as in the ABI, which has some of them the wrong way round."""

    # /dev/kvm
    GET_API_VERSION = _io(0x00)
    CREATE_VM = _io(0x01)
    GET_MSR_INDEX_LIST = _iowr(0x02, kvm_msr_list)
    CHECK_EXTENSION = _io(0x03)
    GET_VCPU_MMAP_SIZE = _io(0x04)
    GET_SUPPORTED_CPUID = _iowr(0x05, kvm_cpuid2)
    GET_EMULATED_CPUID = _iowr(0x09, kvm_cpuid2)
    GET_MSR_FEATURE_INDEX_LIST = _iowr(0x0A, kvm_msr_list)
    X86_GET_MCE_CAP_SUPPORTED = _ior(0x9D, _U64)
    GET_SUPPORTED_HV_CPUID = _iowr(0xC1, kvm_cpuid2)
    # virtual machines
    CREATE_VCPU = _io(0x41)
    GET_DIRTY_LOG = _iow(0x42, kvm_dirty_log)
    SET_NR_MMU_PAGES = _io(0x44)
    GET_NR_MMU_PAGES = _io(0x45)
    SET_USER_MEMORY_REGION = _iow(0x46, kvm_userspace_memory_region)
    SET_TSS_ADDR = _io(0x47)
    SET_IDENTITY_MAP_ADDR = _iow(0x48, _U64)
    SET_USER_MEMORY_REGION2 = _iow(0x49, kvm_userspace_memory_region2)
    CREATE_IRQCHIP = _io(0x60)
    IRQ_LINE = _iow(0x61, kvm_irq_level)
    GET_IRQCHIP = _iowr(0x62, kvm_irqchip)
    SET_IRQCHIP = _ior(0x63, kvm_irqchip)
    CREATE_PIT = _io(0x64)
    GET_PIT = _iowr(0x65, kvm_pit_state)
    SET_PIT = _ior(0x66, kvm_pit_state)
    IRQ_LINE_STATUS = _iowr(0x67, kvm_irq_level)
    REGISTER_COALESCED_MMIO = _iow(0x67, kvm_coalesced_mmio_zone)
    UNREGISTER_COALESCED_MMIO = _iow(0x68, kvm_coalesced_mmio_zone)
    SET_GSI_ROUTING = _iow(0x6A, kvm_irq_routing)
    REINJECT_CONTROL = _io(0x71)
    IRQFD = _iow(0x76, kvm_irqfd)
    CREATE_PIT2 = _iow(0x77, kvm_pit_config)
    SET_BOOT_CPU_ID = _io(0x78)
    IOEVENTFD = _iow(0x79, kvm_ioeventfd)
    XEN_HVM_CONFIG = _iow(0x7A, kvm_xen_hvm_config)
    SET_CLOCK = _iow(0x7B, kvm_clock_data)
    GET_CLOCK = _ior(0x7C, kvm_clock_data)
    GET_PIT2 = _ior(0x9F, kvm_pit_state2)
    SET_PIT2 = _iow(0xA0, kvm_pit_state2)
    SIGNAL_MSI = _iow(0xA5, kvm_msi)
    SET_PMU_EVENT_FILTER = _iow(0xB2, kvm_pmu_event_filter)
    MEMORY_ENCRYPT_OP = _iowr(0xBA, _U64)
    MEMORY_ENCRYPT_REG_REGION = _ior(0xBB, kvm_enc_region)
    MEMORY_ENCRYPT_UNREG_REGION = _ior(0xBC, kvm_enc_region)
    HYPERV_EVENTFD = _iow(0xBD, kvm_hyperv_eventfd)
    CLEAR_DIRTY_LOG = _iowr(0xC0, kvm_clear_dirty_log)
    X86_SET_MSR_FILTER = _iow(0xC6, kvm_msr_filter)
    RESET_DIRTY_RINGS = _io(0xC7)
    XEN_HVM_GET_ATTR = _iowr(0xC8, kvm_xen_hvm_attr)
    XEN_HVM_SET_ATTR = _iow(0xC9, kvm_xen_hvm_attr)
    XEN_HVM_EVTCHN_SEND = _iow(0xD0, kvm_irq_routing_xen_evtchn)
    SET_MEMORY_ATTRIBUTES = _iow(0xD2, kvm_memory_attributes)
    CREATE_GUEST_MEMFD = _iowr(0xD4, kvm_create_guest_memfd)
    CREATE_DEVICE = _iowr(0xE0, kvm_create_device)
    # vCPUs; SET_TSC_KHZ, GET_TSC_KHZ, ENABLE_CAP and GET_STATS_FD of virtual machines too
    RUN = _io(0x80)
    GET_REGS = _ior(0x81, kvm_regs)
    SET_REGS = _iow(0x82, kvm_regs)
    GET_SREGS = _ior(0x83, kvm_sregs)
    SET_SREGS = _iow(0x84, kvm_sregs)
    TRANSLATE = _iowr(0x85, kvm_translation)
    INTERRUPT = _iow(0x86, kvm_interrupt)
    GET_MSRS = _iowr(0x88, kvm_msrs)
    SET_MSRS = _iow(0x89, kvm_msrs)
    SET_CPUID = _iow(0x8A, kvm_cpuid)
    SET_SIGNAL_MASK = _iow(0x8B, kvm_signal_mask)
    GET_FPU = _ior(0x8C, kvm_fpu)
    SET_FPU = _iow(0x8D, kvm_fpu)
    GET_LAPIC = _ior(0x8E, kvm_lapic_state)
    SET_LAPIC = _iow(0x8F, kvm_lapic_state)
    SET_CPUID2 = _iow(0x90, kvm_cpuid2)
    GET_CPUID2 = _iowr(0x91, kvm_cpuid2)
    TPR_ACCESS_REPORTING = _iowr(0x92, kvm_tpr_access_ctl)
    SET_VAPIC_ADDR = _iow(0x93, kvm_vapic_addr)
    GET_MP_STATE = _ior(0x98, kvm_mp_state)
    SET_MP_STATE = _iow(0x99, kvm_mp_state)
    NMI = _io(0x9A)
    SET_GUEST_DEBUG = _iow(0x9B, kvm_guest_debug)
    X86_SETUP_MCE = _iow(0x9C, _U64)
    X86_SET_MCE = _iow(0x9E, kvm_x86_mce)
    GET_VCPU_EVENTS = _ior(0x9F, kvm_vcpu_events)
    SET_VCPU_EVENTS = _iow(0xA0, kvm_vcpu_events)
    GET_DEBUGREGS = _ior(0xA1, kvm_debugregs)
    SET_DEBUGREGS = _iow(0xA2, kvm_debugregs)
    SET_TSC_KHZ = _io(0xA2)
    GET_TSC_KHZ = _io(0xA3)
    ENABLE_CAP = _iow(0xA3, kvm_enable_cap)
    GET_XSAVE = _ior(0xA4, kvm_xsave)
    SET_XSAVE = _iow(0xA5, kvm_xsave)
    GET_XCRS = _ior(0xA6, kvm_xcrs)
    SET_XCRS = _iow(0xA7, kvm_xcrs)
    GET_ONE_REG = _iow(0xAB, kvm_one_reg)
    SET_ONE_REG = _iow(0xAC, kvm_one_reg)
    KVMCLOCK_CTRL = _io(0xAD)
    GET_REG_LIST = _iowr(0xB0, kvm_reg_list)
    SMI = _io(0xB7)
    GET_NESTED_STATE = _iowr(0xBE, kvm_nested_state)
    SET_NESTED_STATE = _iow(0xBF, kvm_nested_state)
    XEN_VCPU_GET_ATTR = _iowr(0xCA, kvm_xen_vcpu_attr)
    XEN_VCPU_SET_ATTR = _iow(0xCB, kvm_xen_vcpu_attr)
    GET_SREGS2 = _ior(0xCC, kvm_sregs2)
    SET_SREGS2 = _iow(0xCD, kvm_sregs2)
    GET_STATS_FD = _io(0xCE)
    GET_XSAVE2 = _ior(0xCF, kvm_xsave)
    PRE_FAULT_MEMORY = _iowr(0xD5, kvm_pre_fault_memory)
    # devices; the vCPU and virtual machine descriptors take them too
    SET_DEVICE_ATTR = _iow(0xE1, kvm_device_attr)
    GET_DEVICE_ATTR = _iow(0xE2, kvm_device_attr)
    HAS_DEVICE_ATTR = _iow(0xE3, kvm_device_attr)


@unique
class KvmCap(IntEnum):
    """Capabilities, the argument of KVM_CHECK_EXTENSION and `kvm_enable_cap.cap` (KVM API, chapters 6 to 8). The gaps are other architectures'."""

    IRQCHIP = 0
    HLT = 1
    MMU_SHADOW_CACHE_CONTROL = 2
    USER_MEMORY = 3
    SET_TSS_ADDR = 4
    VAPIC = 6
    EXT_CPUID = 7
    CLOCKSOURCE = 8
    NR_VCPUS = 9
    NR_MEMSLOTS = 10
    PIT = 11
    NOP_IO_DELAY = 12
    PV_MMU = 13
    MP_STATE = 14
    COALESCED_MMIO = 15
    SYNC_MMU = 16
    DESTROY_MEMORY_REGION_WORKS = 21
    USER_NMI = 22
    SET_GUEST_DEBUG = 23
    REINJECT_CONTROL = 24
    IRQ_ROUTING = 25
    IRQ_INJECT_STATUS = 26
    JOIN_MEMORY_REGIONS_WORKS = 30
    MCE = 31
    IRQFD = 32
    PIT2 = 33
    SET_BOOT_CPU_ID = 34
    PIT_STATE2 = 35
    IOEVENTFD = 36
    SET_IDENTITY_MAP_ADDR = 37
    XEN_HVM = 38
    ADJUST_CLOCK = 39
    INTERNAL_ERROR_DATA = 40
    VCPU_EVENTS = 41
    HYPERV = 44
    HYPERV_VAPIC = 45
    HYPERV_SPIN = 46
    INTR_SHADOW = 49
    DEBUGREGS = 50
    X86_ROBUST_SINGLESTEP = 51
    ENABLE_CAP = 54
    XSAVE = 55
    XCRS = 56
    ASYNC_PF = 59
    TSC_CONTROL = 60
    GET_TSC_KHZ = 61
    MAX_VCPUS = 66
    ONE_REG = 70
    TSC_DEADLINE_TIMER = 72
    SYNC_REGS = 74
    KVMCLOCK_CTRL = 76
    SIGNAL_MSI = 77
    READONLY_MEM = 81
    IRQFD_RESAMPLE = 82
    DEVICE_CTRL = 89
    EXT_EMUL_CPUID = 95
    HYPERV_TIME = 96
    IOAPIC_POLARITY_IGNORED = 97
    ENABLE_CAP_VM = 98
    IOEVENTFD_NO_LENGTH = 100
    VM_ATTRIBUTES = 101
    CHECK_EXTENSION_VM = 105
    DISABLE_QUIRKS = 116
    X86_SMM = 117
    MULTI_ADDRESS_SPACE = 118
    GUEST_DEBUG_HW_BPS = 119
    GUEST_DEBUG_HW_WPS = 120
    SPLIT_IRQCHIP = 121
    IOEVENTFD_ANY_LENGTH = 122
    HYPERV_SYNIC = 123
    VCPU_ATTRIBUTES = 127
    MAX_VCPU_ID = 128
    X2APIC_API = 129
    MSI_DEVID = 131
    IMMEDIATE_EXIT = 136
    X86_DISABLE_EXITS = 143
    HYPERV_SYNIC2 = 148
    HYPERV_VP_INDEX = 149
    GET_MSR_FEATURES = 153
    HYPERV_EVENTFD = 154
    HYPERV_TLBFLUSH = 155
    NESTED_STATE = 157
    MSR_PLATFORM_INFO = 159
    HYPERV_SEND_IPI = 161
    COALESCED_PIO = 162
    HYPERV_ENLIGHTENED_VMCS = 163
    EXCEPTION_PAYLOAD = 164
    MANUAL_DIRTY_LOG_PROTECT = 166
    HYPERV_CPUID = 167
    MANUAL_DIRTY_LOG_PROTECT2 = 168
    PMU_EVENT_FILTER = 173
    HYPERV_DIRECT_TLBFLUSH = 175
    HALT_POLL = 182
    ASYNC_PF_INT = 183
    LAST_CPU = 184
    SMALLER_MAXPHYADDR = 185
    STEAL_TIME = 187
    X86_USER_SPACE_MSR = 188
    X86_MSR_FILTER = 189
    ENFORCE_PV_FEATURE_CPUID = 190
    SYS_HYPERV_CPUID = 191
    DIRTY_LOG_RING = 192
    X86_BUS_LOCK_EXIT = 193
    SET_GUEST_DEBUG2 = 195
    SGX_ATTRIBUTE = 196
    VM_COPY_ENC_CONTEXT_FROM = 197
    PTP_KVM = 198
    HYPERV_ENFORCE_CPUID = 199
    SREGS2 = 200
    EXIT_HYPERCALL = 201
    BINARY_STATS_FD = 203
    EXIT_ON_EMULATION_FAILURE = 204
    VM_MOVE_ENC_CONTEXT_FROM = 206
    VM_GPA_BITS = 207
    XSAVE2 = 208
    SYS_ATTRIBUTES = 209
    PMU_CAPABILITY = 212
    DISABLE_QUIRKS2 = 213
    VM_TSC_CONTROL = 214
    SYSTEM_EVENT_DATA = 215
    X86_TRIPLE_FAULT_EVENT = 218
    X86_NOTIFY_VMEXIT = 219
    VM_DISABLE_NX_HUGE_PAGES = 220
    DIRTY_LOG_RING_ACQ_REL = 223
    DIRTY_LOG_RING_WITH_BITMAP = 225
    PMU_EVENT_MASKED_EVENTS = 226
    USER_MEMORY2 = 231
    MEMORY_FAULT_INFO = 232
    MEMORY_ATTRIBUTES = 233
    GUEST_MEMFD = 234
    VM_TYPES = 235
    PRE_FAULT_MEMORY = 236
    X86_APIC_BUS_CYCLES_NS = 237
    X86_GUEST_MODE = 238
    GUEST_MEMFD_FLAGS = 244

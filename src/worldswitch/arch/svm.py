"""SVM: the VMCB's layout, intercept bits, exit codes and the interrupt control word (APM vol. 2 ch. 15, appendices B and C)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from worldswitch.arch.flags import BitFlag


class Vmcb(IntEnum):
    """Offsets in the control area (APM vol. 2 appendix B, table B-1)."""

    INTERCEPT_CR = 0x000
    INTERCEPT_DR = 0x004
    INTERCEPT_EXCEPTIONS = 0x008
    INTERCEPT_MISC1 = 0x00C
    INTERCEPT_MISC2 = 0x010
    INTERCEPT_MISC3 = 0x014
    PAUSE_FILTER_THRESHOLD = 0x03C
    PAUSE_FILTER_COUNT = 0x03E
    IOPM_BASE_PA = 0x040
    MSRPM_BASE_PA = 0x048
    TSC_OFFSET = 0x050
    GUEST_ASID = 0x058
    TLB_CONTROL = 0x05C
    V_INTR = 0x060
    INTERRUPT_SHADOW = 0x068
    EXITCODE = 0x070
    EXITINFO1 = 0x078
    EXITINFO2 = 0x080
    EXITINTINFO = 0x088
    NP_ENABLE = 0x090
    AVIC_APIC_BAR = 0x098
    GHCB_PA = 0x0A0
    EVENTINJ = 0x0A8
    N_CR3 = 0x0B0
    LBR_VIRT = 0x0B8
    VMCB_CLEAN = 0x0C0
    NRIP = 0x0C8
    NUM_BYTES_FETCHED = 0x0D0
    GUEST_INSTRUCTION_BYTES = 0x0D1
    AVIC_BACKING_PAGE = 0x0E0
    AVIC_LOGICAL_TABLE = 0x0F0
    AVIC_PHYSICAL_TABLE = 0x0F8
    VMSA_POINTER = 0x108


class Save(IntEnum):
    """Offsets of the state save area from the VMCB's start (table B-2); segments are selector, attrib, limit, base at +0, +2, +4, +8."""

    ES = 0x400
    CS = 0x410
    SS = 0x420
    DS = 0x430
    FS = 0x440
    GS = 0x450
    GDTR = 0x460
    LDTR = 0x470
    IDTR = 0x480
    TR = 0x490
    CPL = 0x4CB
    EFER = 0x4D0
    CR4 = 0x548
    CR3 = 0x550
    CR0 = 0x558
    DR7 = 0x560
    DR6 = 0x568
    RFLAGS = 0x570
    RIP = 0x578
    RSP = 0x5D8
    S_CET = 0x5E0
    SSP = 0x5E8
    ISST_ADDR = 0x5F0
    RAX = 0x5F8
    STAR = 0x600
    LSTAR = 0x608
    CSTAR = 0x610
    SFMASK = 0x618
    KERNEL_GS_BASE = 0x620
    SYSENTER_CS = 0x628
    SYSENTER_ESP = 0x630
    SYSENTER_EIP = 0x638
    CR2 = 0x640
    G_PAT = 0x668
    DBGCTL = 0x670


#: Fields of the control and save areas that are not eight bytes wide: offset to bytes.
VMCB_FIELD_BYTES: Final[dict[int, int]] = {
    Vmcb.INTERCEPT_CR: 4,
    Vmcb.INTERCEPT_DR: 4,
    Vmcb.INTERCEPT_EXCEPTIONS: 4,
    Vmcb.INTERCEPT_MISC1: 4,
    Vmcb.INTERCEPT_MISC2: 4,
    Vmcb.INTERCEPT_MISC3: 4,
    Vmcb.PAUSE_FILTER_THRESHOLD: 2,
    Vmcb.PAUSE_FILTER_COUNT: 2,
    Vmcb.GUEST_ASID: 4,
    Vmcb.TLB_CONTROL: 1,
    Vmcb.VMCB_CLEAN: 4,
    Vmcb.NUM_BYTES_FETCHED: 1,
    Save.CPL: 1,
}
VMCB_BYTES: Final = 4096


class InterceptMisc1(BitFlag):
    """Intercept word at 00CH."""

    INTR = 1 << 0
    NMI = 1 << 1
    SMI = 1 << 2
    INIT = 1 << 3
    VINTR = 1 << 4
    CR0_SEL_WRITE = 1 << 5
    IDTR_READ = 1 << 6
    GDTR_READ = 1 << 7
    LDTR_READ = 1 << 8
    TR_READ = 1 << 9
    IDTR_WRITE = 1 << 10
    GDTR_WRITE = 1 << 11
    LDTR_WRITE = 1 << 12
    TR_WRITE = 1 << 13
    RDTSC = 1 << 14
    RDPMC = 1 << 15
    PUSHF = 1 << 16
    POPF = 1 << 17
    CPUID = 1 << 18
    RSM = 1 << 19
    IRET = 1 << 20
    INTN = 1 << 21
    INVD = 1 << 22
    PAUSE = 1 << 23
    HLT = 1 << 24
    INVLPG = 1 << 25
    INVLPGA = 1 << 26
    IOIO_PROT = 1 << 27
    MSR_PROT = 1 << 28
    TASK_SWITCH = 1 << 29
    FERR_FREEZE = 1 << 30
    SHUTDOWN = 1 << 31


class InterceptMisc2(BitFlag):
    """Intercept word at 010H."""

    VMRUN = 1 << 0
    VMMCALL = 1 << 1
    VMLOAD = 1 << 2
    VMSAVE = 1 << 3
    STGI = 1 << 4
    CLGI = 1 << 5
    SKINIT = 1 << 6
    RDTSCP = 1 << 7
    ICEBP = 1 << 8
    WBINVD = 1 << 9
    MONITOR = 1 << 10
    MWAIT = 1 << 11
    MWAIT_ARMED = 1 << 12
    XSETBV = 1 << 13
    RDPRU = 1 << 14
    EFER_WRITE_TRAP = 1 << 15


class VmexitCode(IntEnum):
    """Exit codes (APM vol. 2 appendix C). CR, DR and exception codes are bases to which the number is added."""

    CR0_READ = 0x000
    CR0_WRITE = 0x010
    DR0_READ = 0x020
    DR0_WRITE = 0x030
    EXCEPTION = 0x040
    INTR = 0x060
    NMI = 0x061
    SMI = 0x062
    INIT = 0x063
    VINTR = 0x064
    CR0_SEL_WRITE = 0x065
    IDTR_READ = 0x066
    GDTR_READ = 0x067
    LDTR_READ = 0x068
    TR_READ = 0x069
    IDTR_WRITE = 0x06A
    GDTR_WRITE = 0x06B
    LDTR_WRITE = 0x06C
    TR_WRITE = 0x06D
    RDTSC = 0x06E
    RDPMC = 0x06F
    PUSHF = 0x070
    POPF = 0x071
    CPUID = 0x072
    RSM = 0x073
    IRET = 0x074
    SWINT = 0x075
    INVD = 0x076
    PAUSE = 0x077
    HLT = 0x078
    INVLPG = 0x079
    INVLPGA = 0x07A
    IOIO = 0x07B
    MSR = 0x07C
    TASK_SWITCH = 0x07D
    FERR_FREEZE = 0x07E
    SHUTDOWN = 0x07F
    VMRUN = 0x080
    VMMCALL = 0x081
    VMLOAD = 0x082
    VMSAVE = 0x083
    STGI = 0x084
    CLGI = 0x085
    SKINIT = 0x086
    RDTSCP = 0x087
    ICEBP = 0x088
    WBINVD = 0x089
    MONITOR = 0x08A
    MWAIT = 0x08B
    MWAIT_CONDITIONAL = 0x08C
    XSETBV = 0x08D
    RDPRU = 0x08E
    NPF = 0x400
    AVIC_INCOMPLETE_IPI = 0x401
    AVIC_NOACCEL = 0x402
    VMGEXIT = 0x403
    INVALID = 0xFFFFFFFFFFFFFFFF


# The interrupt control quadword at 060H (APM vol. 2 §15.21, table B-1).
V_TPR: Final = 0xFF
V_IRQ: Final = 1 << 8
V_INTR_PRIO_SHIFT: Final = 16
V_IGN_TPR: Final = 1 << 20
V_INTR_MASKING: Final = 1 << 24
V_INTR_VECTOR_SHIFT: Final = 32

# EVENTINJ and EXITINTINFO (APM vol. 2 §15.20, §15.7.2).
EVENT_VECTOR: Final = 0xFF
EVENT_TYPE_SHIFT: Final = 8
EVENT_ERROR_CODE_VALID: Final = 1 << 11
EVENT_VALID: Final = 1 << 31
EVENT_ERROR_CODE_SHIFT: Final = 32

TLB_DO_NOTHING: Final = 0
TLB_FLUSH_ALL: Final = 1
TLB_FLUSH_ASID: Final = 3
TLB_FLUSH_ASID_NON_GLOBAL: Final = 7

# EXITINFO1 of a nested page fault, above the page-fault error code (APM vol. 2 §15.25.6).
NPF_FINAL: Final = 1 << 32
NPF_WALK: Final = 1 << 33

# EXITINFO1 of IOIO (APM vol. 2 §15.10.2).
IOIO_IN: Final = 1 << 0
IOIO_STR: Final = 1 << 2
IOIO_REP: Final = 1 << 3
IOIO_SIZE_SHIFT: Final = 4
IOIO_ADDRESS_SHIFT: Final = 7
IOIO_SEG_SHIFT: Final = 10
IOIO_PORT_SHIFT: Final = 16

IOPM_BYTES: Final = 12 * 1024
MSRPM_BYTES: Final = 8 * 1024
#: (first MSR, offset of its vector in the MSRPM) of each 2000H-register range, two bits a register: read, then write (APM vol. 2 §15.11).
MSRPM_RANGES: Final = ((0x0000_0000, 0x000), (0xC000_0000, 0x800), (0xC001_0000, 0x1000))

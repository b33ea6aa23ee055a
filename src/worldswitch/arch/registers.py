"""General, segment, flags, control, debug and SIMD control registers (SDM vol. 1 §3.4, §10.2.3, vol. 3 §2.2-2.6, §18.2).

`*_DEFINED` are the bits that the manuals give a meaning (or a fixed value); `*_RESERVED` are the others of the 64. Which defined bits a processor
model has is not here: that is for its CPUID and for the checks in `worldswitch.cpu`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from worldswitch.arch.flags import BitFlag

_ALL: Final = (1 << 64) - 1


class Gpr(IntEnum):
    """General registers by their number in instruction encodings (SDM vol. 2 §3.1.1.1)."""

    RAX = 0
    RCX = 1
    RDX = 2
    RBX = 3
    RSP = 4
    RBP = 5
    RSI = 6
    RDI = 7
    R8 = 8
    R9 = 9
    R10 = 10
    R11 = 11
    R12 = 12
    R13 = 13
    R14 = 14
    R15 = 15


class Seg(IntEnum):
    """Segment registers by their number in instruction encodings; LDTR and TR follow, as in VMCS and VMCB."""

    ES = 0
    CS = 1
    SS = 2
    DS = 3
    FS = 4
    GS = 5
    LDTR = 6
    TR = 7


class Rflags(BitFlag):
    """RFLAGS (SDM vol. 1 §3.4.3, vol. 3 §2.3)."""

    CF = 1 << 0
    FIXED = 1 << 1
    PF = 1 << 2
    AF = 1 << 4
    ZF = 1 << 6
    SF = 1 << 7
    TF = 1 << 8
    IF = 1 << 9
    DF = 1 << 10
    OF = 1 << 11
    IOPL = 3 << 12
    NT = 1 << 14
    RF = 1 << 16
    VM = 1 << 17
    AC = 1 << 18
    VIF = 1 << 19
    VIP = 1 << 20
    ID = 1 << 21


STATUS_FLAGS: Final = 0x8D5
"""OF SF ZF AF PF CF."""
RFLAGS_DEFINED: Final = 0x3F7FD7
"""Every bit that exists, the fixed one included; the others are always 0."""
RFLAGS_FIXED: Final = 0x2
"""Bit 1 always reads as 1."""
RFLAGS_RESERVED: Final = _ALL & ~RFLAGS_DEFINED
IOPL_SHIFT: Final = 12


class Cr0(BitFlag):
    """CR0 (SDM vol. 3 §2.5)."""

    PE = 1 << 0
    MP = 1 << 1
    EM = 1 << 2
    TS = 1 << 3
    ET = 1 << 4
    NE = 1 << 5
    WP = 1 << 16
    AM = 1 << 18
    NW = 1 << 29
    CD = 1 << 30
    PG = 1 << 31


CR0_DEFINED: Final = 0xE005003F
CR0_RESERVED: Final = _ALL & ~CR0_DEFINED


class Cr4(BitFlag):
    """CR4 (SDM vol. 3 §2.5)."""

    VME = 1 << 0
    PVI = 1 << 1
    TSD = 1 << 2
    DE = 1 << 3
    PSE = 1 << 4
    PAE = 1 << 5
    MCE = 1 << 6
    PGE = 1 << 7
    PCE = 1 << 8
    OSFXSR = 1 << 9
    OSXMMEXCPT = 1 << 10
    UMIP = 1 << 11
    LA57 = 1 << 12
    VMXE = 1 << 13
    SMXE = 1 << 14
    FSGSBASE = 1 << 16
    PCIDE = 1 << 17
    OSXSAVE = 1 << 18
    KL = 1 << 19
    SMEP = 1 << 20
    SMAP = 1 << 21
    PKE = 1 << 22
    CET = 1 << 23
    PKS = 1 << 24
    UINTR = 1 << 25
    LASS = 1 << 27
    LAM_SUP = 1 << 28
    FRED = 1 << 32


CR4_DEFINED: Final = 0x1_1BFF_7FFF
CR4_RESERVED: Final = _ALL & ~CR4_DEFINED


class Efer(BitFlag):
    """IA32_EFER (SDM vol. 3 §2.2.1; APM vol. 2 §3.1.7)."""

    SCE = 1 << 0
    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11
    SVME = 1 << 12
    LMSLE = 1 << 13
    FFXSR = 1 << 14
    TCE = 1 << 15
    MCOMMIT = 1 << 17
    INTWB = 1 << 18
    UAIE = 1 << 20
    AIBRSE = 1 << 21


EFER_DEFINED: Final = 0x36_FD01
"""Of either vendor."""
EFER_DEFINED_INTEL: Final = 0xD01
"""SCE LME LMA NXE (SDM vol. 3 §2.2.1)."""
EFER_RESERVED: Final = _ALL & ~EFER_DEFINED


class Xcr0(BitFlag):
    """XCR0: the state components that XSAVE manages for user mode (SDM vol. 1 §13.1, vol. 3 §2.6; LWP: APM vol. 2 §11.5.2)."""

    X87 = 1 << 0
    SSE = 1 << 1
    AVX = 1 << 2
    BNDREGS = 1 << 3
    BNDCSR = 1 << 4
    OPMASK = 1 << 5
    ZMM_HI256 = 1 << 6
    HI16_ZMM = 1 << 7
    PKRU = 1 << 9
    TILECFG = 1 << 17
    TILEDATA = 1 << 18
    APX = 1 << 19
    LWP = 1 << 62


XCR0_DEFINED: Final = 0x4000_0000_000E_02FF
XCR0_RESERVED: Final = _ALL & ~XCR0_DEFINED


class Dr6(BitFlag):
    """DR6 (SDM vol. 3 §18.2.3)."""

    B0 = 1 << 0
    B1 = 1 << 1
    B2 = 1 << 2
    B3 = 1 << 3
    BLD = 1 << 11
    """0 after a bus lock: one of the two bits with inverted sense."""
    BD = 1 << 13
    BS = 1 << 14
    BT = 1 << 15
    RTM = 1 << 16
    """0 if in a transactional region: the other one."""


DR6_FIXED: Final = 0xFFFF0FF0
"""Bits that read as 1 (BLD and RTM too, where they do not exist)."""
DR6_DEFINED: Final = 0xFFFFEFFF
"""All but bit 12, which is 0, and bits 63:32, which must be."""
DR6_RESERVED: Final = _ALL & ~DR6_DEFINED


class Dr7(BitFlag):
    """DR7 (SDM vol. 3 §18.2.4)."""

    L0 = 1 << 0
    G0 = 1 << 1
    L1 = 1 << 2
    G1 = 1 << 3
    L2 = 1 << 4
    G2 = 1 << 5
    L3 = 1 << 6
    G3 = 1 << 7
    LE = 1 << 8
    GE = 1 << 9
    RTM = 1 << 11
    GD = 1 << 13
    RW0 = 3 << 16
    LEN0 = 3 << 18
    RW1 = 3 << 20
    LEN1 = 3 << 22
    RW2 = 3 << 24
    LEN2 = 3 << 26
    RW3 = 3 << 28
    LEN3 = 3 << 30


DR7_FIXED: Final = 0x400
"""Bit 10 always reads as 1."""
DR7_DEFINED: Final = 0xFFFF2FFF
"""The fixed bit included."""
DR7_RESERVED: Final = _ALL & ~DR7_DEFINED
#: Lowest bit of the R/W and LEN fields, by breakpoint.
DR7_RW_SHIFT: Final = (16, 20, 24, 28)
DR7_LEN_SHIFT: Final = (18, 22, 26, 30)


class BreakpointType(IntEnum):
    """R/W fields of DR7 (SDM vol. 3 §18.2.4)."""

    EXECUTE = 0
    WRITE = 1
    IO = 2
    """With CR4.DE only; undefined without."""
    READ_WRITE = 3


#: LEN field of DR7 to bytes.
BREAKPOINT_BYTES: Final = (1, 2, 8, 4)


class Mxcsr(BitFlag):
    """MXCSR (SDM vol. 1 §10.2.3; MM, misaligned exception mask: APM vol. 1 §4.2.2)."""

    IE = 1 << 0
    DE = 1 << 1
    ZE = 1 << 2
    OE = 1 << 3
    UE = 1 << 4
    PE = 1 << 5
    DAZ = 1 << 6
    IM = 1 << 7
    DM = 1 << 8
    ZM = 1 << 9
    OM = 1 << 10
    UM = 1 << 11
    PM = 1 << 12
    RC = 3 << 13
    FZ = 1 << 15
    MM = 1 << 17


MXCSR_RESET: Final = 0x1F80
"""After power-up, reset and INIT with XSAVE's init state: all exceptions masked, round to nearest."""
MXCSR_DEFINED: Final = 0xFFFF
"""What FXSAVE reports as MXCSR_MASK on a processor with DAZ and without MM (SDM vol. 1 §11.6.6)."""

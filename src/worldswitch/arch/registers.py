"""General, segment, flags, control and debug registers (SDM vol. 1 §3.4, vol. 3 §2.3-2.5, §18.2)."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final


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


class Rflags(IntFlag):
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


class Cr0(IntFlag):
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


class Cr4(IntFlag):
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
    SMEP = 1 << 20
    SMAP = 1 << 21
    PKE = 1 << 22
    CET = 1 << 23
    PKS = 1 << 24


class Efer(IntFlag):
    """IA32_EFER (SDM vol. 3 §2.2.1; APM vol. 2 §3.1.7)."""

    SCE = 1 << 0
    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11
    SVME = 1 << 12
    LMSLE = 1 << 13
    FFXSR = 1 << 14
    TCE = 1 << 15


class Dr6(IntFlag):
    """DR6 (SDM vol. 3 §18.2.3)."""

    B0 = 1 << 0
    B1 = 1 << 1
    B2 = 1 << 2
    B3 = 1 << 3
    BD = 1 << 13
    BS = 1 << 14
    BT = 1 << 15


DR6_FIXED: Final = 0xFFFF0FF0
"""Bits that read as 1 (with RTM, where it does not exist)."""
DR7_FIXED: Final = 0x400
DR7_DEFINED: Final = 0xFFFF2FFF

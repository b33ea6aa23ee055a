"""Model-specific registers: numbers and bits (SDM vol. 4; APM vol. 2 appendix A)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from worldswitch.arch.flags import BitFlag


class Msr(IntEnum):
    """MSR numbers under the manuals' names."""

    IA32_TSC = 0x10
    IA32_APIC_BASE = 0x1B
    IA32_FEATURE_CONTROL = 0x3A
    IA32_TSC_ADJUST = 0x3B
    IA32_SPEC_CTRL = 0x48
    IA32_PRED_CMD = 0x49
    IA32_BIOS_SIGN_ID = 0x8B
    IA32_MTRRCAP = 0xFE
    IA32_ARCH_CAPABILITIES = 0x10A
    IA32_SYSENTER_CS = 0x174
    IA32_SYSENTER_ESP = 0x175
    IA32_SYSENTER_EIP = 0x176
    IA32_MCG_CAP = 0x179
    IA32_MCG_STATUS = 0x17A
    IA32_MISC_ENABLE = 0x1A0
    IA32_DEBUGCTL = 0x1D9
    IA32_MTRR_PHYSBASE0 = 0x200
    IA32_PAT = 0x277
    IA32_MTRR_DEF_TYPE = 0x2FF
    IA32_VMX_BASIC = 0x480
    IA32_VMX_PINBASED_CTLS = 0x481
    IA32_VMX_PROCBASED_CTLS = 0x482
    IA32_VMX_EXIT_CTLS = 0x483
    IA32_VMX_ENTRY_CTLS = 0x484
    IA32_VMX_MISC = 0x485
    IA32_VMX_CR0_FIXED0 = 0x486
    IA32_VMX_CR0_FIXED1 = 0x487
    IA32_VMX_CR4_FIXED0 = 0x488
    IA32_VMX_CR4_FIXED1 = 0x489
    IA32_VMX_VMCS_ENUM = 0x48A
    IA32_VMX_PROCBASED_CTLS2 = 0x48B
    IA32_VMX_EPT_VPID_CAP = 0x48C
    IA32_VMX_TRUE_PINBASED_CTLS = 0x48D
    IA32_VMX_TRUE_PROCBASED_CTLS = 0x48E
    IA32_VMX_TRUE_EXIT_CTLS = 0x48F
    IA32_VMX_TRUE_ENTRY_CTLS = 0x490
    IA32_TSC_DEADLINE = 0x6E0
    IA32_XSS = 0xDA0
    IA32_EFER = 0xC0000080
    IA32_STAR = 0xC0000081
    IA32_LSTAR = 0xC0000082
    IA32_CSTAR = 0xC0000083
    IA32_FMASK = 0xC0000084
    IA32_FS_BASE = 0xC0000100
    IA32_GS_BASE = 0xC0000101
    IA32_KERNEL_GS_BASE = 0xC0000102
    IA32_TSC_AUX = 0xC0000103
    VM_CR = 0xC0010114
    IGNNE = 0xC0010115
    SMM_CTL = 0xC0010116
    VM_HSAVE_PA = 0xC0010117


#: x2APIC registers: MSR 800H + (register offset >> 4) (SDM vol. 3 §11.12.1.2).
X2APIC_FIRST: Final = 0x800
X2APIC_LAST: Final = 0x8FF


class ApicBase(BitFlag):
    """IA32_APIC_BASE (SDM vol. 3 §11.4.4, §11.12.1)."""

    BSP = 1 << 8
    EXTD = 1 << 10
    EN = 1 << 11


class FeatureControl(BitFlag):
    """IA32_FEATURE_CONTROL (SDM vol. 3 §24.7)."""

    LOCKED = 1 << 0
    VMX_IN_SMX = 1 << 1
    VMX_OUTSIDE_SMX = 1 << 2


class VmCr(BitFlag):
    """VM_CR (APM vol. 2 §15.30.1)."""

    DPD = 1 << 0
    R_INIT = 1 << 1
    DIS_A20M = 1 << 2
    LOCK = 1 << 3
    SVMDIS = 1 << 4


DEBUGCTL_DEFINED: Final = 0xDFC3
"""Bits of IA32_DEBUGCTL that this processor lets software set (SDM vol. 4)."""
PAT_TYPES: Final = (0, 1, 4, 5, 6, 7)
"""Valid memory types in IA32_PAT (SDM vol. 3 table 12-10)."""

"""What this processor's VMX can do: the capability MSRs (SDM vol. 3 appendix A), from which the checks on controls follow.

A control is announced here if and only if the processor implements it.
"""

from __future__ import annotations

from typing import Final

from worldswitch.arch.msr import Msr
from worldswitch.arch.registers import Cr0, Cr4
from worldswitch.arch.vmcs import HIGHEST_INDEX, VMCS_REGION_BYTES, VMCS_REVISION_ID, Vmcs
from worldswitch.arch.vmx import (
    ENTRY_DEFAULT1,
    ENTRY_TRUE_DEFAULT1,
    EXIT_DEFAULT1,
    EXIT_TRUE_DEFAULT1,
    PIN_DEFAULT1,
    PROC_DEFAULT1,
    PROC_TRUE_DEFAULT1,
    EntryControls,
    EptVpidCap,
    ExitControls,
    PinBased,
    ProcBased,
    ProcBased2,
    VmxBasic,
    VmxMisc,
)  # fmt: skip

PIN: Final = int(PinBased.EXTERNAL_INTERRUPT_EXITING | PinBased.NMI_EXITING | PinBased.VIRTUAL_NMIS)
PROC: Final = int(
    ProcBased.INTERRUPT_WINDOW_EXITING | ProcBased.USE_TSC_OFFSETTING | ProcBased.HLT_EXITING | ProcBased.INVLPG_EXITING | ProcBased.RDTSC_EXITING
    | ProcBased.CR3_LOAD_EXITING | ProcBased.CR3_STORE_EXITING | ProcBased.CR8_LOAD_EXITING | ProcBased.CR8_STORE_EXITING | ProcBased.NMI_WINDOW_EXITING
    | ProcBased.MOV_DR_EXITING | ProcBased.UNCONDITIONAL_IO_EXITING | ProcBased.USE_IO_BITMAPS | ProcBased.USE_MSR_BITMAPS | ProcBased.PAUSE_EXITING
    | ProcBased.SECONDARY_CONTROLS
)  # fmt: skip
PROC2: Final = int(
    ProcBased2.ENABLE_EPT | ProcBased2.DESCRIPTOR_TABLE_EXITING | ProcBased2.ENABLE_RDTSCP | ProcBased2.ENABLE_VPID | ProcBased2.WBINVD_EXITING
    | ProcBased2.UNRESTRICTED_GUEST
)  # fmt: skip
EXIT: Final = int(
    ExitControls.SAVE_DEBUG_CONTROLS | ExitControls.HOST_ADDRESS_SPACE_SIZE | ExitControls.ACKNOWLEDGE_INTERRUPT_ON_EXIT | ExitControls.SAVE_IA32_PAT
    | ExitControls.LOAD_IA32_PAT | ExitControls.SAVE_IA32_EFER | ExitControls.LOAD_IA32_EFER
)  # fmt: skip
ENTRY: Final = int(EntryControls.LOAD_DEBUG_CONTROLS | EntryControls.IA32E_MODE_GUEST | EntryControls.LOAD_IA32_PAT | EntryControls.LOAD_IA32_EFER)

#: Control field to (bits that must be 1, bits that may be 1) under the TRUE capability MSRs.
ALLOWED: Final[dict[Vmcs, tuple[int, int]]] = {
    Vmcs.PIN_BASED_VM_EXEC_CONTROL: (PIN_DEFAULT1, PIN_DEFAULT1 | PIN),
    Vmcs.CPU_BASED_VM_EXEC_CONTROL: (PROC_TRUE_DEFAULT1, PROC_DEFAULT1 | PROC),
    Vmcs.SECONDARY_VM_EXEC_CONTROL: (0, PROC2),
    Vmcs.VM_EXIT_CONTROLS: (EXIT_TRUE_DEFAULT1, EXIT_DEFAULT1 | EXIT),
    Vmcs.VM_ENTRY_CONTROLS: (ENTRY_TRUE_DEFAULT1, ENTRY_DEFAULT1 | ENTRY),
}

#: CR0 and CR4 in VMX operation: bits that must be 1 (SDM vol. 3 §24.8); an unrestricted guest may clear PE and PG.
CR0_FIXED0: Final = int(Cr0.PE | Cr0.NE | Cr0.PG)
CR4_FIXED0: Final = int(Cr4.VMXE)
#: The number of CR3-target values.
CR3_TARGETS: Final = 4
EPT_VPID_CAP: Final = int(
    EptVpidCap.EXECUTE_ONLY | EptVpidCap.WALK_LENGTH_4 | EptVpidCap.MEMORY_TYPE_UC | EptVpidCap.MEMORY_TYPE_WB | EptVpidCap.PAGE_2M | EptVpidCap.PAGE_1G
    | EptVpidCap.INVEPT | EptVpidCap.ACCESSED_DIRTY | EptVpidCap.INVEPT_SINGLE_CONTEXT | EptVpidCap.INVEPT_ALL_CONTEXT | EptVpidCap.INVVPID
    | EptVpidCap.INVVPID_INDIVIDUAL_ADDRESS | EptVpidCap.INVVPID_SINGLE_CONTEXT | EptVpidCap.INVVPID_ALL_CONTEXT
    | EptVpidCap.INVVPID_SINGLE_CONTEXT_RETAINING_GLOBALS
)  # fmt: skip


def _pair(allowed0: int, allowed1: int) -> int:
    return allowed1 << 32 | allowed0


#: Capability MSR to value; CR4_FIXED1 depends on the model and is filled in by the unit.
CAPABILITIES: Final[dict[int, int]] = {
    Msr.IA32_VMX_BASIC: VMCS_REVISION_ID | VMCS_REGION_BYTES << 32 | 6 << 50 | int(VmxBasic.TRUE_CONTROLS | VmxBasic.INS_OUTS_INFO),
    Msr.IA32_VMX_PINBASED_CTLS: _pair(*ALLOWED[Vmcs.PIN_BASED_VM_EXEC_CONTROL]),
    Msr.IA32_VMX_PROCBASED_CTLS: _pair(PROC_DEFAULT1, ALLOWED[Vmcs.CPU_BASED_VM_EXEC_CONTROL][1]),
    Msr.IA32_VMX_EXIT_CTLS: _pair(EXIT_DEFAULT1, ALLOWED[Vmcs.VM_EXIT_CONTROLS][1]),
    Msr.IA32_VMX_ENTRY_CTLS: _pair(ENTRY_DEFAULT1, ALLOWED[Vmcs.VM_ENTRY_CONTROLS][1]),
    Msr.IA32_VMX_MISC: int(VmxMisc.STORE_LMA_ON_EXIT | VmxMisc.ACTIVITY_HLT) | CR3_TARGETS << 16,
    Msr.IA32_VMX_CR0_FIXED0: CR0_FIXED0,
    Msr.IA32_VMX_CR0_FIXED1: 0xFFFFFFFF,
    Msr.IA32_VMX_CR4_FIXED0: CR4_FIXED0,
    Msr.IA32_VMX_VMCS_ENUM: HIGHEST_INDEX << 1,
    Msr.IA32_VMX_PROCBASED_CTLS2: _pair(0, PROC2),
    Msr.IA32_VMX_EPT_VPID_CAP: EPT_VPID_CAP,
    Msr.IA32_VMX_TRUE_PINBASED_CTLS: _pair(*ALLOWED[Vmcs.PIN_BASED_VM_EXEC_CONTROL]),
    Msr.IA32_VMX_TRUE_PROCBASED_CTLS: _pair(*ALLOWED[Vmcs.CPU_BASED_VM_EXEC_CONTROL]),
    Msr.IA32_VMX_TRUE_EXIT_CTLS: _pair(*ALLOWED[Vmcs.VM_EXIT_CONTROLS]),
    Msr.IA32_VMX_TRUE_ENTRY_CTLS: _pair(*ALLOWED[Vmcs.VM_ENTRY_CONTROLS]),
}

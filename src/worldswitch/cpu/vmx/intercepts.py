"""What makes a guest exit (SDM vol. 3 §26.1-26.3): instruction to controls and exit reason, as tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from worldswitch.arch.vmx import ExitReason, ProcBased, ProcBased2
from worldswitch.cpu.intercept import Intercept

if TYPE_CHECKING:
    from worldswitch.cpu.vmx.unit import VmxUnit

Condition = Callable[["VmxUnit"], bool]


def _always(unit: VmxUnit) -> bool:
    return True


def _proc(bit: ProcBased) -> Condition:
    return lambda unit: bool(unit.proc & bit)


def _proc2(bit: ProcBased2) -> Condition:
    return lambda unit: bool(unit.proc2 & bit)


_TABLES = _proc2(ProcBased2.DESCRIPTOR_TABLE_EXITING)

#: Instruction to (does it exit, exit reason). What is missing never exits under VMX.
INSTRUCTIONS: Final[dict[Intercept, tuple[Condition, ExitReason]]] = {
    # Unconditionally (§26.1.2).
    Intercept.CPUID: (_always, ExitReason.CPUID),
    Intercept.GETSEC: (_always, ExitReason.GETSEC),
    Intercept.INVD: (_always, ExitReason.INVD),
    Intercept.XSETBV: (_always, ExitReason.XSETBV),
    Intercept.INVEPT: (_always, ExitReason.INVEPT),
    Intercept.INVVPID: (_always, ExitReason.INVVPID),
    Intercept.VMCALL: (_always, ExitReason.VMCALL),
    Intercept.VMCLEAR: (_always, ExitReason.VMCLEAR),
    Intercept.VMLAUNCH: (_always, ExitReason.VMLAUNCH),
    Intercept.VMPTRLD: (_always, ExitReason.VMPTRLD),
    Intercept.VMPTRST: (_always, ExitReason.VMPTRST),
    Intercept.VMREAD: (_always, ExitReason.VMREAD),
    Intercept.VMRESUME: (_always, ExitReason.VMRESUME),
    Intercept.VMWRITE: (_always, ExitReason.VMWRITE),
    Intercept.VMXOFF: (_always, ExitReason.VMXOFF),
    Intercept.VMXON: (_always, ExitReason.VMXON),
    # By controls (§26.1.3).
    Intercept.HLT: (_proc(ProcBased.HLT_EXITING), ExitReason.HLT),
    Intercept.RDTSC: (_proc(ProcBased.RDTSC_EXITING), ExitReason.RDTSC),
    Intercept.RDTSCP: (_proc(ProcBased.RDTSC_EXITING), ExitReason.RDTSCP),
    Intercept.PAUSE: (_proc(ProcBased.PAUSE_EXITING), ExitReason.PAUSE),
    Intercept.WBINVD: (_proc2(ProcBased2.WBINVD_EXITING), ExitReason.WBINVD),
    Intercept.LGDT: (_TABLES, ExitReason.GDTR_IDTR_ACCESS),
    Intercept.LIDT: (_TABLES, ExitReason.GDTR_IDTR_ACCESS),
    Intercept.SGDT: (_TABLES, ExitReason.GDTR_IDTR_ACCESS),
    Intercept.SIDT: (_TABLES, ExitReason.GDTR_IDTR_ACCESS),
    Intercept.LLDT: (_TABLES, ExitReason.LDTR_TR_ACCESS),
    Intercept.LTR: (_TABLES, ExitReason.LDTR_TR_ACCESS),
    Intercept.SLDT: (_TABLES, ExitReason.LDTR_TR_ACCESS),
    Intercept.STR: (_TABLES, ExitReason.LDTR_TR_ACCESS),
}

"""RDMSR and WRMSR: which registers exist on this processor and what may be written to them (SDM vol. 4; APM vol. 2 appendix A).

One row per register. Host code in Python uses `read` and `write` too: what is not there raises `Fault` with #GP(0), as the instructions do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.msr import DEBUGCTL_DEFINED, PAT_TYPES, X2APIC_FIRST, X2APIC_LAST, FeatureControl, Msr, VmCr
from worldswitch.arch.registers import Cr0, Efer
from worldswitch.cpu.event import fault
from worldswitch.cpu.state import MASK64

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor


@dataclass(frozen=True, slots=True)
class Row:
    """How one MSR is read and written. `write` None: read-only. Both get the processor; `write` gives False for #GP(0)."""

    read: Callable[[Processor], int]
    write: Callable[[Processor, int], bool] | None
    vendor: str = ""
    """"" for both."""


def _slot(name: str, *, reserved: int = 0, canonical: bool = False) -> Row:
    """An MSR that is a slot of the state: reserved bits fault, and so do addresses that are not canonical."""

    def write(cpu: Processor, value: int) -> bool:
        if value & reserved or (canonical and not cpu.mmu.canonical(value)):
            return False
        setattr(cpu.state, name, value)
        return True

    return Row(lambda cpu: int(getattr(cpu.state, name)), write)


def _segment_base(name: str) -> Row:
    def write(cpu: Processor, value: int) -> bool:
        if not cpu.mmu.canonical(value):
            return False
        getattr(cpu.state, name).base = value
        return True

    return Row(lambda cpu: int(getattr(cpu.state, name).base), write)


def efer_supported(cpu: Processor) -> int:
    """The EFER bits that this processor has."""
    return int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE | (Efer.SVME if cpu.model.vendor == "amd" and not cpu.state.vm_cr & VmCr.SVMDIS else 0))


def _write_efer(cpu: Processor, value: int) -> bool:
    s = cpu.state
    if value & ~efer_supported(cpu):
        return False
    if (value ^ s.efer) & Efer.LME and s.cr0 & Cr0.PG:
        return False  # SDM vol. 3 §10.8.5
    s.efer = value & ~Efer.LMA | s.efer & Efer.LMA  # LMA is read-only
    cpu.context_changed()
    return True


def _write_tsc(cpu: Processor, value: int) -> bool:
    cpu.state.tsc_adjust = (cpu.state.tsc_adjust + value - cpu.tsc) & MASK64  # SDM vol. 3 §18.17.3
    return True


def _write_pat(cpu: Processor, value: int) -> bool:
    if any(value >> 8 * i & 0xFF not in PAT_TYPES for i in range(8)):
        return False
    cpu.state.pat = value
    return True


def _write_feature_control(cpu: Processor, value: int) -> bool:
    if cpu.state.feature_control & FeatureControl.LOCKED or value & ~7:
        return False
    cpu.state.feature_control = value
    return True


def _write_vm_cr(cpu: Processor, value: int) -> bool:
    s = cpu.state
    if value & ~0x1F or (s.vm_cr & VmCr.LOCK and (value ^ s.vm_cr) & (VmCr.LOCK | VmCr.SVMDIS)) or (value & VmCr.SVMDIS and s.efer & Efer.SVME):
        return False
    s.vm_cr = value
    return True


def _write_hsave(cpu: Processor, value: int) -> bool:
    if value & 0xFFF or value >> cpu.model.physical_bits:
        return False
    cpu.state.vm_hsave_pa = value
    return True


def _constant(value: int) -> Row:
    return Row(lambda cpu: value, None)


def _vmx_capability(number: int) -> Row:
    return Row(lambda cpu: cpu.vmx.capability(number), None, "intel")


ROWS: dict[int, Row] = {
    Msr.IA32_TSC: Row(lambda cpu: cpu.tsc, _write_tsc),
    Msr.IA32_TSC_ADJUST: _slot("tsc_adjust"),
    Msr.IA32_FEATURE_CONTROL: Row(lambda cpu: cpu.state.feature_control, _write_feature_control, "intel"),
    Msr.IA32_BIOS_SIGN_ID: Row(lambda cpu: 0, lambda cpu, value: True),
    Msr.IA32_MTRRCAP: _constant(0),
    Msr.IA32_SYSENTER_CS: _slot("sysenter_cs"),
    Msr.IA32_SYSENTER_ESP: _slot("sysenter_esp", canonical=True),
    Msr.IA32_SYSENTER_EIP: _slot("sysenter_eip", canonical=True),
    Msr.IA32_MISC_ENABLE: _slot("misc_enable"),
    Msr.IA32_DEBUGCTL: _slot("debugctl", reserved=MASK64 & ~DEBUGCTL_DEFINED),
    Msr.IA32_PAT: Row(lambda cpu: cpu.state.pat, _write_pat),
    Msr.IA32_EFER: Row(lambda cpu: cpu.state.efer, _write_efer),
    Msr.IA32_STAR: _slot("star"),
    Msr.IA32_LSTAR: _slot("lstar", canonical=True),
    Msr.IA32_CSTAR: _slot("cstar", canonical=True),
    Msr.IA32_FMASK: _slot("fmask", reserved=MASK64 & ~0xFFFFFFFF),
    Msr.IA32_FS_BASE: _segment_base("fs"),
    Msr.IA32_GS_BASE: _segment_base("gs"),
    Msr.IA32_KERNEL_GS_BASE: _slot("kernel_gs_base", canonical=True),
    Msr.IA32_TSC_AUX: _slot("tsc_aux", reserved=MASK64 & ~0xFFFFFFFF),
    **{number: _vmx_capability(number) for number in range(Msr.IA32_VMX_BASIC, Msr.IA32_VMX_TRUE_ENTRY_CTLS + 1)},
    Msr.VM_CR: Row(lambda cpu: cpu.state.vm_cr, _write_vm_cr, "amd"),
    Msr.VM_HSAVE_PA: Row(lambda cpu: cpu.state.vm_hsave_pa, _write_hsave, "amd"),
}


def _is_apic(number: int) -> bool:
    return X2APIC_FIRST <= number <= X2APIC_LAST or number in (Msr.IA32_APIC_BASE, Msr.IA32_TSC_DEADLINE)


class Msrs:
    """One processor's MSRs."""

    def __init__(self, cpu: Processor) -> None:
        self._cpu = cpu

    def _row(self, number: int) -> Row:
        row = ROWS.get(number)
        if row is None or (row.vendor and row.vendor != self._cpu.model.vendor):
            raise fault(Vector.GP, 0)
        return row

    def read(self, number: int) -> int:
        """RDMSR: 64 bits. Raises #GP(0) as a `Fault`."""
        if _is_apic(number):
            value = self._cpu.apic.read_msr(number)
            if value is None:
                raise fault(Vector.GP, 0)
            return value
        return self._row(number).read(self._cpu)

    def write(self, number: int, value: int) -> None:
        """WRMSR. Raises #GP(0) as a `Fault`, and then nothing has changed."""
        if _is_apic(number):
            if not self._cpu.apic.write_msr(number, value):
                raise fault(Vector.GP, 0)
            return
        write = self._row(number).write
        if write is None or not write(self._cpu, value):
            raise fault(Vector.GP, 0)

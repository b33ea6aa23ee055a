"""The CPUID that a guest sees: a table of entries, looked up as KVM looks them up (kvm_find_cpuid_entry)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worldswitch.cpu.cpuid import cpuid
from worldswitch.cpu.processor import Processor

#: KVM_CPUID_FLAG_SIGNIFCANT_INDEX
SIGNIFICANT_INDEX: Final = 1


@dataclass(frozen=True, slots=True)
class CpuidEntry:
    """kvm_cpuid_entry2."""

    function: int
    index: int
    flags: int
    eax: int
    ebx: int
    ecx: int
    edx: int


_SIGNATURE: Final = b"KVMKVMKVM\0\0\0"


def supported_cpuid(processor: Processor) -> tuple[CpuidEntry, ...]:
    """KVM_GET_SUPPORTED_CPUID: what this processor has, without virtualization of its own, plus the hypervisor's leaves."""
    entries: list[CpuidEntry] = []

    def add(function: int, index: int = 0, flags: int = 0) -> None:
        a, b, c, d = cpuid(processor, function, index)
        if function == 1:
            c = c & ~(1 << 5) | 1 << 31  # no VMX; running under a hypervisor
            b &= 0x00FFFFFF
        elif function == 0x8000_0001:
            c &= ~(1 << 2)  # no SVM
        elif function == 7:
            a = 0
        entries.append(CpuidEntry(function, index, flags, a, b, c, d))

    for function in range(cpuid(processor, 0, 0)[0] + 1):
        add(function, 0, SIGNIFICANT_INDEX if function in (7, 0xD) else 0)
    words = [int.from_bytes(_SIGNATURE[i : i + 4], "little") for i in (0, 4, 8)]
    entries.append(CpuidEntry(0x4000_0000, 0, 0, 0x4000_0001, *words))
    entries.append(CpuidEntry(0x4000_0001, 0, 0, 0, 0, 0, 0))
    for function in range(0x8000_0000, min(cpuid(processor, 0x8000_0000, 0)[0], 0x8000_0008) + 1):
        add(function)
    return tuple(entries)


def lookup(entries: tuple[CpuidEntry, ...], function: int, index: int, intel: bool) -> tuple[CpuidEntry | None, bool]:
    """(entry, whether it was found exactly). Beyond the highest leaf an Intel processor answers as for its highest basic one."""
    for entry in entries:
        if entry.function == function and (not entry.flags & SIGNIFICANT_INDEX or entry.index == index):
            return entry, True
    limit = next((entry.eax for entry in entries if entry.function == function & 0xC0000000), 0)
    if intel and function > limit and entries:
        highest = next((entry.eax for entry in entries if entry.function == 0), 0)
        for entry in entries:
            if entry.function == highest and (not entry.flags & SIGNIFICANT_INDEX or entry.index == index):
                return entry, False
    return None, False

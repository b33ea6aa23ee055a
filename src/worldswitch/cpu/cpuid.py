"""CPUID: what each leaf says (SDM vol. 2, CPUID; APM vol. 3 appendix E), and which instructions that makes available.

The features announced are those that the processor executes; an instruction whose feature is not announced raises #UD.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worldswitch.arch.registers import Cr4
from worldswitch.cpu.decode import Decoded
from worldswitch.cpu.model import Model

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor

_VENDORS: Final = {"intel": b"GenuineIntel", "amd": b"AuthenticAMD"}

# Leaf 1 (SDM vol. 2 tables 3-10 and 3-11).
_1_ECX: Final = {"CX16": 13, "X2APIC": 21, "MOVBE": 22, "POPCNT": 23, "TSC_DEADLINE": 24}
_1_EDX: Final = {
    "DE": 2, "PSE": 3, "TSC": 4, "MSR": 5, "PAE": 6, "CX8": 8, "APIC": 9, "SEP": 11, "PGE": 13, "CMOV": 15, "PAT": 16, "PSE36": 17, "CLFSH": 19,
}  # fmt: skip
#: iced-x86's feature names that every model offers, beyond the base architecture.
_OFFERED: Final = frozenset({
    "INTEL8086", "INTEL8086_ONLY", "INTEL186", "INTEL286", "INTEL286_ONLY", "INTEL386", "INTEL386_ONLY", "INTEL386_A0_ONLY", "INTEL486",
    "INTEL486_A_ONLY", "X64", "CPUID", "MSR", "TSC", "CX8", "CMOV", "SEP", "SYSCALL", "RDTSCP", "CMPXCHG16B", "POPCNT", "MOVBE", "MULTIBYTENOP",
    "CLFSH", "PAUSE", "SMAP",
})  # fmt: skip
_OFFERED_BY: Final = {"intel": frozenset({"VMX", "INVEPT", "INVVPID", "LAHF_SAHF"}), "amd": frozenset({"SVM", "SKINIT_OR_SVM", "LAHF_SAHF"})}
_FENCES: Final = frozenset({"SSE", "SSE2"})


def offered(model: Model, ins: Decoded) -> bool:
    """Whether CPUID of this model announces what the instruction needs."""
    have = _OFFERED | _OFFERED_BY[model.vendor] | (_FENCES if ins.name.endswith("FENCE") else frozenset())
    return have.issuperset(ins.features)


def _bits(table: dict[str, int]) -> int:
    return sum(1 << bit for bit in table.values())


def _text(raw: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4))


def cpuid(cpu: Processor, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """(EAX, EBX, ECX, EDX), 32 bits each, as the instruction gives them on this processor now."""
    model = cpu.model
    highest, highest_extended = 0x0D, 0x8000_000A if model.vendor == "amd" else 0x8000_0008
    if leaf & 0x8000_0000:
        if leaf > highest_extended:
            # Intel answers as for the highest basic leaf, AMD with zeros.
            return cpuid(cpu, highest, subleaf) if model.vendor == "intel" else (0, 0, 0, 0)
    elif leaf > highest:
        return cpuid(cpu, highest, subleaf) if model.vendor == "intel" else (0, 0, 0, 0)
    b, d, c = _text(_VENDORS[model.vendor])
    family, extended = (model.family, 0) if model.family < 0x0F else (0x0F, model.family - 0x0F)
    signature = model.stepping | (model.model & 0xF) << 4 | family << 8 | model.model >> 4 << 16 | extended << 20
    match leaf:
        case 0:
            return highest, b, c, d
        case 1:
            ecx = _bits(_1_ECX) | (1 << 5 if model.vendor == "intel" else 0)
            if cpu.state.cr4 & Cr4.OSXSAVE:
                ecx |= 1 << 27
            return signature, 8 << 8 | 1 << 16 | cpu.index << 24, ecx, _bits(_1_EDX)
        case 7 if subleaf == 0:
            return 0, 1 << 7 | 1 << 20, 0, 0  # SMEP, SMAP
        case 0x8000_0000:
            return (highest_extended, b, c, d) if model.vendor == "amd" else (highest_extended, 0, 0, 0)
        case 0x8000_0001:
            edx = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29  # SYSCALL, NX, 1-GByte pages, RDTSCP, long mode
            return (signature if model.vendor == "amd" else 0), 0, 1 | (1 << 2 if model.vendor == "amd" else 0), edx  # LAHF, SVM
        case 0x8000_0002 | 0x8000_0003 | 0x8000_0004:
            raw = model.brand.encode().ljust(48, b"\0")[16 * (leaf - 0x8000_0002) :][:16]
            a, b, c, d = _text(raw)
            return a, b, c, d
        case 0x8000_0007:
            return 0, 0, 0, 1 << 8  # invariant TSC
        case 0x8000_0008:
            return model.linear_bits << 8 | model.physical_bits, 0, 0, 0
        case 0x8000_000A if model.vendor == "amd":
            return 1, 0x8000, 0, 1 << 0 | 1 << 3  # revision, ASIDs; nested paging, nRIP save
    return 0, 0, 0, 0

"""Every error of our own: what was wrong, where, and what to do about it.

Calls of the KVM API are the exception: they fail as the kernel's do, with `OSError` and the same errno.
"""

from __future__ import annotations


class WorldswitchError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigurationError(WorldswitchError):
    """A parameter or option that cannot be."""

    def __init__(self, parameter: str, value: object, accepted: str) -> None:
        super().__init__(f"{parameter} = {value!r} is not possible: it must be {accepted}")
        self.parameter = parameter
        self.value = value
        self.accepted = accepted


class UnknownCpuModel(ConfigurationError):
    """There is no processor model of this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__("cpu", name, "one of " + ", ".join(known))
        self.name = name


class UnimplementedInstruction(WorldswitchError):
    """The processor offers this instruction, but this version does not execute it. (Where the architecture says #UD, the guest gets #UD instead.)"""

    def __init__(self, code: bytes, rip: int, mode: str, text: str) -> None:
        super().__init__(
            f"instruction not implemented: {text} (bytes {code.hex(' ')}) at RIP {rip:#x} in {mode}; "
            "the guest cannot go on past it, please report the instruction"
        )
        self.code = code
        self.rip = rip
        self.mode = mode
        self.text = text


class UnimplementedFeature(WorldswitchError):
    """Something that the processor or the hypervisor would do here and this version does not."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} is not implemented (met {where})")
        self.what = what
        self.where = where


class MemoryAccessError(WorldswitchError):
    """A host-side access to guest memory outside of what the guest was given."""

    def __init__(self, address: int, size: int) -> None:
        super().__init__(f"guest-physical {address:#x}..{address + size - 1:#x} is not memory of this machine")
        self.address = address
        self.size = size


class SimulationError(WorldswitchError):
    """An invariant of worldswitch itself broke; this is a defect of ours, please report it with what led to it."""


class ImageError(WorldswitchError):
    """A guest image that cannot be loaded."""

    def __init__(self, image: str, problem: str) -> None:
        super().__init__(f"cannot load {image}: {problem}")
        self.image = image
        self.problem = problem

"""Every error of our own: what was wrong, where, and what to do about it.

Calls of the KVM API are the exception: they fail as the kernel's do, with `OSError` and the same errno. Each error keeps what it says as
typed attributes too, and survives pickling, so that it can come back from another process. Relies on nothing; every layer may raise them.
"""

from __future__ import annotations


class WorldswitchError(Exception):
    """Base of all errors that this package raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own way calls the class with the finished message, which is not what our constructors take.
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(cls: type[WorldswitchError], args: tuple[object, ...]) -> WorldswitchError:
    error = cls.__new__(cls)
    error.args = args
    return error


class ConfigurationError(WorldswitchError):
    """A parameter or option that cannot be: `parameter` by name, its `value`, and what is `accepted` (completes "it must be ...")."""

    def __init__(self, parameter: str, value: object, accepted: str) -> None:
        super().__init__(f"{parameter} = {value!r} is not possible: it must be {accepted}")
        self.parameter = parameter
        self.value = value
        self.accepted = accepted


class UnknownCpuModel(ConfigurationError):
    """There is no processor model of this `name`; `known` are those there are."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__("cpu", name, "one of " + ", ".join(known))
        self.name = name
        self.known = known


class UnimplementedInstruction(WorldswitchError):
    """The processor offers this instruction, but this version does not execute it. (Where the architecture says #UD, the guest gets #UD.)

    `code` is its bytes, `rip` where it lies (as the guest has it in RIP), `mode` the processor's mode there, `text` its disassembly.
    """

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
    """Something that processor or hypervisor would do here and this version does not: `what`, and `where` (completes "met ...")."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} is not implemented (met {where}); nothing can go on past it, please report what needs it")
        self.what = what
        self.where = where


class GuestMemoryError(WorldswitchError):
    """A host-side access to guest memory outside of what the guest was given: guest-physical `address`, `size` in bytes."""

    def __init__(self, address: int, size: int) -> None:
        super().__init__(
            f"access to guest-physical {address:#x}, {size:#x} bytes long: not all of it is memory of this machine; "
            "access only ranges that lie in its RAM or in one memory slot"
        )
        self.address = address
        self.size = size


#: The name it has in `board.memory`.
MemoryAccessError = GuestMemoryError


class SimulationError(WorldswitchError):
    """An invariant of worldswitch itself broke: a defect of ours, whatever the guest did."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} (this is a defect of worldswitch, please report it with what led to it)"


class ImageError(WorldswitchError):
    """A guest `image` (its name or path) that cannot be loaded, and the `problem` with it."""

    def __init__(self, image: str, problem: str) -> None:
        super().__init__(f"cannot load {image}: {problem}")
        self.image = image
        self.problem = problem

"""Rebuild the guest binaries from their sources with binutils: `python -m worldswitch.guests.build [--check]` (`make guests`).

`--check` builds into a temporary directory and compares with what is there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from worldswitch.guests import GUESTS, LOAD_ADDRESS

_HERE = Path(__file__).parent
_TOOLS = ("as", "ld", "objcopy")


def tools_missing() -> list[str]:
    """The binutils programs that are not installed."""
    return [tool for tool in _TOOLS if shutil.which(tool) is None]


def assemble(source: Path) -> bytes:
    """The flat binary of one source."""
    with tempfile.TemporaryDirectory() as directory:
        stem = Path(directory) / source.stem
        for command in (
            ("as", "--64", "-o", f"{stem}.o", str(source)),
            ("ld", "-m", "elf_x86_64", "-Ttext", hex(LOAD_ADDRESS), "-e", "_start", "--build-id=none", "-o", f"{stem}.elf", f"{stem}.o"),
            ("objcopy", "-O", "binary", "-j", ".text", f"{stem}.elf", f"{stem}.bin"),
        ):
            subprocess.run(command, check=True)
        return Path(f"{stem}.bin").read_bytes()


def main(arguments: list[str]) -> int:
    """Build all; 0 if all is well."""
    missing = tools_missing()
    if missing:
        print(f"rebuilding the guest programs needs binutils: {', '.join(missing)} not found", file=sys.stderr)
        return 2
    different = 0
    for guest in GUESTS.values():
        built = assemble(_HERE / f"{guest.name}.S")
        target = _HERE / f"{guest.name}.bin"
        if "--check" in arguments:
            if not target.exists() or target.read_bytes() != built:
                print(f"{target.name} is not what {guest.name}.S assembles to", file=sys.stderr)
                different += 1
            continue
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(built)
        temporary.replace(target)
        print(f"{target.name}: {len(built)} bytes")
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

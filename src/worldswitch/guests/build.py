"""Rebuild the guest binaries from their sources with binutils: `python -m worldswitch.guests.build [--check]` (`make guests`).

`--check` builds into a temporary directory and compares with what is there, byte for byte. The same source gives the same bytes: of what the linker
makes only `.text` is kept, and neither a path nor a time is in it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from worldswitch.errors import ImageError
from worldswitch.guests import GUESTS, LOAD_ADDRESS

_HERE: Final = Path(__file__).parent
_TOOLS: Final = ("as", "ld", "objcopy")


def tools_missing() -> list[str]:
    """The binutils programs that are not installed."""
    return [tool for tool in _TOOLS if shutil.which(tool) is None]


def assemble(source: Path) -> bytes:
    """The flat binary of one source. ImageError, with what the tool said, if one of them fails."""
    with tempfile.TemporaryDirectory() as directory:
        stem = Path(directory) / source.stem
        for command in (
            ("as", "--64", "--fatal-warnings", "-o", f"{stem}.o", str(source)),
            ("ld", "-m", "elf_x86_64", "-Ttext", hex(LOAD_ADDRESS), "-e", "_start", "--build-id=none", "-o", f"{stem}.elf", f"{stem}.o"),
            ("objcopy", "-O", "binary", "-j", ".text", f"{stem}.elf", f"{stem}.bin"),
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ImageError(str(source), f"`{command[0]}` failed (binutils for x86-64 are needed):\n{done.stderr.strip()}")
        return Path(f"{stem}.bin").read_bytes()


def main(arguments: list[str], directory: Path = _HERE) -> int:
    """Build all that is in `directory`, or compare; 0 if all is well, 1 if not, 2 without binutils. Writes nothing unless all of them assemble."""
    parser = argparse.ArgumentParser(prog="python -m worldswitch.guests.build", description="Rebuild the guest programs.")
    parser.add_argument("--check", action="store_true", help="compare with the binaries that are there, and change none")
    check: bool = parser.parse_args(arguments).check
    if missing := tools_missing():
        print(f"rebuilding the guest programs needs binutils: {', '.join(missing)} not found (Debian, Ubuntu: apt install binutils)", file=sys.stderr)
        return 2
    try:
        built = {directory / f"{name}.bin": assemble(directory / f"{name}.S") for name in GUESTS}
    except ImageError as error:
        print(error, file=sys.stderr)
        return 1
    if check:
        different = [target for target, code in built.items() if not target.exists() or target.read_bytes() != code]
        for target in different:
            print(f"{target.name} is not what {target.stem}.S assembles to (`make guests` rebuilds it)", file=sys.stderr)
        return 1 if different else 0
    for target, code in built.items():
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(code)
        temporary.replace(target)
        print(f"{target.name}: {len(code)} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

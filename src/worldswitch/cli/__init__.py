"""The command line: `worldswitch demo`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from worldswitch import __version__
from worldswitch.errors import WorldswitchError

app = typer.Typer(help="KVM as a Python library: virtual machines on a software processor with VMX and SVM.", no_args_is_help=True, add_completion=False)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"worldswitch {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


@app.command()
def demo(
    cpu: Annotated[str, typer.Option(help="The host processor: intel (VMX) or amd (SVM).")] = "intel",
    ticks: Annotated[int, typer.Option(help="Host ticks to run for.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    ack_on_exit: Annotated[bool, typer.Option(help="Intel: acknowledge interrupt on exit.")] = True,
    intr_exiting: Annotated[bool, typer.Option(help="External-interrupt exiting (Intel), the INTR intercept (AMD).")] = True,
    v_intr_masking: Annotated[bool, typer.Option(help="AMD: V_INTR_MASKING.")] = True,
    guest_cli: Annotated[bool, typer.Option("--guest-cli", help="Both guests run with interrupts disabled.")] = False,
    hz: Annotated[int, typer.Option(help="Host ticks a second of virtual time.")] = 250,
    frequency: Annotated[int, typer.Option(help="Processor frequency: cycles a second of virtual time.")] = 20_000_000,
    cycles_per_instruction: Annotated[int, typer.Option(help="Cycles that a guest instruction takes.")] = 4,
    everything: Annotated[bool, typer.Option("--all", help="Tell every tick step by step, and the guests' own timers.")] = False,
) -> None:
    """Two guests share one processor, and the tick takes it back."""
    from worldswitch.cli.demo import run_demo
    from worldswitch.cli.scenario import Options

    options = Options(cpu, ticks, hz, frequency, cycles_per_instruction, ack_on_exit, intr_exiting, v_intr_masking, guest_cli)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)  # into a file or pipe: the table needs the room
    run_demo(options, as_json=as_json, everything=everything, console=console)


def main() -> None:
    """The program. Errors of ours end it with a message and status 2, without a traceback."""
    try:
        app()
    except WorldswitchError as error:
        Console(stderr=True, highlight=False).print(f"worldswitch: {error}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(2) from None

"""`worldswitch demo`: two guests share one processor, and the tick takes it back."""

from __future__ import annotations

import json
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worldswitch.cli.scenario import Machine, Options, build, explanations, vcpu_rows
from worldswitch.cli.timeline import Episode, Step, episodes, summary
from worldswitch.trace.events import SchedSwitch

_COLOURS: Final = {
    "apic": "yellow", "boundary": "magenta", "exit": "bold red", "entry": "bold green", "host": "cyan", "handler": "blue", "sched": "bold cyan", "kvm": "white",
    "delivery": "magenta",
}  # fmt: skip
#: Ticks that are told step by step unless all are asked for; the others get one line.
_IN_FULL: Final = 2


def run_demo(options: Options, *, as_json: bool, everything: bool, console: Console) -> None:
    """Build, run, and print."""
    machine = build(options)
    machine.run()
    story = episodes(list(machine.board.trace))
    if as_json:
        console.print_json(json.dumps(report(machine, story)))
    else:
        _print(machine, story, everything, console)


def report(machine: Machine, story: list[Episode]) -> dict[str, Any]:
    """Everything that the demo shows, as data."""
    ticks = [episode for episode in story if episode.tick]
    unanswered = [episode for episode in story if not episode.tick and not any(step.stage == "handler" for step in episode.steps)]
    options = {name: getattr(machine.options, name) for name in Options.__dataclass_fields__}
    return {
        "options": options,
        "end": machine.end.value if machine.end is not None else None,
        "starved": machine.starved,
        "host_ticks": machine.ticks,
        "virtual_cycles": machine.kernel.cpus[0].now(),
        "explanations": explanations(machine),
        "ticks": [[step.record() for step in episode.steps] for episode in ticks],
        "unanswered": [[step.record() for step in episode.steps] for episode in unanswered],
        "vcpus": vcpu_rows(machine),
        "trace_events": len(machine.board.trace),
    }


def _line(machine: Machine, step: Step, started: int) -> Text:
    line = Text(f"{machine.microseconds(step.time):>11.2f} us  +{step.time - started:>6} ", style="dim")
    line.append(f"{step.stage:<9}", style=_COLOURS[step.stage])
    line.append(step.text, style="default")
    return line


def _print_episode(machine: Machine, episode: Episode, title: str, console: Console) -> None:
    console.print(Text(title, style="bold"))
    for step in episode.steps:
        console.print(_line(machine, step, episode.steps[0].time), soft_wrap=True)
    console.print()


def _print(machine: Machine, story: list[Episode], everything: bool, console: Console) -> None:
    o = machine.options
    speed = f"{o.frequency_hz / 1e6:g} MHz, {o.cycles_per_instruction} cycles an instruction, HZ={o.hz}"
    console.print(Text(f"{machine.board.model.brand}, {speed}; times are virtual: us, and +cycles since the interrupt was raised"), soft_wrap=True)
    console.print()
    number = told = 0
    for episode in story:
        if episode.tick:
            number += 1
            # The first ones that take a guest off the processor are told in full.
            if everything or (episode.in_guest and told < _IN_FULL and episode.first(SchedSwitch) is not None):
                told += 1
                _print_episode(machine, episode, f"Host tick {number}", console)
            else:
                console.print(Text(summary(episode, number)), soft_wrap=True)
        elif not any(step.stage == "handler" for step in episode.steps):
            _print_episode(machine, episode, "A timer interrupt that the host does not get to handle", console)
        elif everything:
            _print_episode(machine, episode, "Timer interrupt (a guest's own timer)", console)
    console.print()
    console.print(_table(machine))
    console.print()
    for sentence in explanations(machine):
        console.print(Text("* " + sentence), soft_wrap=True)
    if machine.starved:
        lasted = machine.microseconds(machine.kernel.cpus[0].now())
        console.print(Text(f"The host starved: {machine.ticks} of {o.ticks} ticks in {lasted:.0f} us of virtual time.", style="bold red"))


def _table(machine: Machine) -> Table:
    table = Table(title="per vCPU", title_justify="left")
    for heading in ("vCPU", "instructions", "exits by reason", "interrupts injected", "host ticks", "CPU share"):
        table.add_column(heading, justify="left" if heading in ("vCPU", "exits by reason") else "right")
    for row in vcpu_rows(machine):
        reasons = ", ".join(f"{name} {count}" for name, count in row["exits_by_reason"].items()) or "-"
        table.add_row(
            row["vcpu"], f"{row['instructions']:,}", reasons, str(row["interrupts_injected"]), str(row["host_ticks"]), f"{row['cpu_share']:.1%}"
        )  # fmt: skip
    return table

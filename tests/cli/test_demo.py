"""`worldswitch demo`: the story it tells, and what each switch changes. The facts are read off the trace and the saved registers, not off the prose."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from typer.testing import CliRunner

from worldswitch.cli import app, main
from worldswitch.cli.scenario import Machine, Options, build, vcpu_rows
from worldswitch.cli.timeline import Episode, episodes
from worldswitch.host.irq import LOCAL_TIMER_VECTOR
from worldswitch.trace import events as t


@cache
def ran(**options: Any) -> Machine:
    machine = build(Options(**options))
    machine.run()
    return machine


def ticks(machine: Machine) -> list[Episode]:
    return [episode for episode in episodes(list(machine.board.trace)) if episode.tick]


def switches(machine: Machine) -> list[Episode]:
    """Ticks that took a guest off the processor."""
    return [e for e in ticks(machine) if e.in_guest and e.first(t.SchedSwitch) is not None and e.first(t.HwVmEntry) is not None]


def order(episode: Episode, *kinds: type) -> list[int]:
    return [next(i for i, step in enumerate(episode.steps) if isinstance(step.event, kind)) for kind in kinds]


@pytest.mark.parametrize("cpu", ["intel", "amd"])
def test_the_story_in_its_order(cpu: str) -> None:
    machine = ran(cpu=cpu)
    assert machine.ticks >= 10
    assert not machine.starved
    assert len(switches(machine)) >= 5
    for episode in switches(machine):
        told = order(
            episode, t.HwApicAccept, t.HwBoundary, t.HwVmExit, t.KvmExit, t.LocalTimerEntry, t.HrtimerExpireEntry, t.SchedSetNeedResched, t.KvmVcpuPut,
            t.SchedSwitch, t.KvmVcpuLoad, t.KvmEntry, t.HwVmEntry,
        )  # fmt: skip
        assert told == sorted(told)
        switch = episode.first(t.SchedSwitch)
        assert {switch.prev_comm, switch.next_comm} == {"vm0-timer", "vm1-cli"}
        assert switch.prev_state == "R+"


@pytest.mark.parametrize("cpu", ["intel", "amd"])
def test_both_guests_share_the_processor_fairly(cpu: str) -> None:
    machine = ran(cpu=cpu, ticks=40)
    rows = {row["vcpu"]: row for row in vcpu_rows(machine)}
    assert rows["vm0-timer"]["cpu_share"] == pytest.approx(rows["vm1-cli"]["cpu_share"], abs=0.05)
    assert sum(row["cpu_share"] for row in rows.values()) == pytest.approx(1, abs=0.001)
    assert sum(row["host_ticks"] for row in rows.values()) == machine.ticks
    assert all(rows[name]["iterations"] > 1000 for name in ("vm0-timer", "vm1-cli"))


@pytest.mark.parametrize("cpu", ["intel", "amd"])
def test_the_timer_guest_gets_each_of_its_own_interrupts_once(cpu: str) -> None:
    row = next(row for row in vcpu_rows(ran(cpu=cpu)) if row["vcpu"] == "vm0-timer")
    assert row["own_timer_interrupts"] >= 5
    # The last one injected may not have reached the handler's counter when the run ends.
    assert row["interrupts_injected"] - row["own_timer_interrupts"] in (0, 1)
    assert row["stranger_interrupts"] == 0


def test_intel_exits_with_if_clear_and_amd_with_gif_clear() -> None:
    for exit_ in ran(cpu="intel").board.trace.of(t.HwVmExit):
        assert exit_.host_rflags == 2
    for exit_ in ran(cpu="amd").board.trace.of(t.HwVmExit):
        assert exit_.gif == 0
        assert exit_.host_rflags >> 9 & 1 == 1
    assert {e.reason_name for e in ran(cpu="intel").board.trace.of(t.HwVmExit)} >= {"EXTERNAL_INTERRUPT", "EPT_VIOLATION"}
    assert {e.reason_name for e in ran(cpu="amd").board.trace.of(t.HwVmExit)} >= {"INTR", "NPF"}


def test_ack_on_exit_gives_the_vector_and_kvm_calls_the_handler() -> None:
    for episode in switches(ran(ack_on_exit=True)):
        assert episode.first(t.HwVmExit).interruption_info == 1 << 31 | LOCAL_TIMER_VECTOR
        told = order(episode, t.HwApicAcknowledge, t.HwVmExit, t.LocalTimerEntry, t.LocalTimerExit, t.IrqEnable)
        assert told == sorted(told)
        assert episode.first(t.IrqEnable).pending == 0


def test_without_ack_on_exit_the_interrupt_waits_for_local_irq_enable() -> None:
    machine = ran(ack_on_exit=False)
    assert machine.ticks >= 10
    for episode in switches(machine):
        assert episode.first(t.HwVmExit).interruption_info == 0
        told = order(episode, t.HwVmExit, t.IrqEnable, t.HwApicAcknowledge, t.LocalTimerEntry)
        assert told == sorted(told)
        assert episode.first(t.IrqEnable).pending == 1


@pytest.mark.parametrize("cpu", ["intel", "amd"])
def test_without_interrupt_exiting_the_guest_takes_the_hosts_tick(cpu: str) -> None:
    machine = ran(cpu=cpu, intr_exiting=False)
    assert machine.starved
    assert machine.ticks == 0
    rows = {row["vcpu"]: row for row in vcpu_rows(machine)}
    assert rows["vm0-timer"]["stranger_interrupts"] == 1
    assert rows["vm0-timer"]["last_stranger_vector"] == LOCAL_TIMER_VECTOR
    assert rows["vm1-cli"]["instructions"] == 0
    # It went through the guest's IDT, and stays in service at the host's local APIC: no further tick can come.
    delivered = [e for e in machine.board.trace.of(t.HwEventDelivered) if e.vector == LOCAL_TIMER_VECTOR]
    assert [e.guest for e in delivered] == [1]
    assert machine.board.apics[0].isr == 1 << LOCAL_TIMER_VECTOR


def test_without_interrupt_exiting_a_guest_with_interrupts_off_keeps_the_processor() -> None:
    machine = ran(intr_exiting=False, guest_cli=True)
    assert machine.starved
    assert machine.board.apics[0].irr == 1 << LOCAL_TIMER_VECTOR
    assert [row["instructions"] > 0 for row in vcpu_rows(machine)] == [True, False, False]


def test_without_v_intr_masking_the_guests_if_masks_the_hosts_tick() -> None:
    machine = ran(cpu="amd", v_intr_masking=False)
    assert machine.starved
    # While the guest with IF = 1 ran, the tick was taken as usual ...
    first = next(e for e in machine.board.trace.of(t.HwVmExit) if e.reason_name == "INTR")
    assert first.guest_rflags >> 9 & 1 == 1
    assert machine.ticks >= 1
    # ... and once the guest with IF = 0 had the processor, it waited, noticed but masked.
    assert not any(e.reason_name == "INTR" and not e.guest_rflags >> 9 & 1 for e in machine.board.trace.of(t.HwVmExit))
    last = list(machine.board.trace.of(t.HwBoundary))[-1]
    assert (last.recognised, last.rflags_if) == (0, 0)
    assert machine.board.apics[0].irr >> LOCAL_TIMER_VECTOR & 1


@pytest.mark.parametrize("cpu", ["intel", "amd"])
def test_guests_that_disabled_interrupts_still_lose_the_processor(cpu: str) -> None:
    machine = ran(cpu=cpu, guest_cli=True)
    assert machine.ticks >= 10
    assert len(switches(machine)) >= 5
    assert all(e.first(t.HwVmExit).guest_rflags >> 9 & 1 == 0 for e in switches(machine))


def test_same_run_same_trace_byte_for_byte() -> None:
    first, second = build(Options(ticks=5)), build(Options(ticks=5))
    first.run()
    second.run()
    assert list(first.board.trace.lines()) == list(second.board.trace.lines())


SENTENCES = {
    (): "external-interrupt exiting",
    ("--cpu", "amd"): "GIF",
    ("--no-ack-on-exit",): "No acknowledge on exit",
    ("--no-intr-exiting",): "through its own IDT",
    ("--cpu", "amd", "--no-v-intr-masking"): "V_INTR_MASKING off",
    ("--guest-cli",): "still lose the processor at the tick",
}


@pytest.mark.parametrize(("arguments", "sentence"), SENTENCES.items(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_each_switch_explains_itself(arguments: tuple[str, ...], sentence: str) -> None:
    result = CliRunner().invoke(app, ["demo", "--ticks", "4", *arguments])
    assert result.exit_code == 0
    assert sentence in result.output
    assert "CPU share" in result.output


def test_json() -> None:
    result = CliRunner().invoke(app, ["demo", "--ticks", "10", "--json"])
    data = json.loads(result.output)
    assert data["host_ticks"] >= 10
    assert len(data["ticks"]) >= 10
    assert data["starved"] is False
    assert {row["vcpu"] for row in data["vcpus"]} == {"vm0-timer", "vm1-cli", "idle"}
    assert {"time", "stage", "event", "text"} == set(data["ticks"][0][0])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--cpu", "vax"], ["cpu", "vax", "intel, amd"]),
        (["--cpu", "amd", "--no-ack-on-exit"], ["ack_on_exit"]),
        (["--no-v-intr-masking"], ["v_intr_masking"]),
        (["--ticks", "0"], ["ticks"]),
        (["--hz", "1"], ["hz"]),
        (["--frequency", "12"], ["frequency_hz"]),
        (["--cycles-per-instruction", "100000"], ["cycles_per_instruction"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_options_end_in_a_clear_message(
    arguments: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["worldswitch", "demo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for name in names:
        assert name in message

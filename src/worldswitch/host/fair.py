"""The fair scheduling class: EEVDF, Linux's since 6.6 ("earliest eligible virtual deadline first", Stoica and Abdel-Wahab 1995).

A processor can run one task at a time, yet each is promised a share of it. This file decides who is next so that the promise holds over any
stretch of time longer than a slice.

Every entity has a virtual runtime, which passes the slower the heavier it is. An entity is *eligible* if it has received no more than its
share: its virtual runtime is not past the queue's average V. Of the eligible ones the earliest virtual deadline wins, where a deadline lies
one slice of virtual time after the entity's last request. What an entity is owed or owes when it goes to sleep (its lag) it finds again
when it wakes up.

This is the bare data structure: no clock, no tasks, no processor. Times are cycles, virtual times 1/1024 cycles; all arithmetic is on
integers, and ties go to the lower key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from worldswitch.errors import ConfigurationError

#: Nice level -20..19 to weight: each step is about 1.25 times the next, nice 0 is 1024.
NICE_TO_WEIGHT: Final = (
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991, 1586, 1277,
    1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23, 18, 15,
)  # fmt: skip
NICE_0_WEIGHT: Final = 1024
#: Virtual time units in a cycle of a nice-0 entity.
_SCALE: Final = 1024


def weight_of(nice: int) -> int:
    """The weight of a nice level. ConfigurationError outside -20..19."""
    if not -20 <= nice <= 19:
        raise ConfigurationError("nice", nice, "from -20 to 19")
    return NICE_TO_WEIGHT[nice + 20]


@dataclass(slots=True, eq=False)
class Entity:
    """One schedulable entity."""

    key: int
    """Breaks ties; unique (the task's pid)."""
    weight: int = NICE_0_WEIGHT
    vruntime: int = 0
    deadline: int = 0
    vlag: int = 0
    """V - vruntime when it left the queue: positive if the queue owes it."""
    slice: int = 0
    """Cycles it asks for at a time."""
    on_rq: bool = False
    sum_exec: int = 0
    """Cycles it has run, ever."""
    protected: bool = field(default=False)
    """It was picked for the request that its deadline stands for, and keeps the processor until that is served."""

    def virtual(self, cycles: int) -> int:
        """Cycles of this entity as virtual time."""
        return cycles * _SCALE * NICE_0_WEIGHT // self.weight


class FairQueue:
    """The entities that want one processor, including the one that has it (`curr`)."""

    def __init__(self) -> None:
        self.entities: list[Entity] = []
        self.curr: Entity | None = None
        self._zero = 0  # V does not go back when the queue runs empty

    # V, the weighted average of virtual runtimes.

    def _total(self) -> tuple[int, int, int]:
        """(sum of weight * (vruntime - v0), sum of weights, v0) with v0 the smallest vruntime: keeps the products small."""
        v0 = min(entity.vruntime for entity in self.entities)
        return sum(e.weight * (e.vruntime - v0) for e in self.entities), sum(e.weight for e in self.entities), v0

    def average(self) -> int:
        """V: what an entity would have if all had got exactly their share."""
        if not self.entities:
            return self._zero
        total, load, v0 = self._total()
        return v0 + total // load

    def eligible(self, entity: Entity) -> bool:
        """The entity has not had more than its share: vruntime <= V, computed without rounding."""
        total, load, v0 = self._total()
        return (entity.vruntime - v0) * load <= total

    # Coming and going.

    def enqueue(self, entity: Entity, *, new: bool = False) -> None:
        """Join. A sleeper keeps its lag; a newcomer starts at V with half a slice's deadline, so that it is not at once behind everybody.

        The running entity must be up to date (`update_curr`), or V is not.
        """
        v = self.average()
        lag = entity.vlag if self.entities else 0  # nobody to owe it, nobody to be owed by
        if lag:
            # Joining moves V; scale the lag so that it is the same afterwards.
            load = sum(e.weight for e in self.entities)
            lag = lag * (load + entity.weight) // load
        entity.vruntime = v - lag
        vslice = entity.virtual(entity.slice)
        entity.deadline = entity.vruntime + (vslice // 2 if new else vslice)
        entity.on_rq, entity.protected = True, False
        self.entities.append(entity)

    def dequeue(self, entity: Entity) -> None:
        """Leave, remembering the lag, bounded to what one request can make of it."""
        v = self.average()
        limit = entity.virtual(2 * entity.slice)
        entity.vlag = max(-limit, min(limit, v - entity.vruntime))
        self._zero = v
        entity.on_rq = False
        self.entities.remove(entity)
        if self.curr is entity:
            self.curr = None

    # Running.

    def update_curr(self, cycles: int) -> bool:
        """The running entity has run for `cycles` more. True if its request is served: somebody else's turn may have come."""
        curr = self.curr
        if curr is None:
            return False
        curr.sum_exec += cycles
        curr.vruntime += curr.virtual(cycles)
        if curr.vruntime < curr.deadline:
            return False
        curr.deadline = curr.vruntime + curr.virtual(curr.slice)
        curr.protected = False
        return True

    def pick(self) -> Entity | None:
        """The eligible entity with the earliest deadline; the running one goes on until its request is served."""
        curr = self.curr
        if curr is not None and curr.on_rq and curr.protected and self.eligible(curr):
            return curr
        best: Entity | None = None
        for entity in self.entities:
            if self.eligible(entity) and (best is None or (entity.deadline, entity.key) < (best.deadline, best.key)):
                best = entity
        return best

    def set_curr(self, entity: Entity | None) -> None:
        """The processor goes to this entity."""
        self.curr = entity
        if entity is not None:
            entity.protected = True

    def wakeup_preempts(self, woken: Entity) -> bool:
        """An entity that just woke up is the one that would be picked now: a running one that is still eligible finishes its request first."""
        return self.pick() is woken

    def yield_curr(self) -> None:
        """sched_yield: the running entity gives up its present request."""
        if self.curr is not None:
            self.curr.deadline += self.curr.virtual(self.curr.slice)
            self.curr.protected = False

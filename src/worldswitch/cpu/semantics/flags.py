"""The flag rules, one for each way in which arithmetic sets flags (SDM vol. 1 §3.4.3.1 and appendix A).

A mix-in for engines: the rules are written over abstract values, so every engine has them; an engine that keeps flags lazily may
override one and must then give the same flags when asked.
"""

from __future__ import annotations

from worldswitch.cpu.value import Core, Value


class FlagRules(Core):
    """`Core`'s named flag rules, in terms of `set_flags`."""

    def flags_of_add(self, a: Value, b: Value, result: Value, carry_in: Value | None = None, *, keep_cf: bool = False) -> None:
        # The carry out of each bit position: where both inputs are 1, or one is and the sum bit is 0.
        carries = (a & b) | ((a | b) & ~result)
        overflow = (a ^ result) & (b ^ result)
        self._set_arithmetic(a ^ b ^ result, carries.msb(), overflow.msb(), result, keep_cf)

    def flags_of_sub(self, a: Value, b: Value, result: Value, borrow_in: Value | None = None, *, keep_cf: bool = False) -> None:
        borrows = (~a & b) | ((~a | b) & result)
        overflow = (a ^ b) & (a ^ result)
        self._set_arithmetic(a ^ b ^ result, borrows.msb(), overflow.msb(), result, keep_cf)

    def _set_arithmetic(self, half: Value, carry: Value, overflow: Value, result: Value, keep_cf: bool) -> None:
        if keep_cf:
            self.set_flags(OF=overflow, SF=result.msb(), ZF=result.eq(0), AF=half.bit(4), PF=result.parity_even())
        else:
            self.set_flags(OF=overflow, SF=result.msb(), ZF=result.eq(0), AF=half.bit(4), PF=result.parity_even(), CF=carry)

    def flags_of_logic(self, result: Value) -> None:
        self.set_flags(OF=0, SF=result.msb(), ZF=result.eq(0), AF=0, PF=result.parity_even(), CF=0)

    def flags_of_result(self, result: Value) -> None:
        self.set_flags(SF=result.msb(), ZF=result.eq(0), PF=result.parity_even())

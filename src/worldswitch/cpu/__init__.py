"""The silicon: one logical processor with decoding, semantics, paging, event delivery, VMX and SVM.

Relies on `arch` for numbers and on `trace` for tracepoints; memory, ports and the interrupt controller come from the board (`cpu.bus`).
"""

"""VMX (SDM vol. 3 ch. 24-29, 31): VMCS access, capabilities, VM-entry checks, entry, exit, what exits, EPT, and the instructions.

A world switch reads top to bottom in `entry` and `exit`. Relies on the rest of `cpu`; what a hypervisor does with it is left to whoever runs in root operation.
"""

"""SVM (APM vol. 2 ch. 15): the VMCB, VMRUN and #VMEXIT, intercepts, virtual interrupts, nested paging, and the instructions.

A world switch reads top to bottom in `vmrun`. Relies on the rest of `cpu`; what a hypervisor does with it is left to whoever runs as the host.
"""

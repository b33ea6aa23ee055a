# Counts with interrupts disabled, for ever. It never enables them, touches no device and never leaves by itself:
# the only way to get the processor back from it is to take it.
        .intel_syntax noprefix
        .code64
        .globl _start
_start:
        cli
        mov     rbx, 0x200000           # the mailbox
        xor     eax, eax
        mov     ecx, 1
1:
        add     rax, rcx                # a little integer work
        rol     rcx, 1
        xor     rax, rcx
        inc     qword ptr [rbx]         # mailbox: counter
        jmp     1b

# Sleeps in HLT between the interrupts of a TSC-deadline timer: shows blocking and wake-up of a vCPU thread.
        .intel_syntax noprefix
        .code64
        .set    MAILBOX, 0x200000
        .set    IDT, 0x210000
        .set    TIMER_VECTOR, 0x41
        .globl _start
_start:
        mov     rbx, MAILBOX
        lea     rax, [rip + timer]
        mov     rdi, IDT + 16 * TIMER_VECTOR
        mov     word ptr [rdi], ax
        mov     word ptr [rdi + 2], 0x08
        mov     word ptr [rdi + 4], 0x8e00
        shr     rax, 16
        mov     word ptr [rdi + 6], ax
        mov     dword ptr [rdi + 8], 0
        mov     dword ptr [rdi + 12], 0
        lidt    [rip + idt_pointer]
        mov     ecx, 0x1b
        rdmsr
        or      eax, 0xc00
        wrmsr
        xor     edx, edx
        mov     ecx, 0x80f
        mov     eax, 0x1ff
        wrmsr
        mov     ecx, 0x832              # LVT timer: TSC deadline
        mov     eax, 0x40000 + TIMER_VECTOR
        wrmsr
        mov     rsi, [rbx + 0x40]       # period in TSC ticks, set by the host; 0: the default
        test    rsi, rsi
        jnz     1f
        mov     esi, 50000
1:      rdtsc
        shl     rdx, 32
        or      rax, rdx
        add     rax, rsi
        mov     rdx, rax
        shr     rdx, 32
        mov     ecx, 0x6e0              # IA32_TSC_DEADLINE
        wrmsr
        sti
        hlt
        cli
        inc     qword ptr [rbx]         # mailbox: wake-ups
        jmp     1b
timer:
        push    rax
        push    rcx
        push    rdx
        inc     qword ptr [rbx + 8]
        xor     eax, eax
        xor     edx, edx
        mov     ecx, 0x80b
        wrmsr
        pop     rdx
        pop     rcx
        pop     rax
        iretq
        .balign 8
idt_pointer:
        .word   256 * 16 - 1
        .quad   IDT

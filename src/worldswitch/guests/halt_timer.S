# Sleeps in HLT between the interrupts of its own timer and counts its wake-ups: shows blocking and wake-up of a vCPU thread.
# The timer fires once each time it is armed, which is before each HLT: a TSC deadline if the host asked for one, else the one-shot timer.
        .intel_syntax noprefix
        .code64
        .set    MAILBOX, 0x200000
        .set    IDT, 0x210000
        .set    TIMER_VECTOR, 0x41
        .globl _start
_start:
        mov     rbx, MAILBOX

        # 256 gates, each to its own stub of 16 bytes.
        mov     rdi, IDT
        lea     rsi, [rip + stubs]
        mov     ecx, 256
1:      mov     rax, rsi
        mov     word ptr [rdi], ax
        mov     word ptr [rdi + 2], 0x08
        mov     word ptr [rdi + 4], 0x8e00      # present, DPL 0, interrupt gate
        shr     rax, 16
        mov     word ptr [rdi + 6], ax
        shr     rax, 16
        mov     dword ptr [rdi + 8], eax
        mov     dword ptr [rdi + 12], 0
        add     rdi, 16
        add     rsi, 16
        loop    1b
        lidt    [rip + idt_pointer]

        # The local APIC: x2APIC mode, software-enabled.
        mov     ecx, 0x1b
        rdmsr
        or      eax, 0xc00
        wrmsr
        xor     edx, edx
        mov     ecx, 0x80f              # spurious-interrupt vector register
        mov     eax, 0x1ff
        wrmsr
        mov     ecx, 0x83e              # divide by 1 (the deadline does not use it)
        mov     eax, 0xb
        wrmsr
        mov     r9, [rbx + 0x40]        # the one-shot timer's count, set by the host; 0: the default
        test    r9, r9
        jnz     2f
        mov     r9d, 50000
2:      mov     eax, TIMER_VECTOR       # LVT timer: one-shot
        mov     r8, [rbx + 0x48]        # the deadline's distance in TSC ticks, set by the host; 0: no deadline
        test    r8, r8
        jz      3f
        or      eax, 0x40000            # LVT timer: TSC deadline
3:      mov     ecx, 0x832
        wrmsr                           # in x2APIC mode no fence is needed before the deadline is written (SDM vol. 3 §11.5.4.1)
4:      call    arm
        sti                             # an interrupt that is due waits until HLT has begun, so none is slept over
        hlt
        cli
        inc     qword ptr [rbx]         # mailbox: wake-ups
        jmp     4b

        # Arms the timer once more: R8 and R9 as above. Changes RAX, RCX, RDX.
arm:
        test    r8, r8
        jz      5f
        rdtsc
        shl     rdx, 32
        or      rax, rdx
        add     rax, r8
        mov     rdx, rax
        shr     rdx, 32
        mov     ecx, 0x6e0              # IA32_TSC_DEADLINE
        wrmsr
        ret
5:      xor     edx, edx
        mov     eax, r9d
        mov     ecx, 0x838              # initial count
        wrmsr
        ret

        # Common tail of all stubs but the exceptions': the vector is on the stack.
common:
        push    rax
        push    rcx
        push    rdx
        mov     rax, [rsp + 24]
        cmp     eax, TIMER_VECTOR
        jne     6f
        inc     qword ptr [rbx + 8]     # mailbox: own timer interrupts
        xor     eax, eax
        xor     edx, edx
        mov     ecx, 0x80b              # end of interrupt
        wrmsr
        jmp     7f
6:      inc     qword ptr [rbx + 0x10]  # mailbox: strangers
        mov     [rbx + 0x18], rax       # ... and the last one's vector
        # No end of interrupt: it did not come from this local APIC.
7:      pop     rdx
        pop     rcx
        pop     rax
        add     rsp, 8
        iretq

        # An exception: nothing here means to cause one. Say which and stop (an error code may lie below the vector; nobody returns).
exception:
        pop     rax
        or      eax, 0x100
        mov     [rbx + 0x20], rax       # mailbox: state
8:      hlt                             # the gate has cleared IF
        jmp     8b

        .balign 16
stubs:
        .set    vector, 0
        .rept   256
        .balign 16
        push    vector
        .if     vector < 32
        jmp     exception
        .else
        jmp     common
        .endif
        .set    vector, vector + 1
        .endr

        .balign 8
idt_pointer:
        .word   256 * 16 - 1
        .quad   IDT

# Counts with interrupts enabled, beside a periodic timer of its own local APIC (x2APIC mode), through its own IDT.
# Vectors it did not ask for are counted apart ("strangers"): on a host that keeps its interrupts to itself there are none.
        .intel_syntax noprefix
        .code64
        .set    MAILBOX, 0x200000
        .set    IDT, 0x210000
        .set    TIMER_VECTOR, 0x40
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

        # The local APIC: x2APIC mode, software-enabled, timer periodic.
        mov     ecx, 0x1b
        rdmsr
        or      eax, 0xc00
        wrmsr
        xor     edx, edx
        mov     ecx, 0x80f              # spurious-interrupt vector register
        mov     eax, 0x1ff
        wrmsr
        mov     ecx, 0x832              # LVT timer: periodic
        mov     eax, 0x20000 + TIMER_VECTOR
        wrmsr
        mov     ecx, 0x83e              # divide by 1
        mov     eax, 0xb
        wrmsr
        mov     rax, [rbx + 0x40]       # period, set by the host; 0: the default
        test    rax, rax
        jnz     2f
        mov     eax, 20000
2:      mov     ecx, 0x838              # initial count
        wrmsr
        sti
3:
        inc     qword ptr [rbx]         # mailbox: counter
        jmp     3b

        # Common tail of all stubs: the vector is on the stack.
common:
        push    rax
        push    rcx
        push    rdx
        mov     rax, [rsp + 24]
        cmp     eax, TIMER_VECTOR
        jne     4f
        inc     qword ptr [rbx + 8]     # mailbox: own timer interrupts
        xor     eax, eax
        xor     edx, edx
        mov     ecx, 0x80b              # end of interrupt
        wrmsr
        jmp     5f
4:      inc     qword ptr [rbx + 0x10]  # mailbox: strangers
        mov     [rbx + 0x18], rax       # ... and the last one's vector
        # No end of interrupt: it did not come from this local APIC.
5:      pop     rdx
        pop     rcx
        pop     rax
        add     rsp, 8
        iretq

        # An exception: nothing here means to cause one. Say which and stop (an error code may lie below the vector; nobody returns).
exception:
        pop     rax
        or      eax, 0x100
        mov     [rbx + 0x20], rax       # mailbox: state
6:      hlt                             # the gate has cleared IF
        jmp     6b

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

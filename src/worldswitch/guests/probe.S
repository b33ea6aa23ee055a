# Asks its surroundings: CPUID, a port, the time-stamp counter, an MSR that does not exist; says hello on port 0xE9.
        .intel_syntax noprefix
        .code64
        .set    MAILBOX, 0x200000
        .set    IDT, 0x210000
        .globl _start
_start:
        mov     r12, MAILBOX
        lea     rax, [rip + gp]
        mov     rdi, IDT + 16 * 13
        mov     word ptr [rdi], ax
        mov     word ptr [rdi + 2], 0x08
        mov     word ptr [rdi + 4], 0x8e00
        shr     rax, 16
        mov     word ptr [rdi + 6], ax
        mov     dword ptr [rdi + 8], 0
        mov     dword ptr [rdi + 12], 0
        lidt    [rip + idt_pointer]
        xor     eax, eax
        cpuid
        mov     [r12 + 0x80], eax
        mov     [r12 + 0x84], ebx
        mov     [r12 + 0x88], ecx
        mov     [r12 + 0x8c], edx
        mov     eax, 1
        cpuid
        mov     [r12 + 0x90], eax
        mov     [r12 + 0x94], ebx
        mov     [r12 + 0x98], ecx
        mov     [r12 + 0x9c], edx
        lea     rsi, [rip + hello]
        mov     edx, 0xe9
1:      lodsb
        test    al, al
        jz      2f
        out     dx, al
        jmp     1b
2:      in      al, 0x80
        mov     [r12 + 0xa0], al
        rdtsc
        mov     [r12 + 0xa8], eax
        mov     [r12 + 0xac], edx
        mov     ecx, 0x12345
        mov     r13, r12                        # mailbox: counter
        rdmsr                                   # #GP(0)
        lea     r13, [r12 + 0xb0]
        xor     eax, eax
        xor     edx, edx
        wrmsr                                   # #GP(0)
        mov     qword ptr [r12 + 0x28], 1       # mailbox: done
3:      hlt
        jmp     3b
gp:     inc     qword ptr [r13]
        add     rsp, 8                          # error code
        add     qword ptr [rsp], 2              # past RDMSR or WRMSR
        iretq
hello:  .asciz  "hello from the guest\n"
        .balign 8
idt_pointer:
        .word   256 * 16 - 1
        .quad   IDT

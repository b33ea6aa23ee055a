# Walks through exceptions in a fixed order, with its own IDT and TSS, and logs what each handler finds: 32-byte records at LOG
# (vector, error code, RIP of the fault, CR2). Every handler goes on at the address in R15.
        .intel_syntax noprefix
        .code64
        .set    MAILBOX, 0x200000
        .set    LOG, 0x201000
        .set    IDT, 0x210000
        .set    TSS, 0x212000
        .set    GDT, 0x213000
        .globl _start
_start:
        mov     rbx, MAILBOX
        mov     r14, LOG
        mov     rdi, IDT
        lea     rsi, [rip + stubs]
        mov     ecx, 256
1:      mov     rax, rsi
        mov     word ptr [rdi], ax
        mov     word ptr [rdi + 2], 0x08
        mov     word ptr [rdi + 4], 0x8e00
        shr     rax, 16
        mov     word ptr [rdi + 6], ax
        mov     dword ptr [rdi + 8], 0
        mov     dword ptr [rdi + 12], 0
        add     rdi, 16
        add     rsi, 16
        loop    1b
        mov     byte ptr [IDT + 8 * 16 + 4], 1          # #DF on IST1
        mov     byte ptr [IDT + 0x30 * 16 + 5], 0x0e    # vector 0x30 is not present
        lidt    [rip + idt_pointer]
        # A GDT of its own: null, code, data, and the TSS descriptor.
        mov     rdi, GDT
        mov     qword ptr [rdi], 0
        mov     rax, 0x00af9b000000ffff
        mov     [rdi + 8], rax
        mov     rax, 0x00cf93000000ffff
        mov     [rdi + 16], rax
        mov     rax, 0x0000892120000067                 # base 0x212000, limit 0x67, available 64-bit TSS
        mov     [rdi + 24], rax
        mov     qword ptr [rdi + 32], 0
        lgdt    [rip + gdt_pointer]
        mov     qword ptr [TSS + 36], 0x8f000           # IST1
        mov     ax, 0x18
        ltr     ax

        lea     r15, [rip + 2f]
        xor     edx, edx
        xor     ecx, ecx
        div     ecx                                     # 0: #DE
2:      lea     r15, [rip + 3f]
        ud2                                             # 6: #UD
3:      lea     r15, [rip + 4f]
        int3                                            # 3: #BP
4:      lea     r15, [rip + 5f]
        mov     rax, 0x40000000
        mov     al, [rax]                               # 14: #PF, not present, read
5:      lea     r15, [rip + 6f]
        mov     rax, 0x40001000
        mov     byte ptr [rax], 1                       # 14: #PF, not present, write
6:      lea     r15, [rip + 7f]
        mov     rax, 0x800000000000
        mov     al, [rax]                               # 13: #GP(0), not canonical
7:      lea     r15, [rip + 8f]
        mov     ax, 0x50
        mov     ds, ax                                  # 13: #GP(0x50), beyond the GDT's limit
8:      lea     r15, [rip + 9f]
        int     0x80                                    # 0x80: software interrupt
9:      lea     r15, [rip + 10f]
        int     0x30                                    # 11: #NP(0x30 * 8 + 2)
10:     lea     r15, [rip + 11f]
        mov     byte ptr [IDT + 13 * 16 + 5], 0x0e      # with #GP's gate not present, #GP becomes #NP, hence #DF
        mov     rax, 0x800000000000
        mov     al, [rax]
11:     mov     byte ptr [IDT + 13 * 16 + 5], 0x8e
        mov     qword ptr [rbx + 0x28], 1               # mailbox: done
12:     hlt
        jmp     12b

        # Error codes are made uniform by the stubs: every frame has one.
common:
        mov     rax, [rsp]                              # vector
        mov     [r14], rax
        mov     rax, [rsp + 8]                          # error code
        mov     [r14 + 8], rax
        mov     rax, [rsp + 16]                         # RIP
        mov     [r14 + 16], rax
        mov     rax, cr2
        mov     [r14 + 24], rax
        add     r14, 32
        inc     qword ptr [rbx]
        mov     [rsp + 16], r15
        add     rsp, 16
        iretq

        .balign 16
stubs:
        .set    vector, 0
        .rept   256
        .balign 16
        .if     (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17)
        .else
        push    0
        .endif
        push    vector
        jmp     common
        .set    vector, vector + 1
        .endr
        .balign 8
idt_pointer:
        .word   256 * 16 - 1
        .quad   IDT
        .balign 8
gdt_pointer:
        .word   5 * 8 - 1
        .quad   GDT

# A small kernel with one user program. The kernel gives it two 4-KByte pages, enters it with IRETQ, serves its system calls (INT 0x80), and logs what it
# is stopped from doing: 32-byte records at LOG (vector, error code, RIP of the fault, CR2). The program goes on at the address in its R15.
        .intel_syntax noprefix
        .code64
        .set    MAILBOX, 0x200000
        .set    LOG, 0x201000
        .set    IDT, 0x210000
        .set    TSS, 0x212000
        .set    GDT, 0x213000
        .set    PAGE_TABLE, 0x216000
        .set    USER_CODE, 0x218000
        .set    USER_STACK, 0x219000
        .set    KERNEL_STACK_TOP, 0x8e000
        .set    US, 4
        .set    CALLS, 10
        .globl _start
_start:
        mov     rbx, MAILBOX
        mov     rdi, IDT
        lea     rsi, [rip + stubs]
        mov     ecx, 256
1:      mov     rax, rsi
        mov     word ptr [rdi], ax
        mov     word ptr [rdi + 2], 0x08
        mov     word ptr [rdi + 4], 0x8e00
        shr     rax, 16
        mov     word ptr [rdi + 6], ax
        shr     rax, 16
        mov     dword ptr [rdi + 8], eax
        mov     dword ptr [rdi + 12], 0
        add     rdi, 16
        add     rsi, 16
        loop    1b
        mov     byte ptr [IDT + 0x80 * 16 + 5], 0xee    # the system call's gate: DPL 3
        lidt    [rip + idt_pointer]

        # A GDT of its own, and a TSS that says where ring 0's stack is.
        lea     rsi, [rip + descriptors]
        mov     edi, GDT
        mov     ecx, 7
        rep movsq
        lgdt    [rip + gdt_pointer]
        xor     eax, eax
        mov     edi, TSS
        mov     ecx, 13
        rep stosq
        mov     qword ptr [TSS + 4], KERNEL_STACK_TOP   # RSP0
        mov     word ptr [TSS + 102], 0x68              # the I/O permission bitmap begins beyond the limit: there is none
        mov     eax, 0x18
        ltr     ax

        # The 2-MByte page at 0x200000 becomes 512 small ones, still one to one and the supervisor's, but for the program's two.
        mov     edi, PAGE_TABLE
        mov     eax, 0x200003                           # present, writable
        mov     ecx, 512
2:      mov     [rdi], rax
        add     rax, 0x1000
        add     rdi, 8
        loop    2b
        or      byte ptr [PAGE_TABLE + 8 * ((USER_CODE >> 12) & 511)], US
        or      byte ptr [PAGE_TABLE + 8 * ((USER_STACK >> 12) & 511)], US
        # User access must be allowed at every level (SDM vol. 3 §4.6.1). The tables are the loader's: CR3 says where.
        mov     r8, 0x000ffffffffff000
        mov     rax, cr3
        and     rax, r8
        or      byte ptr [rax], US                      # PML4 entry 0
        mov     rax, [rax]
        and     rax, r8
        or      byte ptr [rax], US                      # PDPT entry 0
        mov     rax, [rax]
        and     rax, r8
        mov     qword ptr [rax + 8], PAGE_TABLE + 7     # PD entry 1: present, writable, user
        mov     rax, cr3
        mov     cr3, rax                                # nothing of the old mapping stays in the TLB

        lea     rsi, [rip + user]
        mov     edi, USER_CODE
        mov     ecx, user_end - user
        rep movsb

        push    0x2b                                    # SS: user data
        push    USER_STACK + 0x1000                     # RSP
        push    0x202                                   # RFLAGS: IF, IOPL 0
        push    0x33                                    # CS: user code
        push    USER_CODE                               # RIP
        iretq

        # Every frame has an error code (the stubs see to it) and then the vector. The registers are the program's: only RAX is changed, as a result.
common:
        push    rcx
        push    rdx
        push    rbx
        mov     ebx, MAILBOX
        mov     ecx, [rsp + 24]                         # vector
        test    byte ptr [rsp + 48], 3
        jz      die                                     # the kernel's own
        mov     rdx, [rsp + 48]                         # what was interrupted: CS, RSP, SS
        mov     [rbx + 0x80], rdx
        mov     rdx, [rsp + 64]
        mov     [rbx + 0x88], rdx
        mov     rdx, [rsp + 72]
        mov     [rbx + 0x90], rdx
        cmp     ecx, 0x80
        je      system_call
        cmp     ecx, 32
        jae     stranger
        cmp     ecx, 13
        je      log
        cmp     ecx, 14
        jne     die
log:
        mov     rdx, [rbx + 0x98]                       # records so far
        inc     qword ptr [rbx + 0x98]
        shl     rdx, 5
        add     rdx, LOG
        mov     [rdx], rcx
        mov     rcx, [rsp + 32]                         # error code
        mov     [rdx + 8], rcx
        mov     rcx, [rsp + 40]                         # RIP
        mov     [rdx + 16], rcx
        mov     rcx, cr2
        mov     [rdx + 24], rcx
        mov     [rsp + 40], r15
        jmp     back
stranger:
        inc     qword ptr [rbx + 0x10]
        mov     [rbx + 0x18], rcx
        jmp     back                                    # no end of interrupt: this program has no local APIC in use
system_call:
        test    eax, eax
        jnz     finish
        inc     qword ptr [rbx]                         # mailbox: system calls
        mov     rax, [rbx]
back:
        pop     rbx
        pop     rdx
        pop     rcx
        add     rsp, 16
        iretq
finish:
        mov     [rbx + 0xa0], rdi                       # what the program found in DS
        mov     qword ptr [rbx + 0x28], 1               # mailbox: done
        jmp     stop
die:
        or      ecx, 0x100
        mov     [rbx + 0x20], rcx                       # mailbox: state
stop:
        hlt                                             # the gate has cleared IF
        jmp     stop

        # The user program, copied to USER_CODE: it must not care where it lies.
user:
        xor     ebx, ebx
3:      inc     ebx
        call    ask                                     # over its own stack
        cmp     eax, ebx
        jne     unexpected
        cmp     ebx, CALLS
        jne     3b
        lea     r15, [rip + 4f]
        hlt                                             # 13: #GP(0), CPL is not 0
        jmp     unexpected
4:      lea     r15, [rip + 5f]
        cli                                             # 13: #GP(0), CPL above IOPL
        jmp     unexpected
5:      lea     r15, [rip + 6f]
        mov     rax, cr0                                # 13: #GP(0)
        jmp     unexpected
6:      lea     r15, [rip + 7f]
        in      al, 0x80                                # 13: #GP(0), no I/O permission bitmap
        jmp     unexpected
7:      lea     r15, [rip + 8f]
        int     0x30                                    # 13: #GP(0x30 * 8 + 2), the gate's DPL is 0
        jmp     unexpected
8:      lea     r15, [rip + 9f]
        mov     eax, MAILBOX
        mov     al, [rax]                               # 14: #PF(5), present, user
        jmp     unexpected
9:      lea     r15, [rip + 10f]
        mov     eax, MAILBOX + 0x28
        mov     byte ptr [rax], 1                       # 14: #PF(7), present, write, user
        jmp     unexpected
10:     mov     edi, ds                                 # IRETQ left no segment of ring 0 in it (SDM vol. 2, IRET)
        mov     eax, 1
        int     0x80                                    # finish
unexpected:
        ud2                                             # 6: the kernel stops
ask:    xor     eax, eax
        int     0x80
        ret
user_end:

        .balign 16
stubs:
        .set    vector, 0
        .rept   256
        .balign 16
        .if     (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21)
        .else
        push    0
        .endif
        push    vector
        jmp     common
        .set    vector, vector + 1
        .endr

        .balign 8
descriptors:
        .quad   0
        .quad   0x00af9b000000ffff                      # 0x08: 64-bit code
        .quad   0x00cf93000000ffff                      # 0x10: data
        .quad   0x0000892120000067, 0                   # 0x18: base 0x212000, limit 0x67, available 64-bit TSS
        .quad   0x00cff3000000ffff                      # 0x2b: user data
        .quad   0x00affb000000ffff                      # 0x33: user 64-bit code
idt_pointer:
        .word   256 * 16 - 1
        .quad   IDT
        .balign 8
gdt_pointer:
        .word   7 * 8 - 1
        .quad   GDT

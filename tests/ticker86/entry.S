/* How the bare-metal guest for x86-64 is entered: at its start, by interrupts, and by its other processors.
 *
 * Source: own; Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"; AMD64 Architecture Programmer's Manual
 * volume 2, 14.6 (long mode), volume 2, 8.2 (exceptions with error codes).
 */

#define STACKS 0x220000         /* 4 KiB for each processor below STACKS + (id + 1) * 0x1000 */
#define TRAMPOLINE 0x10000

        .section .text.entry, "ax"
        .globl entry
entry:  mov $STACKS + 0x1000, %esp
        call main

        .text
        .macro interrupt name, function
        .globl \name
\name:  push %rax
        push %rcx
        push %rdx
        push %rsi
        push %rdi
        push %r8
        push %r9
        push %r10
        push %r11
        cld
        call \function
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rdi
        pop %rsi
        pop %rdx
        pop %rcx
        pop %rax
        iretq
        .endm

        interrupt timer_entry, timer_of
        interrupt uart_entry, received
        .globl spurious_entry
spurious_entry:
        iretq

timer_of:                       /* of the first processor, or of another, told apart by their stacks */
        cmp $STACKS + 0x1000, %rsp
        jb timer
        jmp wake

        .macro exception vector, has_code
exception_\vector:
        .if !\has_code
        push $0
        .endif
        mov $\vector, %edi
        mov 8(%rsp), %rsi
        call unexpected
        .endm

        .irp vector, 0,1,2,3,4,5,6,7,9,15,16,18,19,20,22,23,24,25,26,27,28,31
        exception \vector, 0
        .endr
        .irp vector, 8,10,11,12,13,14,17,21,29,30
        exception \vector, 1
        .endr

        .section .rodata
        .balign 8
        .globl exception_entries
exception_entries:
        .irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        .quad exception_\vector
        .endr

/* Other processors begin here in real mode, at TRAMPOLINE, and go on in 64-bit mode with the first one's tables. */
        .globl trampoline, trampoline_end
        .code16
trampoline:
        cli
        mov %cs, %ax
        mov %ax, %ds
        lgdtl table - trampoline
        mov %cr4, %eax
        or $0x20, %eax          /* PAE */
        mov %eax, %cr4
        mov $0x9000, %eax       /* where the board put them */
        mov %eax, %cr3
        mov $0xc0000080, %ecx   /* EFER: long mode */
        rdmsr
        or $0x100, %eax
        wrmsr
        mov %cr0, %eax
        or $0x80000001, %eax    /* paging, protection */
        mov %eax, %cr0
        ljmpl $0x10, $TRAMPOLINE + long_mode - trampoline
        .code64
long_mode:
        mov $0x18, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $0xfee00020, %edi
        mov (%rdi), %edi        /* this one's id */
        shr $24, %edi
        lea 1(%rdi), %esp
        shl $12, %esp
        add $STACKS, %esp
        mov $other, %eax
        call *%rax
        .balign 8
table:  .word 0x1f              /* the board's segments */
        .long 0x500
trampoline_end:

        .section .note.GNU-stack, "", @progbits

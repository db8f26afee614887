# The bare-metal guest: counts, ticks, echoes its console and checks memory. Entered in S-mode at 0x80200000
# with a0 = hart id. It never writes into its own image, so it can be started again in place.
#
# The page at STATUS tells what it did (64-bit little-endian words; the magic is written last):
#   0x00 magic "INSTARTK"   0x08 turns of the main loop      0x10 time of the last turn (rdtime)
#   0x18 words verified     0x20 errors found                0x28 ticks printed
#   0x30 timer interrupts   0x38 characters received         0x100 + 8 * hart: turns of the other harts
#
# Console commands, each a line: state, exit, reboot. Everything typed is echoed.
# An error is a wrong word in the window (MEMORY ERROR), a time before the last one (TIME ERROR), or a count in
# floating point that differs from the one in integers (FP ERROR).

        .equ INTERVAL, 100000           # timebase ticks (10 MHz) between timer interrupts
        .equ TICK_EVERY, 100            # timer interrupts between printed ticks
        .equ PATTERN, 1 << 20           # bytes of the window that is written and verified; a multiple of BLOCK
        .equ BUSY, 1                    # 1: count all the time; 0: one turn for each interrupt, WFI between
        .equ HARTS, 8                   # start harts with ids below this, as far as they exist

        .equ STATUS, 0x80210000
        .equ STACK, STATUS + 0x3000
        .equ WINDOW, 0x81000000
        .equ BLOCK, 512                 # bytes checked in a turn
        .equ MIX, 0x9e3779b97f4a7c15    # makes the pattern of each sweep differ in all bytes
        .equ UART, 0x10000000
        .equ PLIC, 0x0c000000
        .equ SYSCON, 0x100000
        .equ UART_IRQ, 10

        .equ COUNTER, 0x08
        .equ STAMP, 0x10
        .equ CHECKS, 0x18
        .equ ERRORS, 0x20
        .equ TICKS, 0x28
        .equ TIMERS, 0x30
        .equ RECEIVED, 0x38
        .equ TURNS, 0x100
        .equ HEAD, 0x200                # characters put into RING by the trap handler, ever
        .equ DEADLINE, 0x208            # time of the next timer interrupt
        .equ UNTIL_TICK, 0x210          # timer interrupts until the next tick
        .equ PENDING, 0x218             # ticks not printed yet
        .equ LINE, 0x300                # the line being typed, LINE_MAX characters and a zero
        .equ LINE_MAX, 127
        .equ RING, 0x400                # characters received, RING_SIZE of them
        .equ RING_SIZE, 256

        .equ SBI_TIME, 0x54494d45
        .equ SBI_HSM, 0x48534d
        .equ SBI_SRST, 0x53525354
        .equ SIE_TIMER, 1 << 5
        .equ SIE_EXTERNAL, 1 << 9
        .equ SSTATUS_SIE, 1 << 1
        .equ SSTATUS_FS_INITIAL, 1 << 13

# Kept all the time: s0 STATUS, s1 UART, s2 next word of the window, s3 sweep, s4 length of LINE,
# s5 characters taken from RING, s7 hart id, s8 the PLIC's registers of this context; fs0 turns, fs1 one.

start:  csrw sie, zero
        csrci sstatus, SSTATUS_SIE
        mv s7, a0
        li s0, STATUS
        li sp, STACK
        li t1, 4096
        add t1, s0, t1
        mv t0, s0
1:      sd zero, 0(t0)
        addi t0, t0, 8
        bltu t0, t1, 1b
        la t0, trap
        csrw stvec, t0
        li t0, SSTATUS_FS_INITIAL
        csrs sstatus, t0
        fscsr zero
        fcvt.d.l fs0, zero
        li t0, 1
        fcvt.d.l fs1, t0
        li s2, WINDOW
        li s3, 1
        li s4, 0
        li s5, 0

        li s1, UART                     # FIFOs on and empty, 8 bits, modem lines, receive interrupt
        li t0, 7
        sb t0, 2(s1)
        li t0, 3
        sb t0, 3(s1)
        li t0, 0x0b
        sb t0, 4(s1)
        li t0, 1
        sb t0, 1(s1)

        li t1, PLIC                     # this hart's supervisor context is 2 * hart + 1
        li t2, 1
        sw t2, 4 * UART_IRQ(t1)
        slli t0, s7, 1
        addi t0, t0, 1
        slli t3, t0, 7
        li t4, 0x2000
        add t3, t3, t4
        add t3, t3, t1
        li t2, 1 << UART_IRQ
        sw t2, 0(t3)
        slli t3, t0, 12
        li t4, 0x200000
        add t3, t3, t4
        add s8, t3, t1
        sw zero, 0(s8)

        li t0, TICK_EVERY
        sd t0, UNTIL_TICK(s0)
        rdtime a0
        sd a0, STAMP(s0)
        li t1, INTERVAL
        add a0, a0, t1
        sd a0, DEADLINE(s0)
        call set_timer
        li t0, 0x4b54524154534e49       # "INSTARTK"
        sd t0, 0(s0)
        la a0, hello
        call puts
        call start_others
        li t0, SIE_TIMER | SIE_EXTERNAL
        csrw sie, t0
        csrsi sstatus, SSTATUS_SIE

# ---------------------------------------------------------------- main loop

main:   ld t0, COUNTER(s0)
        addi t0, t0, 1
        sd t0, COUNTER(s0)
        fadd.d fs0, fs0, fs1
        fcvt.l.d t1, fs0
        beq t0, t1, 1f
        fcvt.d.l fs0, t0
        la a0, fp_error
        call report
1:      rdtime t0
        ld t1, STAMP(s0)
        sd t0, STAMP(s0)
        bgeu t0, t1, 2f
        la a0, time_error
        call report
2:      call check_block
        call console
        call print_ticks
        li t0, BUSY
        bnez t0, main
        csrci sstatus, SSTATUS_SIE      # nothing may come between looking and sleeping; WFI wakes all the same
        ld t0, HEAD(s0)
        bne t0, s5, 3f
        ld t0, PENDING(s0)
        bnez t0, 3f
        wfi
3:      csrsi sstatus, SSTATUS_SIE
        j main

# Verify BLOCK bytes of the window against the last sweep, and write this sweep's: address xor sweep * MIX.
check_block:
        addi sp, sp, -16
        sd ra, 0(sp)
        li t0, MIX
        mul t1, s3, t0
        sub t2, t1, t0
        li t6, BLOCK
        add t6, s2, t6
        li a2, 0                        # address of the first wrong word
        li t0, 1
        beq s3, t0, 4f
        ld t0, CHECKS(s0)
        addi t0, t0, BLOCK / 8
        sd t0, CHECKS(s0)
1:      ld t3, 0(s2)
        xor t4, s2, t2
        beq t3, t4, 3f
        ld t0, ERRORS(s0)
        addi t0, t0, 1
        sd t0, ERRORS(s0)
        bnez a2, 3f
        mv a2, s2
3:      xor t4, s2, t1
        sd t4, 0(s2)
        addi s2, s2, 8
        bltu s2, t6, 1b
        j 5f
4:      xor t4, s2, t1                  # the first sweep only writes
        sd t4, 0(s2)
        addi s2, s2, 8
        bltu s2, t6, 4b
5:      li t0, WINDOW + PATTERN
        bltu s2, t0, 6f
        li s2, WINDOW
        addi s3, s3, 1
6:      beqz a2, 7f
        la a0, memory_error
        call puts
        mv a0, a2
        call put_hex
        li a0, '\n'
        call putc
7:      ld ra, 0(sp)
        addi sp, sp, 16
        ret

# Count an error and print the text in a0.
report: ld t0, ERRORS(s0)
        addi t0, t0, 1
        sd t0, ERRORS(s0)
        j puts

# Print a line for each tick that the timer made.
print_ticks:
        addi sp, sp, -16
        sd ra, 0(sp)
        sd s11, 8(sp)
        addi t0, s0, PENDING
        amoswap.d s11, zero, (t0)
1:      beqz s11, 2f
        ld a2, TICKS(s0)
        addi a2, a2, 1
        sd a2, TICKS(s0)
        la a0, tick
        call puts
        mv a0, a2
        call put_decimal
        li a0, '\n'
        call putc
        addi s11, s11, -1
        j 1b
2:      ld s11, 8(sp)
        ld ra, 0(sp)
        addi sp, sp, 16
        ret

# ---------------------------------------------------------------- console

# Echo what was received; at the end of a line do what it says.
console:
        addi sp, sp, -16
        sd ra, 0(sp)
1:      ld t0, HEAD(s0)
        beq t0, s5, 4f
        andi t0, s5, RING_SIZE - 1
        add t0, t0, s0
        lbu a0, RING(t0)
        addi s5, s5, 1
        li t0, '\n'
        beq a0, t0, 2f
        li t0, '\r'
        beq a0, t0, 2f
        call putc
        li t0, LINE_MAX
        bgeu s4, t0, 1b
        add t0, s0, s4
        sb a0, LINE(t0)
        addi s4, s4, 1
        j 1b
2:      li a0, '\n'
        call putc
        add t0, s0, s4
        sb zero, LINE(t0)
        li s4, 0
        call command
        j 1b
4:      ld ra, 0(sp)
        addi sp, sp, 16
        ret

command:
        addi sp, sp, -16
        sd ra, 0(sp)
        la a1, word_exit
        call line_is
        bnez a0, power_off
        la a1, word_reboot
        call line_is
        bnez a0, reboot
        la a1, word_state
        call line_is
        beqz a0, 1f
        call state
1:      ld ra, 0(sp)
        addi sp, sp, 16
        ret

# a0 = whether LINE is the text at a1.
line_is:
        addi t0, s0, LINE
1:      lbu t1, 0(t0)
        lbu t2, 0(a1)
        bne t1, t2, 2f
        addi t0, t0, 1
        addi a1, a1, 1
        bnez t1, 1b
        li a0, 1
        ret
2:      li a0, 0
        ret

# Print the words of the status page that count something.
state:  addi sp, sp, -32
        sd ra, 0(sp)
        sd s9, 8(sp)
        sd s10, 16(sp)
        la s9, state_words
        la s10, state_end
1:      la a0, space
        ld t0, 8(s9)
        add a0, a0, t0                  # text of this word
        call puts
        ld t0, 0(s9)
        add t0, t0, s0
        ld a0, 0(t0)
        call put_decimal
        addi s9, s9, 16
        bltu s9, s10, 1b
        li a0, '\n'
        call putc
        ld s10, 16(sp)
        ld s9, 8(sp)
        ld ra, 0(sp)
        addi sp, sp, 32
        ret

power_off:
        li a0, 0
        li s11, 0x5555
        j leave
reboot: li a0, 1
        li s11, 0x7777
# Ask SBI for the reset in a0; if it has none, write s11 to the syscon.
leave:  li a1, 0
leave_because:
        li a6, 0
        li a7, SBI_SRST
        ecall
        li t0, SYSCON
        sw s11, 0(t0)
1:      wfi
        j 1b

# ---------------------------------------------------------------- output

# Print the character a0.
putc:   lbu t0, 5(s1)
        andi t0, t0, 0x20
        beqz t0, putc
        sb a0, 0(s1)
        ret

# Print the text at a0, up to a zero.
puts:   lbu t1, 0(a0)
        beqz t1, 2f
1:      lbu t0, 5(s1)
        andi t0, t0, 0x20
        beqz t0, 1b
        sb t1, 0(s1)
        addi a0, a0, 1
        j puts
2:      ret

# Print a0 in decimal, or in base 16.
put_hex:
        li t3, 16
        j 1f
put_decimal:
        li t3, 10
1:      addi sp, sp, -48
        sd ra, 0(sp)
        addi t2, sp, 47
        sb zero, 0(t2)
2:      remu t1, a0, t3
        divu a0, a0, t3
        la t0, digits
        add t0, t0, t1
        lbu t1, 0(t0)
        addi t2, t2, -1
        sb t1, 0(t2)
        bnez a0, 2b
        mv a0, t2
        call puts
        ld ra, 0(sp)
        addi sp, sp, 48
        ret

# ---------------------------------------------------------------- interrupts

        .align 2
trap:   addi sp, sp, -128
        sd t0, 0(sp)
        sd t1, 8(sp)
        sd t2, 16(sp)
        sd t3, 24(sp)
        sd a0, 32(sp)
        sd a1, 40(sp)
        sd a6, 48(sp)
        sd a7, 56(sp)
        sd ra, 64(sp)
        csrr t0, scause
        bgez t0, unexpected
        andi t0, t0, 0xff
        li t1, 5
        beq t0, t1, timer
        li t1, 9
        bne t0, t1, unexpected

        lw t0, 4(s8)                    # claim
        beqz t0, resume
1:      lbu t1, 5(s1)
        andi t1, t1, 1
        beqz t1, 2f
        lbu t2, 0(s1)
        ld t1, HEAD(s0)
        sub t3, t1, s5
        addi t3, t3, -RING_SIZE
        bgez t3, 1b                     # no room: lost, as on a real line
        andi t3, t1, RING_SIZE - 1
        add t3, t3, s0
        sb t2, RING(t3)
        addi t1, t1, 1
        sd t1, HEAD(s0)
        sd t1, RECEIVED(s0)
        j 1b
2:      sw t0, 4(s8)                    # complete
        j resume

timer:  ld t0, TIMERS(s0)
        addi t0, t0, 1
        sd t0, TIMERS(s0)
        ld t0, UNTIL_TICK(s0)
        addi t0, t0, -1
        bnez t0, 1f
        ld t1, PENDING(s0)
        addi t1, t1, 1
        sd t1, PENDING(s0)
        li t0, TICK_EVERY
1:      sd t0, UNTIL_TICK(s0)
        ld a0, DEADLINE(s0)
        li t1, INTERVAL
        add a0, a0, t1
        rdtime t0
        bltu t0, a0, 2f
        add a0, t0, t1                  # late by more than an interval: go on from now
2:      sd a0, DEADLINE(s0)
        call set_timer

resume: ld ra, 64(sp)
        ld a7, 56(sp)
        ld a6, 48(sp)
        ld a1, 40(sp)
        ld a0, 32(sp)
        ld t3, 24(sp)
        ld t2, 16(sp)
        ld t1, 8(sp)
        ld t0, 0(sp)
        addi sp, sp, 128
        sret

# A trap that should not be: say which, and power off as failed.
unexpected:
        la a0, unexpected_trap
        call puts
        csrr a0, scause
        call put_hex
        la a0, at
        call puts
        csrr a0, sepc
        call put_hex
        li a0, '\n'
        call putc
        li s11, 0x13333                 # syscon: failed, status 1
        li a0, 0
        li a1, 1                        # reason: system failure
        j leave_because

# Ask for the next timer interrupt at time a0.
set_timer:
        li a6, 0
        li a7, SBI_TIME
        ecall
        ret

# ---------------------------------------------------------------- other harts

start_others:
        addi sp, sp, -16
        sd ra, 0(sp)
        sd s11, 8(sp)
        li s11, HARTS
1:      beqz s11, 2f
        addi s11, s11, -1
        beq s11, s7, 1b
        mv a0, s11
        la a1, other
        li a2, 0
        li a6, 0
        li a7, SBI_HSM
        ecall                           # an error means that there is no such hart
        j 1b
2:      ld s11, 8(sp)
        ld ra, 0(sp)
        addi sp, sp, 16
        ret

other:  li t0, SIE_TIMER
        csrw sie, t0                    # WFI wakes for it; the trap itself stays off
        li s0, STATUS
        slli t0, a0, 3
        add s0, s0, t0
1:      ld t0, TURNS(s0)
        addi t0, t0, 1
        sd t0, TURNS(s0)
        li t0, BUSY
        bnez t0, 1b
        rdtime a0
        li t0, INTERVAL
        add a0, a0, t0
        call set_timer
        wfi
        j 1b

# ---------------------------------------------------------------- texts

        .align 3
state_words:
        .dword COUNTER, text_counter - space
        .dword CHECKS, text_checks - space
        .dword ERRORS, text_errors - space
        .dword TICKS, text_ticks - space
        .dword TIMERS, text_timers - space
        .dword RECEIVED, text_received - space
state_end:
space:
text_counter:   .asciz "counter "
text_checks:    .asciz " checks "
text_errors:    .asciz " errors "
text_ticks:     .asciz " ticks "
text_timers:    .asciz " timers "
text_received:  .asciz " received "
hello:          .asciz "ticker: started\n"
tick:           .asciz "tick "
memory_error:   .asciz "MEMORY ERROR at "
time_error:     .asciz "TIME ERROR\n"
fp_error:       .asciz "FP ERROR\n"
unexpected_trap: .asciz "UNEXPECTED TRAP "
at:             .asciz " at "
word_exit:      .asciz "exit"
word_reboot:    .asciz "reboot"
word_state:     .asciz "state"
digits:         .ascii "0123456789abcdef"

/* The bare-metal guest for x86-64: what src/instar/image/guest/ticker.s is for riscv64, with the same outside.
 *
 * It counts, ticks, echoes its console and checks memory, with integer instructions only, so that a KVM that knows no
 * others runs it, too. Entered in 64-bit mode as Linux's 64-bit boot protocol has it (entry.S). What the words of the
 * page at STATUS mean is said there and in ticker.s. The constants that -D may set are those of ticker.s, too.
 *
 * Console commands, each a line: state, exit, reboot. Everything typed is echoed.
 *
 * Source: own; Intel SDM volume 3A, 6.14 (64-bit interrupt gates), 8.4 (starting processors), 10.5 (local APIC timer);
 * Intel 82093AA data sheet (IOAPIC); National Semiconductor PC16550D data sheet.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#ifndef INTERVAL
#define INTERVAL 100000 /* units of 100 ns between timer interrupts */
#endif
#ifndef TICK_EVERY
#define TICK_EVERY 100 /* timer interrupts between printed ticks */
#endif
#ifndef PATTERN
#define PATTERN (1 << 20) /* bytes of the window that is written and verified; a multiple of BLOCK */
#endif
#ifndef BUSY
#define BUSY 1 /* 1: count all the time; 0: one turn for each interrupt, HLT between */
#endif
#ifndef HARTS
#define HARTS 8 /* start processors with ids below this, as far as they exist; 8 at most */
#endif

#define BLOCK 512 /* bytes checked in a turn */
#define MIX 0x9e3779b97f4a7c15UL /* makes the pattern of each sweep differ in all bytes */
#define WINDOW ((volatile u64 *)0x1000000)
#define WINDOW_END ((volatile u64 *)(0x1000000 + PATTERN))

#define UART 0x3f8
#define SLEEP_CONTROL 0x600
#define SOFT_OFF 0x34 /* SLP_EN, SLP_TYP 5 */
#define RESET 0x602
#define DEBUG_EXIT 0x501
#define PIC_MASK 0x21
#define PIC_MASK_2 0xa1
#define UART_PIN 4
#define TIMER_VECTOR 0x40
#define UART_VECTOR 0x41
#define SPURIOUS_VECTOR 0xff
#define EXCEPTIONS 32
#define CODE_SEGMENT 0x10
#define TRAMPOLINE 0x10000 /* where the others start: page 0x10 */
#define APIC_PER_UNIT 100 /* the local APIC's timer counts nanoseconds */

#define LINE_MAX 127
#define RING_SIZE 256

struct status {
    char magic[8];
    u64 counter, stamp, checks, errors, ticks, timers, received;
    u64 unused[24];
    u64 turns[8];
    u64 unused2[24];
};
_Static_assert(__builtin_offsetof(struct status, turns) == 0x100, "the page is laid out as in ticker.s");

#define STATUS ((volatile struct status *)0x210000)

struct gate {
    u16 low, segment;
    u8 stack, kind;
    u16 middle;
    u32 high, zero;
};

static struct gate gates[256];
static volatile u64 head;                  /* characters put into ring, ever */
static volatile u64 pending;               /* ticks not printed yet */
static u64 until_tick;                     /* timer interrupts until the next tick */
static volatile char ring[RING_SIZE];
static u64 taken;                          /* characters taken from ring, ever */
static char line[LINE_MAX + 1];
static u64 length;
static volatile u64 *next;                 /* word of the window */
static u64 sweep;

/* entry.S */
extern void (*const exception_entries[EXCEPTIONS])(void);
extern void timer_entry(void), uart_entry(void), spurious_entry(void);
extern const u8 trampoline[], trampoline_end[];

static inline void out(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

static inline u8 in(u16 port) {
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u64 now(void) {
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (u64)high << 32;
}

static inline volatile u32 *apic(u32 at) { return (volatile u32 *)(0xfee00000UL + at); }

static void ioapic(u32 index, u32 value) {
    *(volatile u32 *)0xfec00000UL = index;
    *(volatile u32 *)0xfec00010UL = value;
}

/* ------------------------------------------------------------------------------------------------- output */

static void putc(char c) {
    while (!(in(UART + 5) & 0x20))
        ;
    out(UART, c);
}

static void puts(const char *text) {
    while (*text)
        putc(*text++);
}

static void put_number(u64 n, u64 base) {
    char digits[24];
    int at = sizeof digits;
    digits[--at] = 0;
    do
        digits[--at] = "0123456789abcdef"[n % base];
    while (n /= base);
    puts(digits + at);
}

static void report(const char *text) {
    STATUS->errors++;
    puts(text);
}

static _Noreturn void halt(void) {
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* ------------------------------------------------------------------------------------------------- interrupts */

void timer(void) {
    STATUS->timers++;
    if (--until_tick == 0) {
        pending++;
        until_tick = TICK_EVERY;
    }
    *apic(0xb0) = 0;
}

void received(void) {
    while (in(UART + 5) & 1) {
        char c = in(UART);
        if (head - taken >= RING_SIZE)
            continue; /* no room: lost, as on a real line */
        ring[head % RING_SIZE] = c;
        head++;
        STATUS->received = head;
    }
    *apic(0xb0) = 0;
}

/* An exception, where none should be: say which, and end as failed. */
_Noreturn void unexpected(u64 vector, u64 where) {
    puts("UNEXPECTED TRAP ");
    put_number(vector, 16);
    puts(" at ");
    put_number(where, 16);
    putc('\n');
    out(DEBUG_EXIT, 1);
    halt();
}

static void set_gate(int vector, void (*entry)(void)) {
    u64 at = (u64)entry;
    gates[vector] = (struct gate){.low = at, .segment = CODE_SEGMENT, .kind = 0x8e, .middle = at >> 16, .high = at >> 32};
}

static void load_gates(void) {
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) table = {sizeof gates - 1, (u64)gates};
    __asm__ volatile("lidt %0" : : "m"(table));
}

static void start_timer(void) {
    *apic(0x80) = 0;
    *apic(0xf0) = 0x100 | SPURIOUS_VECTOR;
    *apic(0x3e0) = 0xb; /* divided by 1 */
    *apic(0x320) = 1 << 17 | TIMER_VECTOR; /* periodic */
    *apic(0x380) = INTERVAL * APIC_PER_UNIT;
}

/* ------------------------------------------------------------------------------------------------- other processors */

/* Runs on each of the others. */
void other(u64 id) {
    if (!BUSY) {
        load_gates();
        start_timer();
    }
    for (;;) {
        STATUS->turns[id]++;
        if (!BUSY)
            __asm__ volatile("sti; hlt; cli");
    }
}

/* Of the others the timer only wakes them. */
void wake(void) { *apic(0xb0) = 0; }

static void send(u32 id, u32 command) {
    *apic(0x310) = id << 24;
    *apic(0x300) = command;
    while (*apic(0x300) & 1 << 12)
        ;
}

static void start_others(void) {
    volatile u8 *to = (volatile u8 *)TRAMPOLINE;
    for (const u8 *from = trampoline; from < trampoline_end; from++)
        *to++ = *from;
    for (u32 id = 1; id < HARTS; id++) {
        send(id, 0x4500); /* INIT */
        send(id, 0x4600 | TRAMPOLINE >> 12);
    }
}

/* ------------------------------------------------------------------------------------------------- console */

static int line_is(const char *word) {
    const char *at = line;
    while (*at && *at == *word)
        at++, word++;
    return *at == *word;
}

static void put_count(const char *name, u64 value) {
    puts(name);
    put_number(value, 10);
}

static void command(void) {
    if (line_is("exit"))
        out(SLEEP_CONTROL, SOFT_OFF);
    else if (line_is("reboot"))
        out(RESET, 1);
    else if (line_is("state")) {
        put_count("counter ", STATUS->counter);
        put_count(" checks ", STATUS->checks);
        put_count(" errors ", STATUS->errors);
        put_count(" ticks ", STATUS->ticks);
        put_count(" timers ", STATUS->timers);
        put_count(" received ", STATUS->received);
        putc('\n');
    }
}

/* Echo what was received; at the end of a line do what it says. */
static void console(void) {
    while (taken != head) {
        char c = ring[taken++ % RING_SIZE];
        if (c == '\n' || c == '\r') {
            putc('\n');
            line[length] = 0;
            length = 0;
            command();
        } else {
            putc(c);
            if (length < LINE_MAX)
                line[length++] = c;
        }
    }
}

/* Print a line for each tick that the timer made. */
static void print_ticks(void) {
    u64 count = 0;
    __asm__ volatile("xchgq %0, %1" : "+r"(count), "+m"(pending));
    while (count--) {
        puts("tick ");
        put_number(++STATUS->ticks, 10);
        putc('\n');
    }
}

/* ------------------------------------------------------------------------------------------------- main loop */

/* Verify BLOCK bytes of the window against the last sweep, and write this sweep's: address xor sweep * MIX. */
static void check_block(void) {
    volatile u64 *end = next + BLOCK / 8, *wrong = 0;
    u64 mix = sweep * MIX, last = mix - MIX;
    if (sweep > 1)
        STATUS->checks += BLOCK / 8;
    for (; next < end; next++) {
        if (sweep > 1 && *next != ((u64)next ^ last)) {
            STATUS->errors++;
            wrong = wrong ? wrong : next;
        }
        *next = (u64)next ^ mix;
    }
    if (next >= WINDOW_END) {
        next = WINDOW;
        sweep++;
    }
    if (wrong) {
        puts("MEMORY ERROR at ");
        put_number((u64)wrong, 16);
        putc('\n');
    }
}

static void set_up(void) {
    for (volatile u64 *at = (volatile u64 *)STATUS; at < (volatile u64 *)(STATUS + 1); at++)
        *at = 0;
    for (int n = 0; n < EXCEPTIONS; n++)
        set_gate(n, exception_entries[n]);
    set_gate(TIMER_VECTOR, timer_entry);
    set_gate(UART_VECTOR, uart_entry);
    set_gate(SPURIOUS_VECTOR, spurious_entry);
    load_gates();
    next = WINDOW;
    sweep = 1;
    until_tick = TICK_EVERY;
    out(PIC_MASK, 0xff); /* the serial port's line goes there, too */
    out(PIC_MASK_2, 0xff);
    out(UART + 2, 7); /* FIFOs on and empty, 8 bits, modem lines, receive interrupt */
    out(UART + 3, 3);
    out(UART + 4, 0x0b);
    out(UART + 1, 1);
    ioapic(0x11 + 2 * UART_PIN, 0);
    ioapic(0x10 + 2 * UART_PIN, UART_VECTOR);
}

_Noreturn void main(void) {
    set_up();
    STATUS->stamp = now();
    *(volatile u64 *)STATUS->magic = 0x4b54524154534e49UL; /* "INSTARTK" */
    puts("ticker: started\n");
    start_timer();
    start_others();
    __asm__ volatile("sti");
    for (;;) {
        u64 before = STATUS->stamp;
        STATUS->counter++;
        STATUS->stamp = now();
        if (STATUS->stamp < before)
            report("TIME ERROR\n");
        check_block();
        console();
        print_ticks();
        if (!BUSY) {
            __asm__ volatile("cli"); /* nothing may come between looking and sleeping */
            if (head == taken && !pending)
                __asm__ volatile("sti; hlt");
            __asm__ volatile("sti");
        }
    }
}

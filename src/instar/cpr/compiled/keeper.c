/* A task that shares this program's address space, so that it outlives execve() and is torn down in the task's context.
 *
 * The task runs on a stack of its own, with all signals blocked, and calls the kernel alone: no C library, no
 * thread-local storage (it has this thread's, so errno is not its own), no Python.
 *
 * Source: own; man 2 clone, close_range, execve.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>

#define LEAST_STACK 8192 /* bytes; the task takes a few hundred */

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define SET_NAME 15     /* PR_SET_NAME */
#define SET_MASK 2      /* SIG_SETMASK */
#define MASK_BYTES 8    /* of the kernel's signal set */
#define LAST (~0U)      /* of all descriptors */

/* Where the task finds what it has to do: at the low end of its stack. */
struct order {
    unsigned hold;  /* read end: its end of file is the task's */
    unsigned ready; /* write end: one byte when all else is closed */
};

static long kernel(long number, long a, long b, long c, long d)
{
#if defined(__x86_64__)
    long result;
    register long fourth __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
                     : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
#endif
}

/* Close the descriptors from first to last; there may be none. */
static long close_some(unsigned first, unsigned last)
{
    return first <= last ? kernel(SYS_close_range, first, last, 0, 0) : 0;
}

/* Close all but two. */
static long close_others(unsigned low, unsigned high)
{
    long failed = low > 0 ? close_some(0, low - 1) : 0;
    failed |= close_some(low + 1, high - 1);
    return failed | close_some(high + 1, LAST);
}

static int task(void *given)
{
    const struct order *order = given;
    unsigned hold = order->hold, ready = order->ready;
    char byte = 'k';
    long failed;

    kernel(SYS_prctl, SET_NAME, (long)"instar-keeper", 0, 0);
    failed = hold < ready ? close_others(hold, ready) : close_others(ready, hold);
    if (failed == 0 && kernel(SYS_write, ready, (long)&byte, 1, 0) == 1) {
        kernel(SYS_close, ready, 0, 0, 0);
        while (kernel(SYS_read, hold, (long)&byte, 1, 0) == -EINTR)
            ;
    }
    close_some(0, LAST); /* the address space goes first, and descriptors must not wait for that */
    for (;;)
        kernel(SYS_exit, 0, 0, 0, 0);
    return 0;
}

static long start(char *stack, Py_ssize_t size, unsigned hold, unsigned ready)
{
    struct order *order = (struct order *)stack;
    uintptr_t top = ((uintptr_t)stack + (uintptr_t)size) & ~(uintptr_t)15;
    uint64_t all = ~(uint64_t)0, before = 0;
    long pid;
    int error;

    order->hold = hold;
    order->ready = ready;
    /* Not by the C library, which leaves signals of its own unblocked: no handler may run on that stack. */
    kernel(SYS_rt_sigprocmask, SET_MASK, (long)&all, (long)&before, MASK_BYTES);
    /* No signal at its end, so a program that waits for any child does not come by it. */
    pid = clone(task, (void *)top, CLONE_VM, order);
    error = errno;
    kernel(SYS_rt_sigprocmask, SET_MASK, (long)&before, 0, MASK_BYTES);
    errno = error;
    return pid;
}

#else

static long start(char *stack, Py_ssize_t size, unsigned hold, unsigned ready)
{
    (void)stack, (void)size, (void)hold, (void)ready;
    errno = ENOSYS;
    return -1;
}

#endif

static PyObject *keeper_start(PyObject *self, PyObject *args)
{
    Py_buffer stack;
    int hold, ready;
    long pid = -1;

    (void)self;
    if (!PyArg_ParseTuple(args, "w*ii:start", &stack, &hold, &ready))
        return NULL;
    if (stack.len < LEAST_STACK || hold < 0 || ready < 0 || hold == ready)
        PyErr_SetString(PyExc_ValueError, "the stack is too small, or these are no two descriptors");
    else if ((pid = start(stack.buf, stack.len, (unsigned)hold, (unsigned)ready)) < 0)
        PyErr_SetFromErrno(PyExc_OSError);
    PyBuffer_Release(&stack);
    return pid < 0 ? NULL : PyLong_FromLong(pid);
}

static PyMethodDef methods[] = {
    {"start", keeper_start, METH_VARARGS, "start(stack, hold, ready) -> pid"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "instar.cpr._keeper", .m_size = 0, .m_methods = methods,
};

PyMODINIT_FUNC PyInit__keeper(void)
{
    return PyModule_Create(&module);
}

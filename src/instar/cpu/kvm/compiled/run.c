/* What the standard library cannot say to KVM: a vCPU's run that a kick ends for certain, and arguments of 64 bits.
 *
 * A kick is race free because it has two halves. The byte immediate_exit in struct kvm_run makes a KVM_RUN return that
 * has not begun; the signal makes one return that has. The handler does nothing and the signal is not restarted.
 *
 * Source: own; Linux Documentation/virt/kvm/api.rst 4.10 KVM_RUN, "immediate_exit"; man 2 tgkill, sigaction.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int kick_signal(void)
{
    return SIGRTMIN + 6; /* whichever the C library leaves; nothing else of Instar uses real-time signals */
}

static void nothing(int Py_UNUSED(number))
{
}

static PyObject *accept_kicks(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arguments))
{
    struct sigaction action = {.sa_handler = nothing}; /* no SA_RESTART: KVM_RUN has to return */
    sigset_t mine;
    sigemptyset(&action.sa_mask);
    sigemptyset(&mine);
    sigaddset(&mine, kick_signal());
    if (sigaction(kick_signal(), &action, NULL) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    int error = pthread_sigmask(SIG_UNBLOCK, &mine, NULL);
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *kick(PyObject *Py_UNUSED(module), PyObject *argument)
{
    long thread = PyLong_AsLong(argument);
    if (thread == -1 && PyErr_Occurred())
        return NULL;
    if (syscall(SYS_tgkill, getpid(), thread, kick_signal()) != 0 && errno != ESRCH)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *run(PyObject *Py_UNUSED(module), PyObject *argument)
{
    int result, error;
    long fd = PyLong_AsLong(argument);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = ioctl((int)fd, KVM_RUN, 0UL);
    error = result < 0 ? errno : 0;
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(error);
}

static PyObject *call(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    int fd, result;
    unsigned long request, value;
    if (!PyArg_ParseTuple(arguments, "ikk", &fd, &request, &value))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = ioctl(fd, request, value);
    Py_END_ALLOW_THREADS
    if (result < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(result);
}

static PyObject *address_of(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(argument, &buffer, PyBUF_WRITABLE) < 0)
        return NULL;
    PyObject *address = PyLong_FromVoidPtr(buffer.buf);
    PyBuffer_Release(&buffer);
    return address;
}

static PyMethodDef methods[] = {
    {"accept_kicks", accept_kicks, METH_NOARGS, "Let kicks end what the calling thread waits for."},
    {"address_of", address_of, METH_O, "Return where a writable buffer is."},
    {"call", call, METH_VARARGS, "ioctl(fd, request, unsigned 64-bit value), without the GIL."},
    {"kick", kick, METH_O, "Kick a thread of this process, by its id of the host; one that ended is fine."},
    {"run", run, METH_O, "KVM_RUN without the GIL; return 0 or errno."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_run",
    .m_doc = "The compiled part of the KVM back end.",
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__run(void)
{
    return PyModule_Create(&module);
}

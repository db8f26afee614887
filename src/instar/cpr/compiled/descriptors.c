/* What an update does with each of thousands of descriptors while work stands still: two system calls, nothing else.
 *
 * Source: own; man 2 fstat, fcntl.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

/* As instar.cpr.group packs it; all ones: the descriptor is not open. */
struct identity {
    uint64_t device;
    uint64_t inode;
    uint64_t special; /* device that a special file stands for */
    uint64_t type;
};

/* Return how many numbers there are, -1 with an exception if it is not an array of them. */
static Py_ssize_t count_of(const Py_buffer *numbers)
{
    if (numbers->len % (Py_ssize_t)sizeof(int32_t) == 0)
        return numbers->len / (Py_ssize_t)sizeof(int32_t);
    PyErr_Format(PyExc_ValueError, "%zd bytes are no array of descriptors", numbers->len);
    return -1;
}

static int number_at(const Py_buffer *numbers, Py_ssize_t n)
{
    int32_t number;
    memcpy(&number, (const char *)numbers->buf + n * (Py_ssize_t)sizeof number, sizeof number);
    return number;
}

static PyObject *identities(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Py_buffer numbers;
    if (PyObject_GetBuffer(argument, &numbers, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *found = NULL;
    Py_ssize_t count = count_of(&numbers);
    if (count >= 0)
        found = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(struct identity));
    for (Py_ssize_t n = 0; found != NULL && n < count; n++) {
        struct identity one;
        struct stat seen;
        memset(&one, 0xff, sizeof one);
        if (fstat(number_at(&numbers, n), &seen) == 0)
            one = (struct identity){seen.st_dev, seen.st_ino, seen.st_rdev, seen.st_mode & S_IFMT};
        memcpy(PyBytes_AS_STRING(found) + n * (Py_ssize_t)sizeof one, &one, sizeof one);
    }
    PyBuffer_Release(&numbers);
    return found;
}

static PyObject *set_cloexec(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer numbers;
    int on;
    if (!PyArg_ParseTuple(arguments, "y*p:set_cloexec", &numbers, &on))
        return NULL;
    int failed = 0;
    Py_ssize_t count = count_of(&numbers);
    for (Py_ssize_t n = 0; n < count; n++) /* FD_CLOEXEC is the only flag there is */
        if (fcntl(number_at(&numbers, n), F_SETFD, on ? FD_CLOEXEC : 0) < 0 && !failed)
            failed = errno;
    PyBuffer_Release(&numbers);
    if (count < 0)
        return NULL;
    if (!failed)
        Py_RETURN_NONE;
    errno = failed;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyMethodDef methods[] = {
    {"identities", identities, METH_O, PyDoc_STR("Return what tells each open file apart.")},
    {"set_cloexec", set_cloexec, METH_VARARGS, PyDoc_STR("Set or clear close-on-exec of each.")},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_descriptors", .m_size = 0, .m_methods = methods,
};

PyMODINIT_FUNC PyInit__descriptors(void);

PyMODINIT_FUNC PyInit__descriptors(void)
{
    return PyModuleDef_Init(&definition);
}

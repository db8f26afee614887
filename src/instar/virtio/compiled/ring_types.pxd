# What the compiled rings need of C: words that the guest changes while we look, and the shape of a segment.
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t

ctypedef uint64_t u64
ctypedef int64_t i64
ctypedef uint32_t u32
ctypedef uint16_t u16
ctypedef uint8_t u8
ctypedef u8 *P_u8

# Bytes of a chain that lie side by side, all in one block of RAM.
ctypedef struct Segment:
    u64 gpa
    u64 length
    u8 *host
    int region

ctypedef Segment *pSegment

ctypedef struct Descriptor:
    u64 gpa
    u32 length
    u16 flags
    u16 following

cdef extern from *:
    """
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "rings are little-endian and read as they are"
    #endif
    /* Read once: the compiler must not look again at what was checked. */
    #define ring_load16(p) __atomic_load_n((const uint16_t *)(p), __ATOMIC_RELAXED)
    #define ring_store16(p, v) __atomic_store_n((uint16_t *)(p), (uint16_t)(v), __ATOMIC_RELAXED)
    #define ring_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    typedef struct { uint64_t gpa; uint32_t length; uint16_t flags, following; } ring_descriptor;
    static inline void ring_fetch(const uint8_t *from, void *to) {
        uint64_t words[2];
        memcpy(words, from, 16);
        __asm__ volatile("" : "+m"(words));
        memcpy(to, words, 16);
    }
    """
    u16 load16 "ring_load16"(u8 *) noexcept nogil
    void store16 "ring_store16"(u8 *, u16) noexcept nogil
    void full_fence "ring_fence"() noexcept nogil
    void fetch "ring_fetch"(const u8 *, void *) noexcept nogil

cdef extern from *:
    """
    /* As the software CPU makes it. */
    #define NOTICE_KIND "void (void *, uint64_t gpa, uint64_t length)"
    static inline int call_notice(PyObject *capsule, uint64_t gpa, uint64_t length) {
        void (*notice)(void *, uint64_t, uint64_t) = PyCapsule_GetPointer(capsule, NOTICE_KIND);
        if (notice == NULL) return -1;
        notice(PyCapsule_GetContext(capsule), gpa, length);
        return 0;
    }
    """
    int call_notice(object, u64, u64) except -1

# What floating point needs of C; shared by softfp.py and fp.py.

cdef extern from *:
    """
    typedef unsigned __int128 u128;
    static inline unsigned int clz64(unsigned long long v) { return (unsigned int)__builtin_clzll(v); }
    """
    ctypedef unsigned long long u128  # wider than Cython knows; it only matters to C
    u32 clz64(u64 value) noexcept nogil  # value is not 0

cdef extern from "float.h" nogil:
    double DBL_MIN, DBL_MAX
    float FLT_MIN, FLT_MAX

cdef extern from "math.h" nogil:
    double sqrt(double) noexcept
    float sqrtf(float) noexcept
    double fma(double, double, double) noexcept
    float fmaf(float, float, float) noexcept
    double fabs(double) noexcept
    float fabsf(float) noexcept

cdef enum:  # exception flags, as in fcsr
    NX = 1
    UF = 2
    OF = 4
    DZ = 8
    NV = 16

cdef enum:  # rounding modes, as in fcsr
    RNE = 0
    RTZ = 1
    RDN = 2
    RUP = 3
    RMM = 4

cdef enum:
    KIND_ZERO = 0
    KIND_NORMAL = 1
    KIND_INF = 2
    KIND_QNAN = 3
    KIND_SNAN = 4

cdef enum:
    MSTATUS_FS = 0x6000

cdef enum:  # bits 6..2 of the word
    OPCODE_MSUB = 17
    OPCODE_NMSUB = 18
    OPCODE_NMADD = 19
    OPCODE_FP = 20

cdef enum:  # bits 31..27 of the word
    FUNCT_ADD = 0
    FUNCT_SUB = 1
    FUNCT_MUL = 2
    FUNCT_DIV = 3
    FUNCT_SIGN = 4
    FUNCT_MINMAX = 5
    FUNCT_RESIZE = 8
    FUNCT_SQRT = 11
    FUNCT_COMPARE = 20
    FUNCT_TO_INT = 24
    FUNCT_FROM_INT = 26
    FUNCT_MOVE_OUT = 28
    FUNCT_MOVE_IN = 30

ctypedef struct Unpacked:
    i64 exp
    u64 sig
    u32 sign
    u32 kind

ctypedef struct FpEnv:
    u32 rm  # rounding mode, not DYN
    u32 flags  # raised by this instruction

ctypedef FpEnv* pFpEnv

# Host floating point for core/fp.py. Noinline and volatile: the compiler must not move arithmetic over fenv calls.
cdef extern from *:
    """
    #define H2(n,t,op) static __attribute__((noinline)) t n(t a, t b){volatile t x=a; volatile t y=b; volatile t r=x op y; return r;}
    H2(h_addd,double,+) H2(h_subd,double,-) H2(h_muld,double,*) H2(h_divd,double,/)
    H2(h_adds,float,+) H2(h_subs,float,-) H2(h_muls,float,*) H2(h_divs,float,/)
    static __attribute__((noinline)) float h_d2s(double a){volatile double x=a; volatile float r=(float)x; return r;}
    static __attribute__((noinline)) double h_l2d(long long a){volatile long long x=a; volatile double r=(double)x; return r;}
    static __attribute__((noinline)) double h_ul2d(unsigned long long a){volatile unsigned long long x=a; volatile double r=(double)x; return r;}
    static __attribute__((noinline)) float h_l2s(long long a){volatile long long x=a; volatile float r=(float)x; return r;}
    static __attribute__((noinline)) float h_ul2s(unsigned long long a){volatile unsigned long long x=a; volatile float r=(float)x; return r;}
    """
    double h_addd(double,double) noexcept nogil
    double h_subd(double,double) noexcept nogil
    double h_muld(double,double) noexcept nogil
    double h_divd(double,double) noexcept nogil
    float h_adds(float,float) noexcept nogil
    float h_subs(float,float) noexcept nogil
    float h_muls(float,float) noexcept nogil
    float h_divs(float,float) noexcept nogil
    float h_d2s(double) noexcept nogil
    double h_l2d(i64) noexcept nogil
    double h_ul2d(u64) noexcept nogil
    float h_l2s(i64) noexcept nogil
    float h_ul2s(u64) noexcept nogil
cdef extern from "fenv.h" nogil:
    int feclearexcept(int) noexcept
    int fetestexcept(int) noexcept
    int fesetround(int) noexcept
    int FE_INVALID, FE_DIVBYZERO, FE_OVERFLOW, FE_UNDERFLOW, FE_INEXACT, FE_ALL_EXCEPT
    int FE_TONEAREST, FE_TOWARDZERO, FE_UPWARD, FE_DOWNWARD
cdef extern from "math.h" nogil:
    double sqrt(double) noexcept
    float sqrtf(float) noexcept
    double fma(double, double, double) noexcept
    float fmaf(float, float, float) noexcept
    double rint(double) noexcept
    double trunc(double) noexcept
    double floor(double) noexcept
    double ceil(double) noexcept
    double round(double) noexcept

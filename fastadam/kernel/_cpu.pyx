# cython: language_level=3
"""Which instruction sets the sweeps were built for, and which of them this machine runs."""

include "built.pxi"  # BUILT_ISAS: what setup.py built sweeps for


def cpu_supports_v3() -> bool:
    """Whether this CPU and its operating system run x86-64-v3 code (AVX2)."""
    return bool(has_v3())


def cpu_supports_v4() -> bool:
    """Whether this CPU and its operating system run x86-64-v4 code (AVX-512)."""
    return bool(has_v4())


cdef extern from *:
    """
    #if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
      #define HAS(feature) (__builtin_cpu_supports(feature) != 0)
      static int has_v3(void) {
          __builtin_cpu_init();
          return HAS("avx2") && HAS("fma") && HAS("bmi") && HAS("bmi2");
      }
      static int has_v4(void) {
          return has_v3() && HAS("avx512f") && HAS("avx512bw") && HAS("avx512cd") && HAS("avx512dq") && HAS("avx512vl");
      }
    #else
      static int has_v3(void) { return 0; }
      static int has_v4(void) { return 0; }
    #endif
    """
    int has_v3()
    int has_v4()

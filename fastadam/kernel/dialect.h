/* What compilers spell in different ways. GNU_C: gcc, clang and clang-cl. FASTADAM_LIKE_MSVC takes the branches of
 * Visual C++ in a build by mingw, which has the same intrinsics, so that they can be run without Visual C++. */
#ifndef FASTADAM_DIALECT_H
#define FASTADAM_DIALECT_H

#if (defined(__GNUC__) || defined(__clang__)) && !defined(FASTADAM_LIKE_MSVC)
#define GNU_C 1
#else
#define GNU_C 0
#endif

#if defined(__x86_64__) || (defined(_M_X64) && !defined(_M_ARM64EC))
#define X86_64 1
#else
#define X86_64 0
#endif

#if defined(__APPLE__) && defined(__aarch64__)
#define CACHE_LINE 128 /* bytes */
#else
#define CACHE_LINE 64
#endif

#define RESTRICT __restrict

#ifdef _MSC_VER
#define ALIGNED(n_bytes) __declspec(align(n_bytes))
#else
#define ALIGNED(n_bytes) _Alignas(n_bytes)
#endif

/* No multiplication and addition share a rounding, so that every build gives the same bits. Visual C++ before 2022
 * contracts them under /fp:precise. gcc and clang take -ffp-contract=off. */
#if defined(_MSC_VER) && !defined(__clang__)
#pragma fp_contract(off)
#endif

#endif

/* Between how numbers are stored and how they are computed: a run of elements, loaded into a tile and stored from it.
 * Compiled once for each instruction set, with the sweeps. Bit operations and exact sums: every build gives the same.
 *
 * load(n, data, stride, tile): elements `stride` bytes apart, of any alignment, to a contiguous tile.
 * store(n, data, stride, tile, key, place): back, rounded to nearest even; the last two matter to store_bfloat16_random
 * alone, which rounds up with the probability of what is cut off, by a function of `key` and each element's `place`.
 */
#ifndef FASTADAM_CODECS_H
#define FASTADAM_CODECS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static inline uint32_t bits_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/* ---------------------------------------------------------------- single numbers, without branches */

static inline float decode_float32(float x) { return x; }
static inline float decode_float64(double x) { return (float)x; }
static inline double same_double(double x) { return x; }
static inline float decode_bfloat16(uint16_t x) { return float_of_bits((uint32_t)x << 16); }

/* Exact, though denormal numbers count as zero: those are a whole number of the smallest, 2^-149. */
static inline double widen_float32(float x) {
    uint32_t bits = bits_of_float(x);
    int32_t magnitude = (int32_t)(bits & 0x7fffffff);
    double denormal = (bits >> 31 ? -1.0 : 1.0) * (0x1p-149 * magnitude);
    return magnitude < 1 << 23 ? denormal : (double)x;
}

/* float16 has 5 bits of exponent, biased by 15, and 10 of mantissa; float32 has 8, biased by 127, and 23. */
static inline float decode_float16(uint16_t x) {
    uint32_t magnitude = (uint32_t)(x & 0x7fff) << 13;
    uint32_t special = magnitude >= 0x1fu << 23 ? 112u << 23 : 0; /* infinity and NaN: the largest exponent, again */
    uint32_t normal = magnitude + (112u << 23) + special;
    float denormal = float_of_bits(magnitude + (113u << 23)) - float_of_bits(113u << 23); /* exact */
    uint32_t bits = magnitude < 1u << 23 ? bits_of_float(denormal) : normal;
    return float_of_bits(bits | (uint32_t)(x & 0x8000) << 16);
}

static inline double widen_float16(uint16_t x) { return decode_float16(x); }
static inline double widen_bfloat16(uint16_t x) { return widen_float32(decode_bfloat16(x)); }

static inline uint16_t encode_float16(float x) {
    uint32_t bits = bits_of_float(x), magnitude = bits & 0x7fffffff;
    uint32_t normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    /* Below the smallest normal float16: adding 1/2 leaves, rounded, as many units of 2^-24 as there are. */
    uint32_t denormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - bits_of_float(0.5f);
    uint32_t half = magnitude < 113u << 23 ? denormal : normal;
    half = magnitude >= 0x477ff000 ? 0x7c00 : half;                            /* from 65520 on: infinity */
    half = magnitude > 0x7f800000 ? 0x7e00 | (magnitude >> 13 & 0x3ff) : half; /* NaN, quiet */
    return (uint16_t)(half | (bits >> 16 & 0x8000));
}

static inline uint32_t quiet_or_infinite(uint32_t bits) { /* the upper half of what has no finite value */
    return bits >> 16 | ((bits & 0x7fffffff) > 0x7f800000 ? 0x40 : 0);
}

static inline uint16_t encode_bfloat16(float x) {
    uint32_t bits = bits_of_float(x);
    uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) >= 0x7f800000 ? quiet_or_infinite(bits) : nearest);
}

/* 16 random bits for element i after `place`: two rounds of multiply and shift, a half of the key before each. */
static inline uint32_t random_bits(uint64_t key, uint64_t place, uint32_t i) {
    uint32_t at = (uint32_t)place + i, low = (uint32_t)key + (uint32_t)(place >> 32) * 0x85ebca6bu;
    uint32_t x = at + (at < i ? low + 0x85ebca6bu : low); /* place + i may pass a multiple of 2^32 */
    x = (x ^ x >> 16) * 0x7feb352du + (uint32_t)(key >> 32);
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x >> 16;
}

static inline uint16_t encode_bfloat16_random(float x, uint32_t random) {
    uint32_t bits = bits_of_float(x);
    return (uint16_t)((bits & 0x7fffffff) >= 0x7f800000 ? quiet_or_infinite(bits) : (bits + random) >> 16);
}

/* ---------------------------------------------------------------- runs of them */

/* Each loop is inlined twice: for contiguous elements, which compilers vectorise, and for any stride. */
#define CODEC_LOAD(name, type, compute, decode) \
    static inline void name##_run(ptrdiff_t n, const char *data, ptrdiff_t stride, compute *tile) { \
        for (ptrdiff_t i = 0; i < n; i++) { \
            type x; \
            memcpy(&x, data + i * stride, sizeof x); /* one move, right for a misaligned address */ \
            tile[i] = decode(x); \
        } \
    } \
    static void name(ptrdiff_t n, const char *data, ptrdiff_t stride, void *tile) { \
        if (stride == (ptrdiff_t)sizeof(type)) name##_run(n, data, sizeof(type), (compute *)tile); \
        else name##_run(n, data, stride, (compute *)tile); \
    }

#define CODEC_STORE(name, type, compute, encode) \
    static inline void name##_run( \
        ptrdiff_t n, char *data, ptrdiff_t stride, const compute *tile, uint64_t key, uint64_t place) { \
        (void)key, (void)place; \
        for (ptrdiff_t i = 0; i < n; i++) { \
            type x = encode; \
            memcpy(data + i * stride, &x, sizeof x); \
        } \
    } \
    static void name(ptrdiff_t n, char *data, ptrdiff_t stride, const void *tile, uint64_t key, uint64_t place) { \
        if (stride == (ptrdiff_t)sizeof(type)) name##_run(n, data, sizeof(type), (const compute *)tile, key, place); \
        else name##_run(n, data, stride, (const compute *)tile, key, place); \
    }

CODEC_LOAD(load_float16, uint16_t, float, decode_float16)
CODEC_LOAD(load_bfloat16, uint16_t, float, decode_bfloat16)
CODEC_LOAD(load_float32, float, float, decode_float32)
CODEC_LOAD(load_float64, double, float, decode_float64)
CODEC_LOAD(load_double, double, double, same_double)
CODEC_LOAD(widen_load_float16, uint16_t, double, widen_float16)
CODEC_LOAD(widen_load_bfloat16, uint16_t, double, widen_bfloat16)
CODEC_LOAD(widen_load_float32, float, double, widen_float32)

CODEC_STORE(store_float16, uint16_t, float, encode_float16(tile[i]))
CODEC_STORE(store_bfloat16, uint16_t, float, encode_bfloat16(tile[i]))
CODEC_STORE(store_bfloat16_random, uint16_t, float,
            encode_bfloat16_random(tile[i], random_bits(key, place, (uint32_t)i)))
CODEC_STORE(store_float32, float, float, tile[i])
CODEC_STORE(store_float64, double, float, tile[i])
CODEC_STORE(store_double, double, double, tile[i])
CODEC_STORE(narrow_store_float16, uint16_t, double, encode_float16((float)tile[i]))
CODEC_STORE(narrow_store_bfloat16, uint16_t, double, encode_bfloat16((float)tile[i]))
CODEC_STORE(narrow_store_float32, float, double, (float)tile[i])

/* ---------------------------------------------------------------- the sum of squares */

#define LANES 8 /* sums side by side, so that any width of vectors adds in the same order */

/* high + low += x, the rounding error of high kept in low: as if summed in twice the precision (Ogita, Rump, Oishi). */
static inline void add_exactly(double *high, double *low, double x) {
    double sum = *high + x, part = sum - *high;
    *low += (*high - (sum - part)) + (x - part);
    *high = sum;
}

/* sum[0] + sum[1] += the squares of n elements, each multiplied by `scale` first. */
#define SQUARES(name, compute) \
    static void name(ptrdiff_t n, const void *tile, double scale, double *sum) { \
        const compute *x = (const compute *)tile; \
        double high[LANES] = {0}, low[LANES] = {0}; \
        ptrdiff_t i = 0; \
        for (; i + LANES <= n; i += LANES) \
            for (int k = 0; k < LANES; k++) { \
                double scaled = scale * (double)x[i + k]; \
                add_exactly(&high[k], &low[k], scaled * scaled); \
            } \
        for (int k = 0; i + k < n; k++) { \
            double scaled = scale * (double)x[i + k]; \
            add_exactly(&high[k], &low[k], scaled * scaled); \
        } \
        for (int k = 0; k < LANES; k++) { \
            add_exactly(&sum[0], &sum[1], high[k]); \
            sum[1] += low[k]; \
        } \
    }

SQUARES(squares_float32, float)
SQUARES(squares_float64, double)

#endif

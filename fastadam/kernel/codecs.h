/* Codecs, which convert between the storage of numbers and the type of computation: they load a run of elements into a
 * tile, and store it from there. They are compiled once for each instruction set, with the sweeps. They use only bit
 * operations and exact sums, so every build gives the same results.
 *
 * load(n, data, stride, tile): load elements that are `stride` bytes apart, with any alignment, into a contiguous tile.
 * store(n, data, stride, tile, key, place): store them, rounded to nearest even. `key` and `place` are for stochastic
 * rounding: up with a probability equal to the discarded fraction, by random bits of each element's place.
 */
#ifndef FASTADAM_CODECS_H
#define FASTADAM_CODECS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "block.h"

#if defined(_MSC_VER)
#define RESTRICT __restrict
#else
#define RESTRICT __restrict__
#endif

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

/* Exact, although denormal numbers count as zero: they are multiples of the smallest one, 2^-149. */
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

/* A number whose upper half is the rounded x. Rounding adds to x, except if x is a NaN, which could become a number. A
 * NaN that arithmetic has made is still a NaN in its upper half. */
static inline uint32_t rounded(float x, uint32_t added) { return bits_of_float(x) + (added & -(uint32_t)(x == x)); }

static inline uint32_t rounded_to_nearest(float x) { return rounded(x, 0x7fff + (bits_of_float(x) >> 16 & 1)); }

/* Shifting a signed number packs it in fewer instructions. */
static inline uint16_t upper_half(uint32_t bits) { return (uint16_t)(int16_t)((int32_t)bits >> 16); }

static inline uint16_t encode_bfloat16(float x) { return upper_half(rounded_to_nearest(x)); }

/* A master weight; or the parameter, if it is not the rounded master weight, because other code has changed it. */
static inline float followed(float master, uint16_t now) {
    return encode_bfloat16(master) == now ? master : decode_bfloat16(now);
}

static inline uint16_t encode_bfloat16_random(float x, uint32_t random) { return upper_half(rounded(x, random)); }

/* Two neighbours in one word: a loop over such pairs has a single width, and needs no shuffles. */
static inline uint32_t load_pair(const uint16_t *x, ptrdiff_t i) {
    uint32_t pair;
    memcpy(&pair, x + 2 * i, sizeof pair);
    return pair;
}

static inline uint32_t swapped_where_big_endian(uint32_t pair) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return pair << 16 | pair >> 16;
#else
    return pair;
#endif
}

static inline float first_of(uint32_t pair) { return float_of_bits(swapped_where_big_endian(pair) << 16); }
static inline float second_of(uint32_t pair) {
    return float_of_bits(swapped_where_big_endian(pair) & 0xffff0000u);
}

static inline void store_pair(uint16_t *x, ptrdiff_t i, uint32_t first, uint32_t second) {
    uint32_t pair = swapped_where_big_endian(first >> 16 | (second & 0xffff0000u));
    memcpy(x + 2 * i, &pair, sizeof pair);
}

/* ---------------------------------------------------------------- random bits */

/* Two random 16-bit numbers for each place of an array. They depend only on a key and the place: one round of multiply
 * and shift after a Weyl sequence. Places that are 2^32 apart have the same numbers. The lowest bit of a key selects
 * one of the two. `random_first` starts a run; add RANDOM_STEP to go from one element to the next. */
#define RANDOM_STEP 0x9e3779b1u

static inline uint32_t random_first(uint64_t key, uint64_t place) {
    return (uint32_t)(key | 1) + (uint32_t)place * RANDOM_STEP;
}

static inline uint32_t random_bits(uint32_t at, uint64_t key) {
    return (at ^ at >> 16) * 0x846ca68bu + (uint32_t)(key >> 32);
}

static inline uint32_t random_half(uint32_t random, int half) { return half ? random & 0xffff : random >> 16; }

/* ---------------------------------------------------------------- runs of elements */

/* Each loop is inlined twice: for contiguous elements, so that compilers vectorise it, and for any stride. */
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
        uint32_t at = random_first(key, place); /* of its own, since i is wider */ \
        for (ptrdiff_t i = 0; i < n; i++, at += RANDOM_STEP) { \
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
            encode_bfloat16_random(tile[i], random_half(random_bits(at, key), key & 1)))
CODEC_STORE(store_float32, float, float, tile[i])
CODEC_STORE(store_float64, double, float, tile[i])
CODEC_STORE(store_double, double, double, tile[i])
CODEC_STORE(narrow_store_float16, uint16_t, double, encode_float16((float)tile[i]))
CODEC_STORE(narrow_store_bfloat16, uint16_t, double, encode_bfloat16((float)tile[i]))
CODEC_STORE(narrow_store_float32, float, double, (float)tile[i])

/* ---------------------------------------------------------------- blocks of 8 bits */

/* 256 elements in 258 bytes: a head of two bytes, then a code for each element. The first byte is the exponent of the
 * largest finite magnitude, biased as in float32. Codes are floating-point numbers relative to it, with 2 bits of
 * mantissa:
 *
 *   signed         sign, 5 bits of exponent: 28 octaves down from that of the largest, and 0 below
 *   non-negative   6 bits of exponent: 60 octaves; above 0 nothing becomes 0, so that small second moments stay alive
 *
 * The largest magnitude has the exponent 29 or 61, so that rounding up is possible. The second byte says which of the
 * two kinds of codes the block has, and whether the block is rare. A rare block has a NaN or an infinity, whose codes
 * are the largest two, or numbers so large (from 2^29 or 2^61 on) that a code needs more than one multiplication. The
 * last block may be shorter. */
#define NON_NEGATIVE 1
#define RARE 2

/* A code's bits, read as a float32, are a tiny number: this many powers of two below 2^(29 - 127), or 2^(61 - 127). */
static inline int octaves_up(int kind) { return kind & NON_NEGATIVE ? 127 - 61 : 127 - 29; }

static inline float power_of_two(int exponent) { return float_of_bits((uint32_t)exponent << 23); } /* biased */

static inline float decode_signed(uint8_t code, float scale) {
    return float_of_bits((uint32_t)(code & 0x7f) << 21 | (uint32_t)(code & 0x80) << 24) * scale;
}

static inline float decode_non_negative(uint8_t code, float scale) {
    return float_of_bits((uint32_t)code << 21) * scale;
}

/* `added` is 21 random bits, or half of their range. The sign is moved before the shift, so that one packs both. */
static inline uint8_t encode_signed(float scaled, uint32_t added) {
    uint32_t bits = bits_of_float(scaled);
    return (uint8_t)((((bits & 0x7fffffff) + added) | (bits >> 3 & 1u << 28)) >> 21);
}

static inline int32_t at_least(int32_t x, int32_t least) { return x > least ? x : least; }

static inline uint8_t encode_non_negative(float x, float scaled, uint32_t added) {
    int32_t bits = at_least((int32_t)bits_of_float(scaled), 0);
    int32_t own = (int32_t)bits_of_float(x), least = own < 1 << 23 ? own : 1 << 23; /* the smallest code, or 0 */
    return (uint8_t)((uint32_t)at_least((int32_t)((uint32_t)bits + added), least) >> 21);
}

static inline float decode_rare(uint8_t code, int exponent, int kind) {
    float up = power_of_two(127 + octaves_up(kind)), scale = power_of_two(exponent);
    float x = (kind & NON_NEGATIVE ? decode_non_negative(code, up) : decode_signed(code, up)) * scale;
    int top = kind & NON_NEGATIVE ? 254 : 126, magnitude = kind & NON_NEGATIVE ? code : code & 0x7f;
    float special = float_of_bits((magnitude > top ? 0x7fc00000u : 0x7f800000u) | (magnitude < code ? 1u << 31 : 0));
    return magnitude < top ? x : special;
}

static inline uint8_t encode_rare(float x, int exponent, uint32_t added, int kind) {
    float scaled = x * power_of_two(254 - exponent) * power_of_two(127 - octaves_up(kind));
    uint8_t top = kind & NON_NEGATIVE ? 254 : 126, sign = kind & NON_NEGATIVE ? 0 : x < 0 ? 0x80 : 0;
    uint8_t code = kind & NON_NEGATIVE ? encode_non_negative(x, scaled, added) : encode_signed(scaled, added);
    uint8_t magnitude = kind & NON_NEGATIVE ? code : code & 0x7f;
    code = magnitude < top - 2 ? code : (uint8_t)((top - 3) | sign); /* the largest that is finite */
    code = x - x == 0 ? code : (uint8_t)(top | sign);
    code = kind & NON_NEGATIVE && x < 0 ? 0 : code;
    return x == x ? code : top + 1;
}

static inline int32_t magnitude_of(float x) { return (int32_t)(bits_of_float(x) & 0x7fffffff); }

/* The exponent of the largest finite magnitude: at most that of 2^126, whose inverse is not denormal. */
static inline int largest_exponent(int n, const float *x, int *is_finite) {
    int32_t largest = 0;
    for (int i = 0; i < n; i++) largest = at_least(magnitude_of(x[i]), largest);
    *is_finite = largest < 0x7f800000;
    if (!*is_finite) {
        largest = 0;
        for (int i = 0; i < n; i++) {
            int32_t magnitude = magnitude_of(x[i]);
            largest = magnitude < 0x7f800000 ? at_least(magnitude, largest) : largest;
        }
    }
    return largest >> 23 < 253 ? largest >> 23 : 253;
}

static inline void load_block(int n, const uint8_t *RESTRICT block, float *RESTRICT x) {
    const uint8_t *code = block + BLOCK_HEAD;
    int exponent = block[0], kind = block[1];
    float scale = power_of_two(exponent + octaves_up(kind));
    if (kind & RARE)
        for (int i = 0; i < n; i++) x[i] = decode_rare(code[i], exponent, kind);
    else if (kind & NON_NEGATIVE)
        for (int i = 0; i < n; i++) x[i] = decode_non_negative(code[i], scale);
    else
        for (int i = 0; i < n; i++) x[i] = decode_signed(code[i], scale);
}

/* `added` is a number for all elements, or a function of `at`, which advances from one element to the next. */
#define STORE_BLOCK(name, added) \
    static inline void name(int n, uint8_t *RESTRICT block, const float *RESTRICT x, uint64_t key, uint32_t at) { \
        uint8_t *code = block + BLOCK_HEAD; \
        int is_finite, exponent = largest_exponent(n, x, &is_finite), kind = block[1] & NON_NEGATIVE; \
        int down = 254 - exponent - octaves_up(kind), is_rare = !is_finite || down < 1; \
        float scale = power_of_two(down); \
        block[0] = (uint8_t)exponent; \
        block[1] = (uint8_t)(kind | (is_rare ? RARE : 0)); \
        if (is_rare) \
            for (int i = 0; i < n; i++, at += RANDOM_STEP) code[i] = encode_rare(x[i], exponent, added, kind); \
        else if (kind) \
            for (int i = 0; i < n; i++, at += RANDOM_STEP) code[i] = encode_non_negative(x[i], x[i] * scale, added); \
        else \
            for (int i = 0; i < n; i++, at += RANDOM_STEP) code[i] = encode_signed(x[i] * scale, added); \
    }

STORE_BLOCK(store_block_nearest, 1u << 20)
STORE_BLOCK(store_block_random, random_half(random_bits(at, key), key & 1) << 5)

/* A run begins at the begin of a block. */
static void load_blocks(ptrdiff_t n, const char *data, ptrdiff_t stride, void *tile) {
    const uint8_t *block = (const uint8_t *)data;
    float *x = (float *)tile;
    (void)stride;
    for (; n >= BLOCK; n -= BLOCK, block += BLOCK_HEAD + BLOCK, x += BLOCK) load_block(BLOCK, block, x);
    if (n > 0) load_block((int)n, block, x);
}

#define STORE_BLOCKS(name, store_block) \
    static void name(ptrdiff_t n, char *data, ptrdiff_t stride, const void *tile, uint64_t key, uint64_t place) { \
        uint8_t *block = (uint8_t *)data; \
        const float *x = (const float *)tile; \
        (void)stride; \
        for (; n >= BLOCK; n -= BLOCK, block += BLOCK_HEAD + BLOCK, x += BLOCK, place += BLOCK) \
            store_block(BLOCK, block, x, key, random_first(key, place)); \
        if (n > 0) store_block((int)n, block, x, key, random_first(key, place)); \
    }

STORE_BLOCKS(store_blocks, store_block_random)
STORE_BLOCKS(store_blocks_nearest, store_block_nearest)

/* ---------------------------------------------------------------- sums of rows, and of squares */

/* Add `count` rows of n elements to `sums`, one after another. `row` has their numbers, and rows are `stride` bytes
 * apart. Four rows are read for each pass over the sums. */
#define ADD(name, compute) \
    static void name(ptrdiff_t n, void *sums, const char *values, ptrdiff_t stride, const ptrdiff_t *row, \
                     ptrdiff_t count) { \
        compute *RESTRICT to = (compute *)sums; \
        for (; count >= 4; count -= 4, row += 4) { \
            const compute *RESTRICT a = (const compute *)(values + row[0] * stride); \
            const compute *RESTRICT b = (const compute *)(values + row[1] * stride); \
            const compute *RESTRICT c = (const compute *)(values + row[2] * stride); \
            const compute *RESTRICT d = (const compute *)(values + row[3] * stride); \
            for (ptrdiff_t i = 0; i < n; i++) to[i] = to[i] + a[i] + b[i] + c[i] + d[i]; \
        } \
        for (; count > 0; count--, row++) { \
            const compute *RESTRICT a = (const compute *)(values + row[0] * stride); \
            for (ptrdiff_t i = 0; i < n; i++) to[i] += a[i]; \
        } \
    }

ADD(add_float32, float)
ADD(add_float64, double)

#define LANES 8 /* the number of parallel sums, so that any width of vectors adds in the same order */

/* high + low += x. low takes the rounding error of high, as if summed in twice the precision (Ogita, Rump, Oishi). */
static inline void add_exactly(double *high, double *low, double x) {
    double sum = *high + x, part = sum - *high;
    *low += (*high - (sum - part)) + (x - part);
    *high = sum;
}

/* sum[0] + sum[1] += the squares of n elements, each first multiplied by `scale`. */
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

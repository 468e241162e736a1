/* The loops that bench/codes.py times: both states of a step, decoded, moved and encoded by blocks, in each code. */
#include "codecs.h"

#include <math.h>

typedef struct { float at, inverse; } Scale; /* a block's scale, and what brings its numbers to the code's range */

/* The scale of a block: the power of two in its largest magnitude, and octaves up; that magnitude where these are 0. */
static inline Scale scale_of(const float *x, int octaves) {
    int32_t largest = 0;
    for (int i = 0; i < BLOCK; i++) largest = at_least(magnitude_of(x[i]), largest);
    float top = float_of_bits((uint32_t)largest);
    int exponent = (largest >> 23) + octaves;
    return octaves ? (Scale){power_of_two(exponent), power_of_two(254 - exponent)} : (Scale){top, 1 / top};
}

/* Tapered: 8 steps an octave in the upper half of the codes, 4 below. */
static inline float tapered_decode(int code, int half) {
    uint32_t fine = (uint32_t)(code + half) << 20, coarse = (uint32_t)code << 21;
    return float_of_bits(code < half ? coarse : fine);
}
static inline int tapered_encode(float x, uint32_t random, int half) {
    int32_t bits = (int32_t)bits_of_float(x), coarse = (bits + (int32_t)(random << 5)) >> 21;
    int32_t fine = ((bits + (int32_t)(random << 4)) >> 20) - half;
    return coarse < half ? coarse : fine;
}

static inline float root4(float x) { return sqrtf(sqrtf(x)); }
static inline float power4(float x) { return x * x * x * x; }
static inline float unit(uint32_t random) { return (float)(int32_t)random * 0x1p-16f; }
static inline float sign_of(float x) { return float_of_bits(0x3f800000u | (bits_of_float(x) & 0x80000000u)); }

#define SIGNED(code) ((code) & 0x80 ? -1.0f : 1.0f)
#define WITH_SIGN(x, code) (uint8_t)((code) | (bits_of_float(x) >> 24 & 0x80))
#define M_UP octaves_up(0)
#define V_UP octaves_up(NON_NEGATIVE)

/* name; octaves up of m, of v; what a code c of m means, of v; the code of a number x of m, of v */
#define CODES(code) \
    code(bits, M_UP, V_UP, decode_signed(c, scale.at), decode_non_negative(c, scale.at), \
         encode_signed(x * scale.inverse, random << 5), encode_non_negative(x, x * scale.inverse, random << 5)) \
    code(nearest, M_UP, V_UP, decode_signed(c, scale.at), decode_non_negative(c, scale.at), \
         encode_signed(x * scale.inverse, 1u << 20), encode_non_negative(x, x * scale.inverse, 1u << 20)) \
    code(tapered, 105, 81, tapered_decode(c & 0x7f, 64) * scale.at * SIGNED(c), tapered_decode(c, 128) * scale.at, \
         WITH_SIGN(x, tapered_encode(fabsf(x) * scale.inverse, random, 64)), \
         (uint8_t)tapered_encode(x * scale.inverse, random, 128)) \
    code(roots, 0, 0, power4((c & 0x7f) * (1 / 127.f)) * scale.at * SIGNED(c), \
         power4(c * (1 / 255.f)) * power4(c * (1 / 255.f)) * scale.at, \
         WITH_SIGN(x, (int)(root4(fabsf(x) * scale.inverse) * 127 + unit(random))), \
         (uint8_t)(int)(sqrtf(root4(x * scale.inverse)) * 255 + unit(random))) \
    code(linear, 0, 0, (int8_t)c * (1 / 127.f) * scale.at, c * (1 / 255.f) * scale.at, \
         (uint8_t)(int)(x * scale.inverse * 127 + sign_of(x) * unit(random)), \
         (uint8_t)(int)(x * scale.inverse * 255 + unit(random)))

#define STEP(name, m_octaves, v_octaves, m_decoded, v_decoded, m_encoded, v_encoded) \
    void name(ptrdiff_t n, uint8_t *RESTRICT ms, uint8_t *RESTRICT vs, Scale *RESTRICT scales, \
              const float *RESTRICT g) { \
        float m[BLOCK], v[BLOCK]; \
        for (ptrdiff_t at = 0; at < n; at += BLOCK, scales += 2) { \
            uint8_t *RESTRICT mc = ms + at, *RESTRICT vc = vs + at; \
            Scale scale = scales[0]; \
            for (int i = 0; i < BLOCK; i++) { uint8_t c = mc[i]; m[i] = m_decoded; } \
            scale = scales[1]; \
            for (int i = 0; i < BLOCK; i++) { uint8_t c = vc[i]; v[i] = v_decoded; } \
            for (int i = 0; i < BLOCK; i++) { \
                m[i] += 0.1f * (g[at + i] - m[i]); \
                v[i] += 0.001f * (g[at + i] * g[at + i] - v[i]); \
            } \
            uint32_t first = random_first(7, (uint64_t)at); \
            scale = scales[0] = scale_of(m, m_octaves); \
            for (int i = 0; i < BLOCK; i++) { \
                float x = m[i]; \
                uint32_t random = random_half(random_bits(first + (uint32_t)i * RANDOM_STEP, 7), 0); \
                mc[i] = m_encoded; \
            } \
            scale = scales[1] = scale_of(v, v_octaves); \
            for (int i = 0; i < BLOCK; i++) { \
                float x = v[i]; \
                uint32_t random = random_half(random_bits(first + (uint32_t)i * RANDOM_STEP, 7), 1); \
                vc[i] = v_encoded; \
            } \
        } \
    }

CODES(STEP)

/* A fuzzer guided by coverage for the C that reads bytes of a file: blocks of 8-bit states, with any heads, and arrays of
 * 16 bits. clang's libFuzzer drives it, with AddressSanitizer and UndefinedBehaviorSanitizer:
 *
 *     clang -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Ifastadam/kernel \
 *         tools/fuzz_codecs.c -lm -o fuzz_codecs && ./fuzz_codecs -max_total_time=60
 *
 * Each input is read as all of these, from memory of exactly its size. Then it counts as numbers, which are stored and
 * loaded again: what comes back has the same class and sign, and is near.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "codecs.h"

typedef void store_function(ptrdiff_t n, char *data, ptrdiff_t stride, const void *tile, uint64_t key, uint64_t place);

static void *memory(size_t n_bytes) {
    void *made = malloc(n_bytes);
    if (!made && n_bytes) abort();
    return made;
}

static void expect(int is_so, const char *what, float x, float y) {
    if (is_so) return;
    fprintf(stderr, "fuzz_codecs: %s: %a came back as %a\n", what, x, y);
    abort();
}

/* Any bytes are blocks of that many elements. */
static void read_blocks(const uint8_t *bytes, size_t size) {
    ptrdiff_t whole = (ptrdiff_t)size / (BLOCK + BLOCK_HEAD), rest = (ptrdiff_t)size % (BLOCK + BLOCK_HEAD) - BLOCK_HEAD;
    ptrdiff_t n = whole * BLOCK + (rest > 0 ? rest : 0);
    float *numbers = memory((size_t)n * sizeof *numbers);
    load_blocks(n, (const char *)bytes, 1, numbers);
    free(numbers);
}

/* Any 16 bits are a float16 and a bfloat16: what is loaded is stored as it was, also with gaps and backwards. */
static void read_halves(const uint8_t *bytes, size_t size) {
    ptrdiff_t n = (ptrdiff_t)size / 2;
    if (n == 0) return;
    uint16_t *again = memory((size_t)n * 2);
    float *numbers = memory((size_t)n * sizeof *numbers);
    load_float16(n, (const char *)bytes + 2 * (n - 1), -2, numbers);
    store_float16(n, (char *)(again + n - 1), -2, numbers, 0, 0);
    for (ptrdiff_t i = 0; i < n; i++)
        if (!isnan(numbers[n - 1 - i])) expect(memcmp(again + i, bytes + 2 * i, 2) == 0, "float16", numbers[n - 1 - i], 0);
    load_bfloat16(n, (const char *)bytes, 2, numbers);
    store_bfloat16(n, (char *)again, 2, numbers, 0, 0);
    for (ptrdiff_t i = 0; i < n; i++)
        if (!isnan(numbers[i])) expect(memcmp(again + i, bytes + 2 * i, 2) == 0, "bfloat16", numbers[i], 0);
    load_bfloat16((n + 2) / 3, (const char *)bytes, 6, numbers);
    free(numbers);
    free(again);
}

static void check_block(ptrdiff_t n, const float *x, const float *y, int kind) {
    float largest = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        if (isfinite(x[i])) largest = fmaxf(largest, fabsf(x[i]));
    for (ptrdiff_t i = 0; i < n; i++) {
        if (isnan(x[i])) expect(isnan(y[i]), "a NaN", x[i], y[i]);
        else if (kind && x[i] <= 0) expect(y[i] == 0, "no positive number", x[i], y[i]);
        else if (isinf(x[i])) expect(y[i] == x[i], "an infinity", x[i], y[i]);
        else {
            expect(isfinite(y[i]) && (y[i] == 0 || (y[i] > 0) == (x[i] > 0)), "a finite number", x[i], y[i]);
            if (fabsf(x[i]) > fmaxf(ldexpf(largest, -26), ldexpf(1, -90)))
                expect(fabsf(y[i] - x[i]) <= fabsf(x[i]) / 4, "a number in range", x[i], y[i]);
        }
    }
}

/* Any floats are stored in blocks, rounded to nearest and at random, and loaded. */
static void store_floats(const uint8_t *bytes, size_t size, int kind, store_function *store) {
    ptrdiff_t n = (ptrdiff_t)(size / sizeof(float)), blocks = (n + BLOCK - 1) / BLOCK;
    float *x = memory((size_t)n * sizeof *x), *y = memory((size_t)n * sizeof *y);
    uint8_t *state = memory((size_t)(n + blocks * BLOCK_HEAD));
    memcpy(x, bytes, (size_t)n * sizeof *x);
    for (ptrdiff_t k = 0; k < blocks; k++) state[k * (BLOCK + BLOCK_HEAD) + 1] = (uint8_t)kind;
    store(n, (char *)state, 1, x, 0x123456789abcdefu + (uint64_t)size, size);
    load_blocks(n, (const char *)state, 1, y);
    for (ptrdiff_t at = 0; at < n; at += BLOCK) check_block(n - at < BLOCK ? n - at : BLOCK, x + at, y + at, kind);
    free(state);
    free(y);
    free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    read_blocks(bytes, size);
    read_halves(bytes, size);
    for (int kind = 0; kind <= NON_NEGATIVE; kind++) {
        store_floats(bytes, size, kind, store_blocks_nearest);
        store_floats(bytes, size, kind, store_blocks);
    }
    return 0;
}

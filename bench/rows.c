/* The roofline of rows that bench/rows.py times: repeated rows of values are summed, and those of p, m and v that they
 * belong to are read and written. Nothing else is done: which rows are of one number is given. Threads are of a pool
 * as the kernels have it, so that waking them costs the same.
 */
#include "pool.h"
#include "prefetch.h"

#define TILE 32 /* different rows that a thread takes at a time */

typedef float Part __attribute__((vector_size(64), aligned(sizeof(float))));
typedef struct { Part a, b, c, d; } Row; /* of 64 numbers; sums of four names stay in registers */

typedef struct {
    Row *p, *m, *v;
    const Row *values;
    const int64_t *row, *begin, *order; /* the different rows; where those of each begin in `order`; rows of values */
    int64_t n, ahead;                   /* different rows; so many are on their way from memory while one is moved */
} Rows;

static inline void add(Row *row, Row more) { row->a += more.a, row->b += more.b, row->c += more.c, row->d += more.d; }

static inline void move_row(const Rows *rows, int64_t k) {
    Row sum = rows->values[rows->order[rows->begin[k]]];
    for (int64_t i = rows->begin[k] + 1; i < rows->begin[k + 1]; i++) add(&sum, rows->values[rows->order[i]]);
    add(&rows->p[rows->row[k]], sum);
    add(&rows->m[rows->row[k]], sum);
    add(&rows->v[rows->row[k]], sum);
}

static void move_tile(void *context, int worker, int64_t tile) {
    const Rows *rows = context;
    int64_t end = (tile + 1) * TILE < rows->n ? (tile + 1) * TILE : rows->n;
    (void)worker;
    for (int64_t k = tile * TILE; k < end; k++) {
        if (rows->ahead && k + rows->ahead < rows->n) {
            int64_t next = rows->row[k + rows->ahead];
            prefetch(&rows->p[next], sizeof(Row));
            prefetch(&rows->m[next], sizeof(Row));
            prefetch(&rows->v[next], sizeof(Row));
        }
        move_row(rows, k);
    }
}

void move_rows(Rows *rows, int n_threads) {
    int64_t n_tiles = (rows->n + TILE - 1) / TILE;
    if (n_threads > 1) pool_run(move_tile, rows, n_tiles, n_threads - 1, 1);
    else pool_alone(move_tile, rows, n_tiles);
}

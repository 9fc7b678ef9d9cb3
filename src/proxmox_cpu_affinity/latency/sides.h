/*
 * What the two sides of a duel share: between duel.c, which has its life, and pingpong.c, which
 * knows the patterns.
 */
#ifndef SIDES_H
#define SIDES_H

#include "clock.h"
#include "duel.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef PP_PLAIN
#define ACQUIRE memory_order_seq_cst
#define RELEASE memory_order_seq_cst
#define ACQ_REL memory_order_seq_cst
#define RELAXED memory_order_seq_cst
#else
#define ACQUIRE memory_order_acquire
#define RELEASE memory_order_release
#define ACQ_REL memory_order_acq_rel
#define RELAXED memory_order_relaxed
#endif

enum {
    PAGE = 4096,
    LINE = 128, /* two lines of 64 bytes: x86 prefetches the neighbour of a line */
    SLOTS = 32, /* lines each way for messages */
};

struct line {
    _Alignas(LINE) _Atomic uint64_t word;
};

/* SLOTS lines each way; of rw the same, by PP_LINES_LIMIT <= SLOTS. */
struct arena {
    struct line out[SLOTS], back[SLOTS];
};

_Static_assert((int)PP_LINES_LIMIT <= (int)SLOTS, "each line needs a place");
_Static_assert(sizeof(struct arena) % PAGE == 0, "whole pages");

/* One thread's own. Read by the other one where a message orders it, else after the end. */
struct side {
    _Alignas(LINE) int error;
    bool settled;
    long count;       /* complete timed batches (asker) */
    double *took;     /* of each timed batch (asker): ns, or ticks of msg */
    int64_t *heard;   /* of each batch of msg: sum of clock minus stamp, in ticks */
    long *switches;   /* of this thread so far, after each batch, the warm-up first */
    uint64_t reading; /* ticks that reading the clock costs */
    unsigned spins;
};

struct duel {
    const struct pp_parameters *parameters;
    struct arena *arena;
    uint64_t deadline;
    struct moment start, end; /* of msg */
    int node;
    _Alignas(LINE) atomic_int arrived;
    _Alignas(LINE) atomic_bool over;
    struct side sides[2];
};

/* How a batch is taken, by method: the asker's part and the answerer's; 0, or an errno. */
struct pattern {
    int (*asks)(struct duel *duel, long batch);
    int (*answers)(struct duel *duel, long batch);
};

const struct pattern *pattern_of(enum pp_method method);

#endif

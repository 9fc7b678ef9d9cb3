/*
 * Two pinned threads pass cache lines to and fro; the first one, the asker, keeps the time.
 *
 * A batch is one untimed round trip and then `trips` timed ones. Batch 0 warms up. Whatever costs
 * a system call (switches, the CPU we run on) happens between batches, before the untimed trip.
 * The batches take the pair's lines in turn, so that one line that lies in a far slice of the
 * cache does not decide; lines that the kernel gave are fresh for each pair.
 *
 * cas: one word says whose turn it is; each side spins on its compare-exchange, so the line
 * travels twice a round trip. rw: each side writes the trip's number into its own line and spins
 * on the other's. Both: half the time of a round trip, by the asker's clock alone.
 * msg: each message is a time stamp on a line of its own; the receiver subtracts it from its own
 * clock. A skew of the two clocks adds to one direction what it takes from the other one, so the
 * average of both directions is free of it; what reading the clock costs is subtracted.
 */
#define _GNU_SOURCE
#include "clock.h"
#include "duel.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

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

enum { ASK, ANSWER };

enum {
    PAGE = 4096,
    LINE = 128,            /* two lines of 64 bytes: x86 prefetches the neighbour of a line */
    SLOTS = 32,            /* lines each way for messages */
    SPINS_PER_GLANCE = 64, /* failed looks at a line between two at `over` */
    SPINS_PER_LOOK = 1024, /* ... and between two looks at the clock */
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

static long involuntary_switches(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

/* After a look that found nothing: 0 to look again. */
static inline int fruitless(struct duel *duel, unsigned *spins)
{
    if (++*spins % SPINS_PER_GLANCE != 0)
        return 0;
    if (atomic_load_explicit(&duel->over, RELAXED))
        return ECANCELED;
    return *spins % SPINS_PER_LOOK == 0 && now_ns() > duel->deadline ? ETIMEDOUT : 0;
}

/*
 * cas: wait for the turn `mine`, then make it `theirs`. Acquire and release, so that what one side
 * did before its turn is done when the other's begins; a failed exchange orders nothing.
 */
static inline int pass(struct duel *duel, struct line *line, unsigned mine, unsigned theirs,
                       unsigned *spins)
{
    for (;;) {
        uint64_t seen = mine;
        int error;

        if (atomic_compare_exchange_strong_explicit(&line->word, &seen, theirs, ACQ_REL, RELAXED))
            return 0;
        if ((error = fruitless(duel, spins)) != 0)
            return error;
    }
}

/* rw: wait until the line holds this number. */
static inline int await(struct duel *duel, struct line *line, uint64_t number, unsigned *spins)
{
    int error;

    while (atomic_load_explicit(&line->word, ACQUIRE) != number)
        if ((error = fruitless(duel, spins)) != 0)
            return error;
    return 0;
}

/* msg: wait for a stamp of this lap over the slots; laps differ in the word's lowest bit. */
static inline int receive(struct duel *duel, struct line *line, uint64_t lap, unsigned *spins,
                          uint64_t *stamp)
{
    uint64_t word;
    int error;

    while (((word = atomic_load_explicit(&line->word, ACQUIRE)) & 1) != lap)
        if ((error = fruitless(duel, spins)) != 0)
            return error;
    *stamp = word >> 1;
    return 0;
}

static inline void send(struct line *line, uint64_t lap)
{
    atomic_store_explicit(&line->word, ticks() << 1 | lap, RELEASE);
}

static int cas_asks(struct duel *duel, long batch)
{
    struct side *self = &duel->sides[0];
    struct line *line = &duel->arena->out[batch % duel->parameters->lines];
    uint64_t start = 0;
    int error;

    for (long trip = 0; trip <= duel->parameters->trips; trip++) {
        if ((error = pass(duel, line, ASK, ANSWER, &self->spins)) != 0)
            return error;
        if (trip == 0)
            start = now_ns();
    }
    self->took[batch] = (double)(now_ns() - start) / 2;
    return 0;
}

static int cas_answers(struct duel *duel, long batch)
{
    struct side *self = &duel->sides[1];
    struct line *line = &duel->arena->out[batch % duel->parameters->lines];
    int error = 0;

    for (long trip = 0; trip <= duel->parameters->trips && error == 0; trip++)
        error = pass(duel, line, ANSWER, ASK, &self->spins);
    return error;
}

static int rw_asks(struct duel *duel, long batch)
{
    struct side *self = &duel->sides[0];
    long index = batch % duel->parameters->lines, trips = duel->parameters->trips;
    struct line *out = &duel->arena->out[index], *back = &duel->arena->back[index];
    uint64_t number = (uint64_t)batch * (uint64_t)(trips + 1), start = 0;
    int error;

    for (long trip = 0; trip <= trips; trip++) {
        atomic_store_explicit(&out->word, ++number, RELEASE);
        if ((error = await(duel, back, number, &self->spins)) != 0)
            return error;
        if (trip == 0)
            start = now_ns();
    }
    self->took[batch] = (double)(now_ns() - start) / 2;
    return 0;
}

static int rw_answers(struct duel *duel, long batch)
{
    struct side *self = &duel->sides[1];
    long index = batch % duel->parameters->lines, trips = duel->parameters->trips;
    struct line *out = &duel->arena->out[index], *back = &duel->arena->back[index];
    uint64_t number = (uint64_t)batch * (uint64_t)(trips + 1);
    int error;

    for (long trip = 0; trip <= trips; trip++) {
        if ((error = await(duel, out, ++number, &self->spins)) != 0)
            return error;
        atomic_store_explicit(&back->word, number, RELEASE);
    }
    return 0;
}

/* The answerer's sum is complete before its last message, so it may be read here. */
static int msg_asks(struct duel *duel, long batch)
{
    struct side *self = &duel->sides[0], *other = &duel->sides[1];
    long trips = duel->parameters->trips;
    uint64_t number = (uint64_t)batch * (uint64_t)(trips + 1), stamp;
    int64_t sum = 0;
    int error;

    for (long trip = 0; trip <= trips; trip++, number++) {
        uint64_t slot = number % SLOTS, lap = (number / SLOTS + 1) & 1;

        send(&duel->arena->out[slot], lap);
        if ((error = receive(duel, &duel->arena->back[slot], lap, &self->spins, &stamp)) != 0)
            return error;
        if (trip > 0)
            sum += (int64_t)(ticks() - stamp);
    }
    sum += other->heard[batch] - trips * (int64_t)(self->reading + other->reading);
    self->took[batch] = sum > 0 ? (double)sum / 2 : 0;
    return 0;
}

static int msg_answers(struct duel *duel, long batch)
{
    struct side *self = &duel->sides[1];
    long trips = duel->parameters->trips;
    uint64_t number = (uint64_t)batch * (uint64_t)(trips + 1), stamp;
    int error;

    for (long trip = 0; trip <= trips; trip++, number++) {
        uint64_t slot = number % SLOTS, lap = (number / SLOTS + 1) & 1;

        if ((error = receive(duel, &duel->arena->out[slot], lap, &self->spins, &stamp)) != 0)
            return error;
        if (trip > 0)
            self->heard[batch] += (int64_t)(ticks() - stamp);
        send(&duel->arena->back[slot], lap);
    }
    return 0;
}

static const struct {
    int (*asks)(struct duel *duel, long batch);
    int (*answers)(struct duel *duel, long batch);
} patterns[] = {
    [PP_CAS] = {cas_asks, cas_answers},
    [PP_RW] = {rw_asks, rw_answers},
    [PP_MSG] = {msg_asks, msg_answers},
};

static bool settled(const struct duel *duel)
{
    const struct side *asker = &duel->sides[0];
    double lowest = INFINITY, second = INFINITY;

    if (asker->count < 2 || asker->count < duel->parameters->batches_min)
        return false;
    for (long i = 1; i <= asker->count; i++) {
        double took = asker->took[i];

        if (took < lowest) {
            second = lowest;
            lowest = took;
        } else if (took < second) {
            second = took;
        }
    }
    return second <= lowest * (1 + duel->parameters->agree);
}

static int ask(struct duel *duel, int cpu)
{
    const struct pp_parameters *parameters = duel->parameters;
    struct side *self = &duel->sides[0];
    int error;

    for (long batch = 0; batch <= parameters->batches_max && !self->settled; batch++) {
        if ((error = patterns[parameters->method].asks(duel, batch)) != 0)
            return error;
        self->switches[batch] = involuntary_switches();
        if (sched_getcpu() != cpu)
            return ENODEV;
        self->count = batch;
        self->settled = settled(duel);
        if (now_ns() > duel->deadline)
            return ETIMEDOUT;
    }
    return 0;
}

/* Ends by the asker's `over`, which may come before the last answer: the count is noted first. */
static int answer(struct duel *duel, int cpu)
{
    const struct pp_parameters *parameters = duel->parameters;
    struct side *self = &duel->sides[1];
    int error;

    for (long batch = 0; batch <= parameters->batches_max; batch++) {
        error = patterns[parameters->method].answers(duel, batch);
        self->switches[batch] = involuntary_switches();
        if (sched_getcpu() != cpu)
            return ENODEV;
        if (error)
            return error;
    }
    return 0;
}

/* The barrier: its predicate is that both have arrived; a side that failed or time lifts it. */
static int meet(struct duel *duel)
{
    atomic_fetch_add_explicit(&duel->arrived, 1, ACQ_REL);
    while (atomic_load_explicit(&duel->arrived, ACQUIRE) < 2) {
        if (atomic_load_explicit(&duel->over, RELAXED))
            return ECANCELED;
        if (now_ns() > duel->deadline)
            return ETIMEDOUT;
    }
    return 0;
}

/* The node that all pages are on, by move_pages(2); -1 where the kernel does not say one. */
static int node_of(struct arena *arena)
{
    enum { PAGES = sizeof *arena / PAGE };
    void *pages[PAGES];
    int nodes[PAGES];

    for (int i = 0; i < PAGES; i++) {
        pages[i] = (char *)arena + i * PAGE;
        nodes[i] = -1;
    }
    if (syscall(SYS_move_pages, 0, (long)PAGES, pages, NULL, nodes, 0) != 0)
        return -1;
    for (int i = 1; i < PAGES; i++)
        if (nodes[i] != nodes[0])
            return -1;
    return nodes[0] >= 0 ? nodes[0] : -1;
}

/* A page belongs to the node of the CPU that writes to it first. */
static void settle_in(struct duel *duel)
{
    for (size_t i = 0; i < SLOTS; i++) {
        atomic_store_explicit(&duel->arena->out[i].word, 0, RELAXED);
        atomic_store_explicit(&duel->arena->back[i].word, 0, RELAXED);
    }
    duel->node = node_of(duel->arena);
}

static uint64_t reading_costs(void)
{
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < 32; i++) {
        uint64_t before = ticks(), cost = ticks() - before;

        least = cost < least ? cost : least;
    }
    return least;
}

void duel_run(struct duel *duel, int side, int cpu)
{
    struct side *self = &duel->sides[side];

    if (sched_getcpu() != cpu)
        self->error = ENODEV;
    if (self->error == 0) {
        if (side == (int)duel->parameters->home)
            settle_in(duel);
        self->reading = reading_costs();
        self->error = meet(duel);
    }
    if (self->error == 0 && side == 0) {
        duel->start = moment_now();
        self->error = ask(duel, cpu);
        duel->end = moment_now();
    } else if (self->error == 0) {
        self->error = answer(duel, cpu);
    }
    if (side == 0 || self->error)
        atomic_store_explicit(&duel->over, true, RELEASE);
}

static bool sound(int first, int second, const struct pp_parameters *p)
{
    return first >= 0 && first < PP_CPU_LIMIT && second >= 0 && second < PP_CPU_LIMIT &&
           first != second && p->lines >= 1 && p->lines <= PP_LINES_LIMIT && p->trips >= 1 &&
           p->trips <= PP_TRIPS_LIMIT && p->batches_min >= 1 &&
           p->batches_max >= p->batches_min && p->batches_max <= PP_BATCHES_LIMIT &&
           p->agree >= 0 && p->limit_us >= 1 && p->limit_us <= PP_TIME_LIMIT_US;
}

static void release(struct duel *duel)
{
    for (int i = 0; i < 2; i++) {
        free(duel->sides[i].took);
        free(duel->sides[i].heard);
        free(duel->sides[i].switches);
    }
    if (duel->arena)
        munmap(duel->arena, sizeof *duel->arena);
    free(duel);
}

static bool furnished(struct duel *duel)
{
    size_t room = (size_t)duel->parameters->batches_max + 1;
    void *pages = mmap(NULL, sizeof *duel->arena, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (pages == MAP_FAILED)
        return false;
    duel->arena = pages;
    for (int i = 0; i < 2; i++) {
        struct side *side = &duel->sides[i];

        side->took = calloc(room, sizeof *side->took);
        side->heard = calloc(room, sizeof *side->heard);
        side->switches = calloc(room, sizeof *side->switches);
        if (!side->took || !side->heard || !side->switches)
            return false;
    }
    return true;
}

struct duel *duel_new(int first, int second, const struct pp_parameters *parameters, int *error)
{
    struct duel *duel;

    *error = EINVAL;
    if (!sound(first, second, parameters))
        return NULL;
    *error = ENOTSUP;
    if (parameters->method == PP_MSG && !ticks_are_even())
        return NULL;
    *error = ENOMEM;
    if ((duel = aligned_alloc(LINE, sizeof *duel)) == NULL)
        return NULL;
    *duel = (struct duel){.parameters = parameters, .node = -1};
    if (!furnished(duel)) {
        release(duel);
        return NULL;
    }
    duel->deadline = now_ns() + (uint64_t)parameters->limit_us * 1000u;
    *error = 0;
    return duel;
}

/* Being told that it is over is nobody's error; too little time is one only without a batch. */
static int outcome(const struct duel *duel)
{
    for (int i = 0; i < 2; i++) {
        int error = duel->sides[i].error;

        if (error != 0 && error != ECANCELED && error != ETIMEDOUT)
            return error;
    }
    return duel->sides[0].count > 0 ? 0 : ETIMEDOUT;
}

/* What a unit of `took` is in ns. */
static double unit(const struct duel *duel)
{
    if (duel->parameters->method != PP_MSG || duel->end.ticks == duel->start.ticks)
        return 1;
    return (double)(duel->end.ns - duel->start.ns) / (double)(duel->end.ticks - duel->start.ticks);
}

void duel_end(struct duel *duel, struct pp_job *job)
{
    const struct side *asker = &duel->sides[0], *answerer = &duel->sides[1];
    double per_trip = unit(duel) / (double)duel->parameters->trips;

    job->error = outcome(duel);
    job->node = duel->node;
    job->count = job->error ? 0 : (size_t)asker->count;
    for (size_t i = 0; i < job->count; i++) {
        long before = asker->switches[i] + answerer->switches[i];
        long after = asker->switches[i + 1] + answerer->switches[i + 1];

        job->batches[i] = (struct pp_batch){asker->took[i + 1] * per_trip, after - before};
    }
    release(duel);
}

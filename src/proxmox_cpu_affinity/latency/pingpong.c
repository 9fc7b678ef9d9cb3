/*
 * Two pinned threads pass one word to and fro; the first one keeps the time. See pingpong.h.
 *
 * The word says whose turn it is. The asker makes ASK into ANSWER, the answerer ANSWER into ASK,
 * each spinning on its compare-exchange, so the line travels twice a round trip. OVER ends both.
 * A batch is one untimed trip and then `trips` timed ones: the clock is read after a success of
 * the asker at both ends, so exactly `trips` round trips lie between. Whatever costs a system
 * call (switches, the CPU we run on) happens between batches, before the untimed trip.
 */
#define _GNU_SOURCE
#include "pingpong.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

enum { ASK, ANSWER, OVER };

enum {
    PAGE = 4096,
    LINE = 128,            /* two lines of 64 bytes: x86 prefetches the neighbour of a line */
    SPINS_PER_LOOK = 4096, /* failed exchanges between two looks at the clock */
};

struct page {
    _Alignas(LINE) atomic_int turn;
    _Alignas(LINE) atomic_int touched;
};

struct duel {
    const struct pp_parameters *parameters;
    struct page *page;
    uint64_t deadline;
    atomic_int arrived;
};

/* One thread's own. Written by that thread only and read by others after it was joined. */
struct side {
    struct duel *duel;
    int cpu;
    int error;
    bool settled;
    long count;     /* complete timed batches (asker) */
    double *ns;     /* of each timed batch (asker) */
    long *switches; /* of this thread so far, after the warm-up and after each batch */
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static long involuntary_switches(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

/* sched_setaffinity(2) returns with the thread on a CPU of the mask already. */
static int pin(int cpu)
{
    size_t bit = (size_t)cpu;
    size_t size = CPU_ALLOC_SIZE(bit + 1);
    cpu_set_t *mask = CPU_ALLOC(bit + 1);
    int error;

    if (!mask)
        return ENOMEM;
    CPU_ZERO_S(size, mask);
    CPU_SET_S(bit, size, mask);
    error = sched_setaffinity(0, size, mask) == 0 ? 0 : errno;
    CPU_FREE(mask);
    if (error)
        return error;
    return sched_getcpu() == cpu ? 0 : ENODEV;
}

/* The barrier: its predicate is that both have arrived; a side that failed or time lifts it. */
static int meet(struct duel *duel)
{
    atomic_fetch_add_explicit(&duel->arrived, 1, memory_order_acq_rel);
    while (atomic_load_explicit(&duel->arrived, memory_order_acquire) < 2) {
        if (atomic_load_explicit(&duel->page->turn, memory_order_relaxed) == OVER)
            return ECANCELED;
        if (now_ns() > duel->deadline)
            return ETIMEDOUT;
    }
    return 0;
}

/*
 * Wait for the turn `mine`, then make it `theirs`. Acquire and release, so that what one side did
 * before its turn is done when the other's begins; a failed exchange orders nothing.
 */
static inline int pass(struct duel *duel, int mine, int theirs, unsigned *spins)
{
    for (;;) {
        int seen = mine;

        if (atomic_compare_exchange_strong_explicit(&duel->page->turn, &seen, theirs,
                                                    memory_order_acq_rel, memory_order_relaxed))
            return 0;
        if (seen == OVER)
            return ECANCELED;
        if (++*spins % SPINS_PER_LOOK == 0 && now_ns() > duel->deadline)
            return ETIMEDOUT;
    }
}

static bool settled(const struct side *asker)
{
    double lowest = INFINITY, second = INFINITY;

    if (asker->count < 2 || asker->count < asker->duel->parameters->batches_min)
        return false;
    for (long i = 0; i < asker->count; i++) {
        double ns = asker->ns[i];

        if (ns < lowest) {
            second = lowest;
            lowest = ns;
        } else if (ns < second) {
            second = ns;
        }
    }
    return second <= lowest * (1 + asker->duel->parameters->agree);
}

/* Batch 0 warms up: it is run, and its time is not kept. */
static int ask(struct side *side)
{
    const struct pp_parameters *parameters = side->duel->parameters;
    unsigned spins = 0;
    int error;

    for (long batch = 0; batch <= parameters->batches_max && !side->settled; batch++) {
        uint64_t start, end;

        if ((error = pass(side->duel, ASK, ANSWER, &spins)) != 0)
            return error;
        start = now_ns();
        for (long trip = 0; trip < parameters->trips; trip++)
            if ((error = pass(side->duel, ASK, ANSWER, &spins)) != 0)
                return error;
        end = now_ns();
        side->switches[batch] = involuntary_switches();
        if (sched_getcpu() != side->cpu)
            return ENODEV;
        if (batch > 0) {
            side->ns[batch - 1] = (double)(end - start) / (2.0 * (double)parameters->trips);
            side->count = batch;
            side->settled = settled(side);
        }
        if (end > side->duel->deadline)
            return ETIMEDOUT;
    }
    return 0;
}

/* Ends by the asker's OVER, which may come before the last answer: the count is noted first. */
static int answer(struct side *side)
{
    const struct pp_parameters *parameters = side->duel->parameters;
    unsigned spins = 0;
    int error = 0;

    for (long batch = 0; batch <= parameters->batches_max; batch++) {
        for (long trip = 0; trip <= parameters->trips && error == 0; trip++)
            error = pass(side->duel, ANSWER, ASK, &spins);
        side->switches[batch] = involuntary_switches();
        if (sched_getcpu() != side->cpu)
            return ENODEV;
        if (error)
            return error;
    }
    return 0;
}

/* The page belongs to the node of the CPU that writes to it first, so the asker does. */
static void *asker_thread(void *argument)
{
    struct side *side = argument;

    if ((side->error = pin(side->cpu)) == 0) {
        atomic_store_explicit(&side->duel->page->touched, 1, memory_order_relaxed);
        if ((side->error = meet(side->duel)) == 0)
            side->error = ask(side);
    }
    atomic_store_explicit(&side->duel->page->turn, OVER, memory_order_release);
    return NULL;
}

static void *answerer_thread(void *argument)
{
    struct side *side = argument;

    if ((side->error = pin(side->cpu)) == 0 && (side->error = meet(side->duel)) == 0)
        side->error = answer(side);
    if (side->error)
        atomic_store_explicit(&side->duel->page->turn, OVER, memory_order_release);
    return NULL;
}

static int run(struct duel *duel, struct side *asker, struct side *answerer)
{
    pthread_t threads[2];
    int error = pthread_create(&threads[0], NULL, asker_thread, asker);

    if (error)
        return error;
    error = pthread_create(&threads[1], NULL, answerer_thread, answerer);
    if (error)
        atomic_store_explicit(&duel->page->turn, OVER, memory_order_release);
    else
        pthread_join(threads[1], NULL);
    pthread_join(threads[0], NULL);
    return error;
}

/* Being told OVER is nobody's error; too little time is one only where no batch was complete. */
static int outcome(const struct side *asker, const struct side *answerer)
{
    const int errors[] = {asker->error, answerer->error};

    for (int i = 0; i < 2; i++)
        if (errors[i] != 0 && errors[i] != ECANCELED && errors[i] != ETIMEDOUT)
            return errors[i];
    return asker->count > 0 ? 0 : ETIMEDOUT;
}

static bool sound(int first, int second, const struct pp_parameters *p)
{
    return first >= 0 && first < PP_CPU_LIMIT && second >= 0 && second < PP_CPU_LIMIT &&
           first != second && p->method == PP_CAS && p->trips >= 1 &&
           p->trips <= PP_TRIPS_LIMIT && p->batches_min >= 1 &&
           p->batches_max >= p->batches_min && p->batches_max <= PP_BATCHES_LIMIT &&
           p->agree >= 0 && p->limit_ms >= 1 && p->limit_ms <= PP_TIME_LIMIT_MS;
}

/* As pp_measure, with sound parameters and the sides' memory at hand. */
static int fight(struct duel *duel, struct side *asker, struct side *answerer)
{
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int error;

    if (page == MAP_FAILED)
        return errno;
    duel->page = page;
    duel->deadline = now_ns() + (uint64_t)duel->parameters->limit_ms * 1000000u;
    error = run(duel, asker, answerer);
    munmap(page, PAGE);
    return error ? error : outcome(asker, answerer);
}

int pp_measure(int first, int second, const struct pp_parameters *parameters,
               struct pp_batch *batches, size_t *count)
{
    struct duel duel = {.parameters = parameters};
    struct side asker = {.duel = &duel, .cpu = first};
    struct side answerer = {.duel = &duel, .cpu = second};
    size_t room;
    int error = ENOMEM;

    if (!sound(first, second, parameters))
        return EINVAL;
    room = (size_t)parameters->batches_max + 1;
    asker.ns = calloc(room, sizeof *asker.ns);
    asker.switches = calloc(room, sizeof *asker.switches);
    answerer.switches = calloc(room, sizeof *answerer.switches);
    if (asker.ns && asker.switches && answerer.switches)
        error = fight(&duel, &asker, &answerer);
    *count = error ? 0 : (size_t)asker.count;
    for (size_t i = 0; i < *count; i++) {
        long since_before = asker.switches[i + 1] - asker.switches[i] +
                            answerer.switches[i + 1] - answerer.switches[i];

        batches[i] = (struct pp_batch){.ns = asker.ns[i], .switches = since_before};
    }
    free(asker.ns);
    free(asker.switches);
    free(answerer.switches);
    return error;
}

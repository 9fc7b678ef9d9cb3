/*
 * The life of a duel: its lines, fresh and on one side's node; both sides' batches until they are
 * settled; what came of it.
 *
 * Whatever costs a system call (switches, the CPU we run on) happens between batches, before the
 * untimed round trip that each begins with. See sides.h and pingpong.c.
 */
#define _GNU_SOURCE
#include "sides.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static long involuntary_switches(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

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
    const struct pattern *pattern = pattern_of(parameters->method);
    struct side *self = &duel->sides[0];
    int error;

    for (long batch = 0; batch <= parameters->batches_max && !self->settled; batch++) {
        if ((error = pattern->asks(duel, batch)) != 0)
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
    const struct pattern *pattern = pattern_of(parameters->method);
    struct side *self = &duel->sides[1];
    int error;

    for (long batch = 0; batch <= parameters->batches_max; batch++) {
        error = pattern->answers(duel, batch);
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

/*
 * How long a cache line takes from one CPU to another: the contract of pool.c.
 *
 * Nothing here prints, exits or keeps anything outside of the pool. Out of scope: which pairs
 * (schedule.py), what a value is worth (judge.py), lines and streams (main.c).
 */
#ifndef PINGPONG_H
#define PINGPONG_H

#include <stddef.h>

enum {
    PP_CPU_LIMIT = 65536,         /* CPU numbers lie below it */
    PP_BATCHES_LIMIT = 10000,     /* most batches of a pair */
    PP_TRIPS_LIMIT = 100000000,   /* most round trips of a batch */
    PP_LINES_LIMIT = 16,          /* most cache lines that a pair takes in turn */
    PP_TIME_LIMIT_US = 600000000, /* longest time for a pair */
};

enum pp_method {
    PP_CAS, /* compare-exchange on one shared line */
    PP_RW,  /* two lines, each with a single writer and a single reader */
    PP_MSG, /* one-way messages over many lines, stamped with the CPU's own clock */
};

enum pp_home { PP_FIRST, PP_SECOND }; /* the CPU whose node the lines are on */

struct pp_parameters {
    enum pp_method method;
    enum pp_home home;
    long lines;       /* lines (of PP_RW: pairs of lines) taken in turn, batch by batch */
    long trips;       /* round trips of a batch */
    long batches_min; /* timed batches that are always taken */
    long batches_max; /* timed batches after which a pair ends in any case */
    double agree;     /* settled: the second lowest batch is at most this share above the lowest */
    long limit_us;    /* a pair gives up after this time, whatever happens to its threads */
};

struct pp_batch {
    double ns;     /* one way, the average of the batch's messages */
    long switches; /* involuntary context switches of both threads since the batch before */
};

/* A pair and what became of it. `batches` has room for batches_max. */
struct pp_job {
    int first, second;
    struct pp_batch *batches; /* in the order taken, without the warm-up */
    size_t count;             /* batches taken */
    int node;                 /* NUMA node that the lines were on; -1: not known, or several */
    int error;                /* 0, or an errno, see pp_measure */
};

/* Threads, one for each CPU that was measured so far; each sleeps while its CPU is in no pair. */
struct pp_pool;

/* NULL: no memory. */
struct pp_pool *pp_pool_new(void);
void pp_pool_free(struct pp_pool *pool);

/*
 * Measure pairs at the same time, each until it is settled, or batches_max or its time limit is
 * reached. Each job's error tells of it:
 *   EINVAL     a parameter out of range, twice the same CPU, or a CPU this process cannot run on
 *   EBUSY      an earlier job has one of the CPUs
 *   ENODEV     the kernel moved a thread to another CPU meanwhile (its own went offline)
 *   ETIMEDOUT  no batch was complete within the time limit
 *   ENOTSUP    PP_MSG on a CPU whose time stamp counter is not invariant
 *   EAGAIN, ENOMEM, EPERM  as pthread_create(3), mmap(2) and sched_setaffinity(2) say
 * A time limit that ends a pair after its first batch is no error: the batches so far count.
 */
void pp_measure(struct pp_pool *pool, const struct pp_parameters *parameters, struct pp_job *jobs,
                size_t count);

#endif

/*
 * How long a cache line takes from one CPU to another and back: the contract of pingpong.c.
 *
 * One call measures one pair of CPUs. Nothing here prints, exits or keeps anything between calls,
 * and calls on disjoint pairs may run at the same time. Out of scope: which pairs (schedule.py),
 * what a value is worth (judge.py), lines and streams (main.c).
 */
#ifndef PINGPONG_H
#define PINGPONG_H

#include <stddef.h>

enum {
    PP_CPU_LIMIT = 65536,       /* CPU numbers lie below it */
    PP_BATCHES_LIMIT = 10000,   /* most batches of a pair */
    PP_TRIPS_LIMIT = 100000000, /* most round trips of a batch */
    PP_TIME_LIMIT_MS = 600000,  /* longest time for a pair */
};

enum pp_method {
    PP_CAS, /* compare-exchange on one shared line */
};

struct pp_parameters {
    enum pp_method method;
    long trips;       /* round trips of a batch */
    long batches_min; /* timed batches that are always taken */
    long batches_max; /* timed batches after which a pair ends in any case */
    double agree;     /* settled: the second lowest batch is at most this share above the lowest */
    long limit_ms;    /* a pair gives up after this time, whatever happens to its threads */
};

struct pp_batch {
    double ns;     /* elapsed / (2 * trips): one way */
    long switches; /* involuntary context switches of both threads since the batch before */
};

/*
 * Measure the pair until it is settled, or batches_max or the time limit is reached. The batches
 * (room for batches_max) are in the order taken, without the warm-up; *count says how many. 0, or
 * an errno:
 *   EINVAL     a parameter out of range, twice the same CPU, or a CPU this process cannot run on
 *   ENODEV     the kernel moved a thread to another CPU meanwhile (its own went offline)
 *   ETIMEDOUT  no batch was complete within the time limit
 *   EAGAIN, ENOMEM, EPERM  as pthread_create(3), mmap(2) and sched_setaffinity(2) say
 * A time limit that ends a pair after its first batch is no error: the batches so far count.
 */
int pp_measure(int first, int second, const struct pp_parameters *parameters,
               struct pp_batch *batches, size_t *count);

#endif

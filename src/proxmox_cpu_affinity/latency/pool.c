/*
 * The threads that measure: one a CPU, made when its CPU is first in a pair, asleep between pairs.
 *
 * So a pair costs two wake-ups rather than two new threads. The caller of pp_measure sleeps while
 * the pairs are measured, and is woken once, by the thread that ends last.
 */
#define _GNU_SOURCE
#include "duel.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { STACK = 256 * 1024 };

struct worker {
    struct pp_pool *pool;
    pthread_t thread;
    sem_t wake;
    int cpu;
    int side;
    int unable;        /* errno of the pinning */
    struct duel *duel; /* NULL: no work; the thread ends when it is woken so */
};

struct pp_pool {
    struct worker *workers[PP_CPU_LIMIT]; /* by CPU; NULL: none yet */
    atomic_size_t left;                   /* sides that still run */
    sem_t done;
};

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
    return error;
}

/* Pinned anew for each pair: a CPU that was offline meanwhile has lost its thread. */
static void *work(void *argument)
{
    struct worker *self = argument;

    for (;;) {
        while (sem_wait(&self->wake) != 0)
            ;
        if (!self->duel)
            return NULL;
        self->unable = pin(self->cpu);
        duel_run(self->duel, self->side, self->unable ? -1 : self->cpu);
        if (atomic_fetch_sub_explicit(&self->pool->left, 1, memory_order_acq_rel) == 1)
            sem_post(&self->pool->done);
    }
}

static int hire(struct pp_pool *pool, int cpu)
{
    struct worker *worker = calloc(1, sizeof *worker);
    pthread_attr_t attributes;
    int error;

    if (!worker)
        return ENOMEM;
    worker->pool = pool;
    worker->cpu = cpu;
    sem_init(&worker->wake, 0, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    error = pthread_create(&worker->thread, &attributes, work, worker);
    pthread_attr_destroy(&attributes);
    if (error) {
        sem_destroy(&worker->wake);
        free(worker);
    } else {
        pool->workers[cpu] = worker;
    }
    return error;
}

struct pp_pool *pp_pool_new(void)
{
    struct pp_pool *pool = calloc(1, sizeof *pool);

    if (pool)
        sem_init(&pool->done, 0, 0);
    return pool;
}

void pp_pool_free(struct pp_pool *pool)
{
    for (int cpu = 0; pool && cpu < PP_CPU_LIMIT; cpu++) {
        struct worker *worker = pool->workers[cpu];

        if (!worker)
            continue;
        worker->duel = NULL;
        sem_post(&worker->wake);
        pthread_join(worker->thread, NULL);
        sem_destroy(&worker->wake);
        free(worker);
    }
    if (pool)
        sem_destroy(&pool->done);
    free(pool);
}

/* Both workers of a job, free and with its duel in hand, or the reason why not. */
static int enlist(struct pp_pool *pool, const struct pp_parameters *parameters, struct pp_job *job)
{
    const int cpus[] = {job->first, job->second};
    struct duel *duel;
    int error;

    if (!(duel = duel_new(job->first, job->second, parameters, &error)))
        return error;
    for (int side = 0; side < 2 && error == 0; side++)
        if (!pool->workers[cpus[side]])
            error = hire(pool, cpus[side]);
    for (int side = 0; side < 2 && error == 0; side++)
        if (pool->workers[cpus[side]]->duel)
            error = EBUSY;
    if (error) {
        struct pp_job dropped = *job;

        duel_end(duel, &dropped);
        return error;
    }
    for (int side = 0; side < 2; side++) {
        pool->workers[cpus[side]]->duel = duel;
        pool->workers[cpus[side]]->side = side;
    }
    return 0;
}

static void dismiss(struct pp_pool *pool, struct pp_job *job)
{
    struct worker *first = pool->workers[job->first], *second = pool->workers[job->second];
    struct duel *duel = first->duel;

    first->duel = second->duel = NULL;
    duel_end(duel, job);
    if (first->unable || second->unable) {
        job->error = first->unable ? first->unable : second->unable;
        job->count = 0;
    }
}

void pp_measure(struct pp_pool *pool, const struct pp_parameters *parameters, struct pp_job *jobs,
                size_t count)
{
    size_t sides = 0;

    for (size_t i = 0; i < count; i++) {
        jobs[i].count = 0;
        jobs[i].node = -1;
        jobs[i].error = enlist(pool, parameters, &jobs[i]);
        sides += jobs[i].error ? 0 : 2;
    }
    if (sides == 0)
        return;
    atomic_store_explicit(&pool->left, sides, memory_order_release);
    for (size_t i = 0; i < count; i++)
        if (!jobs[i].error) {
            sem_post(&pool->workers[jobs[i].first]->wake);
            sem_post(&pool->workers[jobs[i].second]->wake);
        }
    while (sem_wait(&pool->done) != 0)
        ;
    for (size_t i = 0; i < count; i++)
        if (!jobs[i].error)
            dismiss(pool, &jobs[i]);
}

/*
 * One pair being measured, between pool.c, which has the threads, and duel.c. A duel is made by
 * one thread, then run by two, each pinned to its CPU, then ended.
 */
#ifndef DUEL_H
#define DUEL_H

#include "pingpong.h"

struct duel;

/* NULL, and *error says why: EINVAL, ENOTSUP, ENOMEM. The parameters must outlive the duel. */
struct duel *duel_new(int first, int second, const struct pp_parameters *parameters, int *error);

/* Side 0 runs on the first CPU and keeps the time, side 1 on the second one; `cpu` is its own. */
void duel_run(struct duel *duel, int side, int cpu);

/* When both sides have run: fill the job, and free the duel. */
void duel_end(struct duel *duel, struct pp_job *job);

#endif

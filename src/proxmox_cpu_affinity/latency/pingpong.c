/*
 * How two pinned threads pass cache lines to and fro; the first one, the asker, keeps the time.
 *
 * A batch is one untimed round trip and then `trips` timed ones. Batch 0 warms up. The batches take
 * the pair's lines in turn, so that one line that lies in a far slice of the cache does not decide;
 * lines that the kernel gave are fresh for each pair.
 *
 * cas: one word says whose turn it is; each side spins on its compare-exchange, so the line
 * travels twice a round trip. rw: each side writes the trip's number into its own line and spins
 * on the other's. Both: half the time of a round trip, by the asker's clock alone.
 * msg: each message is a time stamp on a line of its own; the receiver subtracts it from its own
 * clock. A skew of the two clocks adds to one direction what it takes from the other one, so the
 * average of both directions is free of it; what reading the clock costs is subtracted.
 */
#include "sides.h"

#include <errno.h>

enum { ASK, ANSWER };

enum {
    SPINS_PER_GLANCE = 64, /* failed looks at a line between two at `over` */
    SPINS_PER_LOOK = 1024, /* ... and between two looks at the clock */
};

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

const struct pattern *pattern_of(enum pp_method method)
{
    static const struct pattern patterns[] = {
        [PP_CAS] = {cas_asks, cas_answers},
        [PP_RW] = {rw_asks, rw_answers},
        [PP_MSG] = {msg_asks, msg_answers},
    };

    return &patterns[method];
}

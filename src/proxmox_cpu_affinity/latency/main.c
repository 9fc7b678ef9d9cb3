/*
 * The measuring program: parameters and pairs as lines on stdin, samples as lines on stdout.
 *
 *     cc -std=c11 -O2 -Wall -Wextra -Werror -pthread -o pingpong *.c
 *
 * It says `pingpong 2` (the version of these lines), then answers until stdin ends. Input:
 *
 *     method WORD        cas, rw or msg: how a pair is measured (cas); pingpong.h says what they are
 *     home WORD          first or second: the CPU on whose node the lines are (first)
 *     lines N            cache lines that a pair takes in turn (4)
 *     batch N            round trips of a batch (100)
 *     batches-min N      timed batches of every pair (5)
 *     batches-max N      timed batches after which a pair ends in any case (30)
 *     agree SHARE        a pair ends when its two lowest batches differ by no more (0.05)
 *     limit-us N         a pair gives up after this time (500000)
 *     pair A B           add a pair of CPUs to the round
 *     round              the round is complete: later pairs are measured after it
 *     run                measure the rounds, the pairs of each at the same time
 *
 * batches-min equal to batches-max is a fixed number of batches. One warm-up batch more is run and
 * dropped in any case. Output, in the order of the pairs:
 *
 *     sample A B NODE NS:SWITCHES ...
 *         the NUMA node that the lines were on (-1: not known), and each batch: ns one way,
 *         involuntary context switches of both threads
 *     error A B NAME     the pair could not be measured: an errno's name, see pingpong.h
 *     ran N              the answer to run: so many pairs were dealt with
 *     bad N              input line N was not understood and changed nothing
 *
 * A line is a word and its parameters with blanks between; an empty one says nothing. The output
 * is held back until the run is over, or fills a buffer: whoever reads it disturbs no pair. Exit
 * status: 0 when stdin ended, 1 when stdout cannot be written or there is no memory.
 */
#define _GNU_SOURCE
#include "pingpong.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINE_MAX_BYTES = 256,
    WORDS_MAX = 4,
    QUEUE_MAX = PP_CPU_LIMIT,
    BUFFER = 1 << 20,
};

struct pair {
    int first, second;
    bool last; /* of its round */
};

struct session {
    struct pp_parameters parameters;
    struct pp_pool *pool;
    struct pair queue[QUEUE_MAX];
    size_t queued;
};

static bool whole(const char *word, long low, long high, long *number)
{
    char *end;

    errno = 0;
    *number = strtol(word, &end, 10);
    return errno == 0 && end != word && *end == '\0' && *number >= low && *number <= high;
}

static bool share(const char *word, double *number)
{
    char *end;

    errno = 0;
    *number = strtod(word, &end);
    return errno == 0 && end != word && *end == '\0' && *number >= 0 && *number <= 1;
}

/* The index of a word, or -1. */
static int choice(const char *word, const char *const *words, int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(word, words[i]) == 0)
            return i;
    return -1;
}

static bool set_word(struct pp_parameters *parameters, const char *name, const char *word)
{
    static const char *const methods[] = {[PP_CAS] = "cas", [PP_RW] = "rw", [PP_MSG] = "msg"};
    static const char *const homes[] = {[PP_FIRST] = "first", [PP_SECOND] = "second"};
    double agree;
    int chosen;

    if (strcmp(name, "method") == 0 && (chosen = choice(word, methods, 3)) >= 0)
        parameters->method = (enum pp_method)chosen;
    else if (strcmp(name, "home") == 0 && (chosen = choice(word, homes, 2)) >= 0)
        parameters->home = (enum pp_home)chosen;
    else if (strcmp(name, "agree") == 0 && share(word, &agree))
        parameters->agree = agree;
    else
        return false;
    return true;
}

static bool set(struct pp_parameters *parameters, const char *name, const char *word)
{
    const struct {
        const char *name;
        long *field;
        long high;
    } fields[] = {
        {"lines", &parameters->lines, PP_LINES_LIMIT},
        {"batch", &parameters->trips, PP_TRIPS_LIMIT},
        {"batches-min", &parameters->batches_min, PP_BATCHES_LIMIT},
        {"batches-max", &parameters->batches_max, PP_BATCHES_LIMIT},
        {"limit-us", &parameters->limit_us, PP_TIME_LIMIT_US},
    };
    long number;

    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strcmp(name, fields[i].name) == 0 && whole(word, 1, fields[i].high, &number)) {
            *fields[i].field = number;
            return true;
        }
    return set_word(parameters, name, word);
}

static bool enqueue(struct session *session, const char *first, const char *second)
{
    long a, b;

    if (session->queued == QUEUE_MAX || !whole(first, 0, PP_CPU_LIMIT - 1, &a) ||
        !whole(second, 0, PP_CPU_LIMIT - 1, &b))
        return false;
    session->queue[session->queued++] = (struct pair){(int)a, (int)b, false};
    return true;
}

static void tell(const struct pp_job *job)
{
    if (job->error) {
        const char *name = strerrorname_np(job->error);

        printf("error %d %d %s\n", job->first, job->second, name ? name : "EUNKNOWN");
        return;
    }
    printf("sample %d %d %d", job->first, job->second, job->node);
    for (size_t i = 0; i < job->count; i++)
        printf(" %.3f:%ld", job->batches[i].ns, job->batches[i].switches);
    putchar('\n');
}

static void measure(struct session *session, const struct pair *pairs, size_t count)
{
    size_t room = (size_t)session->parameters.batches_max;
    struct pp_job *jobs = calloc(count, sizeof *jobs);
    struct pp_batch *batches = calloc(count * room, sizeof *batches);

    for (size_t i = 0; i < count; i++) {
        struct pp_job job = {.first = pairs[i].first, .second = pairs[i].second, .error = ENOMEM};

        if (!jobs || !batches) {
            tell(&job);
            continue;
        }
        jobs[i] = job;
        jobs[i].batches = batches + i * room;
    }
    if (jobs && batches) {
        pp_measure(session->pool, &session->parameters, jobs, count);
        for (size_t i = 0; i < count; i++)
            tell(&jobs[i]);
    }
    free(jobs);
    free(batches);
}

static void run(struct session *session)
{
    size_t first = 0;

    for (size_t i = 0; i < session->queued; i++)
        if (session->queue[i].last || i + 1 == session->queued) {
            measure(session, session->queue + first, i + 1 - first);
            first = i + 1;
        }
    printf("ran %zu\n", session->queued);
    session->queued = 0;
}

static bool obey(struct session *session, char *line)
{
    char *words[WORDS_MAX], *rest = NULL;
    int count = 0;

    for (char *word = strtok_r(line, " \t\r\n", &rest); word && count < WORDS_MAX;
         word = strtok_r(NULL, " \t\r\n", &rest))
        words[count++] = word;
    if (count == 0)
        return true;
    if (count == 1 && strcmp(words[0], "run") == 0) {
        run(session);
        return true;
    }
    if (count == 1 && strcmp(words[0], "round") == 0) {
        if (session->queued)
            session->queue[session->queued - 1].last = true;
        return true;
    }
    if (count == 2)
        return set(&session->parameters, words[0], words[1]);
    return count == 3 && strcmp(words[0], "pair") == 0 && enqueue(session, words[1], words[2]);
}

/* False when stdin ended. A line that is too long or holds a NUL byte becomes one of no meaning. */
static bool next_line(char line[LINE_MAX_BYTES])
{
    size_t length = 0;
    bool sound = true;
    int byte;

    while ((byte = getchar()) != EOF && byte != '\n')
        if (byte != '\0' && length + 1 < LINE_MAX_BYTES)
            line[length++] = (char)byte;
        else
            sound = false;
    line[length] = '\0';
    if (!sound)
        strcpy(line, "?");
    return byte != EOF || *line != '\0';
}

/* What was said is flushed where an answer is complete: after the greeting, a run, a bad line. */
static bool converse(struct session *session)
{
    char line[LINE_MAX_BYTES];

    puts("pingpong 2");
    for (unsigned long number = 1; fflush(stdout) == 0 && next_line(line); number++)
        if (!obey(session, line))
            printf("bad %lu\n", number);
    return fflush(stdout) == 0 && !ferror(stdout);
}

int main(void)
{
    static char buffer[BUFFER];
    static struct session session; /* large: an initialiser would put it into the file */
    bool well;

    session.parameters = (struct pp_parameters){.method = PP_CAS,
                                                .home = PP_FIRST,
                                                .lines = 4,
                                                .trips = 100,
                                                .batches_min = 5,
                                                .batches_max = 30,
                                                .agree = 0.05,
                                                .limit_us = 500000};
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    if (!(session.pool = pp_pool_new()))
        return 1;
    well = converse(&session);
    pp_pool_free(session.pool);
    return well ? 0 : 1;
}

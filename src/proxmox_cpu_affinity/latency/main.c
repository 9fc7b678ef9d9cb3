/*
 * The measuring program: parameters and pairs as lines on stdin, samples as lines on stdout.
 *
 *     cc -std=c11 -O2 -Wall -Wextra -Werror -pthread -o pingpong pingpong.c main.c
 *
 * It says `pingpong 1` (the version of these lines), then answers until stdin ends. Input:
 *
 *     method cas         how a pair is measured; cas is the only one yet
 *     batch N            round trips of a batch (100)
 *     batches-min N      timed batches of every pair (5)
 *     batches-max N      timed batches after which a pair ends in any case (30)
 *     agree SHARE        a pair ends when its two lowest batches differ by no more (0.05)
 *     limit-ms N         a pair gives up after this time (500)
 *     pair A B           queue a pair of CPUs
 *     run                measure the queued pairs, at present one after the other
 *
 * batches-min equal to batches-max is a fixed number of batches. One warm-up batch more is run and
 * dropped in any case. Output, flushed after each pair:
 *
 *     batch A B NS SWITCHES    one batch: ns one way, involuntary context switches of both threads
 *     done A B N               the pair was measured in so many batches, the lines before
 *     error A B NAME           the pair could not be measured: an errno's name, see pingpong.h
 *     ran N                    the answer to run: so many pairs were dealt with
 *     bad N                    input line N was not understood and changed nothing
 *
 * A line is a word and its numbers with blanks between; an empty one says nothing. Exit status: 0
 * when stdin ended, 1 when stdout cannot be written.
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
    QUEUE_MAX = PP_CPU_LIMIT / 2, /* no more disjoint pairs exist */
};

struct pair {
    int first, second;
};

struct session {
    struct pp_parameters parameters;
    struct pp_batch batches[PP_BATCHES_LIMIT];
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

static bool set(struct pp_parameters *parameters, const char *name, const char *word)
{
    const struct {
        const char *name;
        long *field;
        long high;
    } fields[] = {
        {"batch", &parameters->trips, PP_TRIPS_LIMIT},
        {"batches-min", &parameters->batches_min, PP_BATCHES_LIMIT},
        {"batches-max", &parameters->batches_max, PP_BATCHES_LIMIT},
        {"limit-ms", &parameters->limit_ms, PP_TIME_LIMIT_MS},
    };
    double agree;
    long number;

    if (strcmp(name, "method") == 0)
        return strcmp(word, "cas") == 0;
    if (strcmp(name, "agree") == 0) {
        if (!share(word, &agree))
            return false;
        parameters->agree = agree;
        return true;
    }
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strcmp(name, fields[i].name) == 0 && whole(word, 1, fields[i].high, &number)) {
            *fields[i].field = number;
            return true;
        }
    return false;
}

static bool enqueue(struct session *session, const char *first, const char *second)
{
    long a, b;

    if (session->queued == QUEUE_MAX || !whole(first, 0, PP_CPU_LIMIT - 1, &a) ||
        !whole(second, 0, PP_CPU_LIMIT - 1, &b))
        return false;
    session->queue[session->queued++] = (struct pair){(int)a, (int)b};
    return true;
}

static void measure(struct session *session, struct pair pair)
{
    size_t count = 0;
    int error =
        pp_measure(pair.first, pair.second, &session->parameters, session->batches, &count);

    if (error) {
        const char *name = strerrorname_np(error);

        printf("error %d %d %s\n", pair.first, pair.second, name ? name : "EUNKNOWN");
        return;
    }
    for (size_t i = 0; i < count; i++)
        printf("batch %d %d %.3f %ld\n", pair.first, pair.second, session->batches[i].ns,
               session->batches[i].switches);
    printf("done %d %d %zu\n", pair.first, pair.second, count);
}

static void run(struct session *session)
{
    for (size_t i = 0; i < session->queued; i++) {
        measure(session, session->queue[i]);
        if (i + 1 < session->queued)
            fflush(stdout);
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

int main(void)
{
    static struct session session = {
        .parameters = {.method = PP_CAS,
                       .trips = 100,
                       .batches_min = 5,
                       .batches_max = 30,
                       .agree = 0.05,
                       .limit_ms = 500},
    };
    char line[LINE_MAX_BYTES];

    puts("pingpong 1");
    for (unsigned long number = 1; fflush(stdout) == 0 && next_line(line); number++)
        if (!obey(&session, line))
            printf("bad %lu\n", number);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}

/*
 * The clock that messages are stamped with. PP_PLAIN leaves out whatever only one kind of CPU
 * has: the plain path runs anywhere, and the tests compare the other one with it.
 */
#ifndef PP_CLOCK_H
#define PP_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#if defined(__x86_64__) && !defined(PP_PLAIN)
#include <cpuid.h>
#include <x86intrin.h>
#endif

static inline uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#if defined(__x86_64__) && !defined(PP_PLAIN)

/* LFENCE before RDTSC: read when all earlier loads are done (Intel SDM, RDTSC; Linux makes LFENCE
 * wait on AMD too). */
static inline uint64_t ticks(void)
{
    _mm_lfence();
    return __rdtsc();
}

/* CPUID 80000007H, EDX bit 8: the counter runs at one rate in every power state. */
static inline bool ticks_are_even(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(0x80000007u, &a, &b, &c, &d) && (d >> 8 & 1);
}

#elif defined(__aarch64__) && !defined(PP_PLAIN)

/* The generic timer has one rate on all CPUs (Arm ARM, D11.1.2). */
static inline uint64_t ticks(void)
{
    uint64_t now;

    __asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(now)::"memory");
    return now;
}

static inline bool ticks_are_even(void)
{
    return true;
}

#else

static inline uint64_t ticks(void)
{
    return now_ns();
}

static inline bool ticks_are_even(void)
{
    return true;
}

#endif

/* One moment on both clocks, to tell the length of a tick from two of them. */
struct moment {
    uint64_t ns, ticks;
};

/* Of a few readings that in which the least time passed between the clocks. */
static inline struct moment moment_now(void)
{
    struct moment best = {0, 0};
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < 5; i++) {
        uint64_t before = ticks(), ns = now_ns(), after = ticks();

        if (after - before < least) {
            least = after - before;
            best = (struct moment){ns, before + least / 2};
        }
    }
    return best;
}

#endif

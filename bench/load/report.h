/* What a run measures: time, processor time of both sides, latencies; and how it is told. */
#ifndef LOAD_REPORT_H
#define LOAD_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SECOND INT64_C(1000000000)
#define MILLISECOND INT64_C(1000000)

/* Ends the program with status 1 and one line on stderr: a run with a fault in it measures nothing. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

int64_t now_ns(void); /* on the monotonic clock */

/* A stretch of time and the processor time that was used in it: by the load, by the server when its pid is known, and
   by the whole machine, which shows whether others disturbed the run. */
struct window {
    pid_t server; /* 0: unknown */
    int64_t elapsed_ns, load_cpu_ns, server_cpu_ns, machine_cpu_ns;
};
void window_open(struct window *window, pid_t server);
/* Closes the window now; the server's processor time is read after `settle_ns`, so that what the last
   operation leaves it to do (closing sockets) is counted. */
void window_close(struct window *window, int64_t settle_ns);

/* Latencies in nanoseconds, to one part in 64. */
#define HISTOGRAM_STEPS 64
struct histogram {
    uint64_t counts[64 * HISTOGRAM_STEPS];
    uint64_t total;
    int64_t longest_ns;
};
void histogram_add(struct histogram *histogram, int64_t ns);
/* The latency that `share` (0…1) of all do not pass, rounded up. */
double histogram_ms(const struct histogram *histogram, double share);

/* One JSON object on one line of stdout. */
void report_begin(const char *command);
void report_text(const char *name, const char *value);
void report_number(const char *name, double value);
void report_flag(const char *name, bool value);
void report_window(const struct window *window, uint64_t operations);
void report_latency(const char *name, const struct histogram *histogram);
void report_end(void);

#endif

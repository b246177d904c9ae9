#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time) != 0)
        die("a clock cannot be read: is the server still running?");
    return (int64_t)time.tv_sec * SECOND + time.tv_nsec;
}

int64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* All threads of the process, ended ones too: utime + stime of /proc/PID/stat, without its steps of 10 ms. */
static int64_t process_cpu_ns(pid_t pid)
{
    clockid_t clock;
    if (pid == 0)
        return 0;
    if (clock_getcpuclockid(pid, &clock) != 0)
        die("no process %d to measure", (int)pid);
    return clock_ns(clock);
}

/* All processes on all cores, and what the hypervisor gave to others; in steps of 10 ms. */
static int64_t machine_cpu_ns(void)
{
    unsigned long long user, nice, system, idle, wait, irq, softirq, steal;
    FILE *file = fopen("/proc/stat", "r");
    int found = file != NULL ? fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle,
                                      &wait, &irq, &softirq, &steal)
                             : 0;
    if (file != NULL)
        fclose(file);
    if (found != 8)
        die("/proc/stat cannot be read");
    return (int64_t)(user + nice + system + irq + softirq + steal) * (SECOND / sysconf(_SC_CLK_TCK));
}

void window_open(struct window *window, pid_t server)
{
    window->server = server;
    window->machine_cpu_ns = -machine_cpu_ns();
    window->server_cpu_ns = -process_cpu_ns(server);
    window->load_cpu_ns = -clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    window->elapsed_ns = -now_ns();
}

void window_close(struct window *window, int64_t settle_ns)
{
    window->elapsed_ns += now_ns();
    window->load_cpu_ns += clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    window->machine_cpu_ns += machine_cpu_ns();
    if (settle_ns != 0)
        nanosleep(&(struct timespec){.tv_sec = settle_ns / SECOND, .tv_nsec = settle_ns % SECOND}, NULL);
    window->server_cpu_ns += process_cpu_ns(window->server);
}

/* Values below 64 have a place each; above, each doubling is cut into 64 steps. */
static unsigned histogram_place(uint64_t ns)
{
    if (ns < HISTOGRAM_STEPS)
        return (unsigned)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - 6u;
    return (shift + 1) * HISTOGRAM_STEPS + (unsigned)((ns >> shift) - HISTOGRAM_STEPS);
}

static int64_t histogram_upper_ns(unsigned place)
{
    if (place < HISTOGRAM_STEPS)
        return place;
    unsigned shift = place / HISTOGRAM_STEPS - 1;
    return (((int64_t)(place % HISTOGRAM_STEPS) + HISTOGRAM_STEPS + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, int64_t ns)
{
    if (ns < 0)
        ns = 0;
    histogram->counts[histogram_place((uint64_t)ns)]++;
    histogram->total++;
    if (ns > histogram->longest_ns)
        histogram->longest_ns = ns;
}

double histogram_ms(const struct histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)histogram->total + 0.5), seen = 0;
    for (unsigned place = 0; place < sizeof histogram->counts / sizeof *histogram->counts; place++) {
        seen += histogram->counts[place];
        if (seen >= wanted && seen != 0) {
            int64_t upper = histogram_upper_ns(place);
            return (double)(upper < histogram->longest_ns ? upper : histogram->longest_ns) / MILLISECOND;
        }
    }
    return 0;
}

static void report_string(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20)
            printf("\\u%04x", (unsigned)(unsigned char)*text);
        else if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else
            putchar(*text);
    }
    putchar('"');
}

void report_begin(const char *command)
{
    fputs("{\"command\": ", stdout);
    report_string(command);
}

static void report_name(const char *name)
{
    fputs(", ", stdout);
    report_string(name);
    fputs(": ", stdout);
}

void report_text(const char *name, const char *value)
{
    report_name(name);
    report_string(value);
}

void report_number(const char *name, double value)
{
    report_name(name);
    printf("%.9g", value);
}

void report_flag(const char *name, bool value)
{
    report_name(name);
    fputs(value ? "true" : "false", stdout);
}

void report_window(const struct window *window, uint64_t operations)
{
    double seconds = (double)window->elapsed_ns / SECOND, count = operations != 0 ? (double)operations : 1;
    report_number("operations", (double)operations);
    report_number("seconds", seconds);
    report_number("per_second", (double)operations / seconds);
    report_number("load_cpu_share", (double)window->load_cpu_ns / (double)window->elapsed_ns);
    report_number("load_cpu_us", (double)window->load_cpu_ns / 1000 / count);
    if (window->server != 0) {
        report_number("server_cpu_share", (double)window->server_cpu_ns / (double)window->elapsed_ns);
        report_number("server_cpu_us", (double)window->server_cpu_ns / 1000 / count);
        int64_t others = window->machine_cpu_ns - window->load_cpu_ns - window->server_cpu_ns;
        report_number("others_cpu_share", others > 0 ? (double)others / (double)window->elapsed_ns : 0);
    }
}

void report_latency(const char *name, const struct histogram *histogram)
{
    report_name(name);
    printf("{\"count\": %llu, \"p50\": %.6g, \"p99\": %.6g, \"p99.9\": %.6g, \"max\": %.6g}",
           (unsigned long long)histogram->total, histogram_ms(histogram, 0.5), histogram_ms(histogram, 0.99),
           histogram_ms(histogram, 0.999), (double)histogram->longest_ns / MILLISECOND);
}

void report_end(void)
{
    puts("}");
    fflush(stdout);
}

/* publish: as much as the server takes, with so many messages in flight. rate: so many a second, come what may. */
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "report.h"
#include "session.h"

#define RATE_WINDOW 4096 /* packet ids a connection of `rate` uses in turn */

struct publisher {
    struct session session;
    struct buffer packet; /* one whole PUBLISH; only the packet id in it changes */
    size_t id_at;
    int64_t *sent; /* by packet id - 1: when it was sent, or with `rate` when it was due; 0: not in flight */
};

static struct {
    struct loop loop;
    struct publisher *all;
    size_t count, ids;
    bool sending, repeating; /* repeating: an acknowledgement makes room for the next message */
    int64_t measured_from;   /* only what was sent since then counts for the latency */
    uint64_t in_flight, acknowledged;
    struct histogram latency, lag;
    struct window window;
} run;

static void publish(struct publisher *publisher, uint16_t id, int64_t time)
{
    struct buffer *packet = &publisher->packet;
    packet->bytes[publisher->id_at] = (uint8_t)(id >> 8);
    packet->bytes[publisher->id_at + 1] = (uint8_t)id;
    buffer_add(&publisher->session.link.out, packet->bytes, packet->length);
    publisher->sent[id - 1] = time;
    run.in_flight++;
}

static void publish_packet(struct session *session, const struct packet *packet)
{
    struct publisher *publisher = (struct publisher *)session;
    if (packet->kind != PUBACK)
        die("%s: unasked packet of kind %d", session->device->id, packet->kind);
    uint16_t id = packet_u16(session, packet, 0);
    if (id == 0 || id > run.ids || publisher->sent[id - 1] == 0)
        die("%s: PUBACK for packet id %d, which is not in flight", session->device->id, id);
    int64_t now = now_ns();
    if (publisher->sent[id - 1] >= run.measured_from)
        histogram_add(&run.latency, now - publisher->sent[id - 1]);
    publisher->sent[id - 1] = 0;
    run.in_flight--;
    run.acknowledged++;
    if (run.sending && run.repeating)
        publish(publisher, id, now);
}

static const struct role publishing = {.packet = publish_packet};

/* Printable, without structure, and the same in every run. */
static char *payload_of(size_t length)
{
    char *payload = malloc(length + 1);
    if (payload == NULL)
        die("out of memory");
    uint32_t state = 1;
    for (size_t i = 0; i < length; i++) {
        state = state * 1664525u + 1013904223u;
        payload[i] = (char)('!' + (state >> 24) % 90);
    }
    return payload;
}

static size_t length_of(const struct options *options)
{
    return options->body != NULL ? strlen(options->body) : options->payload;
}

static void publishers_open(const struct options *options)
{
    struct devices devices = devices_read(options->devices, options->connections);
    size_t length = length_of(options);
    char *payload = options->body != NULL ? strdup(options->body) : payload_of(length);
    loop_begin(&run.loop, options->address, options->port, options->server_name, options->tls, options->ca);
    run.count = options->connections;
    run.measured_from = INT64_MAX;
    run.all = calloc(run.count, sizeof *run.all);
    for (size_t i = 0; run.all != NULL && i < run.count; i++) {
        struct publisher *publisher = &run.all[i];
        char *topic = with_id(options->topic, devices.all[i].id);
        publisher->id_at = mqtt_publish(&publisher->packet, 0, topic, payload, length);
        publisher->sent = calloc(run.ids, sizeof *publisher->sent);
        free(topic);
    }
    free(payload);
    sessions_open(&run.loop, run.all, sizeof *run.all, run.count, &devices, &publishing, options->at_once);
}

/* Waits until everything sent is acknowledged, then leaves. */
static void publishers_close(void)
{
    int64_t deadline = now_ns() + 10 * SECOND;
    run.sending = false;
    while (run.in_flight != 0 && now_ns() < deadline)
        loop_turn(&run.loop, 10 * MILLISECOND);
    if (run.in_flight != 0)
        die("%llu messages were never acknowledged", (unsigned long long)run.in_flight);
    for (size_t i = 0; i < run.count; i++)
        session_end(&run.all[i].session);
}

static void measure_from_here(const struct options *options)
{
    run.measured_from = now_ns();
    run.acknowledged = 0;
    window_open(&run.window, options->server_pid);
}

static void report_publishing(const char *command, const struct options *options, uint64_t acknowledged)
{
    report_begin(command);
    report_text("tls", run.loop.agreed);
    report_number("connections", (double)run.count);
    report_number("payload", (double)length_of(options));
    report_window(&run.window, acknowledged);
    report_latency("acknowledged_ms", &run.latency);
}

void run_publish(const struct options *options)
{
    run.ids = options->in_flight;
    if (run.ids == 0 || run.ids > 65535)
        die("--in-flight is 1 to 65535");
    if (options->messages == 0 && options->seconds == 0)
        die("publish wants --messages or --seconds");
    publishers_open(options);

    run.sending = run.repeating = true;
    int64_t started = now_ns();
    for (size_t i = 0; i < run.count; i++) {
        for (size_t id = 1; id <= run.ids; id++)
            publish(&run.all[i], (uint16_t)id, started);
        link_flush(&run.all[i].session.link);
    }
    while (now_ns() - started < (int64_t)(options->warmup * SECOND))
        loop_turn(&run.loop, 10 * MILLISECOND);

    measure_from_here(options);
    int64_t deadline = run.measured_from + (int64_t)(options->seconds * SECOND);
    while ((options->messages == 0 || run.acknowledged < options->messages) &&
           (options->seconds == 0 || now_ns() < deadline))
        loop_turn(&run.loop, 10 * MILLISECOND);
    uint64_t acknowledged = run.acknowledged;
    window_close(&run.window, 0);
    publishers_close();

    report_publishing("publish", options, acknowledged);
    report_number("in_flight", (double)run.ids);
    report_end();
}

/* Message n is due at n / rate, on connection n mod count, under its next packet id. */
static void send_due(uint64_t n, int64_t due)
{
    struct publisher *publisher = &run.all[n % run.count];
    uint16_t id = (uint16_t)(1 + n / run.count % RATE_WINDOW);
    if (publisher->sent[id - 1] != 0)
        die("%s: %d messages unacknowledged", publisher->session.device->id, RATE_WINDOW);
    publish(publisher, id, due);
    link_flush(&publisher->session.link);
    if (due >= run.measured_from)
        histogram_add(&run.lag, now_ns() - due);
}

/* Sends what is due until `end`; returns the number of the next message. */
static uint64_t send_until(int64_t end, int64_t started, uint64_t n, double rate)
{
    for (;;) {
        int64_t due = started + (int64_t)((double)n * SECOND / rate), now = now_ns();
        if (due >= end)
            return n;
        if (now >= due)
            send_due(n++, due);
        loop_turn(&run.loop, now >= due ? 0 : due - now);
    }
}

void run_rate(const struct options *options)
{
    run.ids = RATE_WINDOW;
    if (options->rate <= 0 || options->seconds <= 0)
        die("rate wants --rate and --seconds");
    publishers_open(options);

    run.sending = true;
    int64_t started = now_ns(), warm = started + (int64_t)(options->warmup * SECOND);
    uint64_t n = send_until(warm, started, 0, options->rate);
    measure_from_here(options);
    run.measured_from = warm; /* by when messages were due, so that none is left out for being late */
    send_until(warm + (int64_t)(options->seconds * SECOND), started, n, options->rate);
    uint64_t acknowledged = run.acknowledged;
    window_close(&run.window, 0);
    publishers_close();

    report_publishing("rate", options, acknowledged);
    report_number("rate", options->rate);
    report_latency("sent_late_ms", &run.lag); /* the load's own delay; it is part of acknowledged_ms */
    report_end();
}

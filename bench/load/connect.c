/* connect: what a reconnecting fleet costs. Each operation is a full mutual handshake, CONNECT, CONNACK, DISCONNECT. */
#include <stdlib.h>

#include "options.h"
#include "report.h"
#include "session.h"

struct visit {
    struct session session;
    int64_t began;
    uint64_t turn;
};

static struct {
    struct loop loop;
    struct devices devices;
    struct visit *visits;
    size_t slots;
    uint64_t begun, done;
    struct histogram latency;
} run;

static void visit_accepted(struct session *session)
{
    histogram_add(&run.latency, now_ns() - ((struct visit *)session)->began);
    run.done++;
    session_end(session);
}

static void visit_packet(struct session *session, const struct packet *packet)
{
    die("%s: unasked packet of kind %d", session->device->id, packet->kind);
}

static const struct role visitor = {.accepted = visit_accepted, .packet = visit_packet};

/* Slot s uses devices s, s + slots, s + 2·slots … in turn: a device is never connected twice at a time, and when it
   comes back the server has long seen it leave. */
static const struct device *next_device(size_t slot)
{
    uint64_t turns = run.devices.count / run.slots;
    return &run.devices.all[slot + run.slots * (run.visits[slot].turn++ % turns)];
}

static void fill_slots(uint64_t wanted)
{
    for (size_t slot = 0; slot < run.slots && run.begun < wanted; slot++) {
        struct visit *visit = &run.visits[slot];
        if (visit->session.link.fd >= 0)
            continue;
        visit->began = now_ns();
        session_open(&run.loop, &visit->session, next_device(slot), &visitor);
        run.begun++;
    }
}

static void connect_times(uint64_t wanted)
{
    run.begun = run.done = 0;
    run.latency = (struct histogram){0};
    while (run.done < wanted) {
        fill_slots(wanted);
        loop_turn(&run.loop, -1);
    }
}

void run_connect(const struct options *options)
{
    struct window window;
    loop_begin(&run.loop, options->address, options->port, options->server_name, options->tls, options->ca);
    run.devices = devices_read(options->devices, 0);
    run.slots = options->connections;
    if (run.devices.count < run.slots)
        die("connect wants at least as many devices as --connections");
    run.visits = calloc(run.slots, sizeof *run.visits);
    if (run.visits == NULL)
        die("out of memory");
    for (size_t slot = 0; slot < run.slots; slot++)
        run.visits[slot].session.link.fd = -1;

    connect_times(run.slots); /* the warm-up */
    window_open(&window, options->server_pid);
    connect_times(options->messages);
    window_close(&window, 100 * MILLISECOND);

    report_begin("connect");
    report_text("tls", run.loop.agreed);
    report_number("connections", (double)run.slots);
    report_window(&window, run.done);
    report_latency("connack_ms", &run.latency);
    report_end();
}

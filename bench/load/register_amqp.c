/* register-amqp: new devices meet a provisioning service over AMQP. Each operation is one device's whole way: its own
   handshake, SASL where it has a token, connection, session and two links, register, and polls as the service paces
   them, until it is assigned to a hub. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp.h"
#include "json.h"
#include "link.h"
#include "options.h"
#include "report.h"
#include "requests.h"

#define API_VERSION "2019-03-31" /* what the Node and .NET SDKs say */
#define REQUESTS 0               /* our handles */
#define ANSWERS 1

enum step { SASL_HEADER, SASL, AMQP_HEADER, OPENING, ASKING };

struct applicant {
    struct link link; /* first: a link's callback finds its applicant here */
    const struct device *device;
    enum step step;
    uint32_t answers_handle; /* the service's, of the link that brings answers */
    uint32_t asked;
    int64_t began, poll_at; /* poll_at 0: not waiting */
    char *address, operation_id[128];
};

static struct {
    struct loop loop;
    struct devices devices;
    const char *id_scope, *host, *agent;
    struct applicant *slots;
    size_t slot_count;
    uint64_t begun, done, polls;
    struct histogram latency;
} run;

static void ask_to_register(struct applicant *applicant)
{
    char body[256];
    snprintf(body, sizeof body, "{\"registrationId\": \"%s\"}", applicant->device->id);
    say_device_request(&applicant->link.out, REQUESTS, applicant->asked++, NULL, body);
}

static void open_connection(struct applicant *applicant)
{
    amqp_header(&applicant->link.out, PROTOCOL_AMQP);
    say_open_and_begin(&applicant->link.out, run.host, ANSWERS);
    applicant->step = AMQP_HEADER;
}

static void attach_links(struct applicant *applicant)
{
    struct buffer *out = &applicant->link.out;
    say_attach_device(out, ANSWERS, true, applicant->address, API_VERSION, run.agent);
    say_attach_device(out, REQUESTS, false, applicant->address, API_VERSION, run.agent);
}

static void attach_received(struct applicant *applicant, struct amqp_cursor fields)
{
    bool answers = amqp_is_text(amqp_next(&fields), "answers");
    uint32_t handle = (uint32_t)amqp_next(&fields).number;
    if (!answers)
        return;
    applicant->answers_handle = handle;
    say_flow(&applicant->link.out, ANSWERS, 0, 0, 10);
}

/* The first credit lets the request go. */
static void flow_received(struct applicant *applicant, struct amqp_cursor fields)
{
    for (int skipped = 0; skipped < 4; skipped++) /* the session's four numbers */
        amqp_next(&fields);
    bool of_a_link = amqp_next(&fields).code != 0x40;
    amqp_next(&fields); /* delivery-count */
    if (applicant->step != OPENING || !of_a_link || amqp_next(&fields).number == 0)
        return;
    applicant->step = ASKING;
    ask_to_register(applicant);
}

/* The JSON in the one data section of a message, as text. */
static char *data_of(struct amqp_cursor message)
{
    while (message.at < message.end) {
        uint8_t section = message.end - message.at > 3 ? message.at[2] : 0;
        struct amqp_value body = amqp_next(&message);
        if (section == SECTION_DATA)
            return strndup((const char *)body.data, body.length);
    }
    die("an answer without data");
}

static void answer_received(struct applicant *applicant, struct amqp_cursor message)
{
    char status[32] = "", *body = data_of(message);
    struct amqp_value pace = amqp_application_property(message, "retry-after");
    json_text(body, "status", status, sizeof status);
    if (strcmp(status, "assigned") == 0) {
        histogram_add(&run.latency, now_ns() - applicant->began);
        run.done++;
        link_close(&applicant->link);
    } else if (json_text(body, "operationId", applicant->operation_id, sizeof applicant->operation_id)) {
        applicant->poll_at = now_ns() + (int64_t)(pace.data != NULL || pace.number != 0 ? pace.number : 2) * SECOND;
    } else {
        die("%s: %s", applicant->device->id, body);
    }
    free(body);
}

static void transfer_received(struct applicant *applicant, const struct amqp_frame *frame)
{
    struct amqp_cursor fields = frame->fields;
    if (amqp_next(&fields).number != applicant->answers_handle)
        die("%s: a transfer on a link that brings none", applicant->device->id);
    say_accepted(&applicant->link.out, (uint32_t)amqp_next(&fields).number);
    answer_received(applicant, frame->payload);
}

/* What became of a request: accepted, or why not. */
static void disposition_received(struct applicant *applicant, struct amqp_cursor fields)
{
    for (int skipped = 0; skipped < 4; skipped++) /* role, first, last, settled */
        amqp_next(&fields);
    if (fields.end - fields.at > 3 && fields.at[2] != AMQP_ACCEPTED)
        die("%s: the request was not accepted (outcome 0x%02x)", applicant->device->id, fields.at[2]);
}

static void frame_received(struct applicant *applicant, const struct amqp_frame *frame)
{
    struct amqp_cursor fields = frame->fields;
    switch (frame->performative) {
    case AMQP_SASL_MECHANISMS:
        say_sasl_plain(&applicant->link.out, applicant->address, applicant->device->password);
        break;
    case AMQP_SASL_OUTCOME:
        if (amqp_next(&fields).number != 0)
            die("%s: SASL PLAIN was refused", applicant->device->id);
        open_connection(applicant);
        break;
    case AMQP_BEGIN:
        attach_links(applicant);
        break;
    case AMQP_ATTACH:
        attach_received(applicant, fields);
        break;
    case AMQP_FLOW:
        flow_received(applicant, fields);
        break;
    case AMQP_TRANSFER:
        transfer_received(applicant, frame);
        break;
    case AMQP_DISPOSITION:
        disposition_received(applicant, fields);
        break;
    case AMQP_DETACH: case AMQP_END: case AMQP_CLOSE:
        amqp_refused(frame);
    }
}

static size_t received(struct link *link, const uint8_t *bytes, size_t length)
{
    struct applicant *applicant = (struct applicant *)link;
    struct amqp_frame frame;
    size_t used = 0, whole;
    while (link->fd >= 0) {
        if (applicant->step == SASL_HEADER || applicant->step == AMQP_HEADER) {
            enum amqp_protocol protocol = applicant->step == SASL_HEADER ? PROTOCOL_SASL : PROTOCOL_AMQP;
            if ((whole = amqp_take_header(bytes + used, length - used, protocol)) == 0)
                break;
            applicant->step++;
        } else if ((whole = amqp_take(bytes + used, length - used, &frame)) != 0) {
            frame_received(applicant, &frame);
        } else {
            break;
        }
        used += whole;
    }
    return used;
}

/* A device with a certificate has shown it already, and leaves SASL out. */
static void opened(struct link *link)
{
    struct applicant *applicant = (struct applicant *)link;
    if (applicant->device->password == NULL)
        open_connection(applicant);
    else
        amqp_header(&link->out, PROTOCOL_SASL);
}

static const struct conversation registering = {.opened = opened, .received = received};

static void begin(struct applicant *slot, const struct device *device)
{
    free(slot->address);
    if (asprintf(&slot->address, "%s/registrations/%s", run.id_scope, device->id) < 0)
        die("out of memory");
    slot->device = device;
    slot->step = SASL_HEADER;
    slot->asked = 0;
    slot->poll_at = 0;
    slot->began = now_ns();
    link_open(&run.loop, &slot->link, &registering, device->id, device);
}

/* Starts the next device where a slot is free; polls for those whose time has come. */
static void attend_slots(void)
{
    int64_t now = now_ns();
    for (size_t i = 0; i < run.slot_count; i++) {
        struct applicant *slot = &run.slots[i];
        if (slot->link.fd < 0 && run.begun < run.devices.count) {
            begin(slot, &run.devices.all[run.begun++]);
        } else if (slot->poll_at != 0 && now >= slot->poll_at) {
            slot->poll_at = 0;
            run.polls++;
            say_device_request(&slot->link.out, REQUESTS, slot->asked++, slot->operation_id, "");
            link_flush(&slot->link);
        }
    }
}

void run_register_amqp(const struct options *options)
{
    struct window window;
    if (options->id_scope == NULL || options->messages == 0)
        die("register-amqp wants --id-scope and --messages");
    loop_begin(&run.loop, options->address, options->port, options->server_name, options->tls, options->ca);
    run.devices = devices_read(options->devices, options->messages);
    run.id_scope = options->id_scope;
    run.host = options->server_name != NULL ? options->server_name : options->address;
    run.agent = options->user_agent;
    run.slot_count = options->connections;
    run.slots = calloc(run.slot_count, sizeof *run.slots);
    if (run.slots == NULL)
        die("out of memory");
    for (size_t i = 0; i < run.slot_count; i++)
        run.slots[i].link.fd = -1;

    window_open(&window, options->server_pid);
    while (run.done < run.devices.count) {
        attend_slots();
        loop_turn(&run.loop, 10 * MILLISECOND);
    }
    window_close(&window, 100 * MILLISECOND);

    report_begin("register-amqp");
    report_text("tls", run.loop.agreed);
    report_text("user_agent", options->user_agent);
    report_number("connections", (double)run.slot_count);
    report_number("polls", (double)run.polls);
    report_window(&window, run.done);
    report_latency("assigned_ms", &run.latency);
    report_end();
}

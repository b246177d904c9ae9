/* register: new devices meet a provisioning service over MQTT. Each operation is one device's whole way: its own
   handshake, CONNECT, SUBSCRIBE, register, and polls as the service paces them, until it is assigned to a hub. */
#define _GNU_SOURCE
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "options.h"
#include "report.h"
#include "session.h"

#define ANSWERS "$dps/registrations/res/"
#define API_VERSION "2019-03-31" /* what the Python, Node, .NET and Java SDKs say */

struct applicant {
    struct session session;
    int64_t began, poll_at; /* poll_at 0: not waiting */
    unsigned request;       /* $rid of the latest request */
    char operation_id[128];
};

static struct {
    struct loop loop;
    struct devices devices;
    struct applicant *slots;
    size_t slot_count;
    uint64_t begun, done, polls;
    struct histogram latency;
} run;

static void ask(struct applicant *applicant, const char *verb, const char *more, const char *body)
{
    char topic[320];
    applicant->request++;
    snprintf(topic, sizeof topic, "$dps/registrations/%s/?$rid=%u%s", verb, applicant->request, more);
    mqtt_publish(&applicant->session.link.out, (uint16_t)(applicant->request + 1), topic, body, strlen(body));
}

static void ask_to_register(struct applicant *applicant)
{
    char body[256];
    snprintf(body, sizeof body, "{\"payload\": null, \"registrationId\": \"%s\"}", applicant->session.device->id);
    ask(applicant, "PUT/iotdps-register", "", body);
}

static void ask_for_result(struct applicant *applicant)
{
    char more[160];
    snprintf(more, sizeof more, "&operationId=%s", applicant->operation_id);
    ask(applicant, "GET/iotdps-get-operationstatus", more, " ");
}

static void wait_and_poll(struct applicant *applicant, const char *topic, const char *body)
{
    const char *pace = strstr(topic, "retry-after=");
    double seconds = pace != NULL ? strtod(pace + strlen("retry-after="), NULL) : 2;
    if (!json_text(body, "operationId", applicant->operation_id, sizeof applicant->operation_id))
        die("%s: 202 without an operation id: %s", applicant->session.device->id, body);
    applicant->poll_at = now_ns() + (int64_t)(seconds * SECOND);
}

static void answer_received(struct applicant *applicant, const char *topic, const char *body)
{
    char status[32];
    int code = atoi(topic + strlen(ANSWERS));
    if (code == 202) {
        wait_and_poll(applicant, topic, body);
    } else if (code == 200 && json_text(body, "status", status, sizeof status) && strcmp(status, "assigned") == 0) {
        histogram_add(&run.latency, now_ns() - applicant->began);
        run.done++;
        session_end(&applicant->session);
    } else {
        die("%s: %s %s", applicant->session.device->id, topic, body);
    }
}

static void publish_received(struct applicant *applicant, const struct packet *packet)
{
    struct session *session = &applicant->session;
    bool wants_ack = (packet->flags & 0x06) != 0;
    size_t topic_length = packet_u16(session, packet, 0), body_at = 2 + topic_length + (wants_ack ? 2 : 0);
    if (packet->length < body_at)
        die("%s: a PUBLISH is too short", session->device->id);
    char *topic = strndup((const char *)packet->body + 2, topic_length);
    char *body = strndup((const char *)packet->body + body_at, packet->length - body_at);
    if (strncmp(topic, ANSWERS, strlen(ANSWERS)) != 0)
        die("%s: unasked message on %s", session->device->id, topic);
    if (wants_ack)
        mqtt_puback(&session->link.out, packet_u16(session, packet, 2 + topic_length));
    answer_received(applicant, topic, body);
    free(topic);
    free(body);
}

static void register_packet(struct session *session, const struct packet *packet)
{
    struct applicant *applicant = (struct applicant *)session;
    if (packet->kind == PUBLISH)
        publish_received(applicant, packet);
    else if (packet->kind == SUBACK && packet->length == 3 && packet->body[2] <= 1)
        ask_to_register(applicant);
    else if (packet->kind != PUBACK)
        die("%s: packet of kind %d where SUBACK or an answer should be", session->device->id, packet->kind);
}

static void register_accepted(struct session *session)
{
    mqtt_subscribe(&session->link.out, 1, ANSWERS "#");
}

static const struct role applying = {.accepted = register_accepted, .packet = register_packet};

static char *percent_encoded(const char *text)
{
    struct buffer result = {0};
    for (; *text != '\0'; text++) {
        char escaped[4];
        bool plain = isalnum((unsigned char)*text) || strchr("-._~", *text) != NULL;
        snprintf(escaped, sizeof escaped, plain ? "%c" : "%%%02X", (unsigned char)*text);
        buffer_add(&result, escaped, strlen(escaped));
    }
    buffer_add_byte(&result, '\0');
    return (char *)result.bytes;
}

static void name_devices(const struct options *options)
{
    char *agent = percent_encoded(options->user_agent);
    for (size_t i = 0; i < run.devices.count; i++) {
        struct device *device = &run.devices.all[i];
        free(device->user_name);
        if (asprintf(&device->user_name, "%s/registrations/%s/api-version=" API_VERSION "&ClientVersion=%s",
                     options->id_scope, device->id, agent) < 0)
            die("out of memory");
    }
    free(agent);
}

/* Starts the next device where a slot is free; polls for those whose time has come. */
static void attend_slots(void)
{
    int64_t now = now_ns();
    for (size_t i = 0; i < run.slot_count; i++) {
        struct applicant *slot = &run.slots[i];
        if (slot->session.link.fd < 0 && run.begun < run.devices.count) {
            slot->began = now;
            slot->request = 0;
            slot->poll_at = 0;
            session_open(&run.loop, &slot->session, &run.devices.all[run.begun++], &applying);
        } else if (slot->poll_at != 0 && now >= slot->poll_at) {
            slot->poll_at = 0;
            run.polls++;
            ask_for_result(slot);
            link_flush(&slot->session.link);
        }
    }
}

void run_register(const struct options *options)
{
    struct window window;
    if (options->id_scope == NULL || options->messages == 0)
        die("register wants --id-scope and --messages");
    loop_begin(&run.loop, options->address, options->port, options->server_name, options->tls, options->ca);
    run.devices = devices_read(options->devices, options->messages);
    name_devices(options);
    run.slot_count = options->connections;
    run.slots = calloc(run.slot_count, sizeof *run.slots);
    if (run.slots == NULL)
        die("out of memory");
    for (size_t i = 0; i < run.slot_count; i++)
        run.slots[i].session.link.fd = -1;

    window_open(&window, options->server_pid);
    while (run.done < run.devices.count) {
        attend_slots();
        loop_turn(&run.loop, 10 * MILLISECOND);
    }
    window_close(&window, 100 * MILLISECOND);

    report_begin("register");
    report_text("tls", run.loop.agreed);
    report_text("user_agent", options->user_agent);
    report_number("connections", (double)run.slot_count);
    report_number("polls", (double)run.polls);
    report_window(&window, run.done);
    report_latency("assigned_ms", &run.latency);
    report_end();
}

/* register-https: new devices meet a provisioning service over HTTPS. Each operation is one device's whole way: its own
   handshake, PUT register, and GETs as the service paces them on the same connection, until it is assigned to a hub. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "link.h"
#include "options.h"
#include "report.h"

#define API_VERSION "2021-06-01" /* what IoT Edge says */

struct applicant {
    struct link link; /* first: a link's callback finds its applicant here */
    const struct device *device;
    int64_t began, poll_at; /* poll_at 0: not waiting */
    char operation_id[128];
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

static void ask(struct applicant *applicant, const char *method, const char *path, const char *body)
{
    const char *token = applicant->device->password;
    char *request;
    int length = asprintf(&request,
                          "%s /%s/registrations/%s/%s?api-version=" API_VERSION " HTTP/1.1\r\n"
                          "Host: %s\r\nUser-Agent: %s\r\nAccept: application/json\r\n"
                          "Content-Type: application/json; charset=utf-8\r\nContent-Length: %zu\r\n%s%s%s\r\n%s",
                          method, run.id_scope, applicant->device->id, path, run.host, run.agent, strlen(body),
                          token != NULL ? "Authorization: " : "", token != NULL ? token : "",
                          token != NULL ? "\r\n" : "", body);
    if (length < 0)
        die("out of memory");
    buffer_add(&applicant->link.out, request, (size_t)length);
    free(request);
}

static void opened(struct link *link)
{
    struct applicant *applicant = (struct applicant *)link;
    char body[256];
    snprintf(body, sizeof body, "{\"registrationId\": \"%s\"}", applicant->device->id);
    ask(applicant, "PUT", "register", body);
}

/* The value of a header, as a number; `otherwise` where there is none. */
static double header_number(const char *head, const char *name, double otherwise)
{
    const char *at = strcasestr(head, name);
    return at != NULL ? strtod(at + strlen(name), NULL) : otherwise;
}

static void answered(struct applicant *applicant, const char *head, const char *body)
{
    char status[32] = "";
    int code = strncmp(head, "HTTP/1.1 ", 9) == 0 ? atoi(head + 9) : 0;
    json_text(body, "status", status, sizeof status);
    if (code == 200 && strcmp(status, "assigned") == 0) {
        histogram_add(&run.latency, now_ns() - applicant->began);
        run.done++;
        link_close(&applicant->link);
    } else if (code == 202 && json_text(body, "operationId", applicant->operation_id, sizeof applicant->operation_id)) {
        applicant->poll_at = now_ns() + (int64_t)(header_number(head, "\r\nretry-after: ", 2) * SECOND);
    } else {
        die("%s: %.200s … %s", applicant->device->id, head, body);
    }
}

static size_t received(struct link *link, const uint8_t *bytes, size_t length)
{
    const uint8_t *end = memmem(bytes, length, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t head_length = (size_t)(end - bytes) + 4;
    char *head = strndup((const char *)bytes, head_length);
    size_t whole = head_length + (size_t)header_number(head, "\r\ncontent-length: ", 0);
    if (length >= whole) {
        char *body = strndup((const char *)bytes + head_length, whole - head_length);
        answered((struct applicant *)link, head, body);
        free(body);
    }
    free(head);
    return length >= whole ? whole : 0;
}

static const struct conversation registering = {.opened = opened, .received = received};

/* Starts the next device where a slot is free; polls for those whose time has come. */
static void attend_slots(void)
{
    int64_t now = now_ns();
    for (size_t i = 0; i < run.slot_count; i++) {
        struct applicant *slot = &run.slots[i];
        if (slot->link.fd < 0 && run.begun < run.devices.count) {
            slot->began = now;
            slot->poll_at = 0;
            slot->device = &run.devices.all[run.begun++];
            link_open(&run.loop, &slot->link, &registering, slot->device->id, slot->device);
        } else if (slot->poll_at != 0 && now >= slot->poll_at) {
            char path[160];
            snprintf(path, sizeof path, "operations/%s", slot->operation_id);
            slot->poll_at = 0;
            run.polls++;
            ask(slot, "GET", path, "");
            link_flush(&slot->link);
        }
    }
}

void run_register_https(const struct options *options)
{
    struct window window;
    if (options->id_scope == NULL || options->messages == 0)
        die("register-https wants --id-scope and --messages");
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

    report_begin("register-https");
    report_text("tls", run.loop.agreed);
    report_text("user_agent", options->user_agent);
    report_number("connections", (double)run.slot_count);
    report_number("polls", (double)run.polls);
    report_window(&window, run.done);
    report_latency("assigned_ms", &run.latency);
    report_end();
}

/* read: an Event Hubs reader that does nothing with what it reads but count it, so that the server is the limit.

   Each connection: SASL ANONYMOUS, open, begin, a token put to $cbs, then one receiver a partition, from the start
   of the log. All receivers get their credit together, and the clock starts there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp.h"
#include "link.h"
#include "options.h"
#include "report.h"
#include "requests.h"

#define CBS_SENDER 0 /* our handles; receivers of partitions follow */
#define CBS_RECEIVER 1
#define FIRST_PARTITION 2
#define LINKS 66 /* 64 partitions a connection */

enum step { SASL_HEADER, SASL, AMQP_HEADER, OPENING, READING };

struct receiver {
    uint64_t partition;
    uint32_t delivery_count, credit; /* credit: what is left of it */
};

struct reader {
    struct link link;
    enum step step;
    uint32_t next_incoming_id; /* the session's; transfers, not messages */
    size_t receivers, attached;
    struct receiver all[LINKS];     /* by our handle */
    size_t ours[LINKS];             /* our handle by the server's */
    uint64_t bytes;
};

static struct {
    const struct options *options;
    const char *host_name;
    struct loop loop;
    struct reader *readers;
    size_t count, ready;
    uint64_t messages;
} run;

static void give_credit(struct reader *reader, size_t handle, uint64_t credit)
{
    struct receiver *receiver = &reader->all[handle];
    receiver->credit = (uint32_t)credit;
    say_flow(&reader->link.out, (uint32_t)handle, reader->next_incoming_id, receiver->delivery_count, receiver->credit);
}

static void attach_receivers(struct reader *reader)
{
    char name[32], address[512];
    for (size_t i = 0; i < reader->receivers; i++) {
        unsigned long long partition = reader->all[FIRST_PARTITION + i].partition;
        snprintf(name, sizeof name, "partition-%llu", partition);
        snprintf(address, sizeof address, "%s/ConsumerGroups/$Default/Partitions/%llu", run.options->entity, partition);
        say_attach_to_log(&reader->link.out, (uint32_t)(FIRST_PARTITION + i), name, address);
    }
}

/* Our handle of the link that the server calls `name`. */
static size_t handle_of(const struct reader *reader, struct amqp_value name)
{
    char ours[32];
    if (amqp_is_text(name, "cbs"))
        return CBS_RECEIVER;
    if (amqp_is_text(name, "cbs-sender"))
        return CBS_SENDER;
    for (size_t i = 0; i < reader->receivers; i++) {
        snprintf(ours, sizeof ours, "partition-%llu", (unsigned long long)reader->all[FIRST_PARTITION + i].partition);
        if (amqp_is_text(name, ours))
            return FIRST_PARTITION + i;
    }
    die("the server attached a link that was not asked for");
}

static void attach_received(struct reader *reader, struct amqp_cursor fields)
{
    struct amqp_value values[10];
    for (size_t i = 0; i < 10; i++)
        values[i] = amqp_next(&fields);
    size_t ours = handle_of(reader, values[0]), theirs = values[1].number;
    if (theirs >= LINKS)
        die("the server uses link handle %zu", theirs);
    reader->ours[theirs] = ours;
    reader->all[ours].delivery_count = (uint32_t)values[9].number;
    if (ours == CBS_RECEIVER)
        give_credit(reader, CBS_RECEIVER, 10);
    else if (ours >= FIRST_PARTITION && ++reader->attached == reader->receivers)
        run.ready++;
}

/* The first credit of the link to $cbs lets the token go. */
static void flow_received(struct reader *reader, struct amqp_cursor fields)
{
    for (int skipped = 0; skipped < 4; skipped++) /* the session's four numbers */
        amqp_next(&fields);
    bool of_a_link = amqp_next(&fields).code != 0x40;
    amqp_next(&fields); /* delivery-count */
    if (reader->step != OPENING || !of_a_link || amqp_next(&fields).number == 0)
        return;
    say_put_token(&reader->link.out, CBS_SENDER, run.options->audience, run.options->token);
    reader->step = READING;
}

/* The answer to put-token: 200, or its description. */
static void token_answered(struct reader *reader, struct amqp_cursor message)
{
    struct amqp_value status = amqp_application_property(message, "status-code");
    struct amqp_value description = amqp_application_property(message, "status-description");
    if (status.number != 200)
        die("put-token was answered %llu %.*s", (unsigned long long)status.number, (int)description.length,
            description.data != NULL ? (const char *)description.data : "");
    attach_receivers(reader);
}

static void transfer_received(struct reader *reader, const struct amqp_frame *frame)
{
    struct amqp_cursor fields = frame->fields;
    uint64_t theirs = amqp_next(&fields).number;
    for (int skipped = 0; skipped < 4; skipped++) /* delivery-id, delivery-tag, message-format, settled */
        amqp_next(&fields);
    bool more = amqp_next(&fields).number != 0;
    reader->next_incoming_id++;
    if (theirs >= LINKS)
        die("the server uses link handle %llu", (unsigned long long)theirs);
    struct receiver *receiver = &reader->all[reader->ours[theirs]];
    if (more)
        return;
    receiver->delivery_count++;
    if (reader->ours[theirs] == CBS_RECEIVER) {
        token_answered(reader, frame->payload);
        return;
    }
    run.messages++;
    if (--receiver->credit <= run.options->credit / 2)
        give_credit(reader, (size_t)(receiver - reader->all), run.options->credit);
}

static void frame_received(struct reader *reader, const struct amqp_frame *frame)
{
    struct amqp_cursor fields = frame->fields;
    switch (frame->performative) {
    case AMQP_TRANSFER:
        transfer_received(reader, frame);
        break;
    case AMQP_SASL_MECHANISMS:
        say_sasl_anonymous(&reader->link.out);
        break;
    case AMQP_SASL_OUTCOME:
        if (amqp_next(&fields).number != 0)
            die("SASL ANONYMOUS was refused");
        amqp_header(&reader->link.out, PROTOCOL_AMQP);
        say_open_and_begin(&reader->link.out, run.host_name, LINKS - 1);
        reader->step = AMQP_HEADER;
        break;
    case AMQP_BEGIN:
        amqp_next(&fields); /* remote-channel */
        reader->next_incoming_id = (uint32_t)amqp_next(&fields).number;
        say_attach_sender(&reader->link.out, CBS_SENDER, "cbs-sender", "$cbs");
        say_attach_receiver(&reader->link.out, CBS_RECEIVER, "cbs", "$cbs");
        break;
    case AMQP_ATTACH:
        attach_received(reader, fields);
        break;
    case AMQP_FLOW:
        flow_received(reader, fields);
        break;
    case AMQP_DETACH: case AMQP_END: case AMQP_CLOSE:
        amqp_refused(frame);
    }
}

static size_t bytes_received(struct link *link, const uint8_t *bytes, size_t length)
{
    struct reader *reader = (struct reader *)link;
    struct amqp_frame frame;
    size_t used = 0, whole;
    for (;;) {
        if (reader->step == SASL_HEADER || reader->step == AMQP_HEADER) {
            enum amqp_protocol protocol = reader->step == SASL_HEADER ? PROTOCOL_SASL : PROTOCOL_AMQP;
            if ((whole = amqp_take_header(bytes + used, length - used, protocol)) == 0)
                break;
            used += whole;
            reader->step++;
        } else if ((whole = amqp_take(bytes + used, length - used, &frame)) != 0) {
            used += whole;
            frame_received(reader, &frame);
        } else {
            break;
        }
    }
    reader->bytes += used;
    return used;
}

static void handshake_done(struct link *link)
{
    amqp_header(&link->out, PROTOCOL_SASL);
}

static const struct conversation amqp = {.opened = handshake_done, .received = bytes_received};

static void readers_open(const struct options *options)
{
    run.options = options;
    run.host_name = options->server_name != NULL ? options->server_name : options->address;
    run.count = options->connections < options->partitions ? options->connections : options->partitions;
    run.readers = calloc(run.count, sizeof *run.readers);
    if (run.readers == NULL)
        die("out of memory");
    for (uint64_t partition = 0; partition < options->partitions; partition++) {
        struct reader *reader = &run.readers[partition % run.count];
        if (FIRST_PARTITION + reader->receivers >= LINKS)
            die("more than %d partitions on one connection", LINKS - FIRST_PARTITION);
        reader->all[FIRST_PARTITION + reader->receivers++].partition = partition;
    }
    for (size_t i = 0; i < run.count; i++)
        link_open(&run.loop, &run.readers[i].link, &amqp, "reader", NULL);
    while (run.ready < run.count)
        loop_turn(&run.loop, -1);
}

static void start_all(void)
{
    for (size_t i = 0; i < run.count; i++) {
        for (size_t receiver = 0; receiver < run.readers[i].receivers; receiver++)
            give_credit(&run.readers[i], FIRST_PARTITION + receiver, run.options->credit);
        link_flush(&run.readers[i].link);
    }
}

static uint64_t bytes_read(void)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < run.count; i++)
        bytes += run.readers[i].bytes;
    return bytes;
}

void run_read(const struct options *options)
{
    struct window window;
    if (options->messages == 0 || options->token == NULL || options->audience == NULL || options->credit == 0)
        die("read wants --messages, --token, --audience and a --credit above 0");
    loop_begin(&run.loop, options->address, options->port, options->server_name, options->tls, options->ca);
    readers_open(options);

    window_open(&window, options->server_pid);
    start_all();
    while (run.messages < options->messages)
        loop_turn(&run.loop, -1);
    uint64_t messages = run.messages;
    window_close(&window, 0);
    uint64_t bytes = bytes_read();
    for (size_t i = 0; i < run.count; i++)
        link_close(&run.readers[i].link);

    report_begin("read");
    report_text("tls", run.loop.agreed);
    report_number("connections", (double)run.count);
    report_number("partitions", (double)options->partitions);
    report_window(&window, messages);
    report_number("bytes_per_message", (double)bytes / (double)messages);
    report_end();
}

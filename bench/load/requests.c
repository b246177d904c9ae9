#include "requests.h"

#include <stdio.h>
#include <string.h>

#include "amqp.h"

static void begin_performative(struct buffer *out, size_t marks[2], uint8_t type, uint8_t code, uint32_t fields)
{
    marks[0] = amqp_frame(out, type);
    amqp_descriptor(out, code);
    marks[1] = amqp_list(out, fields);
}

static void end_performative(struct buffer *out, const size_t marks[2])
{
    amqp_end(out, marks[1]);
    amqp_frame_end(out, marks[0]);
}

void say_sasl_anonymous(struct buffer *out)
{
    size_t marks[2];
    begin_performative(out, marks, 1, AMQP_SASL_INIT, 3);
    amqp_symbol(out, "ANONYMOUS");
    amqp_null(out);
    amqp_null(out);
    end_performative(out, marks);
}

void say_sasl_plain(struct buffer *out, const char *user, const char *password)
{
    size_t marks[2];
    struct buffer response = {0};
    buffer_add_byte(&response, 0);
    buffer_add(&response, user, strlen(user) + 1);
    buffer_add(&response, password, strlen(password));
    begin_performative(out, marks, 1, AMQP_SASL_INIT, 2);
    amqp_symbol(out, "PLAIN");
    amqp_binary(out, response.bytes, response.length);
    end_performative(out, marks);
    buffer_free(&response);
}

void say_open_and_begin(struct buffer *out, const char *hostname, uint32_t handle_max)
{
    size_t marks[2];
    begin_performative(out, marks, 0, AMQP_OPEN, 4);
    amqp_string(out, "moorage-bench");
    amqp_string(out, hostname);
    amqp_uint(out, 65536); /* max-frame-size */
    amqp_ushort(out, 0);   /* channel-max: one session */
    end_performative(out, marks);
    begin_performative(out, marks, 0, AMQP_BEGIN, 5);
    amqp_null(out);
    amqp_uint(out, 0);              /* next-outgoing-id */
    amqp_uint(out, SESSION_WINDOW); /* incoming-window */
    amqp_uint(out, SESSION_WINDOW); /* outgoing-window */
    amqp_uint(out, handle_max);
    end_performative(out, marks);
}

static void say_terminus(struct buffer *out, uint8_t code, const char *address)
{
    amqp_descriptor(out, code);
    size_t list = amqp_list(out, 1);
    amqp_string(out, address);
    amqp_end(out, list);
}

static void say_log_source(struct buffer *out, const char *address)
{
    static const char filter[] = "apache.org:selector-filter:string";
    amqp_descriptor(out, SOURCE);
    size_t list = amqp_list(out, 8);
    amqp_string(out, address);
    for (int unused = 0; unused < 6; unused++) /* durable … distribution-mode */
        amqp_null(out);
    size_t map = amqp_map(out, 2);
    amqp_symbol(out, filter);
    amqp_described_by(out, filter);
    amqp_string(out, "amqp.annotation.x-opt-offset > '-1'");
    amqp_end(out, map);
    amqp_end(out, list);
}

/* The first five fields of attach, up to the source. */
static void begin_attach(struct buffer *out, size_t marks[2], uint32_t handle, const char *name, bool receiver)
{
    begin_performative(out, marks, 0, AMQP_ATTACH, 10);
    amqp_string(out, name);
    amqp_uint(out, handle);
    amqp_bool(out, receiver);
    amqp_ubyte(out, 1); /* snd-settle-mode: settled */
    amqp_ubyte(out, 0); /* rcv-settle-mode: first */
}

/* What a receiver's attach has after its source. */
static void end_attach_of_receiver(struct buffer *out, const size_t marks[2], const char *name)
{
    say_terminus(out, TARGET, name);
    amqp_null(out); /* unsettled */
    amqp_null(out); /* incomplete-unsettled */
    amqp_null(out); /* initial-delivery-count: the sender's to say */
    end_performative(out, marks);
}

void say_attach_sender(struct buffer *out, uint32_t handle, const char *name, const char *target)
{
    size_t marks[2];
    begin_attach(out, marks, handle, name, false);
    say_terminus(out, SOURCE, name);
    say_terminus(out, TARGET, target);
    amqp_null(out);
    amqp_null(out);
    amqp_uint(out, 0); /* initial-delivery-count */
    end_performative(out, marks);
}

void say_attach_receiver(struct buffer *out, uint32_t handle, const char *name, const char *source)
{
    size_t marks[2];
    begin_attach(out, marks, handle, name, true);
    say_terminus(out, SOURCE, source);
    end_attach_of_receiver(out, marks, name);
}

void say_attach_to_log(struct buffer *out, uint32_t handle, const char *name, const char *source)
{
    size_t marks[2];
    begin_attach(out, marks, handle, name, true);
    say_log_source(out, source);
    end_attach_of_receiver(out, marks, name);
}

void say_flow(struct buffer *out, uint32_t handle, uint32_t next_incoming_id, uint32_t delivery_count, uint32_t credit)
{
    size_t marks[2];
    begin_performative(out, marks, 0, AMQP_FLOW, 7);
    amqp_uint(out, next_incoming_id);
    amqp_uint(out, SESSION_WINDOW);
    amqp_uint(out, 1); /* next-outgoing-id: the token was transfer 0 */
    amqp_uint(out, SESSION_WINDOW);
    amqp_uint(out, handle);
    amqp_uint(out, delivery_count);
    amqp_uint(out, credit);
    end_performative(out, marks);
}

void say_put_token(struct buffer *out, uint32_t handle, const char *audience, const char *token)
{
    size_t marks[2], inner;
    begin_performative(out, marks, 0, AMQP_TRANSFER, 5);
    amqp_uint(out, handle);
    amqp_uint(out, 0); /* delivery-id */
    amqp_binary(out, "0", 1);
    amqp_uint(out, 0);    /* message-format */
    amqp_bool(out, true); /* settled */
    amqp_end(out, marks[1]);
    amqp_descriptor(out, SECTION_PROPERTIES);
    inner = amqp_list(out, 5);
    amqp_string(out, "1"); /* message-id */
    amqp_null(out);
    amqp_string(out, "$cbs");
    amqp_null(out);
    amqp_string(out, "cbs"); /* reply-to */
    amqp_end(out, inner);
    amqp_descriptor(out, SECTION_APPLICATION_PROPERTIES);
    inner = amqp_map(out, 6);
    amqp_string(out, "operation");
    amqp_string(out, "put-token");
    amqp_string(out, "type");
    amqp_string(out, "servicebus.windows.net:sastoken");
    amqp_string(out, "name");
    amqp_string(out, audience);
    amqp_end(out, inner);
    amqp_descriptor(out, SECTION_VALUE);
    amqp_string(out, token);
    amqp_frame_end(out, marks[0]);
}

void say_attach_device(struct buffer *out, uint32_t handle, bool receiver, const char *address,
                       const char *api_version, const char *agent)
{
    size_t marks[2];
    begin_performative(out, marks, 0, AMQP_ATTACH, 14);
    amqp_string(out, receiver ? "answers" : "requests");
    amqp_uint(out, handle);
    amqp_bool(out, receiver);
    amqp_ubyte(out, 2); /* snd-settle-mode: mixed */
    amqp_ubyte(out, 0); /* rcv-settle-mode: first */
    say_terminus(out, SOURCE, receiver ? address : "device");
    say_terminus(out, TARGET, receiver ? "device" : address);
    amqp_null(out); /* unsettled */
    amqp_null(out); /* incomplete-unsettled */
    if (receiver)
        amqp_null(out);
    else
        amqp_uint(out, 0); /* initial-delivery-count */
    for (int unused = 0; unused < 3; unused++) /* max-message-size and capabilities */
        amqp_null(out);
    size_t properties = amqp_map(out, 4);
    amqp_symbol(out, "com.microsoft:api-version");
    amqp_string(out, api_version);
    amqp_symbol(out, "com.microsoft:client-version");
    amqp_string(out, agent);
    amqp_end(out, properties);
    end_performative(out, marks);
}

void say_device_request(struct buffer *out, uint32_t handle, uint32_t number, const char *operation_id,
                        const char *body)
{
    size_t marks[2], inner;
    char correlation[16];
    snprintf(correlation, sizeof correlation, "request-%u", number);
    begin_performative(out, marks, 0, AMQP_TRANSFER, 5);
    amqp_uint(out, handle);
    amqp_uint(out, number); /* delivery-id */
    amqp_binary(out, correlation, strlen(correlation));
    amqp_uint(out, 0);     /* message-format */
    amqp_bool(out, false); /* settled */
    amqp_end(out, marks[1]);
    amqp_descriptor(out, SECTION_PROPERTIES);
    inner = amqp_list(out, 6);
    for (int unused = 0; unused < 5; unused++) /* message-id … reply-to */
        amqp_null(out);
    amqp_string(out, correlation);
    amqp_end(out, inner);
    amqp_descriptor(out, SECTION_APPLICATION_PROPERTIES);
    inner = amqp_map(out, operation_id == NULL ? 2 : 4);
    amqp_string(out, "iotdps-operation-type");
    amqp_string(out, operation_id == NULL ? "iotdps-register" : "iotdps-get-operationstatus");
    if (operation_id != NULL) {
        amqp_string(out, "iotdps-operation-id");
        amqp_string(out, operation_id);
    }
    amqp_end(out, inner);
    amqp_descriptor(out, SECTION_DATA);
    amqp_binary(out, body, strlen(body));
    amqp_frame_end(out, marks[0]);
}

void say_accepted(struct buffer *out, uint32_t delivery_id)
{
    size_t marks[2];
    begin_performative(out, marks, 0, AMQP_DISPOSITION, 5);
    amqp_bool(out, true); /* role: receiver */
    amqp_uint(out, delivery_id);
    amqp_null(out);       /* last: the same */
    amqp_bool(out, true); /* settled */
    amqp_descriptor(out, AMQP_ACCEPTED);
    amqp_end(out, amqp_list(out, 0));
    end_performative(out, marks);
}

#include "requests.h"

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
    amqp_binary(out, "0");
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

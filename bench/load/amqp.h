/* The little of AMQP 1.0 that a reader of events and a device that registers need: values in and out, and frames. */
#ifndef LOAD_AMQP_H
#define LOAD_AMQP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

enum amqp_performative {
    AMQP_OPEN = 0x10, AMQP_BEGIN, AMQP_ATTACH, AMQP_FLOW, AMQP_TRANSFER, AMQP_DISPOSITION, AMQP_DETACH, AMQP_END,
    AMQP_CLOSE, AMQP_SASL_MECHANISMS = 0x40, AMQP_SASL_INIT, AMQP_SASL_OUTCOME = 0x44,
};
enum amqp_terminus { SOURCE = 0x28, TARGET };
enum amqp_outcome { AMQP_ACCEPTED = 0x24 };
enum amqp_section { SECTION_PROPERTIES = 0x73, SECTION_APPLICATION_PROPERTIES, SECTION_DATA, SECTION_VALUE = 0x77 };
enum amqp_protocol { PROTOCOL_AMQP = 0, PROTOCOL_SASL = 3 };

/* --- out: each adds one value ------------------------------------------------------------------------------ */
void amqp_null(struct buffer *out);
void amqp_bool(struct buffer *out, bool value);
void amqp_ubyte(struct buffer *out, uint8_t value);
void amqp_ushort(struct buffer *out, uint16_t value);
void amqp_uint(struct buffer *out, uint32_t value);
void amqp_string(struct buffer *out, const char *value);
void amqp_symbol(struct buffer *out, const char *value);
void amqp_binary(struct buffer *out, const void *value, size_t length);
void amqp_descriptor(struct buffer *out, uint8_t code); /* the described value follows */
void amqp_described_by(struct buffer *out, const char *symbol);
/* A list or map of `count` values, which follow; between them and amqp_end() only whole values are added. */
size_t amqp_list(struct buffer *out, uint32_t count);
size_t amqp_map(struct buffer *out, uint32_t count);
void amqp_end(struct buffer *out, size_t start);

/* The eight bytes that open a protocol. [AMQP 2.2] */
void amqp_header(struct buffer *out, enum amqp_protocol protocol);

/* A frame of type 0 (AMQP) or 1 (SASL) on channel 0, from here to amqp_frame_end(). */
size_t amqp_frame(struct buffer *out, uint8_t type);
void amqp_frame_end(struct buffer *out, size_t start);

/* --- in ---------------------------------------------------------------------------------------------------- */
struct amqp_cursor {
    const uint8_t *at, *end;
};
struct amqp_value {
    uint8_t code;        /* the constructor; 0x40 (null) also for what a list leaves out at its end */
    uint64_t number;     /* of unsigned and signed integers, and booleans */
    const uint8_t *data; /* of strings, symbols and binaries */
    size_t length;
};

/* The next value: a described one comes out as its plain value, of a list or map nothing but its place is kept. */
struct amqp_value amqp_next(struct amqp_cursor *cursor);
bool amqp_is_text(struct amqp_value value, const char *text);

struct amqp_frame {
    uint8_t type, performative;  /* performative 0: an empty frame, which only says that the peer is alive */
    struct amqp_cursor fields;   /* of the performative */
    struct amqp_cursor payload;  /* what follows the performative */
};

/* The peer's header from the front: its length, 0 while it is incomplete. Another protocol's ends the run. */
size_t amqp_take_header(const uint8_t *bytes, size_t length, enum amqp_protocol protocol);

/* The value of the application property `name` in a message, null where there is none. */
struct amqp_value amqp_application_property(struct amqp_cursor message, const char *name);

/* Ends the run with the error that a detach, an end or a close tells. */
_Noreturn void amqp_refused(const struct amqp_frame *frame);

/* Reads one frame from the front: its whole length, 0 while it is incomplete. */
size_t amqp_take(const uint8_t *bytes, size_t length, struct amqp_frame *frame);

#endif

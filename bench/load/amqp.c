#include "amqp.h"

#include <string.h>

#include "report.h"

#define CODE_NULL 0x40
#define CODE_DESCRIBED 0x00

void amqp_null(struct buffer *out)
{
    buffer_add_byte(out, CODE_NULL);
}

void amqp_bool(struct buffer *out, bool value)
{
    buffer_add_byte(out, value ? 0x41 : 0x42);
}

void amqp_ubyte(struct buffer *out, uint8_t value)
{
    buffer_add_byte(out, 0x50);
    buffer_add_byte(out, value);
}

void amqp_ushort(struct buffer *out, uint16_t value)
{
    buffer_add_byte(out, 0x60);
    buffer_add_u16(out, value);
}

void amqp_uint(struct buffer *out, uint32_t value)
{
    buffer_add_byte(out, 0x70);
    buffer_add_u32(out, value);
}

static void add_variable(struct buffer *out, uint8_t code, const char *value)
{
    buffer_add_byte(out, code);
    buffer_add_u32(out, (uint32_t)strlen(value));
    buffer_add(out, value, strlen(value));
}

void amqp_string(struct buffer *out, const char *value)
{
    add_variable(out, 0xB1, value);
}

void amqp_symbol(struct buffer *out, const char *value)
{
    add_variable(out, 0xB3, value);
}

void amqp_binary(struct buffer *out, const void *value, size_t length)
{
    buffer_add_byte(out, 0xB0);
    buffer_add_u32(out, (uint32_t)length);
    buffer_add(out, value, length);
}

void amqp_descriptor(struct buffer *out, uint8_t code)
{
    buffer_add(out, (const uint8_t[]){CODE_DESCRIBED, 0x53, code}, 3);
}

void amqp_described_by(struct buffer *out, const char *symbol)
{
    buffer_add_byte(out, CODE_DESCRIBED);
    amqp_symbol(out, symbol);
}

static size_t add_compound(struct buffer *out, uint8_t code, uint32_t count)
{
    buffer_add_byte(out, code);
    size_t start = out->length;
    buffer_add_u32(out, 0); /* the size, known at the end */
    buffer_add_u32(out, count);
    return start;
}

size_t amqp_list(struct buffer *out, uint32_t count)
{
    return add_compound(out, 0xD0, count);
}

size_t amqp_map(struct buffer *out, uint32_t count)
{
    return add_compound(out, 0xD1, count);
}

static void put_u32(uint8_t *at, size_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        *at++ = (uint8_t)(value >> shift);
}

void amqp_end(struct buffer *out, size_t start)
{
    put_u32(out->bytes + start, out->length - start - 4);
}

void amqp_header(struct buffer *out, enum amqp_protocol protocol)
{
    buffer_add(out, (const uint8_t[]){'A', 'M', 'Q', 'P', (uint8_t)protocol, 1, 0, 0}, 8);
}

size_t amqp_frame(struct buffer *out, uint8_t type)
{
    size_t start = out->length;
    buffer_add(out, (const uint8_t[]){0, 0, 0, 0, 2, type, 0, 0}, 8); /* [AMQP 2.3.1] */
    return start;
}

void amqp_frame_end(struct buffer *out, size_t start)
{
    put_u32(out->bytes + start, out->length - start);
}

static uint64_t take_number(struct amqp_cursor *cursor, unsigned width)
{
    uint64_t number = 0;
    if ((size_t)(cursor->end - cursor->at) < width)
        die("the server sent a value that runs past its frame");
    for (; width != 0; width--)
        number = number << 8 | *cursor->at++;
    return number;
}

/* The high half of a constructor tells the width of what follows it. [AMQP 1.2] */
struct amqp_value amqp_next(struct amqp_cursor *cursor)
{
    struct amqp_value value = {.code = CODE_NULL};
    if (cursor->at >= cursor->end)
        return value;
    value.code = *cursor->at++;
    if (value.code == CODE_DESCRIBED) {
        amqp_next(cursor);
        return amqp_next(cursor);
    }
    switch (value.code >> 4) {
    case 0x4:
        value.number = value.code == 0x41;
        break;
    case 0x5: case 0x6: case 0x7: case 0x8:
        value.number = take_number(cursor, 1u << ((value.code >> 4) - 5));
        break;
    case 0x9:
        take_number(cursor, 8);
        take_number(cursor, 8);
        break;
    case 0xA: case 0xC: case 0xE:
        value.length = take_number(cursor, 1);
        break;
    case 0xB: case 0xD: case 0xF:
        value.length = take_number(cursor, 4);
        break;
    default:
        die("the server sent the unknown type 0x%02x", value.code);
    }
    if ((size_t)(cursor->end - cursor->at) < value.length)
        die("the server sent a value that runs past its frame");
    value.data = cursor->at;
    cursor->at += value.length;
    return value;
}

bool amqp_is_text(struct amqp_value value, const char *text)
{
    return value.data != NULL && value.length == strlen(text) && memcmp(value.data, text, value.length) == 0;
}

static void read_performative(struct amqp_frame *frame, struct amqp_cursor *body)
{
    if (body->end - body->at < 4 || body->at[0] != CODE_DESCRIBED || body->at[1] != 0x53)
        die("the server sent a performative without a small descriptor");
    frame->performative = body->at[2];
    body->at += 3;
    struct amqp_value list = amqp_next(body);
    frame->payload = *body;
    frame->fields = (struct amqp_cursor){list.data, list.data + list.length};
    if (list.code == 0xC0 || list.code == 0xD0) /* the count in front: fields left out read as null anyway */
        frame->fields.at += list.code == 0xC0 ? 1 : 4;
    if (frame->fields.at > frame->fields.end)
        die("the server sent a list without its count");
}

size_t amqp_take(const uint8_t *bytes, size_t length, struct amqp_frame *frame)
{
    if (length < 8)
        return 0;
    struct amqp_cursor start = {bytes, bytes + 4};
    size_t size = take_number(&start, 4), offset = bytes[4] * 4u;
    if (size < 8 || offset < 8 || offset > size)
        die("the server sent a frame of %zu bytes with its body at %zu", size, offset);
    if (size > length)
        return 0;
    struct amqp_cursor body = {bytes + offset, bytes + size};
    *frame = (struct amqp_frame){.type = bytes[5]};
    if (body.at != body.end)
        read_performative(frame, &body);
    return size;
}

size_t amqp_take_header(const uint8_t *bytes, size_t length, enum amqp_protocol protocol)
{
    const uint8_t expected[] = {'A', 'M', 'Q', 'P', (uint8_t)protocol, 1, 0, 0};
    if (length < sizeof expected)
        return 0;
    if (memcmp(bytes, expected, sizeof expected) != 0)
        die("the server answered with another protocol header");
    return sizeof expected;
}

struct amqp_value amqp_application_property(struct amqp_cursor message, const char *name)
{
    while (message.at < message.end) {
        uint8_t section = message.end - message.at > 3 ? message.at[2] : 0;
        struct amqp_value body = amqp_next(&message);
        if (section != SECTION_APPLICATION_PROPERTIES || (body.code != 0xC1 && body.code != 0xD1))
            continue;
        struct amqp_cursor map = {body.data + (body.code == 0xC1 ? 1 : 4), body.data + body.length};
        while (map.at < map.end) {
            struct amqp_value key = amqp_next(&map), value = amqp_next(&map);
            if (amqp_is_text(key, name))
                return value;
        }
    }
    return (struct amqp_value){.code = CODE_NULL};
}

/* An error has condition and description first; as the first field of end and close, the third of detach. */
void amqp_refused(const struct amqp_frame *frame)
{
    struct amqp_cursor fields = frame->fields;
    if (frame->performative == AMQP_DETACH) {
        amqp_next(&fields); /* handle */
        amqp_next(&fields); /* closed */
    }
    struct amqp_value error = amqp_next(&fields);
    struct amqp_value condition = {0}, description = {0};
    if (error.code == 0xC0 || error.code == 0xD0) {
        struct amqp_cursor inner = {error.data + (error.code == 0xC0 ? 1 : 4), error.data + error.length};
        condition = amqp_next(&inner);
        description = amqp_next(&inner);
    }
    die("the server ended it (performative 0x%02x): %.*s %.*s", frame->performative, (int)condition.length,
        condition.data != NULL ? (const char *)condition.data : "", (int)description.length,
        description.data != NULL ? (const char *)description.data : "");
}

#include "buffer.h"

#include <stdlib.h>
#include <string.h>

#include "report.h"

uint8_t *buffer_extend(struct buffer *buffer, size_t length)
{
    if (buffer->length + length > buffer->room) {
        buffer->room = (buffer->length + length) * 2;
        buffer->bytes = realloc(buffer->bytes, buffer->room);
        if (buffer->bytes == NULL)
            die("out of memory");
    }
    uint8_t *start = buffer->bytes + buffer->length;
    buffer->length += length;
    return start;
}

void buffer_add(struct buffer *buffer, const void *bytes, size_t length)
{
    if (length != 0)
        memcpy(buffer_extend(buffer, length), bytes, length);
}

void buffer_add_byte(struct buffer *buffer, uint8_t byte)
{
    *buffer_extend(buffer, 1) = byte;
}

void buffer_add_u16(struct buffer *buffer, uint16_t value)
{
    uint8_t *to = buffer_extend(buffer, 2);
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

void buffer_add_u32(struct buffer *buffer, uint32_t value)
{
    buffer_add_u16(buffer, (uint16_t)(value >> 16));
    buffer_add_u16(buffer, (uint16_t)value);
}

void buffer_drop_front(struct buffer *buffer, size_t length)
{
    buffer->length -= length;
    if (buffer->length != 0)
        memmove(buffer->bytes, buffer->bytes + length, buffer->length);
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct buffer){0};
}

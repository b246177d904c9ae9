/* Bytes that grow. */
#ifndef LOAD_BUFFER_H
#define LOAD_BUFFER_H

#include <stddef.h>
#include <stdint.h>

struct buffer {
    uint8_t *bytes;
    size_t length, room;
};

/* Makes room for `length` more bytes and returns where they begin; they count as part of the buffer at once. */
uint8_t *buffer_extend(struct buffer *buffer, size_t length);
void buffer_add(struct buffer *buffer, const void *bytes, size_t length);
void buffer_add_byte(struct buffer *buffer, uint8_t byte);
void buffer_add_u16(struct buffer *buffer, uint16_t value); /* big-endian, like all numbers of MQTT and AMQP */
void buffer_add_u32(struct buffer *buffer, uint32_t value);
void buffer_drop_front(struct buffer *buffer, size_t length);
void buffer_free(struct buffer *buffer);

#endif

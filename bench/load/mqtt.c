#include "mqtt.h"

#include <string.h>

#include "report.h"

size_t mqtt_take(const uint8_t *bytes, size_t length, struct packet *packet)
{
    size_t remaining = 0, at = 1;
    unsigned shift = 0;
    do { /* [MQTT 3.1.1, 2.2.3] */
        if (at >= length)
            return 0;
        if (at > 4)
            die("the server sent a remaining length of more than four bytes");
        remaining |= (size_t)(bytes[at] & 0x7F) << shift;
        shift += 7;
    } while (bytes[at++] & 0x80);
    if (length - at < remaining)
        return 0;
    *packet = (struct packet){
        .kind = bytes[0] >> 4, .flags = bytes[0] & 0x0F, .body = bytes + at, .length = remaining};
    return at + remaining;
}

static void add_header(struct buffer *out, uint8_t first, size_t remaining)
{
    buffer_add_byte(out, first);
    for (; remaining >= 0x80; remaining >>= 7)
        buffer_add_byte(out, (uint8_t)(remaining | 0x80));
    buffer_add_byte(out, (uint8_t)remaining);
}

static void add_text(struct buffer *out, const char *text)
{
    buffer_add_u16(out, (uint16_t)strlen(text));
    buffer_add(out, text, strlen(text));
}

static size_t text_length(const char *text)
{
    return text != NULL ? 2 + strlen(text) : 0;
}

void mqtt_connect(struct buffer *out, const char *client_id, const char *user_name, const char *password,
                  uint16_t keep_alive)
{
    uint8_t flags = 0x02; /* clean session */
    if (user_name != NULL)
        flags |= 0x80;
    if (password != NULL)
        flags |= 0x40;
    add_header(out, 0x10, 10 + text_length(client_id) + text_length(user_name) + text_length(password));
    buffer_add(out, "\0\4MQTT\4", 7); /* protocol name and level 4 [MQTT-3.1.2-1] */
    buffer_add_byte(out, flags);
    buffer_add_u16(out, keep_alive);
    add_text(out, client_id);
    if (user_name != NULL)
        add_text(out, user_name);
    if (password != NULL)
        add_text(out, password);
}

void mqtt_subscribe(struct buffer *out, uint16_t id, const char *filter)
{
    add_header(out, 0x82, 2 + text_length(filter) + 1);
    buffer_add_u16(out, id);
    add_text(out, filter);
    buffer_add_byte(out, 1);
}

size_t mqtt_publish(struct buffer *out, uint16_t id, const char *topic, const void *payload, size_t length)
{
    add_header(out, 0x32, text_length(topic) + 2 + length);
    add_text(out, topic);
    size_t where = out->length;
    buffer_add_u16(out, id);
    buffer_add(out, payload, length);
    return where;
}

void mqtt_puback(struct buffer *out, uint16_t id)
{
    add_header(out, 0x40, 2);
    buffer_add_u16(out, id);
}

void mqtt_disconnect(struct buffer *out)
{
    add_header(out, 0xE0, 0);
}

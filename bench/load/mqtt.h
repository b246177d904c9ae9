/* The little of MQTT 3.1.1 that a load needs. */
#ifndef LOAD_MQTT_H
#define LOAD_MQTT_H

#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

enum mqtt_kind { CONNACK = 2, PUBLISH = 3, PUBACK = 4, SUBACK = 9 };

struct packet {
    uint8_t kind, flags;
    const uint8_t *body;
    size_t length;
};

/* Reads one packet from the front: its whole length, 0 while it is incomplete. */
size_t mqtt_take(const uint8_t *bytes, size_t length, struct packet *packet);

/* `user_name` and `password` may be NULL. Clean session. */
void mqtt_connect(struct buffer *out, const char *client_id, const char *user_name, const char *password,
                  uint16_t keep_alive);
void mqtt_subscribe(struct buffer *out, uint16_t id, const char *filter); /* QoS 1 */
/* QoS 1; returns where in `out` the packet id stands, for senders that repeat the packet under other ids. */
size_t mqtt_publish(struct buffer *out, uint16_t id, const char *topic, const void *payload, size_t length);
void mqtt_puback(struct buffer *out, uint16_t id);
void mqtt_disconnect(struct buffer *out);

#endif

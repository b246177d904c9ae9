/* One device's MQTT connection: TLS, CONNECT, CONNACK; then the sub-command's own packets. */
#ifndef LOAD_SESSION_H
#define LOAD_SESSION_H

#include "devices.h"
#include "link.h"
#include "mqtt.h"

struct session;

struct role {
    void (*accepted)(struct session *session); /* CONNACK 0 has come; NULL: nothing to do */
    void (*packet)(struct session *session, const struct packet *packet);
};

struct session {
    struct link link; /* first: a link's callback finds its session here */
    const struct device *device;
    const struct role *role;
    bool accepted;
};

void session_open(struct loop *loop, struct session *session, const struct device *device, const struct role *role);
void session_end(struct session *session); /* DISCONNECT, close_notify, close */

/* Opens `count` sessions, device i for session i, at most `at_once` not yet accepted at any time; returns when
   all are. `sessions` is an array of structs of `stride` bytes that begin with a session. */
void sessions_open(struct loop *loop, void *sessions, size_t stride, size_t count, const struct devices *devices,
                   const struct role *role, size_t at_once);

uint16_t packet_u16(const struct session *session, const struct packet *packet, size_t at);

#endif

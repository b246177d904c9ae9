#include "session.h"

#include "report.h"

#define KEEP_ALIVE 1177 /* seconds: the longest an IoT hub honours; no run is long enough to need a ping */

static size_t accepted_count; /* of the sessions that sessions_open() waits for */

uint16_t packet_u16(const struct session *session, const struct packet *packet, size_t at)
{
    if (packet->length < at + 2)
        die("%s: a packet of kind %d is too short", session->device->id, packet->kind);
    return (uint16_t)(packet->body[at] << 8 | packet->body[at + 1]);
}

static void handshake_done(struct link *link)
{
    struct session *session = (struct session *)link;
    mqtt_connect(&link->out, session->device->id, session->device->user_name,
                 session->device->password, KEEP_ALIVE);
}

static void session_accept(struct session *session, const struct packet *packet)
{
    if (packet->kind != CONNACK || packet->length != 2)
        die("%s: the first packet is of kind %d, not CONNACK", session->device->id, packet->kind);
    if (packet->body[1] != 0)
        die("%s: CONNACK %d", session->device->id, packet->body[1]);
    session->accepted = true;
    accepted_count++;
    if (session->role->accepted != NULL)
        session->role->accepted(session);
}

static size_t bytes_received(struct link *link, const uint8_t *bytes, size_t length)
{
    struct session *session = (struct session *)link;
    struct packet packet;
    size_t used = 0, whole;
    while (link->fd >= 0 && (whole = mqtt_take(bytes + used, length - used, &packet)) != 0) {
        used += whole;
        if (session->accepted)
            session->role->packet(session, &packet);
        else
            session_accept(session, &packet);
    }
    return used;
}

static const struct conversation mqtt = {.opened = handshake_done, .received = bytes_received};

void session_open(struct loop *loop, struct session *session, const struct device *device, const struct role *role)
{
    session->device = device;
    session->role = role;
    session->accepted = false;
    link_open(loop, &session->link, &mqtt, device->id, device);
}

void session_end(struct session *session)
{
    mqtt_disconnect(&session->link.out);
    link_close(&session->link);
}

void sessions_open(struct loop *loop, void *sessions, size_t stride, size_t count, const struct devices *devices,
                   const struct role *role, size_t at_once)
{
    size_t begun = 0;
    for (accepted_count = 0; accepted_count < count; loop_turn(loop, -1))
        for (; begun < count && begun - accepted_count < at_once; begun++)
            session_open(loop, (struct session *)((char *)sessions + begun * stride), &devices->all[begun], role);
}

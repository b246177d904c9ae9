/* What a reader of events says, and a device that registers: the performatives of one connection, one session and its
   links. */
#ifndef LOAD_REQUESTS_H
#define LOAD_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"

#define SESSION_WINDOW 0x7FFFFFFF

void say_sasl_anonymous(struct buffer *out);
void say_sasl_plain(struct buffer *out, const char *user, const char *password);
void say_open_and_begin(struct buffer *out, const char *hostname, uint32_t handle_max);
/* Links to and from $cbs: their names are their local ends. */
void say_attach_sender(struct buffer *out, uint32_t handle, const char *name, const char *target);
void say_attach_receiver(struct buffer *out, uint32_t handle, const char *name, const char *source);
/* A receiver of a partition, from the oldest event kept. */
void say_attach_to_log(struct buffer *out, uint32_t handle, const char *name, const char *source);
void say_flow(struct buffer *out, uint32_t handle, uint32_t next_incoming_id, uint32_t delivery_count, uint32_t credit);
/* The session's first transfer, on the link `handle`: the answer comes to the receiver called "cbs". */
void say_put_token(struct buffer *out, uint32_t handle, const char *audience, const char *token);
/* A link of a device to or from its own node of the provisioning service. */
void say_attach_device(struct buffer *out, uint32_t handle, bool receiver, const char *address,
                       const char *api_version, const char *agent);
/* The session's transfer `number`, from 0 on: to register, or with an operation's id to ask what became of it. */
void say_device_request(struct buffer *out, uint32_t handle, uint32_t number, const char *operation_id,
                        const char *body);
/* That what came as the delivery of that id is taken. */
void say_accepted(struct buffer *out, uint32_t delivery_id);

#endif

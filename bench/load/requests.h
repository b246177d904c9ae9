/* What a reader of events says: the performatives of one connection, one session and its links. */
#ifndef LOAD_REQUESTS_H
#define LOAD_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"

#define SESSION_WINDOW 0x7FFFFFFF

void say_sasl_anonymous(struct buffer *out);
void say_open_and_begin(struct buffer *out, const char *hostname, uint32_t handle_max);
/* Links to and from $cbs: their names are their local ends. */
void say_attach_sender(struct buffer *out, uint32_t handle, const char *name, const char *target);
void say_attach_receiver(struct buffer *out, uint32_t handle, const char *name, const char *source);
/* A receiver of a partition, from the oldest event kept. */
void say_attach_to_log(struct buffer *out, uint32_t handle, const char *name, const char *source);
void say_flow(struct buffer *out, uint32_t handle, uint32_t next_incoming_id, uint32_t delivery_count, uint32_t credit);
/* The session's first transfer, on the link `handle`: the answer comes to the receiver called "cbs". */
void say_put_token(struct buffer *out, uint32_t handle, const char *audience, const char *token);

#endif

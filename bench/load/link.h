/* TLS connections, all in one thread on one epoll. */
#ifndef LOAD_LINK_H
#define LOAD_LINK_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>

#include "buffer.h"
#include "devices.h"

struct loop {
    int epoll;
    SSL_CTX *tls;
    struct sockaddr_in peer;
    const char *server_name; /* sent as SNI; NULL: none */
    char agreed[128];        /* protocol, suite and group of the latest handshake */
};

struct link;

/* What a sub-command does with its links. A callback may end any link, but opens one only from outside. */
struct conversation {
    void (*opened)(struct link *link); /* the handshake is done, the server's half of it too */
    /* Bytes have come; returns how many of them were used, the rest is offered again with what comes next. */
    size_t (*received)(struct link *link, const uint8_t *bytes, size_t length);
};

struct link {
    struct loop *loop;
    const struct conversation *conversation;
    const char *name; /* for messages */
    int fd;           /* -1 while closed */
    uint32_t watched; /* what epoll watches it for */
    SSL *ssl;
    bool open;
    struct buffer out;  /* not yet written */
    struct buffer rest; /* arrived, not yet used */
};

/* `version` and `ca` as in tls.h. */
void loop_begin(struct loop *loop, const char *address, int port, const char *server_name, const char *version,
                const char *ca);
/* Waits for events, at most `timeout_ns` (-1: without end), and handles them. */
void loop_turn(struct loop *loop, int64_t timeout_ns);

/* Begins to connect; `device` may be NULL: no client certificate. */
void link_open(struct loop *loop, struct link *link, const struct conversation *conversation, const char *name,
               const struct device *device);
/* Writes link->out. Called by itself after callbacks; call it for what is added at other times. */
void link_flush(struct link *link);
/* Writes what is left and closes, without close_notify, as most device clients do. */
void link_close(struct link *link);

#endif

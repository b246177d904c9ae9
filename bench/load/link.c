#define _GNU_SOURCE
#include "link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "report.h"
#include "tls.h"

#define RECORD 16384                /* the most that one SSL_read gives */
#define LONGEST_REST (1024 * 1024)  /* the longest incomplete packet or frame that is kept */

static uint8_t arrival[LONGEST_REST + RECORD]; /* shared: only incomplete packets cost a link memory */

void loop_begin(struct loop *loop, const char *address, int port, const char *server_name, const char *version,
                const char *ca)
{
    *loop = (struct loop){.epoll = epoll_create1(EPOLL_CLOEXEC), .server_name = server_name};
    loop->peer = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (loop->epoll < 0)
        die("epoll: %s", strerror(errno));
    if (inet_pton(AF_INET, address, &loop->peer.sin_addr) != 1)
        die("--address wants an IPv4 address, not %s", address);
    loop->tls = tls_context(version, ca);
    prctl(PR_SET_TIMERSLACK, 1UL); /* an open-loop sender must wake when it is due, not 50 µs later */
}

static void link_watch(struct link *link, bool writing)
{
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0u), .data.ptr = link};
    if (event.events == link->watched)
        return;
    if (epoll_ctl(link->loop->epoll, link->watched == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, link->fd, &event) != 0)
        die("epoll: %s", strerror(errno));
    link->watched = event.events;
}

static void link_fail(struct link *link)
{
    die("%s: connection lost%s: %s", link->name, link->open ? "" : " before the handshake was done", tls_reason());
}

/* Whether a call that did not succeed only waits for the socket; epoll then wakes the link. */
static bool link_waits(struct link *link, int result)
{
    int error = SSL_get_error(link->ssl, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        return false;
    link_watch(link, error == SSL_ERROR_WANT_WRITE);
    return true;
}

static void note_agreed(struct link *link)
{
    const char *group = SSL_group_to_name(link->ssl, (int)SSL_get_negotiated_group(link->ssl));
    snprintf(link->loop->agreed, sizeof link->loop->agreed, "%s %s %s", SSL_get_version(link->ssl),
             SSL_get_cipher_name(link->ssl), group != NULL ? group : "");
}

static bool link_shake_hands(struct link *link)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(link->ssl);
    if (result == 1) {
        link->open = true;
        note_agreed(link);
        link->conversation->opened(link);
    } else if (!link_waits(link, result)) {
        link_fail(link);
    }
    return link->open;
}

static void link_read(struct link *link)
{
    do {
        size_t held = link->rest.length;
        if (held > LONGEST_REST)
            die("%s: a packet of more than %d bytes", link->name, LONGEST_REST);
        ERR_clear_error();
        errno = 0;
        int got = SSL_read(link->ssl, arrival + held, RECORD);
        if (got <= 0) {
            if (!link_waits(link, got))
                link_fail(link);
            return;
        }
        if (held != 0)
            memcpy(arrival, link->rest.bytes, held);
        size_t length = held + (size_t)got, used = link->conversation->received(link, arrival, length);
        link->rest.length = 0;
        if (link->fd >= 0)
            buffer_add(&link->rest, arrival + used, length - used);
    } while (link->fd >= 0 && SSL_has_pending(link->ssl));
}

void link_flush(struct link *link)
{
    while (link->fd >= 0 && link->open && link->out.length != 0) {
        ERR_clear_error();
        errno = 0;
        int wrote = SSL_write(link->ssl, link->out.bytes, (int)link->out.length);
        if (wrote > 0)
            buffer_drop_front(&link->out, (size_t)wrote);
        else if (link_waits(link, wrote))
            return;
        else
            link_fail(link);
    }
    if (link->fd >= 0 && link->open)
        link_watch(link, false);
}

static void link_work(struct link *link)
{
    if (link->fd < 0 || (!link->open && !link_shake_hands(link)))
        return;
    link_flush(link); /* what waited for room, or for the handshake */
    link_read(link);
    link_flush(link); /* one write for all that one wake-up was answered with */
}

void loop_turn(struct loop *loop, int64_t timeout_ns)
{
    struct epoll_event events[256];
    struct timespec timeout = {.tv_sec = timeout_ns / SECOND, .tv_nsec = timeout_ns % SECOND};
    int count = epoll_pwait2(loop->epoll, events, 256, timeout_ns < 0 ? NULL : &timeout, NULL);
    if (count < 0 && errno != EINTR)
        die("epoll: %s", strerror(errno));
    for (int i = 0; i < count; i++)
        link_work(events[i].data.ptr);
}

static void link_begin_tls(struct link *link, const struct device *device)
{
    link->ssl = SSL_new(link->loop->tls);
    if (link->ssl == NULL || SSL_set_fd(link->ssl, link->fd) != 1)
        die("%s: TLS: %s", link->name, tls_reason());
    if (link->loop->server_name != NULL)
        SSL_set_tlsext_host_name(link->ssl, link->loop->server_name);
    if (device != NULL && device->certificate != NULL &&
        (SSL_use_certificate(link->ssl, device->certificate) != 1 || SSL_use_PrivateKey(link->ssl, device->key) != 1 ||
         (device->issuers != NULL && SSL_set1_chain(link->ssl, device->issuers) != 1)))
        die("%s: certificate and key: %s", link->name, tls_reason());
    SSL_set_connect_state(link->ssl);
}

void link_open(struct loop *loop, struct link *link, const struct conversation *conversation, const char *name,
               const struct device *device)
{
    int yes = 1;
    link->loop = loop;
    link->conversation = conversation;
    link->name = name;
    link->open = false;
    link->out.length = link->rest.length = 0;
    link->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (link->fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(link->fd, (const struct sockaddr *)&loop->peer, sizeof loop->peer) != 0 && errno != EINPROGRESS)
        die("%s: connect: %s", name, strerror(errno));
    link->watched = 0;
    link_begin_tls(link, device);
    link_watch(link, true);
}

void link_close(struct link *link)
{
    if (link->fd < 0)
        return;
    link_flush(link);
    SSL_free(link->ssl);
    close(link->fd);
    link->ssl = NULL;
    link->fd = -1;
    buffer_free(&link->out);
    buffer_free(&link->rest);
}

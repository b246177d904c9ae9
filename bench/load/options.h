/* The command line; one set of options for all sub-commands. */
#ifndef LOAD_OPTIONS_H
#define LOAD_OPTIONS_H

#include <stdint.h>
#include <sys/types.h>

struct options {
    /* the server */
    const char *address;
    int port;             /* 0: the sub-command's own */
    const char *server_name, *ca, *tls;
    pid_t server_pid;
    /* the load */
    const char *devices;
    uint64_t connections, at_once, in_flight, messages, payload;
    double seconds, warmup, rate;
    int timeout;          /* seconds after which the program gives up */
    /* what the sub-commands say */
    const char *topic, *body;              /* publish, rate; body: instead of so many bytes of payload */
    const char *id_scope, *user_agent;     /* register */
    const char *entity, *token, *audience; /* read */
    uint64_t partitions, credit;           /* read */
};

/* The sub-commands. Each prints one JSON line and returns only when all went well. */
void run_connect(const struct options *options);
void run_publish(const struct options *options);
void run_rate(const struct options *options);
void run_idle(const struct options *options);
void run_register(const struct options *options);
void run_register_https(const struct options *options);
void run_register_amqp(const struct options *options);
void run_read(const struct options *options);

#endif

/* A load generator for MQTT hubs, device provisioning and Event Hubs reading: one thread, OpenSSL, epoll.

   Any refusal, lost connection or missing acknowledgement ends it with status 1 and a line on stderr; otherwise
   one JSON line on stdout tells what was measured. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load/options.h"
#include "load/report.h"

static const char usage[] =
    "usage: load COMMAND --address IPV4 [options]\n"
    "\n"
    "  connect   TLS handshake, CONNECT, CONNACK, DISCONNECT, --messages times, --connections at a time\n"
    "  publish   QoS 1 publishes, --connections times --in-flight at a time, for --seconds or --messages\n"
    "  rate      QoS 1 publishes at --rate a second whatever the acknowledgements do; their latency\n"
    "  idle      opens --connections, says so, and holds them until stdin closes\n"
    "  register  --messages devices register with a provisioning service, --connections at a time\n"
    "  register-https, register-amqp  the same over HTTPS and over AMQP\n"
    "  read      --messages events from the start of --partitions partitions, over --connections connections\n"
    "\n"
    "the server\n"
    "  --address A, --port P      default 8883; read, register-amqp: 5671; register-https: 443\n"
    "  --server-name N            sent as SNI; read: also as the host of AMQP open\n"
    "  --tls 1.2|1.3|any          default any\n"
    "  --ca FILE                  verify the server's certificate\n"
    "  --server-pid PID           report that process's CPU time as well\n"
    "the load\n"
    "  --devices FILE             device list: id, user name, password, certificate, key between tabs\n"
    "  --connections C            default 50; --at-once H handshakes while opening, default 50\n"
    "  --in-flight W              default 1; --payload BYTES, default 256; --topic T, with {id}\n"
    "  --body TEXT                what each message says, instead of --payload bytes\n"
    "  --messages N, --seconds S, --warmup S (default 0.5), --rate R\n"
    "  --timeout S                give up after that, default 120\n"
    "register\n"
    "  --id-scope S, --user-agent U\n"
    "read\n"
    "  --entity E, --partitions N (default 4), --credit N (default 20000), --token SAS, --audience A\n";

static struct options options = {
    .tls = "any", .connections = 50, .at_once = 50, .in_flight = 1, .payload = 256, .warmup = 0.5, .timeout = 120,
    .topic = "devices/{id}/messages/events/", .user_agent = "moorage-bench", .entity = "moorage", .partitions = 4,
    .credit = 20000,
};

enum kind { TEXT, COUNT, DECIMAL, WHOLE };

/* Where each option's value goes, in the order of `names`. */
static const struct {
    enum kind kind;
    void *value;
} places[] = {
    {TEXT, &options.address},     {WHOLE, &options.port},       {TEXT, &options.server_name},
    {TEXT, &options.ca},          {TEXT, &options.tls},         {WHOLE, &options.server_pid},
    {TEXT, &options.devices},     {COUNT, &options.connections}, {COUNT, &options.at_once},
    {COUNT, &options.in_flight},  {COUNT, &options.messages},   {COUNT, &options.payload},
    {DECIMAL, &options.seconds},  {DECIMAL, &options.warmup},   {DECIMAL, &options.rate},
    {WHOLE, &options.timeout},    {TEXT, &options.topic},       {TEXT, &options.id_scope},
    {TEXT, &options.user_agent},  {TEXT, &options.entity},      {TEXT, &options.token},
    {TEXT, &options.audience},    {COUNT, &options.partitions}, {COUNT, &options.credit},
    {TEXT, &options.body},
};

static const char *const names[] = {
    "address",   "port",       "server-name", "ca",      "tls",      "server-pid", "devices",    "connections",
    "at-once",   "in-flight",  "messages",    "payload", "seconds",  "warmup",     "rate",       "timeout",
    "topic",     "id-scope",   "user-agent",  "entity",  "token",    "audience",   "partitions", "credit",
    "body",
};
#define OPTIONS (sizeof names / sizeof *names)
_Static_assert(OPTIONS == sizeof places / sizeof *places, "each option has its place");

static void put(int option, const char *text)
{
    char *end = NULL;
    double number = strtod(text, &end);
    if (places[option].kind == TEXT) {
        *(const char **)places[option].value = text;
        return;
    }
    if (end == text || *end != '\0' || number < 0)
        die("--%s wants a number, not %s", names[option], text);
    if (places[option].kind == COUNT)
        *(uint64_t *)places[option].value = (uint64_t)number;
    else if (places[option].kind == WHOLE)
        *(int *)places[option].value = (int)number;
    else
        *(double *)places[option].value = number;
}

static void read_options(int argc, char **argv)
{
    struct option table[OPTIONS + 1] = {0};
    int option;
    for (size_t i = 0; i < OPTIONS; i++)
        table[i] = (struct option){.name = names[i], .has_arg = required_argument, .val = (int)i};
    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (option == '?')
            exit(2);
        put(option, optarg);
    }
    if (options.address == NULL || optind != argc) {
        fputs(usage, stderr);
        exit(2);
    }
}

static void give_up(int signal)
{
    static const char message[] = "load: given up: the run did not end within --timeout\n";
    ssize_t ignored = write(STDERR_FILENO, message, sizeof message - 1);
    (void)ignored;
    (void)signal;
    _exit(1);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const struct options *options);
        int port;
    } commands[] = {
        {"connect", run_connect, 8883}, {"publish", run_publish, 8883},   {"rate", run_rate, 8883},
        {"idle", run_idle, 8883},       {"register", run_register, 8883}, {"read", run_read, 5671},
        {"register-https", run_register_https, 443}, {"register-amqp", run_register_amqp, 5671},
    };
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        read_options(argc - 1, argv + 1);
        if (options.port == 0)
            options.port = commands[i].port;
        signal(SIGPIPE, SIG_IGN);
        signal(SIGALRM, give_up);
        alarm((unsigned)options.timeout);
        commands[i].run(&options);
        return 0;
    }
    fputs(usage, stderr);
    return argc > 1 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
}

/* idle: opens connections and leaves them alone, so that the server's memory can be looked at. */
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "options.h"
#include "report.h"
#include "session.h"

static void idle_packet(struct session *session, const struct packet *packet)
{
    die("%s: unasked packet of kind %d", session->device->id, packet->kind);
}

static const struct role idling = {.packet = idle_packet};

static bool stdin_open(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char ignored[64];
    return poll(&input, 1, 0) <= 0 || read(STDIN_FILENO, ignored, sizeof ignored) > 0;
}

void run_idle(const struct options *options)
{
    struct loop loop;
    struct window window;
    struct devices devices = devices_read(options->devices, options->connections);
    struct session *sessions = calloc(options->connections, sizeof *sessions);
    if (sessions == NULL)
        die("out of memory");
    loop_begin(&loop, options->address, options->port, options->server_name, options->tls, options->ca);

    window_open(&window, options->server_pid);
    sessions_open(&loop, sessions, sizeof *sessions, options->connections, &devices, &idling, options->at_once);
    window_close(&window, 0);
    report_begin("idle");
    report_text("tls", loop.agreed);
    report_window(&window, options->connections);
    report_end();

    while (stdin_open())
        loop_turn(&loop, 50 * MILLISECOND); /* a connection that the server closes ends the run */
    for (size_t i = 0; i < options->connections; i++)
        session_end(&sessions[i]);
}

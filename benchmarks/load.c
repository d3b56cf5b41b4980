/* A client that is faster than the servers: so many connections, each with one request at a time.
 *
 *   load PORT SECONDS CONNECTIONS STATUS BODY SEND < HEAD
 *
 * HEAD is sent as it is, then BODY bytes in calls of SEND bytes; after `Expect: 100-continue` only
 * once the server has said 100. An answer whose status is not STATUS ends the program. A client
 * that is refused before it has sent its body closes at once, as curl does; another waits, where the
 * connection closes, until the server has closed it. Prints a line of JSON: requests that were
 * answered, connections that broke without an answer, bytes of bodies sent, seconds, and seconds of
 * CPU that this client has used. Linux only (epoll). */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512 };
#define GRACE 1.0 /* seconds to wait for the request that is under way at the end */

struct client {
    int fd;
    unsigned asks; /* the epoll events it waits for */
    int told;      /* it has its 100 */
    int closing;   /* it has its answer and waits for the end */
    long sent;     /* bytes of head and body */
    int got;       /* bytes in answer */
    char answer[8192];
};

static struct sockaddr_in server = {.sin_family = AF_INET};
static char head[65536], *piece;
static long head_size, total, piece_size, expected, done, broken, body_sent;
static int expects, closes, epoll;

static void fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void begin(struct client *client)
{
    client->told = client->closing = client->got = 0;
    client->sent = 0;
}

/* Return how many bytes of head and body may be sent by now. */
static long may_send(const struct client *client)
{
    return expects && !client->told ? head_size : total;
}

/* Send what is left of the head, and a piece of the body if that may be sent: one, as an answer may
 * have come meanwhile. Return 0 if the connection broke. */
static int sends(struct client *client)
{
    long sent = 0;

    if (client->closing)
        return 1;
    if (client->sent < head_size) {
        sent = send(client->fd, head + client->sent, head_size - client->sent, MSG_NOSIGNAL);
        client->sent += sent > 0 ? sent : 0;
    }
    if (client->sent >= head_size && client->sent < may_send(client)) {
        long left = total - client->sent;
        sent = send(client->fd, piece, left < piece_size ? left : piece_size, MSG_NOSIGNAL);
        client->sent += sent > 0 ? sent : 0;
        body_sent += sent > 0 ? sent : 0;
    }
    /* A server that refuses may have reset the connection: its answer is still to be read. */
    return sent >= 0 || errno == EAGAIN || errno == EPIPE || errno == ECONNRESET;
}

/* Return the events that it waits for: room only while something may be sent. */
static unsigned wants(const struct client *client)
{
    int sends_more = !client->closing && client->sent < may_send(client);
    return EPOLLIN | (sends_more ? EPOLLOUT : 0);
}

static void ask(struct client *client)
{
    struct epoll_event event = {.events = wants(client), .data.ptr = client};

    if (event.events != client->asks && epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &event))
        fail("epoll_ctl");
    client->asks = event.events;
}

/* Connect and send at once: on loopback the connection is there when connect() returns. */
static void open_connection(struct client *client)
{
    int yes = 1;
    struct epoll_event event = {.data.ptr = client};

    begin(client);
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (client->fd < 0)
        fail("socket");
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(client->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
        fail("connect");
    sends(client);
    client->asks = event.events = wants(client);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event))
        fail("epoll_ctl");
}

static void reopen(struct client *client)
{
    close(client->fd);
    open_connection(client);
}

/* Look at what has come. Return whether the answer is complete. */
static int answered(struct client *client)
{
    for (;;) {
        client->answer[client->got] = 0;
        char *end = strstr(client->answer, "\r\n\r\n");
        if (!end)
            return 0;
        end += 4;
        long status = strtol(client->answer + 9, NULL, 10);
        if (status == 100) {
            client->told = 1;
            client->got -= end - client->answer;
            memmove(client->answer, end, client->got);
            continue;
        }
        if (status != expected) {
            fprintf(stderr, "load: not %ld: %.300s\n", expected, client->answer);
            exit(1);
        }
        char *field = strcasestr(client->answer, "\r\ncontent-length:");
        long size = field && field < end ? strtol(field + 17, NULL, 10) : 0;
        return client->answer + client->got - end >= size;
    }
}

/* Read, send, and begin again. Return whether a request was answered. */
static int go_on(struct client *client, unsigned events)
{
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        int room = sizeof client->answer - 1 - client->got;
        long got = recv(client->fd, client->answer + client->got, room, 0);
        if (got <= 0 && !(got < 0 && errno == EAGAIN)) {
            broken += !client->closing;
            reopen(client);
            return 0;
        }
        if (client->closing)
            return 0;
        client->got += got > 0 ? got : 0;
        if (got > 0 && answered(client)) {
            done++;
            if (client->sent < total)
                reopen(client);
            else if (closes || strcasestr(client->answer, "\r\nconnection: close"))
                client->closing = 1;
            else {
                begin(client);
                sends(client);
            }
            return 1;
        }
    }
    if (!sends(client)) {
        broken++;
        reopen(client);
    }
    return 0;
}

int main(int count, char **words)
{
    if (count != 7 || (head_size = fread(head, 1, sizeof head - 1, stdin)) <= 0) {
        fprintf(stderr, "load PORT SECONDS CONNECTIONS STATUS BODY SEND < HEAD\n");
        return 2;
    }
    server.sin_port = htons(atoi(words[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    double seconds = atof(words[2]);
    int connections = atoi(words[3]);
    expected = atol(words[4]);
    total = head_size + atol(words[5]);
    piece_size = atol(words[6]);
    expects = strstr(head, "100-continue") != NULL;
    closes = strstr(head, "Connection: close") != NULL;
    piece = calloc(1, piece_size + 1);
    struct client *clients = calloc(connections, sizeof *clients);
    if (!piece || !clients || (epoll = epoll_create1(0)) < 0)
        fail("start");
    for (int number = 0; number < connections; number++)
        open_connection(&clients[number]);

    struct epoll_event events[EVENTS];
    double start = now(), stop = start + seconds, time = start;
    int after_the_end = 0;
    while (time < stop || (!after_the_end && time < stop + GRACE)) {
        int ready = epoll_wait(epoll, events, EVENTS, 50);
        for (int number = 0; number < ready; number++) {
            struct client *client = events[number].data.ptr;
            int over = go_on(client, events[number].events);
            ask(client);
            if (over && time >= stop)
                after_the_end = 1;
        }
        time = now();
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"done\": %ld, \"broken\": %ld, \"sent\": %ld, \"seconds\": %.6f, \"busy\": %.6f}\n",
           done, broken, body_sent, time - start,
           (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    return 0;
}

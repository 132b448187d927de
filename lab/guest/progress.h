/*
 * How a workload in the guest tells what it has done: a TCP port that sends every
 * watcher a line "progress name=number ..." several times per second. Watchers see
 * the guest from outside, so the time of a line is theirs: the guest's own clock
 * stands still while it is moved. A watcher may send "verify\n", which the program
 * answers with a line "verified ..." where it can. Knows nothing of what is counted.
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS 1000000000ull
#define PROGRESS_PERIOD_NANOSECONDS (NANOSECONDS / 50)
#define WATCHERS_MAX 8

static uint64_t now_nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NANOSECONDS + (uint64_t)now.tv_nsec;
}

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* [0] listens, the others are watchers; poll() skips those that are -1. */
static struct pollfd progress_sockets[1 + WATCHERS_MAX];

static void progress_listen(uint16_t port)
{
    for (int i = 0; i <= WATCHERS_MAX; i++)
        progress_sockets[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0)
        fail("socket");
    int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0)
        fail("bind");
    if (listen(listener, WATCHERS_MAX) != 0)
        fail("listen");
    progress_sockets[0].fd = listener;
}

static void progress_drop(struct pollfd *watcher)
{
    close(watcher->fd);
    watcher->fd = -1;
}

static void progress_accept(void)
{
    int socket = accept4(progress_sockets[0].fd, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0)
        return;
    for (int i = 1; i <= WATCHERS_MAX; i++)
        if (progress_sockets[i].fd < 0) {
            progress_sockets[i].fd = socket;
            return;
        }
    close(socket);
}

/* A watcher that does not read loses lines; one that took half of one is let go. */
static void progress_say(const char *line, int length)
{
    for (int i = 1; i <= WATCHERS_MAX; i++) {
        struct pollfd *watcher = &progress_sockets[i];
        if (watcher->fd < 0)
            continue;
        ssize_t sent = send(watcher->fd, line, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent != length && !(sent < 0 && errno == EAGAIN))
            progress_drop(watcher);
    }
}

/*
 * Waits until a watcher wants something, or for `timeout_ms`. Returns 1 when one
 * asks for verification: every byte 'v' does, whatever is around it.
 */
static int progress_poll(int timeout_ms)
{
    if (poll(progress_sockets, 1 + WATCHERS_MAX, timeout_ms) <= 0)
        return 0;
    if (progress_sockets[0].revents != 0)
        progress_accept();
    int is_verification_wanted = 0;
    for (int i = 1; i <= WATCHERS_MAX; i++) {
        struct pollfd *watcher = &progress_sockets[i];
        if (watcher->fd < 0 || watcher->revents == 0)
            continue;
        char bytes[64];
        ssize_t length = recv(watcher->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (length > 0 && memchr(bytes, 'v', (size_t)length) != 0)
            is_verification_wanted = 1;
        else if (length == 0 || (length < 0 && errno != EAGAIN))
            progress_drop(watcher);
    }
    return is_verification_wanted;
}

#endif

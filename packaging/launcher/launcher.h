/* The first few milliseconds of the one-file scitq: unpack what is appended to this program into a cache folder, once per
 * version and user, check it, and hand over to it (docs/install.md, "How the one file works").
 *
 * Static, without any call into NSS: it must run where there is no libc at all. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK ".lock" /* in each unpacked folder; whose lock a running scitq holds, and whose time no file may be later than */

/* What is to be unpacked: kind is d (folder), f (file) or l (link); `bad`: missing, or not as it was unpacked. */
typedef struct { char kind; unsigned mode; uint64_t size; const char *path; bool bad; } Entry;

/* This program and what is appended to it; `at`, `length`: of the compressed content; `name`: of the folder that it becomes. */
typedef struct { int fd; char self[PATH_MAX]; uint64_t at, length; char name[128], loader[128]; Entry *entries; size_t count; } Bundle;

/* main.c */
void refuse(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
int because(const char *folder, const char *reason);
void join(char *into, const char *folder, const char *name);

/* archive.c */
void open_bundle(Bundle *bundle, const char *argv0);
int unpack(Bundle *bundle, const char *folder);

/* folder.c */
size_t check(Bundle *bundle, const char *folder, struct timespec *stamp);
void freshen(Bundle *bundle, const char *folder);
void remove_tree(int parent, const char *name);
void prune(const char *app, const char *keep);

/* cache.c */
/* `exists`: the length of the part of `base` that is not made; `own`: of a folder of ours in one that others use too, else 0. */
typedef struct { char base[PATH_MAX]; size_t exists, own; } Place;
int find_unpacked(Bundle *bundle, const Place *place, char *folder);
int try_place(Bundle *bundle, const Place *place, char *folder);

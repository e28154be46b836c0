/* One place that may hold unpacked folders: `<base>/app/<version>-<id>`, under locks. */
#include "launcher.h"
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>

#define DAY 86400

/* Make a folder and its missing parents, 0700; `from`: the length of the part that must exist already. */
static bool make_folders(const char *path, size_t from)
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    for (size_t i = from + 1; copy[i]; i++)
        if (copy[i] == '/') {
            copy[i] = 0;
            if (mkdir(copy, 0700) && errno != EEXIST) return false;
            copy[i] = '/';
        }
    return !mkdir(copy, 0700) || errno == EEXIST;
}

/* Why a folder may be somebody else's too; NULL when it is ours alone. */
static const char *not_private(const char *folder)
{
    struct stat status;
    if (lstat(folder, &status)) return strerror(errno);
    if (!S_ISDIR(status.st_mode)) return "is not a folder";
    if (status.st_uid != geteuid()) return "belongs to somebody else";
    if (status.st_mode & (S_IWGRP | S_IWOTH)) return "others may write in it; chmod go-w it";
    return NULL;
}

/* Why programs can't be started from there; NULL when they can. */
static const char *not_executable(const char *app)
{
    struct statvfs system;
    if (strpbrk(app, ":;$")) return "the dynamic linker takes no path with ':', ';' or '$' in it";
    if (!statvfs(app, &system) && system.f_flag & ST_NOEXEC) return "programs may not be started there (mounted noexec)";
    return NULL;
}

/* Take `operation` on the lock file of a folder, waiting at most so many tenths of a second.
 * Returns the descriptor, kept over exec; -1 when there is no such file; a file system without locks counts as locked. */
static int take_lock(const char *folder, int operation, int tenths, bool create)
{
    char path[PATH_MAX];
    join(path, folder, LOCK);
    int fd = open(path, (create ? O_RDWR | O_CREAT : O_RDONLY) | O_NOFOLLOW, 0600); /* a cache may lie on what is mounted read-only */
    if (fd < 0) return -1;
    while (flock(fd, operation | LOCK_NB)) {
        if (errno == EINTR) continue;
        if (errno != EWOULDBLOCK || tenths-- <= 0) break;
        struct timespec pause = {0, 100000000};
        nanosleep(&pause, NULL);
    }
    return fd;
}

/* Is this descriptor still the lock file of that folder? It is not when the folder was removed meanwhile. */
static bool still_there(int fd, const char *folder)
{
    struct stat held, found;
    char path[PATH_MAX];
    join(path, folder, LOCK);
    return !fstat(fd, &held) && !lstat(path, &found) && held.st_ino == found.st_ino && held.st_dev == found.st_dev;
}

/* Take what is unpacked already, when it is whole. Returns the lock's descriptor or -1. */
static int reuse(Bundle *bundle, const char *folder)
{
    struct timespec stamp;
    int lock = take_lock(folder, LOCK_SH, 20, false);
    if (lock < 0) return -1;
    if (!still_there(lock, folder) || check(bundle, folder, &stamp)) { close(lock); return -1; }
    if (stamp.tv_sec < time(NULL) - DAY) {
        char app[PATH_MAX];
        freshen(bundle, folder);
        snprintf(app, sizeof app, "%.*s", (int)(strrchr(folder, '/') - folder), folder);
        prune(app, bundle->name);
    }
    return lock;
}

/* Make the folder anew, under a temporary name until it is whole. Returns 0 or an errno. */
static int make_fresh(Bundle *bundle, const char *app, const char *folder, int *lock)
{
    char fresh[PATH_MAX], name[512], host[256] = "";
    int error = 0;
    gethostname(host, sizeof host - 1);
    snprintf(name, sizeof name, ".new-%s-%ld-%lx", host, (long)getpid(), (unsigned long)time(NULL));
    join(fresh, app, name);
    if (mkdir(fresh, 0700) || (*lock = take_lock(fresh, LOCK_SH, 0, true)) < 0) error = errno;
    for (size_t i = 0; i < bundle->count; i++) bundle->entries[i].bad = true;
    if (!error) error = unpack(bundle, fresh);
    if (!error && rename(fresh, folder)) error = errno;
    if (error) remove_tree(AT_FDCWD, fresh);
    return error;
}

/* Unpack into `app`, or mend what is there. Returns the lock's descriptor, or -1 having said why not. */
static int install(Bundle *bundle, const char *app, const char *folder)
{
    struct timespec stamp;
    struct stat status;
    int queue = take_lock(app, LOCK_EX, 300, true); /* a hundred jobs that start at once unpack once */
    int lock = reuse(bundle, folder), error = 0;
    if (lock >= 0) { close(queue); return lock; }
    if (!lstat(folder, &status)) {
        const char *reason = not_private(folder);
        if (reason) { close(queue); return because(folder, reason); }
        lock = take_lock(folder, LOCK_SH, 20, true);
        if (lock >= 0) {
            check(bundle, folder, &stamp);
            error = unpack(bundle, folder);
        } else error = errno;
    } else {
        error = make_fresh(bundle, app, folder, &lock);
        if (error == EEXIST || error == ENOTEMPTY) { /* another was faster, on a file system without locks */
            close(lock);
            close(queue);
            return (lock = reuse(bundle, folder)) >= 0 ? lock : because(folder, "is damaged; remove it");
        }
    }
    if (!error) prune(app, bundle->name);
    close(queue);
    if (!error) return lock;
    if (lock >= 0) close(lock);
    if (error == EILSEQ) refuse("%s is damaged; copy it again", bundle->self);
    if (error == ENOMEM) refuse("not enough memory to unpack %s (ulimit -v)", bundle->self);
    return because(app, error == ENOSPC   ? "no space left on device"
                        : error == EDQUOT ? "your disk quota is used up"
                        : error == EFBIG  ? "files may not be that large (ulimit -f)"
                        : error == ENOTSUP ? "this file system keeps no owners, modes or times of files"
                                          : strerror(error));
}

static void name_folders(const Bundle *bundle, const Place *place, char *own, char *app, char *folder)
{
    snprintf(own, PATH_MAX, "%.*s", (int)place->own, place->base);
    join(app, place->base, "app");
    join(folder, app, bundle->name);
}

/* Take what lies unpacked in a place, changing nothing. Returns the lock's descriptor or -1. */
int find_unpacked(Bundle *bundle, const Place *place, char *folder)
{
    char own[PATH_MAX], app[PATH_MAX];
    name_folders(bundle, place, own, app, folder);
    if (*own && not_private(own)) return -1;
    return not_private(app) || not_executable(app) || not_private(folder) ? -1 : reuse(bundle, folder);
}

/* Unpack in a place. Returns the lock's descriptor, or -1 having said why not. */
int try_place(Bundle *bundle, const Place *place, char *folder)
{
    char app[PATH_MAX], own[PATH_MAX];
    struct stat status;
    const char *reason = NULL;
    name_folders(bundle, place, own, app, folder);
    if (*own) {
        if (mkdir(own, 0700) && errno != EEXIST) return because(own, strerror(errno));
        if ((reason = not_private(own))) return because(own, reason);
    }
    if (lstat(app, &status) && !make_folders(app, place->exists)) return because(place->base, strerror(errno));
    if ((reason = not_private(app)) || (reason = not_executable(app))) return because(app, reason);
    return install(bundle, app, folder);
}

/* Unpacked folders: whether one is whole, keeping it young, removing those that nobody uses. */
#include "launcher.h"
#include <dirent.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <time.h>

#define DAY 86400

static bool later(struct timespec a, struct timespec b) { return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec); }

/* Mark every entry of the unpacked folder that is missing or not as it was unpacked. Returns the number of them.
 * A file's time may not be later than the lock file's: a later one was changed since. */
size_t check(Bundle *bundle, const char *folder, struct timespec *stamp)
{
    size_t bad = 0;
    struct stat status;
    uid_t user = geteuid();
    int at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool stamped = at >= 0 && !fstatat(at, LOCK, &status, AT_SYMLINK_NOFOLLOW) && S_ISREG(status.st_mode) && status.st_uid == user;
    *stamp = stamped ? status.st_mtim : (struct timespec){0, 0};
    for (Entry *one = bundle->entries; one < bundle->entries + bundle->count; one++) {
        one->bad = !stamped || fstatat(at, one->path, &status, AT_SYMLINK_NOFOLLOW) || status.st_uid != user;
        if (!one->bad && one->kind == 'd') one->bad = !S_ISDIR(status.st_mode) || status.st_mode & (S_IWGRP | S_IWOTH);
        else if (!one->bad && one->kind == 'l') one->bad = !S_ISLNK(status.st_mode) || (uint64_t)status.st_size != one->size;
        else if (!one->bad)
            one->bad = !S_ISREG(status.st_mode) || (uint64_t)status.st_size != one->size || status.st_mode & (S_IWGRP | S_IWOTH)
                       || ~status.st_mode & one->mode & 0700 || later(status.st_mtim, *stamp);
        bad += one->bad;
    }
    if (at >= 0) close(at);
    return bad;
}

/* Give everything the present time, so that no sweeper of old files takes it; the lock file first (see check). */
void freshen(Bundle *bundle, const char *folder)
{
    struct timespec times[2];
    int at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (at < 0) return;
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[1] = times[0];
    if (!utimensat(at, LOCK, times, 0))
        for (Entry *one = bundle->entries; one < bundle->entries + bundle->count; one++) utimensat(at, one->path, times, AT_SYMLINK_NOFOLLOW);
    close(at);
}

void remove_tree(int parent, const char *name)
{
    int at = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *list = at >= 0 ? fdopendir(at) : NULL;
    for (struct dirent *one; list && (one = readdir(list));) {
        if (!strcmp(one->d_name, ".") || !strcmp(one->d_name, "..") || !strcmp(one->d_name, LOCK)) continue;
        if (unlinkat(at, one->d_name, 0) && (errno == EISDIR || errno == EPERM)) remove_tree(at, one->d_name);
    }
    if (list) unlinkat(at, LOCK, 0), closedir(list); /* the lock last: who is killed here leaves a folder that can be told unused */
    unlinkat(parent, name, AT_REMOVEDIR);
}

/* A file system that other machines use too: their locks may not be seen here (mount options local_lock, localflock). */
static bool is_shared(int fd)
{
    static const uint32_t kinds[] = {0x6969, 0x0BD00BD0, 0x47504653, 0x00C36400, 0x65735546, 0x19830326,
                                     0xAAD7AAEA, 0x5346414F, 0xFE534D42, 0xFF534D42, 0x517B, 0x01021997};
    struct statfs system; /* NFS, Lustre, GPFS, Ceph, FUSE, BeeGFS, Panasas, AFS, SMB, 9p */
    if (fstatfs(fd, &system)) return true;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if ((uint32_t)system.f_type == kinds[i]) return true;
    return false;
}

/* Remove versions that no running scitq holds, and what killed ones left. */
void prune(const char *app, const char *keep)
{
    DIR *list = opendir(app);
    if (!list) return;
    int at = dirfd(list);
    bool shared = is_shared(at);
    for (struct dirent *one; (one = readdir(list));) {
        struct stat status, stamp;
        char away[PATH_MAX], lock[PATH_MAX];
        if (!strcmp(one->d_name, ".") || !strcmp(one->d_name, "..") || !strcmp(one->d_name, keep)) continue;
        if (fstatat(at, one->d_name, &status, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(status.st_mode) || status.st_uid != geteuid()) continue;
        join(lock, one->d_name, LOCK);
        int fd = openat(at, lock, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && (errno != ENOENT || status.st_mtim.tv_sec > time(NULL) - 3600)) continue; /* perhaps just being made */
        bool young = shared && fd >= 0 && (fstat(fd, &stamp) || stamp.st_mtim.tv_sec > time(NULL) - 2 * DAY);
        if (!young && (fd < 0 || !flock(fd, LOCK_EX | LOCK_NB))) {
            snprintf(away, sizeof away, ".old-%ld-%.200s", (long)getpid(), one->d_name);
            remove_tree(at, !strncmp(one->d_name, ".old-", 5) || renameat(at, one->d_name, at, away) ? one->d_name : away);
        }
        if (fd >= 0) close(fd);
    }
    closedir(list);
}

/* The first few milliseconds of the one-file scitq: unpack what is appended to this program into a cache folder, once per
 * version and user, check it, and hand over to it (docs/install.md, "How the one file works").
 *
 * The file is: this program, a zstd frame with the content of all files one after the other, the manifest, a trailer of 48 bytes.
 * Static, without any call into NSS: it must run where there is no libc at all. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#define MAGIC "SCITQAR1"
#define LOCK ".lock"
#define DAY 86400

typedef struct { char kind; unsigned mode; uint64_t size; const char *path; bool bad; } Entry;
typedef struct { int fd; char self[PATH_MAX]; uint64_t at, length; char name[128], loader[128]; Entry *entries; size_t count; } Bundle;

static char why[2048]; /* why no folder so far could be used, one reason a line */

static void refuse(const char *format, ...)
{
    va_list list;
    fputs("scitq: ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

static bool because(const char *folder, const char *reason)
{
    size_t used = strlen(why);
    snprintf(why + used, sizeof why - used, "\n  %.500s: %.200s", folder, reason);
    return false;
}

static void join(char *into, const char *folder, const char *name)
{
    if ((size_t)snprintf(into, PATH_MAX, "%s/%s", strcmp(folder, "/") ? folder : "", name) >= PATH_MAX)
        refuse("the path %s/%s is too long", folder, name);
}

static bool read_at(int fd, void *into, size_t length, uint64_t at)
{
    for (size_t done = 0; done < length;) {
        ssize_t got = pread(fd, (char *)into + done, length - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        done += (size_t)got;
    }
    return true;
}

static uint64_t number(const unsigned char *bytes)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--) value = value << 8 | bytes[i];
    return value;
}

/* Find this program and read its manifest: lines of `kind mode size path`, the first being `v 0 0 name`, the second `i 0 0 loader`. */
static void open_bundle(Bundle *bundle, const char *argv0)
{
    static const char *broken = "is not whole (its end is missing or damaged); copy it again";
    unsigned char trailer[48];
    struct stat status;
    ssize_t length = readlink("/proc/self/exe", bundle->self, PATH_MAX - 1);
    if (length > 0) bundle->self[length] = 0;
    if (length <= 0 || (bundle->fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)) < 0) { /* no /proc */
        const char *given = (const char *)getauxval(AT_EXECFN);
        if (!realpath(given ? given : argv0, bundle->self) || (bundle->fd = open(bundle->self, O_RDONLY | O_CLOEXEC)) < 0)
            refuse("cannot read the program %s: %s", given ? given : argv0, strerror(errno));
    }
    if (fstat(bundle->fd, &status) || status.st_size < (off_t)sizeof trailer
        || !read_at(bundle->fd, trailer, sizeof trailer, (uint64_t)status.st_size - sizeof trailer) || memcmp(trailer, MAGIC, 8))
        refuse("%s %s", bundle->self, broken);
    bundle->at = number(trailer + 8);
    bundle->length = number(trailer + 16);
    uint64_t manifest_at = number(trailer + 24), manifest_length = number(trailer + 32);
    bundle->count = number(trailer + 40);
    if (manifest_at + manifest_length + sizeof trailer != (uint64_t)status.st_size || bundle->at + bundle->length != manifest_at)
        refuse("%s %s", bundle->self, broken);
    char *text = malloc(manifest_length + 1);
    bundle->entries = calloc(bundle->count, sizeof *bundle->entries);
    if (!text || !bundle->entries) refuse("no memory");
    if (!read_at(bundle->fd, text, manifest_length, manifest_at)) refuse("%s %s", bundle->self, broken);
    text[manifest_length] = 0;
    size_t at = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned mode;
        unsigned long long size;
        int skip = 0;
        char kind;
        if (sscanf(line, "%c %o %llu %n", &kind, &mode, &size, &skip) != 3) refuse("%s %s", bundle->self, broken);
        if (kind == 'v') snprintf(bundle->name, sizeof bundle->name, "%s", line + skip);
        else if (kind == 'i') snprintf(bundle->loader, sizeof bundle->loader, "%s", line + skip);
        else if (at == bundle->count) refuse("%s %s", bundle->self, broken);
        else bundle->entries[at++] = (Entry){kind, mode, size, line + skip, false};
    }
    if (at != bundle->count || !*bundle->name || !*bundle->loader) refuse("%s %s", bundle->self, broken);
}

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

/* A folder of nobody else: ours, no link, not writable by others. */
static bool is_private(const char *folder)
{
    struct stat status;
    if (lstat(folder, &status)) return because(folder, strerror(errno));
    if (!S_ISDIR(status.st_mode)) return because(folder, "is not a folder");
    if (status.st_uid != geteuid()) return because(folder, "belongs to somebody else");
    if (status.st_mode & (S_IWGRP | S_IWOTH)) return because(folder, "others may write in it; chmod go-w it");
    return true;
}

static bool later(struct timespec a, struct timespec b) { return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec); }

/* Mark every entry of the unpacked folder that is missing or not as it was unpacked. Returns the number of them.
 * A file's time may not be later than the lock file's: a later one was changed since. */
static size_t check(Bundle *bundle, const char *folder, struct timespec *stamp)
{
    size_t bad = 0;
    struct stat status;
    uid_t user = geteuid();
    int at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool stamped = at >= 0 && !fstatat(at, LOCK, &status, AT_SYMLINK_NOFOLLOW) && S_ISREG(status.st_mode) && status.st_uid == geteuid();
    *stamp = stamped ? status.st_mtim : (struct timespec){0, 0};
    for (Entry *one = bundle->entries; one < bundle->entries + bundle->count; one++) {
        one->bad = !stamped || fstatat(at, one->path, &status, AT_SYMLINK_NOFOLLOW) || status.st_uid != user;
        if (!one->bad && one->kind == 'd') one->bad = !S_ISDIR(status.st_mode) || status.st_mode & (S_IWGRP | S_IWOTH);
        else if (!one->bad && one->kind == 'l') one->bad = !S_ISLNK(status.st_mode) || (uint64_t)status.st_size != one->size;
        else if (!one->bad)
            one->bad = !S_ISREG(status.st_mode) || (uint64_t)status.st_size != one->size || status.st_mode & (S_IWGRP | S_IWOTH)
                       || (status.st_mode & 0700) != (one->mode & 0700) || later(status.st_mtim, *stamp);
        bad += one->bad;
    }
    if (at >= 0) close(at);
    return bad;
}

/* Give everything the present time, so that no sweeper of old files takes it; the lock file first (see check). */
static void freshen(Bundle *bundle, const char *folder)
{
    struct timespec times[2];
    int at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (at < 0) return;
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[1] = times[0];
    utimensat(at, LOCK, times, 0);
    for (Entry *one = bundle->entries; one < bundle->entries + bundle->count; one++) utimensat(at, one->path, times, AT_SYMLINK_NOFOLLOW);
    close(at);
}

/* The content, read piece by piece out of the zstd frame. */
typedef struct { Bundle *bundle; ZSTD_DStream *stream; char in[1 << 17], out[1 << 17]; ZSTD_inBuffer input; size_t have, used; uint64_t read; bool ended; } Reader;

static ssize_t next_piece(Reader *reader, const char **piece, uint64_t wanted)
{
    while (reader->used == reader->have) {
        if (reader->input.pos == reader->input.size) {
            uint64_t left = reader->bundle->length - reader->read;
            size_t length = left < sizeof reader->in ? (size_t)left : sizeof reader->in;
            if (!length || !read_at(reader->bundle->fd, reader->in, length, reader->bundle->at + reader->read)) return -1;
            reader->read += length;
            reader->input = (ZSTD_inBuffer){reader->in, length, 0};
        }
        ZSTD_outBuffer output = {reader->out, sizeof reader->out, 0};
        size_t result = ZSTD_decompressStream(reader->stream, &output, &reader->input);
        if (ZSTD_isError(result)) return -1;
        reader->ended = result == 0;
        reader->have = output.pos;
        reader->used = 0;
    }
    size_t length = reader->have - reader->used;
    if (length > wanted) length = (size_t)wanted;
    *piece = reader->out + reader->used;
    reader->used += length;
    return (ssize_t)length;
}

static bool write_all(int fd, const char *bytes, size_t length)
{
    while (length) {
        ssize_t done = write(fd, bytes, length);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return false;
        bytes += done;
        length -= (size_t)done;
    }
    return true;
}

/* Write the entries marked bad; each file under a temporary name first, since a running scitq may use the folder.
 * Returns 0 or an errno; a damaged archive is EILSEQ. */
static int unpack(Bundle *bundle, const char *folder)
{
    static Reader reader;
    int result = 0, at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char temporary[64], target[PATH_MAX];
    if (at < 0) return errno;
    snprintf(temporary, sizeof temporary, ".part-%ld", (long)getpid());
    memset(&reader, 0, sizeof reader);
    reader.bundle = bundle;
    reader.stream = ZSTD_createDStream();
    if (!reader.stream) return ENOMEM;
    ZSTD_DCtx_setParameter(reader.stream, ZSTD_d_windowLogMax, 27);
    for (Entry *one = bundle->entries; !result && one < bundle->entries + bundle->count; one++) {
        if (one->kind == 'd') {
            if (!one->bad) continue;
            if (mkdirat(at, one->path, 0700) && errno != EEXIST) result = errno;
            else if (fchmodat(at, one->path, 0700, 0)) result = errno;
            continue;
        }
        int fd = -1;
        if (one->bad && one->kind == 'f') {
            unlinkat(at, temporary, 0);
            fd = openat(at, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, one->mode & 0700);
            if (fd < 0) { result = errno; break; }
        }
        for (uint64_t done = 0; done < one->size;) {
            const char *piece = NULL;
            ssize_t length = next_piece(&reader, &piece, one->size - done);
            if (length < 0) { result = EILSEQ; break; }
            if (fd >= 0 && !write_all(fd, piece, (size_t)length)) { result = errno; break; }
            if (one->kind == 'l' && done + (uint64_t)length < sizeof target) memcpy(target + done, piece, (size_t)length), target[done + (uint64_t)length] = 0;
            done += (uint64_t)length;
        }
        if (fd >= 0 && close(fd) && !result) result = errno; /* NFS and quotas tell it here */
        if (result || !one->bad) continue;
        if (one->kind == 'l') {
            unlinkat(at, temporary, 0);
            if (symlinkat(target, at, temporary)) { result = errno; break; }
        }
        if (renameat(at, temporary, at, one->path)) result = errno;
    }
    while (!result && !reader.ended) { /* the frame's checksum */
        const char *piece;
        if (next_piece(&reader, &piece, 1) >= 0 || !reader.ended) { result = EILSEQ; }
    }
    unlinkat(at, temporary, 0);
    ZSTD_freeDStream(reader.stream);
    close(at);
    if (!result) freshen(bundle, folder);
    return result;
}

static void remove_tree(int parent, const char *name)
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
    static const uint32_t kinds[] = {0x6969, 0x0BD00BD0, 0x47504653, 0x00C36400, 0x65735546, 0x19830326, 0xAAD7AAEA, 0x5346414F, 0xFE534D42, 0xFF534D42, 0x517B};
    struct statfs system; /* NFS, Lustre, GPFS, Ceph, FUSE, BeeGFS, Panasas, AFS, SMB */
    if (fstatfs(fd, &system)) return true;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if ((uint32_t)system.f_type == kinds[i]) return true;
    return false;
}

/* Remove versions that no running scitq holds, and what killed ones left. */
static void prune(const char *app, const char *keep)
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

/* Take `operation` on the lock file of a folder, waiting at most so many tenths of a second.
 * Returns the descriptor, kept over exec; -1 when there is no such file; a file system without locks counts as locked. */
static int take_lock(const char *folder, int operation, int tenths, bool create)
{
    char path[PATH_MAX];
    join(path, folder, LOCK);
    int fd = open(path, O_RDWR | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
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

/* Unpack into `app`, or mend what is there. Returns the lock's descriptor, or -1 having said why not. */
static int install(Bundle *bundle, const char *app, const char *folder)
{
    struct timespec stamp;
    struct stat status;
    char fresh[PATH_MAX], name[512], host[256] = "";
    int queue = take_lock(app, LOCK_EX, 300, true); /* a hundred jobs that start at once unpack once */
    int lock = reuse(bundle, folder), error = 0;
    if (lock >= 0) { close(queue); return lock; }
    if (!lstat(folder, &status)) {
        if (!is_private(folder)) { close(queue); return -1; }
        lock = take_lock(folder, LOCK_SH, 20, true);
        if (lock >= 0) {
            check(bundle, folder, &stamp);
            error = unpack(bundle, folder);
        } else error = errno;
    } else {
        gethostname(host, sizeof host - 1);
        snprintf(name, sizeof name, ".new-%s-%ld-%lx", host, (long)getpid(), (unsigned long)time(NULL));
        join(fresh, app, name);
        if (mkdir(fresh, 0700) || (lock = take_lock(fresh, LOCK_SH, 0, true)) < 0) error = errno;
        for (size_t i = 0; i < bundle->count; i++) bundle->entries[i].bad = true;
        if (!error) error = unpack(bundle, fresh);
        if (!error && rename(fresh, folder)) error = errno;
        if (error) remove_tree(AT_FDCWD, fresh);
        if (error == EEXIST || error == ENOTEMPTY) { /* another was faster, on a file system without locks */
            close(lock);
            close(queue);
            return (lock = reuse(bundle, folder)) >= 0 ? lock : (because(folder, "is damaged; remove it"), -1);
        }
    }
    if (!error) prune(app, bundle->name);
    close(queue);
    if (!error) return lock;
    if (lock >= 0) close(lock);
    if (error == EILSEQ) refuse("%s is damaged; copy it again", bundle->self);
    because(app, error == ENOSPC ? "no space left on device" : error == EDQUOT ? "your disk quota is used up" : strerror(error));
    return -1;
}

/* Try one place; `exists`: the length of its part that must be there already. Returns the lock's descriptor or -1. */
static int try_place(Bundle *bundle, const char *base, size_t exists, char *folder)
{
    char app[PATH_MAX];
    struct statvfs system;
    struct stat status;
    join(app, base, "app");
    if (lstat(app, &status) && !make_folders(app, exists)) { because(base, strerror(errno)); return -1; }
    if (!is_private(app)) return -1;
    if (!statvfs(app, &system) && system.f_flag & ST_NOEXEC) {
        because(base, "programs may not be started there (mounted noexec)");
        return -1;
    }
    join(folder, app, bundle->name);
    if (lstat(folder, &status)) return install(bundle, app, folder);
    if (!is_private(folder)) return -1;
    int lock = reuse(bundle, folder);
    return lock >= 0 ? lock : install(bundle, app, folder);
}

/* $SCITQ_CACHE alone when set; else the user's cache folder; else a private folder in a temporary one. */
static int find_place(Bundle *bundle, char *folder)
{
    char base[PATH_MAX], name[64];
    struct stat status;
    const char *named = getenv("SCITQ_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int lock;
    if (named && *named == '/') return try_place(bundle, named, 0, folder);
    if (named && *named) refuse("SCITQ_CACHE must be an absolute path, not '%s'", named);
    if (xdg && *xdg == '/') {
        join(base, xdg, "scitq");
        if ((lock = try_place(bundle, base, 0, folder)) >= 0) return lock;
    }
    /* Under sudo with the user's HOME, root must not leave folders there that the user cannot use. */
    bool own_home = home && *home == '/' && !stat(home, &status) && status.st_uid == geteuid();
    if (own_home && !(xdg && *xdg == '/')) {
        join(base, home, ".cache/scitq");
        if ((lock = try_place(bundle, base, strlen(home), folder)) >= 0) return lock;
    }
    const char *places[] = {getenv("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm", getenv("XDG_RUNTIME_DIR")};
    snprintf(name, sizeof name, "scitq-%lu", (unsigned long)geteuid());
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char private[PATH_MAX];
        if (!places[i] || *places[i] != '/' || stat(places[i], &status)) continue;
        join(private, places[i], name);
        if (mkdir(private, 0700) && errno != EEXIST) { because(private, strerror(errno)); continue; }
        if (!is_private(private)) continue;
        join(base, private, ".cache/scitq");
        if ((lock = try_place(bundle, base, strlen(private), folder)) >= 0) return lock;
    }
    if (home && *home == '/' && stat(home, &status) && errno == ENOENT) { /* an empty container: nothing else is left to try */
        join(base, home, ".cache/scitq");
        return try_place(bundle, base, 0, folder);
    }
    return -1;
}

/* Libraries and settings of the site must not reach our own libc; entry.py gives them back to what we start. */
static void set_aside(const char *variable)
{
    char kept[128];
    const char *value = getenv(variable);
    snprintf(kept, sizeof kept, "SCITQ_ORIG_%s", variable);
    if (value) setenv(kept, value, 1);
    else unsetenv(kept);
    unsetenv(variable);
}

int main(int argc, char **argv)
{
    static Bundle bundle;
    static const char *aside[] = {"LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "GCONV_PATH", "LOCPATH", "GLIBC_TUNABLES", "VIRTUAL_ENV"};
    static char folder[PATH_MAX], loader[PATH_MAX], libraries[PATH_MAX], program[PATH_MAX], text[32];
    mode_t mask = umask(077);
    open_bundle(&bundle, argc ? argv[0] : "scitq");
    int lock = find_place(&bundle, folder);
    if (lock < 0) refuse("no folder to unpack into:%s\nset SCITQ_CACHE to a folder of yours with 100 MB of space on a file system that allows programs", why);
    umask(mask);

    join(loader, folder, bundle.loader);
    join(libraries, folder, "_internal");
    join(program, folder, "scitq");
    for (size_t i = 0; i < sizeof aside / sizeof *aside; i++) set_aside(aside[i]);
    snprintf(text, sizeof text, "%d", lock);
    setenv("SCITQ_BUNDLE_LOCK", text, 1);
    setenv("SCITQ_BUNDLE", folder, 1);
    setenv("SCITQ_EXECUTABLE", bundle.self, 1);
    char **words = calloc((size_t)argc + 5, sizeof *words);
    if (!words) refuse("no memory");
    words[0] = loader;
    words[1] = "--library-path";
    words[2] = libraries;
    words[3] = program;
    for (int i = 1; i < argc; i++) words[i + 3] = argv[i];

    sigset_t interrupt; /* until Python can answer it: util/interrupts */
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, NULL);
    execv(loader, words);
    refuse("cannot start %s: %s", loader, strerror(errno));
}

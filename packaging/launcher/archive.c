/* What is appended to this program: a zstd frame with the content of all files one after the other, the manifest, a trailer
 * of 56 bytes (build/bundle.py writes it). */
#include "launcher.h"
#include <sys/auxv.h>
#include <zstd.h>
#include <zstd_errors.h>

#define MAGIC "SCITQAR2"

/* Whether all was read; else errno tells why, EILSEQ at the end of the file. */
static bool read_at(int fd, void *into, size_t length, uint64_t at)
{
    for (size_t done = 0; done < length;) {
        ssize_t got = pread(fd, (char *)into + done, length - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = EILSEQ;
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

static uint64_t fnv1a(const char *bytes, size_t length)
{
    uint64_t value = 0xcbf29ce484222325;
    for (size_t i = 0; i < length; i++) value = (value ^ (unsigned char)bytes[i]) * 0x100000001b3;
    return value;
}

/* The manifest has lines of `kind mode size path`, the first being `v 0 0 name`, the second `i 0 0 loader`. */
static bool read_manifest(Bundle *bundle, char *text)
{
    size_t at = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned mode;
        unsigned long long size;
        int skip = 0;
        char kind;
        if (sscanf(line, "%c %o %llu %n", &kind, &mode, &size, &skip) != 3) return false;
        if (kind == 'v') snprintf(bundle->name, sizeof bundle->name, "%s", line + skip);
        else if (kind == 'i') snprintf(bundle->loader, sizeof bundle->loader, "%s", line + skip);
        else if (at == bundle->count) return false;
        else bundle->entries[at++] = (Entry){kind, mode, size, line + skip, false};
    }
    return at == bundle->count && *bundle->name && *bundle->loader;
}

/* Find this program and read its manifest. */
void open_bundle(Bundle *bundle, const char *argv0)
{
    static const char *broken = "is not whole (its end is missing or damaged); copy it again";
    unsigned char trailer[56];
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
    uint64_t manifest_at = number(trailer + 24), manifest_length = number(trailer + 32), size = (uint64_t)status.st_size;
    bundle->count = number(trailer + 40);
    if (manifest_length > size || manifest_at > size || manifest_at + manifest_length + sizeof trailer != size
        || bundle->at + bundle->length != manifest_at || bundle->count > manifest_length)
        refuse("%s %s", bundle->self, broken);
    char *text = malloc(manifest_length + 1);
    bundle->entries = calloc(bundle->count + 1, sizeof *bundle->entries);
    if (!text || !bundle->entries) refuse("not enough memory");
    if (!read_at(bundle->fd, text, manifest_length, manifest_at) || fnv1a(text, manifest_length) != number(trailer + 48))
        refuse("%s %s", bundle->self, broken);
    text[manifest_length] = 0;
    if (!read_manifest(bundle, text)) refuse("%s %s", bundle->self, broken);
}

/* The content, read piece by piece out of the zstd frame. */
typedef struct { Bundle *bundle; ZSTD_DStream *stream; char in[1 << 17], out[1 << 17]; ZSTD_inBuffer input; size_t have, used; uint64_t read; bool ended; } Reader;

/* The length of the next piece, at most `wanted`; when there is none, minus an errno. */
static ssize_t next_piece(Reader *reader, const char **piece, uint64_t wanted)
{
    while (reader->used == reader->have) {
        if (reader->input.pos == reader->input.size) {
            uint64_t left = reader->bundle->length - reader->read;
            size_t length = left < sizeof reader->in ? (size_t)left : sizeof reader->in;
            if (!length) return -EILSEQ;
            if (!read_at(reader->bundle->fd, reader->in, length, reader->bundle->at + reader->read)) return -errno;
            reader->read += length;
            reader->input = (ZSTD_inBuffer){reader->in, length, 0};
        }
        ZSTD_outBuffer output = {reader->out, sizeof reader->out, 0};
        size_t result = ZSTD_decompressStream(reader->stream, &output, &reader->input);
        if (ZSTD_isError(result)) return ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation ? -ENOMEM : -EILSEQ;
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

/* One file or link: pass over it, or write it under the name `temporary` and put it in place. Returns 0 or an errno. */
static int unpack_one(Reader *reader, int at, const Entry *one, const char *temporary)
{
    char target[PATH_MAX] = "";
    int fd = -1, result = 0;
    if (one->bad && unlinkat(at, temporary, 0) && errno != ENOENT) return errno;
    if (one->bad && one->kind == 'f') {
        fd = openat(at, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, one->mode & 0700);
        if (fd < 0) return errno;
    }
    for (uint64_t done = 0; !result && done < one->size;) {
        const char *piece = NULL;
        ssize_t length = next_piece(reader, &piece, one->size - done);
        if (length < 0) result = (int)-length;
        else if (fd >= 0 && !write_all(fd, piece, (size_t)length)) result = errno;
        else if (one->kind == 'l' && one->size < sizeof target) memcpy(target + done, piece, (size_t)length);
        done += length < 0 ? 0 : (uint64_t)length;
    }
    if (fd >= 0 && close(fd) && !result) result = errno; /* NFS and quotas tell it here */
    if (result || !one->bad) return result;
    if (one->kind == 'l' && symlinkat(target, at, temporary)) return errno;
    return renameat(at, temporary, at, one->path) ? errno : 0;
}

/* Write the entries marked bad; each file under a temporary name first, since a running scitq may use the folder.
 * Returns 0 or an errno; a damaged archive is EILSEQ, a file system that keeps no owners, modes or times is ENOTSUP. */
int unpack(Bundle *bundle, const char *folder)
{
    static Reader reader;
    struct timespec stamp;
    int result = 0, at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char temporary[64];
    if (at < 0) return errno;
    snprintf(temporary, sizeof temporary, ".part-%ld", (long)getpid());
    memset(&reader, 0, sizeof reader);
    reader.bundle = bundle;
    reader.stream = ZSTD_createDStream();
    if (!reader.stream) result = ENOMEM;
    for (Entry *one = bundle->entries; !result && one < bundle->entries + bundle->count; one++) {
        if (one->kind != 'd') result = unpack_one(&reader, at, one, temporary);
        else if (one->bad && ((mkdirat(at, one->path, 0700) && errno != EEXIST) || fchmodat(at, one->path, 0700, 0))) result = errno;
    }
    while (!result && !reader.ended) { /* the frame's checksum */
        const char *piece;
        ssize_t length = next_piece(&reader, &piece, 1);
        if (length > 0 || !reader.ended) result = length < 0 ? (int)-length : EILSEQ;
    }
    unlinkat(at, temporary, 0);
    ZSTD_freeDStream(reader.stream);
    close(at);
    if (result) return result;
    freshen(bundle, folder);
    return check(bundle, folder, &stamp) ? ENOTSUP : 0;
}

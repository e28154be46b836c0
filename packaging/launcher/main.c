/* Where to unpack, what of the environment is set aside, and the start of what was unpacked. */
#include "launcher.h"
#include <signal.h>
#include <stdarg.h>

static char why[2048]; /* why no folder so far could be used, one reason a line */

void refuse(const char *format, ...)
{
    va_list list;
    fputs("scitq: ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

/* Note why a folder was passed over; returns -1. */
int because(const char *folder, const char *reason)
{
    size_t used = strlen(why);
    snprintf(why + used, sizeof why - used, "\n  %.500s: %.200s", folder, reason);
    return -1;
}

void join(char *into, const char *folder, const char *name)
{
    if ((size_t)snprintf(into, PATH_MAX, "%s/%s", strcmp(folder, "/") ? folder : "", name) >= PATH_MAX)
        refuse("the path %s/%s is too long", folder, name);
}

/* `parent`/scitq-<uid>`rest`, in a folder that others use too. */
static Place shared_place(const char *parent, const char *rest)
{
    Place place;
    char name[64];
    snprintf(name, sizeof name, "scitq-%lu", (unsigned long)geteuid());
    join(place.base, parent, name);
    place.exists = place.own = strlen(place.base);
    if (place.own + strlen(rest) >= PATH_MAX) refuse("the path %s%s is too long", place.base, rest);
    strcat(place.base, rest);
    return place;
}

static Place own_place(const char *parent, const char *rest, size_t exists)
{
    Place place = {.exists = exists, .own = 0};
    join(place.base, parent, rest);
    return place;
}

/* $SCITQ_CACHE alone when set; else the user's cache folder; else a private folder in a temporary one. Returns their number. */
static size_t list_places(Place *places)
{
    size_t count = 0;
    struct stat status;
    const char *named = getenv("SCITQ_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (named && *named) {
        if (*named != '/') refuse("SCITQ_CACHE must be an absolute path, not '%s'", named);
        bool is_ours = stat(named, &status) || status.st_uid == geteuid(); /* else an administrator's, for all users */
        if (!is_ours && geteuid() == 0) {
            because(named, "belongs to another user, who could change what root starts");
            return 0;
        }
        places[count] = is_ours ? (Place){.exists = 0, .own = 0} : shared_place(named, "");
        if (is_ours) snprintf(places[count].base, PATH_MAX, "%.*s", PATH_MAX - 1, named);
        return 1;
    }
    /* Under sudo with the user's folders in the environment, root must not leave anything there that the user cannot use. */
    bool has_xdg = xdg && *xdg == '/', has_home = home && *home == '/';
    bool is_home_there = has_home && !stat(home, &status);
    if (has_xdg) {
        struct stat found;
        if (!stat(xdg, &found) && found.st_uid != geteuid()) because(xdg, "belongs to somebody else");
        else places[count++] = own_place(xdg, "scitq", 0);
    } else if (is_home_there) {
        if (status.st_uid != geteuid()) because(home, "belongs to somebody else");
        else places[count++] = own_place(home, ".cache/scitq", strlen(home));
    }
    const char *temporary[] = {getenv("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm", getenv("XDG_RUNTIME_DIR")};
    for (size_t i = 0; i < sizeof temporary / sizeof *temporary; i++) {
        const char *one = temporary[i];
        if (!one || *one != '/' || (i && temporary[0] && !strcmp(one, temporary[0])) || stat(one, &status)) continue;
        if (status.st_mode & S_IWOTH && !(status.st_mode & S_ISVTX)) because(one, "others may rename our folder there; chmod +t it");
        else places[count++] = shared_place(one, "/.cache/scitq");
    }
    if (has_home && !is_home_there) places[count++] = own_place(home, ".cache/scitq", 0); /* an empty container: nothing else is left */
    return count;
}

/* What is unpacked somewhere already is taken before anything is unpacked: a full home is not tried again at each start. */
static int find_place(Bundle *bundle, char *folder)
{
    static Place places[8];
    size_t count = list_places(places);
    int lock = -1;
    for (size_t i = 0; lock < 0 && i < count; i++) lock = find_unpacked(bundle, &places[i], folder);
    for (size_t i = 0; lock < 0 && i < count; i++) lock = try_place(bundle, &places[i], folder);
    return lock;
}

/* Libraries and settings of the site must not reach our own libc, nor those of another program of PyInstaller's that started us;
 * util/bundle.py gives them back to what we start. */
static void set_aside(const char *variable)
{
    char kept[128];
    const char *value = getenv(variable);
    snprintf(kept, sizeof kept, "SCITQ_ORIG_%s", variable);
    if (value) setenv(kept, value, 1);
    else unsetenv(kept);
    unsetenv(variable);
}

/* Standard input, output and errors that are closed become /dev/null: no other file may take their numbers. */
static void fill_descriptors(void)
{
    int fd;
    do fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) close(fd);
    else
        for (fd = 0; fd <= STDERR_FILENO; fd++)
            if (fcntl(fd, F_GETFD) < 0) refuse("file descriptor %d is closed, and /dev/null can't be opened instead", fd);
}

int main(int argc, char **argv)
{
    static Bundle bundle;
    static const char *aside[] = {"LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "GCONV_PATH", "LOCPATH", "GLIBC_TUNABLES", "VIRTUAL_ENV",
                                  "LD_LIBRARY_PATH_ORIG", "_PYI_ARCHIVE_FILE", "_PYI_APPLICATION_HOME_DIR", "_PYI_PARENT_PROCESS_LEVEL",
                                  "_PYI_SPLASH_IPC", "_MEIPASS2"};
    static char folder[PATH_MAX], loader[PATH_MAX], libraries[PATH_MAX], program[PATH_MAX], text[32];
    struct sigaction before, ignore = {.sa_handler = SIG_IGN};
    fill_descriptors();
    if (getuid() != geteuid() || getgid() != getegid()) refuse("the file is setuid or setgid; chmod ug-s it");
    mode_t mask = umask(077);
    sigaction(SIGXFSZ, &ignore, &before); /* a limit on files' size is an error to tell, not the end */
    open_bundle(&bundle, argc ? argv[0] : "scitq");
    int lock = find_place(&bundle, folder);
    if (lock < 0) refuse("no folder to unpack into:%s\nset SCITQ_CACHE to a folder of yours with 100 MB of space on a file system that allows programs", why);
    sigaction(SIGXFSZ, &before, NULL);
    umask(mask);

    join(loader, folder, bundle.loader);
    join(libraries, folder, "_internal");
    join(program, folder, "scitq");
    for (size_t i = 0; i < sizeof aside / sizeof *aside; i++) set_aside(aside[i]);
    snprintf(text, sizeof text, "%d", lock);
    setenv("SCITQ_BUNDLE_LOCK", text, 1);
    setenv("SCITQ_BUNDLE", folder, 1);
    setenv("SCITQ_EXECUTABLE", bundle.self, 1);
    /* PyInstaller's loader would start itself once more to set LD_LIBRARY_PATH, which costs time, and fails where neither /proc nor
     * another libc is; the option --library-path does the same. */
    setenv("_PYI_ARCHIVE_FILE", program, 1);
    setenv("_PYI_APPLICATION_HOME_DIR", libraries, 1);
    setenv("_PYI_PARENT_PROCESS_LEVEL", "-1", 1);
    char **words = calloc((size_t)argc + 5, sizeof *words);
    if (!words) refuse("not enough memory");
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
    refuse("cannot start %s: %s%s", loader, strerror(errno),
           errno == EACCES || errno == EPERM ? "; does this machine forbid programs there? set SCITQ_CACHE to another folder of yours" : "");
}

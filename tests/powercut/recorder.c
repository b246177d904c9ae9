/* Writes down, in order and with the data, what a process does to the files in one folder.
 *
 * Loaded with LD_PRELOAD into a program that knows nothing of it. Environment:
 *   RECORDER_FOLDER  the folder, absolute and without symbolic links
 *   RECORDER_TRACE   where the record goes
 *   RECORDER_SAID    a file outside the folder: what the program writes there is recorded in order with the rest
 *   RECORDER_IGNORE  files whose names end so are left out (SQLite's shared memory, which no power cut survives)
 *   RECORDER_FULL    while this file exists, the disk is full: a write that would make a file longer fails
 *
 * One record: kind, file, offset, length (as in struct head), then the data. The disk model in conftest.py reads it.
 * A write is recorded while no other runs, so that the record has the true order. A sync is two records, for a write
 * that comes between its begin and its end need not be covered by it. Other ways to write (shared memory, copied file
 * descriptors, …) go unseen: whoever reads the record compares its outcome with the folder that the program left.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { DESCRIPTORS = 4096, SAID = 1, FIRST_FILE = 2 };

struct head {
    uint32_t kind, file;
    uint64_t offset, length;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder, *said, *ignored, *full;
static int trace = -1;
static uint32_t next_file = FIRST_FILE, next_sync;
static uint32_t files[DESCRIPTORS]; /* by descriptor: 0 not ours, SAID, or the file's number */
static int syncs_each_write[DESCRIPTORS];
static struct { ino_t inode; uint32_t file; } known[DESCRIPTORS]; /* by file number: a file keeps it when renamed */

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("RECORDER_TRACE");
    folder = getenv("RECORDER_FOLDER");
    said = getenv("RECORDER_SAID");
    ignored = getenv("RECORDER_IGNORE");
    full = getenv("RECORDER_FULL");
    if (!path || !folder || !said)
        return;
    trace = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    unsetenv("LD_PRELOAD"); /* what this process starts is not recorded */
}

static void record(char kind, uint32_t file, uint64_t offset, const void *data, uint64_t length)
{
    struct head head = {(uint32_t)kind, file, offset, length};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, data ? length : 0}};
    if (syscall(SYS_writev, trace, parts, 2) != (ssize_t)(sizeof head + parts[1].iov_len))
        abort();
}

/* The absolute path; true when it is in the folder and not to be ignored. */
static int ours(int directory, const char *path, char *place)
{
    if (trace < 0 || !path)
        return 0;
    if (path[0] == '/') {
        snprintf(place, PATH_MAX, "%s", path);
    } else {
        char link[64], base[PATH_MAX];
        snprintf(link, sizeof link, directory == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", directory);
        ssize_t length = readlink(link, base, sizeof base - 1);
        if (length < 0)
            return 0;
        base[length] = 0;
        if (snprintf(place, PATH_MAX, "%s/%s", base, path) >= PATH_MAX)
            return 0;
    }
    size_t inside = strlen(folder), end = strlen(place), tail = ignored ? strlen(ignored) : 0;
    if (strncmp(place, folder, inside) || (place[inside] && place[inside] != '/'))
        return 0;
    return !(tail && end >= tail && !strcmp(place + end - tail, ignored));
}

static uint32_t file_of(int fd)
{
    return trace >= 0 && fd >= 0 && fd < DESCRIPTORS ? files[fd] : 0;
}

/* --- Names ---------------------------------------------------------------------------------------------- */

static uint32_t number_of(const char *place, const struct stat *found, int fresh)
{
    if (S_ISDIR(found->st_mode)) {
        record('d', next_file, 0, place, strlen(place));
        return next_file++;
    }
    if (!fresh)
        for (uint32_t file = next_file; file-- > FIRST_FILE;)
            if (known[file].inode == found->st_ino)
                return file;
    if (next_file >= DESCRIPTORS)
        abort();
    known[next_file].inode = found->st_ino;
    record(fresh ? 'C' : 'O', next_file, found->st_size, place, strlen(place));
    return next_file++;
}

static int open_file(int directory, const char *path, int flags, mode_t mode)
{
    char place[PATH_MAX];
    if (trace >= 0 && path && !strcmp(path, said)) {
        int fd = syscall(SYS_openat, directory, path, flags, mode);
        if (fd >= 0 && fd < DESCRIPTORS)
            files[fd] = SAID;
        return fd;
    }
    if (!ours(directory, path, place))
        return syscall(SYS_openat, directory, path, flags, mode);
    pthread_mutex_lock(&lock);
    int fresh = (flags & O_CREAT) && syscall(SYS_faccessat, directory, path, F_OK) != 0;
    int fd = syscall(SYS_openat, directory, path, flags, mode);
    int error = errno;
    if (fd >= DESCRIPTORS)
        abort();
    struct stat found;
    if (fd >= 0 && fstat(fd, &found) == 0) {
        files[fd] = number_of(place, &found, fresh);
        syncs_each_write[fd] = (flags & (O_SYNC | O_DSYNC)) != 0;
        if (flags & O_TRUNC)
            record('T', files[fd], 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE_ARGUMENT(flags)                                                                                           \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

int open(const char *path, int flags, ...) { MODE_ARGUMENT(flags) return open_file(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_ARGUMENT(flags) return open_file(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_ARGUMENT(flags) return open_file(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_ARGUMENT(flags) return open_file(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_file(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd)
{
    if (fd >= 0 && fd < DESCRIPTORS)
        files[fd] = 0;
    return syscall(SYS_close, fd);
}

/* A change to names: one record when it succeeds. `second` is the new name of a rename. */
static int named(char kind, long result, const char *place, const char *second)
{
    int error = errno;
    if (result == 0) {
        char both[2 * PATH_MAX];
        int length = snprintf(both, sizeof both, second ? "%s\n%s" : "%s", place, second);
        record(kind, 0, 0, both, length);
    }
    errno = error;
    return result;
}

static int change_name(char kind, int directory, const char *path, long call, int argument)
{
    char place[PATH_MAX];
    if (!ours(directory, path, place))
        return syscall(call, directory, path, argument);
    pthread_mutex_lock(&lock);
    int result = named(kind, syscall(call, directory, path, argument), place, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) { return change_name('U', AT_FDCWD, path, SYS_unlinkat, 0); }
int rmdir(const char *path) { return change_name('U', AT_FDCWD, path, SYS_unlinkat, AT_REMOVEDIR); }
int unlinkat(int at, const char *path, int flags) { return change_name('U', at, path, SYS_unlinkat, flags); }
int mkdir(const char *path, mode_t mode) { return change_name('M', AT_FDCWD, path, SYS_mkdirat, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return change_name('M', at, path, SYS_mkdirat, mode); }

int renameat2(int from, const char *old, int to, const char *new, unsigned int flags)
{
    char was[PATH_MAX], is[PATH_MAX];
    if (!ours(from, old, was) || !ours(to, new, is))
        return syscall(SYS_renameat2, from, old, to, new, flags);
    pthread_mutex_lock(&lock);
    int result = named('R', syscall(SYS_renameat2, from, old, to, new, flags), was, is);
    pthread_mutex_unlock(&lock);
    return result;
}

int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }
int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

/* --- Data ----------------------------------------------------------------------------------------------- */

static int out_of_space(int fd, off_t end)
{
    struct stat found;
    return full && !syscall(SYS_faccessat, AT_FDCWD, full, F_OK) && fstat(fd, &found) == 0 && end > found.st_size;
}

static void synced(int fd, uint32_t file)
{
    if (syncs_each_write[fd]) {
        record('S', file, ++next_sync, NULL, 0);
        record('E', file, next_sync, NULL, 0);
    }
}

/* `at` is -1 for a write where the descriptor stands. */
static ssize_t write_parts(int fd, const struct iovec *parts, int count, off_t at)
{
    uint32_t file = file_of(fd);
    if (!file)
        return at < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, at, 0L);
    pthread_mutex_lock(&lock);
    off_t length = 0;
    for (int part = 0; part < count; part++)
        length += parts[part].iov_len;
    off_t start = at;
    struct stat found;
    if ((fcntl(fd, F_GETFL) & O_APPEND) && fstat(fd, &found) == 0)
        start = found.st_size;
    else if (at < 0)
        start = lseek(fd, 0, SEEK_CUR);
    ssize_t done = -1;
    if (file != SAID && out_of_space(fd, start + length))
        errno = ENOSPC;
    else
        done = at < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, at, 0L);
    int error = errno;
    ssize_t left = done;
    for (int part = 0; part < count && left > 0; part++) {
        ssize_t taken = left < (ssize_t)parts[part].iov_len ? left : (ssize_t)parts[part].iov_len;
        record(file == SAID ? 'A' : 'W', file, start, parts[part].iov_base, taken);
        start += taken;
        left -= taken;
    }
    if (file != SAID && done > 0)
        synced(fd, file);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

static ssize_t write_one(int fd, const void *data, size_t length, off_t at)
{
    if (!file_of(fd))
        return at < 0 ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, at);
    struct iovec part = {(void *)data, length};
    return write_parts(fd, &part, 1, at);
}

ssize_t write(int fd, const void *data, size_t length) { return write_one(fd, data, length, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return write_one(fd, data, length, at); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) { return write_one(fd, data, length, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return write_parts(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t at) { return write_parts(fd, parts, n, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int n, off64_t at) { return write_parts(fd, parts, n, at); }
ssize_t pwritev2(int fd, const struct iovec *parts, int n, off_t at, int f) { (void)f; return write_parts(fd, parts, n, at); }
ssize_t pwritev64v2(int fd, const struct iovec *parts, int n, off64_t at, int f) { (void)f; return write_parts(fd, parts, n, at); }

int ftruncate(int fd, off_t length)
{
    uint32_t file = file_of(fd);
    if (!file)
        return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, length), error = errno;
    if (result == 0)
        record('T', file, length, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

/* Room reserved past the end makes the file longer; room within it changes no content. */
int fallocate(int fd, int mode, off_t start, off_t length)
{
    uint32_t file = file_of(fd);
    if (!file)
        return syscall(SYS_fallocate, fd, mode, start, length);
    pthread_mutex_lock(&lock);
    struct stat before, after;
    fstat(fd, &before);
    int result = -1, error = ENOSPC;
    if (!out_of_space(fd, start + length)) {
        result = syscall(SYS_fallocate, fd, mode, start, length);
        error = errno;
        fstat(fd, &after);
        if (result == 0 && after.st_size != before.st_size)
            record('T', file, after.st_size, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int fallocate64(int fd, int mode, off64_t start, off64_t length) { return fallocate(fd, mode, start, length); }
int posix_fallocate(int fd, off_t start, off_t length) { return fallocate(fd, 0, start, length) ? errno : 0; }
int posix_fallocate64(int fd, off64_t start, off64_t length) { return posix_fallocate(fd, start, length); }

static int sync_file(int fd, long call)
{
    uint32_t file = file_of(fd), sync = 0;
    if (file >= FIRST_FILE) {
        pthread_mutex_lock(&lock);
        record('S', file, sync = ++next_sync, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    int result = syscall(call, fd), error = errno;
    if (sync && result == 0) {
        pthread_mutex_lock(&lock);
        record('E', file, sync, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}
int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }

/* Kills a process, or fails one of its system calls, at the Nth system call that changes, flushes or locks files.
 *
 * Counted over every thread and every name together, so that the calls of short-lived threads are reached, too. Linux on
 * x86-64 alone. `faults.py` builds it as a shared library; `child.py` calls it from a process that forks one child a run.
 *
 *   fault_attach(threads, reads)              in the child, before its work; 0, or the number of an error
 *   fault_trace(child, log, fault, when, lasting, reads)   in its parent, until the child has ended; its exit code, 128 and the
 *                                             signal that ended it, or minus the number of an error
 *
 * `fault` is 0 (none), -1 (SIGKILL), or the number of the error that the call returns without having happened; `when`
 * counts from 1. A lasting fault is that of every later call, too. `log` is a descriptor that gets a line for each call:
 * its name. A write to standard output is the call "acknowledge", which a fault of the system does not reach.
 *
 * With `reads` the calls are the others: those that open, read, look at, list, map and lock files.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILL = -1 };

struct call { long number; const char *name; };

static const struct call READS[] = {
    {SYS_write, "write"}, {SYS_writev, "writev"}, /* Acknowledgements alone. */
    {SYS_open, "open"}, {SYS_openat, "openat"}, {SYS_openat2, "openat2"},
    {SYS_read, "read"}, {SYS_pread64, "pread64"}, {SYS_readv, "readv"}, {SYS_preadv, "preadv"},
    {SYS_stat, "stat"}, {SYS_lstat, "lstat"}, {SYS_fstat, "fstat"}, {SYS_newfstatat, "newfstatat"}, {SYS_statx, "statx"},
    {SYS_access, "access"}, {SYS_faccessat, "faccessat"}, {SYS_faccessat2, "faccessat2"},
    {SYS_readlink, "readlink"}, {SYS_readlinkat, "readlinkat"}, {SYS_statfs, "statfs"}, {SYS_fstatfs, "fstatfs"},
    {SYS_getdents64, "getdents64"}, {SYS_mmap, "mmap"}, {SYS_fcntl, "fcntl"}, {SYS_flock, "flock"},
    {SYS_lseek, "lseek"}, {SYS_getcwd, "getcwd"},
};

static const struct call CALLS[] = {
    {SYS_write, "write"}, {SYS_pwrite64, "pwrite64"}, {SYS_writev, "writev"}, {SYS_pwritev, "pwritev"},
    {SYS_pwritev2, "pwritev2"}, {SYS_copy_file_range, "copy_file_range"}, {SYS_sendfile, "sendfile"},
    {SYS_truncate, "truncate"}, {SYS_ftruncate, "ftruncate"}, {SYS_fallocate, "fallocate"},
    {SYS_fsync, "fsync"}, {SYS_fdatasync, "fdatasync"}, {SYS_syncfs, "syncfs"}, {SYS_sync_file_range, "sync_file_range"},
    {SYS_rename, "rename"}, {SYS_renameat, "renameat"}, {SYS_renameat2, "renameat2"},
    {SYS_link, "link"}, {SYS_linkat, "linkat"}, {SYS_symlink, "symlink"}, {SYS_symlinkat, "symlinkat"},
    {SYS_unlink, "unlink"}, {SYS_unlinkat, "unlinkat"}, {SYS_rmdir, "rmdir"},
    {SYS_mkdir, "mkdir"}, {SYS_mkdirat, "mkdirat"}, {SYS_utimensat, "utimensat"}, {SYS_flock, "flock"},
    {SYS_chmod, "chmod"}, {SYS_fchmod, "fchmod"}, {SYS_fchmodat, "fchmodat"},
    {SYS_open, "open"}, {SYS_openat, "openat"}, {SYS_openat2, "openat2"}, {SYS_creat, "creat"},
};
enum { COUNT = sizeof CALLS / sizeof *CALLS, READ_COUNT = sizeof READS / sizeof *READS };

static const struct call *calls_of(int reads, int *count) {
    *count = reads ? READ_COUNT : COUNT;
    return reads ? READS : CALLS;
}

/* Stops at the calls above, and lets all others pass at full speed; without threads, starting one fails with EAGAIN. */
int fault_attach(int threads, int reads) {
    int count;
    const struct call *calls = calls_of(reads, &count);
    struct sock_filter filter[2 * (COUNT > READ_COUNT ? COUNT : READ_COUNT) + 8];
    unsigned short length = 0;
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < count; i++) {
        filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 1);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    }
    if (!threads) {
        long starts[] = {SYS_clone, SYS_clone3};
        for (int i = 0; i < 2; i++) {
            filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, starts[i], 0, 1);
            filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN);
        }
    }
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {length, filter};
    if (ptrace(PTRACE_TRACEME, 0, 0, 0))
        return errno;
    raise(SIGSTOP); /* The parent sets its options, and lets the work begin. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return errno;
    return 0;
}

static int opens_to_change(unsigned long long flags) {
    return flags & (O_CREAT | O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE;
}

/* Whether a descriptor is that of a file: a pipe, or the counter that wakes an event loop, fails of other causes. */
static int is_of_file(pid_t task, unsigned long long descriptor) {
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", task, (int)descriptor);
    return stat(path, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
}

static int locks(unsigned long long command) {
    return (command >= F_GETLK && command <= F_SETLKW) || (command >= F_OFD_GETLK && command <= F_OFD_SETLKW);
}

static const char *name_of(long number, int reads) {
    int count;
    const struct call *calls = calls_of(reads, &count);
    for (int i = 0; i < count; i++)
        if (calls[i].number == number)
            return calls[i].name;
    return NULL;
}

/* The name of the call that reads, or NULL: of memory without a file, of the standard streams, of no lock. */
static const char *counted_read(pid_t task, const struct user_regs_struct *registers) {
    long number = (long)registers->orig_rax;
    if (number == SYS_write || number == SYS_writev)
        return NULL;
    if (number == SYS_mmap && (registers->r10 & MAP_ANONYMOUS))
        return NULL;
    if (number == SYS_fcntl && !locks(registers->rsi))
        return NULL;
    if ((number == SYS_read || number == SYS_readv) && !is_of_file(task, registers->rdi))
        return NULL;
    if ((number == SYS_fstat || number == SYS_lseek) && registers->rdi <= 2)
        return NULL;
    return name_of(number, 1);
}

/* The name of the call, or NULL if it does not count: a file that is only opened, a line on standard error. */
static const char *counted(pid_t task, const struct user_regs_struct *registers, int reads) {
    long number = (long)registers->orig_rax;
    if ((number == SYS_write || number == SYS_writev) && registers->rdi <= 2)
        return registers->rdi == 1 ? "acknowledge" : NULL;
    if (reads)
        return counted_read(task, registers);
    if ((number == SYS_write || number == SYS_writev) && !is_of_file(task, registers->rdi))
        return NULL;
    if (number == SYS_open && !opens_to_change(registers->rsi))
        return NULL;
    if (number == SYS_openat && !opens_to_change(registers->rdx))
        return NULL;
    if (number == SYS_openat2) {
        /* The flags are the first field of the `struct open_how` that the third argument points to. */
        errno = 0;
        long flags = ptrace(PTRACE_PEEKDATA, task, registers->rdx + offsetof(struct open_how, flags), 0);
        if (errno || !opens_to_change((unsigned long long)flags))
            return NULL;
    }
    return name_of(number, 0);
}

int fault_trace(pid_t child, int log, int fault, long when, int lasting, int reads) {
    int status;
    long seen = 0;
    if (waitpid(child, &status, 0) < 0)
        return -errno;
    if (!WIFSTOPPED(status)) /* It was not let itself be traced, and has said so. */
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (ptrace(PTRACE_SETOPTIONS, child, 0,
               PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                   PTRACE_O_TRACEVFORK))
        return -errno;
    ptrace(PTRACE_CONT, child, 0, 0);
    for (;;) {
        pid_t task = waitpid(-1, &status, __WALL);
        if (task < 0)
            return -errno;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (task != child)
                continue;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP) {
            struct user_regs_struct registers;
            ptrace(PTRACE_GETREGS, task, 0, &registers);
            const char *name = counted(task, &registers, reads);
            if (name) {
                seen++;
                dprintf(log, "%s\n", name);
                int is_struck = seen == when || (lasting && when > 0 && seen > when);
                if (is_struck && fault == KILL) {
                    kill(child, SIGKILL);
                    continue;
                }
                if (is_struck && fault > 0 && strcmp(name, "acknowledge") != 0) {
                    registers.orig_rax = (unsigned long long)-1;
                    registers.rax = (unsigned long long)-fault;
                    ptrace(PTRACE_SETREGS, task, 0, &registers);
                }
            }
        }
        /* A new task begins with a stop of its own; other signals are passed on. */
        int passed = event || signal == SIGSTOP || signal == SIGTRAP ? 0 : signal;
        ptrace(PTRACE_CONT, task, 0, passed);
    }
}

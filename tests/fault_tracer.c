/* Runs a command and kills it, or fails one of its system calls, at the Nth system call that writes.
 *
 * strace counts by thread and by name, so that it cannot reach the calls of the second of two short-lived threads; this
 * counts every thread and every name together. Linux on x86-64 alone. `fault_support.py` builds and calls it.
 *
 *   fault_tracer LOG FAULT N COMMAND...
 *
 * FAULT is "none", "kill", or the number of the error that the call returns without having happened. N counts from 1.
 * LOG gets a line for each call: its number and its name. Exits as the command does, with 137 after a kill.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct { long number; const char *name; } CALLS[] = {
    {SYS_pwrite64, "pwrite64"}, {SYS_write, "write"}, {SYS_writev, "writev"}, {SYS_pwritev, "pwritev"},
    {SYS_fsync, "fsync"}, {SYS_fdatasync, "fdatasync"}, {SYS_syncfs, "syncfs"},
    {SYS_rename, "rename"}, {SYS_renameat, "renameat"}, {SYS_renameat2, "renameat2"},
    {SYS_link, "link"}, {SYS_linkat, "linkat"}, {SYS_ftruncate, "ftruncate"}, {SYS_fallocate, "fallocate"},
    {SYS_unlink, "unlink"}, {SYS_unlinkat, "unlinkat"}, {SYS_mkdir, "mkdir"}, {SYS_mkdirat, "mkdirat"},
    {SYS_open, "open"}, {SYS_openat, "openat"},
};
enum { COUNT = sizeof CALLS / sizeof *CALLS };

/* Stop at the calls above, and let all others pass at full speed. */
static void install_filter(void) {
    struct sock_filter filter[1 + 2 * COUNT + 1];
    int length = 0;
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT; i++) {
        filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i].number, 0, 1);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    }
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {length, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("seccomp");
        _exit(125);
    }
}

/* The name of the call if it counts: writes to standard output and standard error do not, nor do files that are only
 * opened. */
static const char *counted(const struct user_regs_struct *registers) {
    long number = (long)registers->orig_rax;
    if ((number == SYS_write || number == SYS_writev) && (long)registers->rdi <= 2)
        return NULL;
    if (number == SYS_open && !(registers->rsi & O_CREAT))
        return NULL;
    if (number == SYS_openat && !(registers->rdx & O_CREAT))
        return NULL;
    for (int i = 0; i < COUNT; i++)
        if (CALLS[i].number == number)
            return CALLS[i].name;
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 5)
        return 125;
    FILE *log = fopen(argv[1], "we");
    int is_kill = strcmp(argv[2], "kill") == 0, error = atoi(argv[2]);
    long when = atol(argv[3]), seen = 0;
    if (!log)
        return 125;
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        install_filter();
        execvp(argv[4], argv + 4);
        _exit(125);
    }
    int status;
    if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status)) {
        fputs("this process may not be traced\n", stderr);
        return 125;
    }
    ptrace(PTRACE_SETOPTIONS, child, 0,
           PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK);
    ptrace(PTRACE_CONT, child, 0, 0);
    for (;;) {
        pid_t task = waitpid(-1, &status, __WALL);
        if (task < 0)
            return 125;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (task != child)
                continue;
            fclose(log);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP) {
            struct user_regs_struct registers;
            ptrace(PTRACE_GETREGS, task, 0, &registers);
            const char *name = counted(&registers);
            if (name) {
                seen++;
                fprintf(log, "%ld %s\n", seen, name);
                if (seen == when && is_kill) {
                    kill(child, SIGKILL);
                    continue;
                }
                if (seen == when && error) {
                    registers.orig_rax = (unsigned long long)-1;
                    registers.rax = (unsigned long long)-error;
                    ptrace(PTRACE_SETREGS, task, 0, &registers);
                }
            }
        }
        /* A new task begins with a stop of its own; other signals are passed on. */
        int passed = event || signal == SIGSTOP || signal == SIGTRAP ? 0 : signal;
        ptrace(PTRACE_CONT, task, 0, passed);
    }
}

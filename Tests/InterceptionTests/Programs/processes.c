// Every way to start a process, with descriptors redirected on the way.
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static int wrong;

static void expect(const char *what, int truth) {
    if (!truth) wrong++, printf("%s failed\n", what);
}

static int ends_well(pid_t child) {
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(void) {
    char name[] = "/tmp/processesXXXXXX", text[64] = "";
    int file = mkstemp(name);
    for (int round = 0; round < 20; round++) {
        pid_t child = vfork();
        if (child == 0) {
            // Shares memory and stack with the parent, which stands still.
            if (access("/dashfs-probe/present", F_OK) != 0) _exit(3);
            int other = open("/dev/null", O_WRONLY);
            if (other < 0 || dup2(other, 1) != 1) _exit(4);
            execl("/bin/echo", "echo", "lost", NULL);
            _exit(5);
        }
        expect("vfork", ends_well(child));

        child = fork();
        if (child == 0) _exit(access("/dashfs-probe/present", F_OK) == 0 && access("/", F_OK) == 0 ? 0 : 1);
        expect("fork", ends_well(child));

        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addopen(&actions, 1, name, O_WRONLY | O_TRUNC, 0);
        char *arguments[] = {"echo", "spawned", NULL};
        expect("posix_spawn", posix_spawn(&child, "/bin/echo", &actions, NULL, arguments, environ) == 0 && ends_well(child));
        expect("its output", pread(file, text, sizeof text - 1, 0) == 8 && strncmp(text, "spawned\n", 8) == 0);
        posix_spawn_file_actions_destroy(&actions);

        expect("system", system("test -r /") == 0);
        FILE *pipe = popen("echo piped", "r");
        expect("popen", pipe && fgets(text, sizeof text, pipe) && strcmp(text, "piped\n") == 0 && pclose(pipe) == 0);
    }
    unlink(name);
    printf("%d failures\n", wrong);
    return wrong != 0;
}

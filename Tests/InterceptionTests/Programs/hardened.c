// Runs a command under PR_SET_MDWE: no page that is or was writable can become executable. Exit 77 where the kernel has no
// such thing (before Linux 6.3).
#include <sys/prctl.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (prctl(65, 1, 0, 0, 0) != 0) return 77;
    execv(arguments[1], arguments + 1);
    return 78;
}

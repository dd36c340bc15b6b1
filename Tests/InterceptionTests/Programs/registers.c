// Fills every register, the vector state and the red zone, makes a system call through libc's syscall(), which touches
// none of them but rax, rcx and r11, and compares. syscall() is one of the rewritten sites.
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct state {
    uint64_t registers[16];  // rax rcx rdx rbx rsp rbp rsi rdi r8 ... r15
    uint8_t vectors[16][32];
    uint8_t red_zone[128];
    uint64_t sixth;
    uint64_t function;
    uint64_t wide;
    uint32_t mxcsr;
    uint16_t control;
    uint16_t pad;
    uint64_t flags;
};

void run(struct state *in, struct state *out);
__asm__(
    ".text\n.globl run\n.type run,@function\nrun:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rsi\n"
    "sub $16, %rsp\n"
    "mov %rdi, %rax\n"
    "mov 768(%rax), %rcx; mov %rcx, (%rsp)\n"  // the seventh argument
    "lea 640(%rax), %rsi; lea -136(%rsp), %rdi; mov $128, %ecx; rep movsb\n"
    "ldmxcsr 792(%rax); fldcw 796(%rax)\n"
    "cmpq $0, 784(%rax); je 1f\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu 128+32*\\n(%rax), %ymm\\n\n .endr\n jmp 2f\n"
    "1:\n.irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movdqu 128+32*\\n(%rax), %xmm\\n\n .endr\n"
    "2: mov 8(%rax), %rcx; mov 16(%rax), %rdx; mov 24(%rax), %rbx; mov 40(%rax), %rbp; mov 48(%rax), %rsi\n"
    "mov 56(%rax), %rdi; mov 64(%rax), %r8; mov 72(%rax), %r9; mov 80(%rax), %r10\n"
    "mov 96(%rax), %r12; mov 104(%rax), %r13; mov 112(%rax), %r14; mov 120(%rax), %r15\n"
    "mov 776(%rax), %rax\n"
    "call *%rax\n"
    "push %rax\n"
    "mov 24(%rsp), %rax\n"
    "mov %rcx, 8(%rax); mov %rdx, 16(%rax); mov %rbx, 24(%rax); mov %rbp, 40(%rax); mov %rsi, 48(%rax)\n"
    "mov %rdi, 56(%rax); mov %r8, 64(%rax); mov %r9, 72(%rax); mov %r10, 80(%rax)\n"
    "mov %r12, 96(%rax); mov %r13, 104(%rax); mov %r14, 112(%rax); mov %r15, 120(%rax)\n"
    "pop %rcx; mov %rcx, (%rax)\n"
    "lea -136(%rsp), %rsi; lea 640(%rax), %rdi; mov $128, %ecx; rep movsb\n"
    "pushfq; pop %rcx; mov %rcx, 800(%rax)\n"
    "stmxcsr 792(%rax); fnstcw 796(%rax)\n"
    "cmpq $0, 784(%rax); je 3f\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu %ymm\\n, 128+32*\\n(%rax)\n .endr\n vzeroupper\n jmp 4f\n"
    "3:\n.irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movdqu %xmm\\n, 128+32*\\n(%rax)\n .endr\n"
    "4: add $16, %rsp\n"
    "pop %rsi; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "ret\n.size run,.-run\n");

static int failures;

static void check(const char *what, long number, uint64_t first, uint64_t second, uint64_t third, long expected) {
    struct state in, out;
    uint8_t *bytes = (uint8_t *)&in;
    for (size_t i = 0; i < sizeof in; i++) bytes[i] = (uint8_t)rand();
    in.registers[7] = (uint64_t)number;  // rdi rsi rdx rcx r8 r9 stack: number and six arguments
    in.registers[6] = first;
    in.registers[2] = second;
    in.registers[1] = third;
    in.function = (uint64_t)&syscall;
    in.wide = out.wide = __builtin_cpu_supports("avx") != 0;
    in.mxcsr = 0x1f80 | 0x6000;  // rounds towards zero
    in.control = 0x27f;          // double precision
    run(&in, &out);
    __asm__ volatile("ldmxcsr %0; fninit" : : "m"((uint32_t){0x1f80}));

#define SAME(index, value) \
    if (out.registers[index] != (value)) failures++, printf("%s: register %d is changed\n", what, index)
    if (expected != -2 && (long)out.registers[0] != expected) {
        failures++, printf("%s: returned %ld\n", what, (long)out.registers[0]);
    }
    SAME(7, first);
    SAME(6, second);
    SAME(2, third);
    SAME(10, in.registers[8]);
    SAME(8, in.registers[9]);
    SAME(9, in.sixth);
    SAME(3, in.registers[3]);
    SAME(5, in.registers[5]);
    for (int i = 12; i < 16; i++) SAME(i, in.registers[i]);
    for (int i = 0; i < 16; i++)
        if (memcmp(in.vectors[i], out.vectors[i], in.wide ? 32 : 16)) failures++, printf("%s: vector %d is changed\n", what, i);
    if (memcmp(in.red_zone, out.red_zone, 128)) failures++, printf("%s: the red zone is changed\n", what);
    if (in.mxcsr != (out.mxcsr & ~0x3fu)) failures++, printf("%s: mxcsr is changed\n", what);
    if (in.control != out.control) failures++, printf("%s: the x87 control word is changed\n", what);
    if (out.flags & 0x400) failures++, printf("%s: the direction flag is set\n", what);
}

int main(void) {
    srand(1);
    for (int i = 0; i < 1000; i++) {
        check("answered by the hook", SYS_access, (uint64_t) "/dashfs-probe/present", 0, 0, 0);
        check("seen by the hook, answered by the kernel", SYS_access, (uint64_t) "/", 0, 0, 0);
        check("an error of the kernel", SYS_access, (uint64_t) "/dashfs-probe/absent", 0, 0, -1);
        check("by descriptor", SYS_lseek, (uint64_t)-1, 0, 0, -1);
        check("not ours", SYS_getppid, 1, 2, 3, -2);
        check("a number that no kernel has", 100000, 1, 2, 3, -1);
        check("a negative number", -5, 1, 2, 3, -1);
        check("unmapping, which the hook does itself", SYS_munmap, 1, 4096, 0, -1);
    }
    printf("%d failures\n", failures);
    return failures != 0;
}

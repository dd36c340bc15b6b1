// What of dispatch (Sources/Preload/X86_64/Dispatch.swift) has to be written instruction by instruction.

#include "../include/cpreload_layout.h"

#define SYS_rt_sigaction 13
#define SYS_rt_sigreturn 15
#define SYS_prctl 157
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define OF_THREAD_LEVEL (8 * DASHFS_DISPATCH_LEVELS)
#define OF_THREAD_IS_CANCELLED (OF_THREAD_LEVEL + 4)

    .text

// Every signal handler returns here: a sigreturn of the C library's would be handed back as well. Unwinders know it by its bytes, and look for unwind information first, which would be that
// of a function that ends right before it: so there is a gap.
    .p2align 4
    .fill 16, 1, 0xcc
    .globl dashfs_dispatch_restorer
    .hidden dashfs_dispatch_restorer
    .type dashfs_dispatch_restorer, @function
dashfs_dispatch_restorer:
    movq $SYS_rt_sigreturn, %rax
    syscall
    .size dashfs_dispatch_restorer, . - dashfs_dispatch_restorer
    .fill 16, 1, 0xcc

    .p2align 4
    .globl dashfs_dispatch_call, dashfs_dispatch_call_site, dashfs_dispatch_call_end
    .hidden dashfs_dispatch_call, dashfs_dispatch_call_site, dashfs_dispatch_call_end
    .type dashfs_dispatch_call, @function
dashfs_dispatch_call:
    .cfi_startproc
    movq dashfs_dispatch_of_thread@gottpoff(%rip), %rcx
    cmpl $0, %fs:OF_THREAD_IS_CANCELLED(%rcx)
    jne .Linterrupted
    movq 0(%rdi), %rax
    movq 16(%rdi), %rsi
    movq 24(%rdi), %rdx
    movq 32(%rdi), %r10
    movq 40(%rdi), %r8
    movq 48(%rdi), %r9
    movq 8(%rdi), %rdi
dashfs_dispatch_call_site:
    syscall
dashfs_dispatch_call_end:
    ret
.Linterrupted:
    movl $0, %fs:OF_THREAD_IS_CANCELLED(%rcx)
    movq $-4, %rax                  // EINTR
    ret
    .cfi_endproc
    .size dashfs_dispatch_call, . - dashfs_dispatch_call

// clone(2), with the registers of the program's call. rcx and r11 are free, as after any system call.
    .macro clone_stub level, has_stack
    .p2align 8
1:  syscall
    testq %rax, %rax
    jz 2f
    movq dashfs_dispatch_of_thread@gottpoff(%rip), %rcx
    movl $\level, %fs:OF_THREAD_LEVEL(%rcx)
    movq %fs:8 * \level(%rcx), %r11
    jmpq *%r11
2:  // The child: its calls are to be handed back, too. Below the red zone.
    .if \has_stack
    movq -8(%rsp), %r11
    .else
    movq dashfs_dispatch_of_thread@gottpoff(%rip), %rcx
    movq %fs:8 * \level(%rcx), %r11
    .endif
    leaq -192(%rsp), %rsp
    pushq %r11
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %r10
    pushq %r8
    movl $SYS_rt_sigaction, %eax    // it may have no handlers
    movl $31, %edi                  // SIGSYS
    leaq dashfs_dispatch_action(%rip), %rsi
    xorl %edx, %edx
    movl $8, %r10d
    syscall
    testq %rax, %rax
    jnz .Llost
    movl $SYS_prctl, %eax
    movl $PR_SET_SYSCALL_USER_DISPATCH, %edi
    movl $1, %esi
    movq dashfs_dispatch_range(%rip), %rdx
    movq 8 + dashfs_dispatch_range(%rip), %r10
    xorl %r8d, %r8d
    syscall
    testq %rax, %rax
    jnz .Llost
    popq %r8
    popq %r10
    popq %rdx
    popq %rsi
    popq %rdi
    popq %r11
    leaq 192(%rsp), %rsp
    xorl %eax, %eax
    jmpq *%r11
    .endm

    .p2align 8
    .globl dashfs_dispatch_clones
    .hidden dashfs_dispatch_clones
    .type dashfs_dispatch_clones, @function
dashfs_dispatch_clones:
    .cfi_startproc
    .cfi_undefined %rip
    .irp level, 0, 1, 2, 3
    clone_stub \level, 0
    clone_stub \level, 1
    .endr
    .p2align 8
.Llost:
    andq $-16, %rsp
    call dashfs_dispatch_is_lost
    ud2
    .cfi_endproc
    .size dashfs_dispatch_clones, . - dashfs_dispatch_clones

    .section .note.GNU-stack, "", @progbits

// The stub: how a rewritten call site reaches Swift, and how it comes back.
//
// Always true: the program sees what it would see after a `syscall` instruction. rax is the result, rcx and r11 are
// undefined, every other general register, all of the vector state, the red zone and the stack pointer are unchanged.
// (Arithmetic flags are not kept; the site finder has checked that nothing reads them.) A call that the hook does not
// handle is made by a `syscall` with the program's own stack pointer and registers, so even clone and vfork survive it.
//
// A slot, 128 bytes, composed by Sources/Preload/Slots.swift:
//
//    0  instructions displaced from before the syscall, padded with nops
//   16  lea -128(%rsp), %rsp          the red zone is the program's
//   21  call dashfs_stub_enter        carry: handled, and rax is the result
//   26  lea 128(%rsp), %rsp           (lea: flags stay)
//   34  jc 38
//   36  syscall
//   38  instructions displaced from after it, padded with nops
//   54  jmp *64(slot)                 back to the end of the rewritten window
//   64  its address: the site may be farther away than a jump reaches (a program's own code)
//   72  where the original syscall ended: for the unwinder
//   80  int3
//
// "Handled" is told by the carry flag and not by another return address, which shadow stacks would refuse.

#include "../include/cpreload_layout.h"

// Bits of the CFI below, in DWARF's language.
#define DW_CFA_def_cfa_expression 0x0f
#define DW_CFA_val_expression 0x16
#define DW_OP_deref 0x06
#define DW_OP_const1u 0x08
#define DW_OP_const1s 0x09
#define DW_OP_and 0x1a
#define DW_OP_plus 0x22
#define DW_OP_plus_uconst 0x23
#define DW_OP_shl 0x24
#define DW_OP_ge 0x2a
#define DW_OP_lt 0x2d
#define DW_OP_lit7 0x37
#define DW_OP_breg_rsp 0x77
#define DW_OP_bregx_rip 0x80
#define DW_rip 16

    .section .text.dashfs_slots, "ax", @progbits
    .p2align 12
    .globl dashfs_slots
    .hidden dashfs_slots
    .type dashfs_slots, @object
    .cfi_startproc
    // One description for all slots; it asks the instruction pointer where in its slot it is.
    // CFA = rsp + ((rip & 127) in 21 ..< 34 ? 128 : 0): the program's stack pointer at the site.
    // (valgrind's reader knows neither dup nor swap.)
    .cfi_escape DW_CFA_def_cfa_expression, 22, DW_OP_breg_rsp, 0, DW_OP_bregx_rip, 0, DW_OP_const1u, 127, DW_OP_and, DW_OP_const1u, 21, DW_OP_ge, DW_OP_bregx_rip, 0, DW_OP_const1u, 127, DW_OP_and, DW_OP_const1u, 34, DW_OP_lt, DW_OP_and, DW_OP_lit7, DW_OP_shl, DW_OP_plus
    // The caller is the function that the site stands in, at the end of its syscall: the word at slot + 72.
    .cfi_escape DW_CFA_val_expression, DW_rip, 8, DW_OP_bregx_rip, 0, DW_OP_const1s, 0x80, DW_OP_and, DW_OP_plus_uconst, 72, DW_OP_deref
dashfs_slots:
    .fill DASHFS_SLOT_SIZE * DASHFS_SLOT_COUNT, 1, 0xcc
    .p2align 12, 0xcc
    .cfi_endproc
    .size dashfs_slots, . - dashfs_slots

    // Goes to `ours` where the call of this number, on this first argument, may be ours, and else on behind it. Changes `scratch` and `copy`.
    .macro look_up number, argument32, scratch, scratch32, copy, copy32, ours, others
    cmpq $DASHFS_NUMBER_LIMIT, \number
    jae \others
    leaq dashfs_number_class(%rip), \scratch
    movzbl (\scratch,\number), \scratch32
    testl \scratch32, \scratch32
    jz \others
    cmpl $1, \scratch32
    jne \ours
    movl \argument32, \copy32
    cmpl $DASHFS_HINT_LIMIT, \copy32
    jae \ours
    leaq dashfs_descriptor_hints(%rip), \scratch
    cmpb $0, (\scratch,\copy)
    jne \ours
    .endm

    .text
    .p2align 6
    .globl dashfs_stub_enter
    .hidden dashfs_stub_enter
    .type dashfs_stub_enter, @function
dashfs_stub_enter:
    .cfi_startproc
    // rcx and r11 are free here: the syscall would overwrite them.
    look_up %rax, %edi, %rcx, %ecx, %r11, %r11d, .Lcandidate, .Lnot_ours
.Lnot_ours:
    clc
    ret

    .p2align 4
.Lcandidate:
    pushq %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    subq $(80 + 256), %rsp
    andq $-16, %rsp
    movq %rax, 0(%rsp)
    movq %rdi, 8(%rsp)
    movq %rsi, 16(%rsp)
    movq %rdx, 24(%rsp)
    movq %r10, 32(%rsp)
    movq %r8, 40(%rsp)
    movq %r9, 48(%rsp)
    movq $0, 56(%rsp)
    leaq 144(%rbp), %rcx            // saved rbp, return address, red zone
    movq %rcx, 64(%rsp)
    movq $0, 72(%rsp)
    // The library is built for the baseline: legacy SSE instructions leave the upper parts of ymm and zmm alone, so
    // saving xmm saves all (a test reads the library's disassembly for it).
    movaps %xmm0, 80(%rsp)
    movaps %xmm1, 96(%rsp)
    movaps %xmm2, 112(%rsp)
    movaps %xmm3, 128(%rsp)
    movaps %xmm4, 144(%rsp)
    movaps %xmm5, 160(%rsp)
    movaps %xmm6, 176(%rsp)
    movaps %xmm7, 192(%rsp)
    movaps %xmm8, 208(%rsp)
    movaps %xmm9, 224(%rsp)
    movaps %xmm10, 240(%rsp)
    movaps %xmm11, 256(%rsp)
    movaps %xmm12, 272(%rsp)
    movaps %xmm13, 288(%rsp)
    movaps %xmm14, 304(%rsp)
    movaps %xmm15, 320(%rsp)
    movq %rsp, %rdi
    call dashfs_system_call
    movaps 80(%rsp), %xmm0
    movaps 96(%rsp), %xmm1
    movaps 112(%rsp), %xmm2
    movaps 128(%rsp), %xmm3
    movaps 144(%rsp), %xmm4
    movaps 160(%rsp), %xmm5
    movaps 176(%rsp), %xmm6
    movaps 192(%rsp), %xmm7
    movaps 208(%rsp), %xmm8
    movaps 224(%rsp), %xmm9
    movaps 240(%rsp), %xmm10
    movaps 256(%rsp), %xmm11
    movaps 272(%rsp), %xmm12
    movaps 288(%rsp), %xmm13
    movaps 304(%rsp), %xmm14
    movaps 320(%rsp), %xmm15
    movq 8(%rsp), %rdi
    movq 16(%rsp), %rsi
    movq 24(%rsp), %rdx
    movq 32(%rsp), %r10
    movq 40(%rsp), %r8
    movq 48(%rsp), %r9
    testb $1, %al
    jz .Lunhandled
    movq 56(%rsp), %rax
    leave
    .cfi_remember_state
    .cfi_def_cfa %rsp, 8
    .cfi_restore %rbp
    stc
    ret
    .cfi_restore_state
.Lunhandled:
    movq 0(%rsp), %rax
    leave
    .cfi_def_cfa %rsp, 8
    .cfi_restore %rbp
    clc
    ret
    .cfi_endproc
    .size dashfs_stub_enter, . - dashfs_stub_enter

// A redirected call of glibc's __syscall_cancel_arch(cancelhandling, number, six arguments), which stays as it is: its slot brings the function's address in r11. What is
// not ours goes through the function, and so can be cancelled; so does a thread that is cancelled already. An ordinary function call, so vector registers need no care.
// Its caller looks for cancellation behind every call that ends with EINTR.
    .section .text.dashfs_call_slots, "ax", @progbits
    .p2align 12
    .globl dashfs_call_slots
    .hidden dashfs_call_slots
    .type dashfs_call_slots, @object
    .cfi_startproc
dashfs_call_slots:
    .fill 4096 * DASHFS_CALL_SLOT_PAGES, 1, 0xcc
    .cfi_endproc
    .size dashfs_call_slots, . - dashfs_call_slots

    .text
    .p2align 6
    .globl dashfs_cancellable_call
    .hidden dashfs_cancellable_call
    .type dashfs_cancellable_call, @function
dashfs_cancellable_call:
    .cfi_startproc
    testb $DASHFS_CANCELED_BIT, (%rdi)
    jne .Loriginal
    look_up %rsi, %edx, %rax, %eax, %r10, %r10d, .Lours_perhaps, .Loriginal
.Loriginal:
    jmpq *%r11

    .p2align 4
.Lours_perhaps:
    pushq %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    subq $96, %rsp
    andq $-16, %rsp
    movq %rsi, 0(%rsp)
    movq %rdx, 8(%rsp)
    movq %rcx, 16(%rsp)
    movq %r8, 24(%rsp)
    movq %r9, 32(%rsp)
    movq 16(%rbp), %rax             // the fifth and sixth argument stand behind the return address
    movq %rax, 40(%rsp)
    movq 24(%rbp), %rax
    movq %rax, 48(%rsp)
    movq $0, 56(%rsp)
    leaq 16(%rbp), %rax
    movq %rax, 64(%rsp)
    movq %r11, 72(%rsp)
    movq %rdi, 80(%rsp)
    movq %rsp, %rdi
    call dashfs_system_call
    testb $1, %al
    jz .Lnot_handled
    movq 56(%rsp), %rax
    leave
    .cfi_remember_state
    .cfi_def_cfa %rsp, 8
    .cfi_restore %rbp
    ret
    .cfi_restore_state
.Lnot_handled:
    movq 0(%rsp), %rsi
    movq 8(%rsp), %rdx
    movq 16(%rsp), %rcx
    movq 24(%rsp), %r8
    movq 32(%rsp), %r9
    movq 40(%rsp), %rax
    movq %rax, 16(%rbp)
    movq 48(%rsp), %rax
    movq %rax, 24(%rbp)
    movq 72(%rsp), %r11
    movq 80(%rsp), %rdi
    leave
    .cfi_def_cfa %rsp, 8
    .cfi_restore %rbp
    jmpq *%r11
    .cfi_endproc
    .size dashfs_cancellable_call, . - dashfs_cancellable_call

    .p2align 4
    .globl dashfs_scribble_registers
    .hidden dashfs_scribble_registers
    .type dashfs_scribble_registers, @function
dashfs_scribble_registers:
    .cfi_startproc
    movq $-0x5a5b, %rax
    movq %rax, %rcx
    movq %rax, %rdx
    movq %rax, %rsi
    movq %rax, %rdi
    movq %rax, %r8
    movq %rax, %r9
    movq %rax, %r10
    movq %rax, %r11
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movq %rax, %xmm\n
    .endr
    ret
    .cfi_endproc
    .size dashfs_scribble_registers, . - dashfs_scribble_registers

    .section .note.GNU-stack, "", @progbits

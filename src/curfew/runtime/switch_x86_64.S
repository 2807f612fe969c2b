/* SPDX-License-Identifier: MIT */
/* cf__switch_stack(void **from_sp, void *to_sp) for the System V ABI: saves what a callee must.
 *
 * It ends in an indirect jump and not in ret, because after a change of stacks the processor's
 * return predictor is wrong every time (five times the cost). MXCSR and the x87 control word are
 * left alone: nothing here changes rounding, and restoring them costs more than all the rest. */
#if defined(__x86_64__) && !defined(CF_FIBER_UCONTEXT)

    .text
    .globl  cf__switch_stack
    .hidden cf__switch_stack
    .type   cf__switch_stack, @function
    .p2align 4
cf__switch_stack:
    .cfi_startproc
    pushq   %rbp
    pushq   %rbx
    pushq   %r12
    pushq   %r13
    pushq   %r14
    pushq   %r15
    movq    %rsp, (%rdi)
    movq    %rsi, %rsp
    popq    %r15
    popq    %r14
    popq    %r13
    popq    %r12
    popq    %rbx
    popq    %rbp
    popq    %rcx
    jmp     *%rcx
    .cfi_endproc
    .size   cf__switch_stack, .-cf__switch_stack

/* Where a new stack starts: calls r13(r12). The undefined return address is where debuggers stop. */
    .globl  cf__switch_start
    .hidden cf__switch_start
    .type   cf__switch_start, @function
    .p2align 4
cf__switch_start:
    .cfi_startproc
    .cfi_undefined rip
    movq    %r12, %rdi
    andq    $-16, %rsp
    call    *%r13
    ud2
    .cfi_endproc
    .size   cf__switch_start, .-cf__switch_start

#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif

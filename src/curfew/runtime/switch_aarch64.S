/* SPDX-License-Identifier: MIT */
/* cf__switch_stack(void **from_sp, void *to_sp) for AAPCS64: saves what a callee must, x19 to x30 and
 * the low halves of v8 to v15. Ends in an indirect jump for the reason given for x86-64. */
#if defined(__aarch64__) && !defined(CF_FIBER_UCONTEXT)

    .text
    .globl  cf__switch_stack
    .hidden cf__switch_stack
    .type   cf__switch_stack, %function
    .p2align 4
cf__switch_stack:
    .cfi_startproc
    sub     sp, sp, #160
    stp     x19, x20, [sp, #0]
    stp     x21, x22, [sp, #16]
    stp     x23, x24, [sp, #32]
    stp     x25, x26, [sp, #48]
    stp     x27, x28, [sp, #64]
    stp     x29, x30, [sp, #80]
    stp     d8, d9, [sp, #96]
    stp     d10, d11, [sp, #112]
    stp     d12, d13, [sp, #128]
    stp     d14, d15, [sp, #144]
    mov     x9, sp
    str     x9, [x0]
    mov     sp, x1
    ldp     x19, x20, [sp, #0]
    ldp     x21, x22, [sp, #16]
    ldp     x23, x24, [sp, #32]
    ldp     x25, x26, [sp, #48]
    ldp     x27, x28, [sp, #64]
    ldp     x29, x30, [sp, #80]
    ldp     d8, d9, [sp, #96]
    ldp     d10, d11, [sp, #112]
    ldp     d12, d13, [sp, #128]
    ldp     d14, d15, [sp, #144]
    add     sp, sp, #160
    br      x30
    .cfi_endproc
    .size   cf__switch_stack, .-cf__switch_stack

/* Where a new stack starts: calls x20(x19). The undefined return address is where debuggers stop. */
    .globl  cf__switch_start
    .hidden cf__switch_start
    .type   cf__switch_start, %function
    .p2align 4
cf__switch_start:
    .cfi_startproc
    .cfi_undefined x30
    mov     x0, x19
    blr     x20
    brk     #1
    .cfi_endproc
    .size   cf__switch_start, .-cf__switch_start

#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif

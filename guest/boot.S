/*
 * Entry of the bare-metal test guest: the Multiboot 1 header (Multiboot
 * Specification 0.6.96, section 3.1), our own segments and stack, and the entries
 * of the interrupts. Knows nothing of the workload. The loader (QEMU -kernel, v86)
 * has already put us into 32-bit protected mode without paging.
 */
#define MULTIBOOT_HEADER_MAGIC 0x1badb002
#define MULTIBOOT_HEADER_FLAGS 0x3 /* page-aligned modules, memory information */
#define STACK_BYTES 8192

    .section .multiboot, "a"
    .align 4
    .long MULTIBOOT_HEADER_MAGIC
    .long MULTIBOOT_HEADER_FLAGS
    .long -(MULTIBOOT_HEADER_MAGIC + MULTIBOOT_HEADER_FLAGS)

    .text
    .globl _start
_start:
    cli
    cld
    movl $stack_top, %esp
    /* The loader's descriptor table may be gone; interrupts reload %cs, so it must be ours. */
    lgdt gdt_pointer
    ljmp $0x08, $1f
1:  movw $0x10, %dx
    movw %dx, %ds
    movw %dx, %es
    movw %dx, %fs
    movw %dx, %gs
    movw %dx, %ss
    pushl %ebx /* multiboot information */
    pushl %eax /* loader's magic number */
    call guest_main

    .globl timer_entry
timer_entry:
    pusha
    cld
    call timer_interrupt
    popa
    /* fall through */
    .globl ignored_entry
ignored_entry:
    iret

    /* Never returns, so the error code that some exceptions push does not matter. */
    .globl exception_entry
exception_entry:
    cld
    call exception

    .section .rodata
    .align 8
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff /* 0x08: code, base 0, 4 GiB */
    .quad 0x00cf92000000ffff /* 0x10: data, base 0, 4 GiB */
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

    .bss
    .align 16
    .skip STACK_BYTES
stack_top:

    .section .note.GNU-stack, "", @progbits

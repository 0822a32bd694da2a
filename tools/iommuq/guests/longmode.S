/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The firmware of the guest that accel.py boots: from reset to 64 bit code with
 * paging, then tell QEMU to exit. It lies at 0xf0000. test_accel.py sees to it
 * that accel.py has the bytes of this file.
 */
	.code16
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	/* Page tables at 0x1000, 0x2000 and 0x3000: the first 2 MiB, 1:1 */
	movw	$0x1000, %di
	movw	$0x1800, %cx
	xorl	%eax, %eax
	cld
	rep stosw
	movl	$0x2003, 0x1000
	movl	$0x3003, 0x2000
	movl	$0x0083, 0x3000
	movl	$0x1000, %eax
	movl	%eax, %cr3
	movl	%cr4, %eax
	orl	$0x20, %eax			/* PAE */
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx		/* EFER */
	rdmsr
	orl	$0x100, %eax			/* LME */
	wrmsr
	lgdtl	%cs:gdtr
	movl	%cr0, %eax
	orl	$0x80000001, %eax		/* PG, PE */
	movl	%eax, %cr0
	ljmpl	$8, $(0xf0000 + long)
	.code64
long:
	movw	$0xf4, %dx			/* isa-debug-exit */
	movb	$0x10, %al
	outb	%al, %dx
	hlt
	.balign	8
gdt:	.quad	0
	.quad	0x00209a0000000000		/* 64 bit code */
gdtr:	.word	15
	.long	0xf0000 + gdt

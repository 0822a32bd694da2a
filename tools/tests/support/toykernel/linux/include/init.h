/* SPDX-License-Identifier: GPL-2.0-only */
#define __uml_exitcall(fn) \
	__attribute__((destructor)) static void __uml_exitcall_##fn(void) { fn(); }

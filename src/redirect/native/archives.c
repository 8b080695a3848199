/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symbols that the static archives of libbpf and libelf need in a shared object. Debian builds them for
 * executables, which access two kinds of variables differently, and omits a part of libelf 0.192
 * (Debian 13).
 */

/*
 * libbpf prints to it until a print function is set, which the addon does first. Hidden, so that the
 * archive's reference resolves here and not to another object.
 */
struct _IO_FILE *stderr __attribute__((visibility("hidden")));

/*
 * The only thread-local variable of libelf, its error number, with the three functions that use it: the
 * linker uses these and leaves that member of the archive out. libelf reads only the object file inside
 * this program, so the text "unreadable" is sufficient.
 */
static _Thread_local int last_error;

void __libelf_seterrno(int value);
int elf_errno(void);
const char *elf_errmsg(int error);

void __libelf_seterrno(int value)
{
	last_error = value;
}

int elf_errno(void)
{
	int error = last_error;

	last_error = 0;
	return error;
}

const char *elf_errmsg(int error)
{
	return error == 0 ? "no error" : "unreadable object file";
}

/*
 * A tree for raw chunks, which is not used here. Weak, so that an archive with the real function
 * overrides it.
 */
void eu_search_tree_init(void *tree, void *compare);
void eu_search_tree_fini(void *tree, void *free_node);

__attribute__((weak)) void eu_search_tree_init(void *tree, void *compare)
{
	(void)tree;
	(void)compare;
}

__attribute__((weak)) void eu_search_tree_fini(void *tree, void *free_node)
{
	(void)tree;
	(void)free_node;
}

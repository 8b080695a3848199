/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the static archives of libbpf and libelf need to be linked into a shared object. Debian
 * builds them for executables, and two kinds of variable are reached differently there; of libelf
 * 0.192 (Debian 13) it leaves a part out.
 */

/*
 * libbpf prints to it until a printer is set; the addon sets one before anything else. Hidden, so
 * that the archive's reference ends here and is none to another object.
 */
struct _IO_FILE *stderr __attribute__((visibility("hidden")));

/*
 * The one thread-local variable of libelf, its error number, with the three functions that use it:
 * the linker takes them from here and leaves that member of the archive out. Nothing but the object
 * file inside of this program is ever read with it, so "unreadable" says it all.
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
 * A tree for raw chunks, which nobody here asks for. Weak, so that an archive that has the real one
 * may bring it.
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

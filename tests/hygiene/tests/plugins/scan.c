/*
 * Looks through every block of memory that is given back, by whomever in the process. Loaded before
 * everything else, its `free` is everybody's: the program's, and that of each library in it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define PIECE 12
#define MOST 64

extern void __libc_free(void *block);

static unsigned char pieces[MOST][PIECE];
static atomic_size_t used, hits, blocks, of_plugins;

/* Looks for these from now on. One looks at a time. */
void scan_begin(const unsigned char *text, size_t count)
{
    memcpy(pieces, text, count * PIECE);
    hits = blocks = of_plugins = 0;
    used = count;
}

/* Blocks that were given back with a piece in them, in all, and by libraries loaded from memory. */
void scan_end(size_t seen[3])
{
    used = 0;
    seen[0] = hits;
    seen[1] = blocks;
    seen[2] = of_plugins;
}

static void look(void *block, void *caller)
{
    Dl_info where;
    size_t count = used, len = malloc_usable_size(block);
    blocks++;
    if (dladdr(caller, &where) != 0 && strncmp(where.dli_fname, "/proc/self/fd/", 14) == 0)
        of_plugins++;
    for (size_t i = 0; i < count; i++) {
        if (memmem(block, len, pieces[i], PIECE) != NULL) {
            hits++;
            return;
        }
    }
}

void free(void *block)
{
    if (block != NULL && used > 0)
        look(block, __builtin_return_address(0));
    __libc_free(block);
}

/* A block that grows counts as moved and given back, which it may be. */
void *realloc(void *block, size_t size)
{
    void *moved = size > 0 ? calloc(1, size) : NULL;
    if (block != NULL && (moved != NULL || size == 0)) {
        size_t len = malloc_usable_size(block);
        if (moved != NULL)
            memcpy(moved, block, len < size ? len : size);
        if (used > 0)
            look(block, __builtin_return_address(0));
        __libc_free(block);
    }
    return moved;
}

/* Zeroed, so that what an earlier owner left is not taken for this one's. */
void *malloc(size_t size)
{
    return calloc(1, size);
}

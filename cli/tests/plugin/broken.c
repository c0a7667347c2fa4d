/* The jar, with the one mistake that is defined. */
#define keyhaul_plugin_entry jar_entry
#include "jar.c"
#undef keyhaul_plugin_entry

#include <stdio.h>
#include <unistd.h>

const keyhaul_plugin *keyhaul_plugin_entry(const keyhaul_host *host);

static keyhaul_plugin broken;

#if defined FORGETS_TO_DELETE
static uint32_t forget(void *store, const keyhaul_call *call, keyhaul_str path,
                       const keyhaul_delete_options *options, keyhaul_sink sink)
{
    (void)store, (void)call, (void)path, (void)options, (void)sink;
    return KEYHAUL_OK;
}
#endif

#if defined CRASHES_IN_LIST || defined EXITS_IN_LIST || defined HANGS_IN_LIST
static uint32_t last_list(void *store, const keyhaul_call *call, keyhaul_str prefix,
                          const keyhaul_list_options *options, keyhaul_sink sink)
{
    (void)store, (void)call, (void)prefix, (void)options, (void)sink;
#if defined CRASHES_IN_LIST
    *(volatile int *)8 = 1;
#elif defined EXITS_IN_LIST
    exit(0);
#else
    for (;;)
        pause();
#endif
    return KEYHAUL_OK;
}
#endif

#if defined LEAKS
/* The value, in the words of an error. */
static uint32_t leak(void *store, const keyhaul_call *call, keyhaul_str path, keyhaul_bytes value,
                     const keyhaul_put_options *options, keyhaul_sink sink)
{
    keyhaul_str words = { value.ptr, value.len }, none = { NULL, 0 };
    uint32_t status = jar_put(store, call, path, value, options, sink);
    if (status != KEYHAUL_OK)
        sink.to->error(sink.context, words, none, 0);
    return status;
}
#endif

#if defined CRASHES_AT_LOAD || defined EXITS_AT_LOAD || defined FAILS_AT_LOAD || \
    defined HANGS_AT_LOAD
__attribute__((constructor)) static void begin(void)
{
#if defined CRASHES_AT_LOAD
    abort();
#elif defined EXITS_AT_LOAD
    exit(0);
#elif defined FAILS_AT_LOAD
    exit(3);
#else
    fprintf(stderr, "a library that hangs when it is loaded\n");
    for (;;)
        pause();
#endif
}
#endif

#if defined HANGS_AT_END
__attribute__((destructor)) static void end(void)
{
    for (;;)
        pause();
}
#endif

const keyhaul_plugin *keyhaul_plugin_entry(const keyhaul_host *host)
{
    broken = *jar_entry(host);
    /* What a library prints must not be mixed into what keyhaul prints. */
    printf("a library's own words\n");
    fflush(stdout);
#if defined FORGETS_TO_DELETE
    broken.remove = forget;
#elif defined CRASHES_IN_LIST || defined EXITS_IN_LIST || defined HANGS_IN_LIST
    broken.list = last_list;
#elif defined LEAKS
    broken.put = leak;
#elif defined OF_ANOTHER_TIME
    broken.head.major = 2;
#endif
    return &broken;
}

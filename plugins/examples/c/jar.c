/*
 * A plugin of keyhaul in C: a jar that keeps secrets in memory, for as long as the program runs.
 *
 *     cc -std=c99 -fPIC -shared -I plugins/abi/include -o libjar.so plugins/examples/c/jar.c -lpthread
 *
 * A list in the order of the paths, under one lock. The host makes values (there is no `generate`),
 * asks for many one by one (no `get_many`), and never asks for what `capabilities` leaves out.
 * What is in the jar at first, the policy says:
 *
 *     options = { contents = "file:/etc/keyhaul/jar" }
 */
#define _DEFAULT_SOURCE /* explicit_bzero */
#include <keyhaul_plugin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST 65536

struct secret {
    struct secret *next;
    uint8_t *path, *value;
    size_t path_len, value_len;
    uint64_t version;
};

struct jar {
    pthread_mutex_t lock;
    struct secret *first;
    uint64_t written;
};

static const keyhaul_host *host;

/* A line in keyhaul's log, where the host takes any. Never a byte of a secret. */
static void say(const char *text)
{
    keyhaul_str line = { (const uint8_t *)text, strlen(text) };
    if (KEYHAUL_HAS(host, log) && host->log != NULL)
        host->log(KEYHAUL_LOG_INFO, line);
}

/* Answers with an error: the status, and what to tell a person. */
static uint32_t fail(keyhaul_sink sink, uint32_t status, const char *message)
{
    keyhaul_str words = { (const uint8_t *)message, strlen(message) }, none = { NULL, 0 };
    sink.to->error(sink.context, words, none, 0);
    return status;
}

/* Answers with the metadata of a secret: its version. */
static uint32_t tell(keyhaul_sink sink, uint64_t version)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%llu", (unsigned long long)version);
    keyhaul_pair pair = { KEYHAUL_STR("version"), { (const uint8_t *)text, (size_t)len } };
    return sink.to->metadata(sink.context, &pair, 1);
}

/* Byte order, as memcmp has it, and the shorter one first. */
static int compare(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

/* The link to the first secret that does not come before this path. */
static struct secret **find(struct jar *jar, keyhaul_str path, int *is_there)
{
    struct secret **link = &jar->first;
    int order = 1;
    while (*link != NULL) {
        order = compare((*link)->path, (*link)->path_len, path.ptr, path.len);
        if (order >= 0)
            break;
        link = &(*link)->next;
    }
    *is_there = *link != NULL && order == 0;
    return link;
}

/* Whoever allocates a secret's memory wipes it. */
static void release(struct secret *secret)
{
    explicit_bzero(secret->value, secret->value_len);
    free(secret->value);
    free(secret->path);
    free(secret);
}

/* A copy of what is lent, or NULL. An empty one is not NULL. */
static uint8_t *copy(const uint8_t *bytes, size_t len)
{
    uint8_t *made = malloc(len > 0 ? len : 1);
    if (made != NULL && len > 0)
        memcpy(made, bytes, len);
    return made;
}

/* Puts a secret into the jar, and says which version it is. */
static uint32_t keep(struct jar *jar, keyhaul_str path, keyhaul_bytes value, uint32_t mode,
                     uint64_t *version)
{
    struct secret *made = calloc(1, sizeof *made), *old = NULL;
    int is_there;
    if (made != NULL) {
        made->path = copy(path.ptr, path.len);
        made->value = copy(value.ptr, value.len);
        made->path_len = path.len;
        made->value_len = made->value != NULL ? value.len : 0;
    }
    if (made == NULL || made->path == NULL || made->value == NULL) {
        if (made != NULL)
            release(made);
        return KEYHAUL_STORAGE_FULL;
    }
    pthread_mutex_lock(&jar->lock);
    struct secret **link = find(jar, path, &is_there);
    if (is_there && mode == KEYHAUL_PUT_CREATE) {
        pthread_mutex_unlock(&jar->lock);
        release(made);
        return KEYHAUL_ALREADY_EXISTS;
    }
    if (is_there)
        old = *link;
    *version = made->version = ++jar->written;
    made->next = old != NULL ? old->next : *link;
    *link = made;
    pthread_mutex_unlock(&jar->lock);
    if (old != NULL)
        release(old);
    return KEYHAUL_OK;
}

/* Puts the jar's first secrets into it: a line for each, its path, a space and its value. */
static uint32_t fill(struct jar *jar, keyhaul_bytes contents)
{
    const uint8_t *line = contents.ptr, *end = contents.len > 0 ? line + contents.len : line;
    while (line < end) {
        size_t len = (size_t)(end - line);
        const uint8_t *stop = memchr(line, '\n', len);
        if (stop != NULL)
            len = (size_t)(stop - line);
        const uint8_t *space = memchr(line, ' ', len);
        if (space == NULL || space == line)
            return KEYHAUL_INVALID_CONFIG;
        keyhaul_str path = { line, (size_t)(space - line) };
        keyhaul_bytes value = { space + 1, len - path.len - 1 };
        uint64_t version;
        uint32_t status = value.len > LARGEST
                              ? KEYHAUL_TOO_LARGE
                              : keep(jar, path, value, KEYHAUL_PUT_CREATE, &version);
        if (status != KEYHAUL_OK)
            return status;
        line += stop != NULL ? len + 1 : len;
    }
    return KEYHAUL_OK;
}

static void jar_close(void *store)
{
    struct jar *jar = store;
    while (jar->first != NULL) {
        struct secret *secret = jar->first;
        jar->first = secret->next;
        release(secret);
    }
    pthread_mutex_destroy(&jar->lock);
    free(jar);
}

static uint32_t jar_open(const keyhaul_call *call, const keyhaul_opening *opening, keyhaul_sink sink,
                         void **store)
{
    struct jar *jar = calloc(1, sizeof *jar);
    keyhaul_str name = KEYHAUL_STR("contents");
    keyhaul_bytes contents = { NULL, 0 };
    (void)call;
    if (jar == NULL)
        return fail(sink, KEYHAUL_STORAGE_FULL, "no memory for a jar");
    if (pthread_mutex_init(&jar->lock, NULL) != 0) {
        free(jar);
        return fail(sink, KEYHAUL_UNAVAILABLE, "no lock for a jar");
    }
    uint32_t status = opening->credential(opening->context, name, &contents);
    if (status == KEYHAUL_OK) {
        status = fill(jar, contents);
        if (status == KEYHAUL_OK)
            say("the jar has been filled");
        else
            fail(sink, status, "each line of `contents` is a path, a space and a value");
    } else if (status == KEYHAUL_NOT_FOUND) {
        /* The policy names no contents: the jar is empty. */
        status = KEYHAUL_OK;
    }
    if (status != KEYHAUL_OK) {
        jar_close(jar);
        return status;
    }
    *store = jar;
    return KEYHAUL_OK;
}

static uint32_t jar_capabilities(void *store, const keyhaul_call *call, keyhaul_sink sink)
{
    (void)store, (void)call;
    return sink.to->capabilities(sink.context,
                                 KEYHAUL_CAN_READ | KEYHAUL_CAN_WRITE | KEYHAUL_CAN_CREATE |
                                     KEYHAUL_CAN_DELETE | KEYHAUL_CAN_LIST,
                                 LARGEST);
}

static uint32_t jar_get(void *store, const keyhaul_call *call, keyhaul_str path,
                        const keyhaul_get_options *options, keyhaul_sink sink)
{
    struct jar *jar = store;
    uint32_t status = KEYHAUL_NOT_FOUND;
    int is_there;
    (void)call, (void)options;
    pthread_mutex_lock(&jar->lock);
    struct secret *secret = *find(jar, path, &is_there);
    if (is_there) {
        keyhaul_bytes value = { secret->value, secret->value_len };
        status = sink.to->value(sink.context, value);
        if (status == KEYHAUL_OK)
            status = tell(sink, secret->version);
    }
    pthread_mutex_unlock(&jar->lock);
    return is_there ? status : fail(sink, status, "no such secret in the jar");
}

static uint32_t jar_stat(void *store, const keyhaul_call *call, keyhaul_str path,
                         const keyhaul_get_options *options, keyhaul_sink sink)
{
    struct jar *jar = store;
    int is_there;
    (void)call, (void)options;
    pthread_mutex_lock(&jar->lock);
    struct secret *secret = *find(jar, path, &is_there);
    uint64_t version = is_there ? secret->version : 0;
    pthread_mutex_unlock(&jar->lock);
    return is_there ? tell(sink, version)
                    : fail(sink, KEYHAUL_NOT_FOUND, "no such secret in the jar");
}

static uint32_t jar_put(void *store, const keyhaul_call *call, keyhaul_str path, keyhaul_bytes value,
                        const keyhaul_put_options *options, keyhaul_sink sink)
{
    uint64_t version;
    uint32_t status = keep(store, path, value, options->mode, &version);
    (void)call;
    if (status == KEYHAUL_ALREADY_EXISTS)
        return fail(sink, status, "there is a secret already");
    return status == KEYHAUL_OK ? tell(sink, version) : fail(sink, status, "the jar is full");
}

static uint32_t jar_remove(void *store, const keyhaul_call *call, keyhaul_str path,
                           const keyhaul_delete_options *options, keyhaul_sink sink)
{
    struct jar *jar = store;
    struct secret *old = NULL;
    int is_there;
    (void)call, (void)options, (void)sink;
    pthread_mutex_lock(&jar->lock);
    struct secret **link = find(jar, path, &is_there);
    if (is_there) {
        old = *link;
        *link = old->next;
    }
    pthread_mutex_unlock(&jar->lock);
    if (old != NULL)
        release(old);
    return KEYHAUL_OK;
}

/* One thing that a page lists: so many bytes of a secret's path, and whether they are a folder. */
struct entry {
    const uint8_t *path;
    size_t len;
    uint32_t folder;
};

/* In the order of paths; where two are the same, the secret before the folder. */
static int compare_entries(const void *a, const void *b)
{
    const struct entry *one = a, *other = b;
    int order = compare(one->path, one->len, other->path, other->len);
    return order != 0 ? order : (int)one->folder - (int)other->folder;
}

/* What a secret is listed as below a prefix: itself, or the folder that it is in. */
static int entry_of(const struct secret *secret, keyhaul_str prefix, uint32_t shallow,
                    struct entry *entry)
{
    size_t begin = prefix.len > 0 ? prefix.len + 1 : 0;
    if (secret->path_len <= begin)
        return 0;
    if (begin > 0 && (memcmp(secret->path, prefix.ptr, prefix.len) != 0 ||
                      secret->path[prefix.len] != '/'))
        return 0;
    entry->path = secret->path;
    entry->len = secret->path_len;
    entry->folder = 0;
    const uint8_t *slash = shallow ? memchr(secret->path + begin, '/', secret->path_len - begin) : NULL;
    if (slash != NULL) {
        entry->len = (size_t)(slash - secret->path);
        entry->folder = 1;
    }
    return 1;
}

/* A cursor is a page's last entry: `-` for a secret or `+` for a folder, and its path. */
static uint32_t tell_next(keyhaul_sink sink, const struct entry *last)
{
    uint8_t *cursor = malloc(last->len + 1);
    if (cursor == NULL)
        return fail(sink, KEYHAUL_UNAVAILABLE, "no memory for a page");
    cursor[0] = last->folder ? '+' : '-';
    memcpy(cursor + 1, last->path, last->len);
    keyhaul_str text = { cursor, last->len + 1 };
    uint32_t status = sink.to->next(sink.context, text);
    free(cursor);
    return status;
}

static uint32_t tell_page(struct jar *jar, keyhaul_str prefix, const keyhaul_list_options *options,
                          const struct entry *after, struct entry *entries, keyhaul_sink sink)
{
    size_t limit = options->limit > 0 ? options->limit : 1000, len = 0, told = 0;
    struct entry *last = NULL;
    for (struct secret *secret = jar->first; secret != NULL; secret = secret->next)
        len += (size_t)entry_of(secret, prefix, options->shallow, &entries[len]);
    /* A folder does not stand where the secrets in it do: `a/b` comes after `a!`. */
    if (len > 0)
        qsort(entries, len, sizeof *entries, compare_entries);
    for (size_t i = 0; i < len; i++) {
        if ((after != NULL && compare_entries(&entries[i], after) <= 0) ||
            (i > 0 && compare_entries(&entries[i], &entries[i - 1]) == 0))
            continue;
        if (told == limit)
            return tell_next(sink, last);
        keyhaul_str path = { entries[i].path, entries[i].len };
        uint32_t status = sink.to->entry(sink.context, path, entries[i].folder);
        if (status != KEYHAUL_OK)
            return status;
        last = &entries[i];
        told++;
    }
    return KEYHAUL_OK;
}

static uint32_t jar_list(void *store, const keyhaul_call *call, keyhaul_str prefix,
                         const keyhaul_list_options *options, keyhaul_sink sink)
{
    struct jar *jar = store;
    struct entry after = { NULL, 0, 0 };
    size_t count = 0;
    uint32_t status;
    (void)call;
    if (options->after.ptr != NULL) {
        if (options->after.len < 2 || (options->after.ptr[0] != '+' && options->after.ptr[0] != '-'))
            return fail(sink, KEYHAUL_INVALID_REFERENCE, "no page of this jar ended there");
        after.path = options->after.ptr + 1;
        after.len = options->after.len - 1;
        after.folder = options->after.ptr[0] == '+';
    }
    pthread_mutex_lock(&jar->lock);
    for (struct secret *secret = jar->first; secret != NULL; secret = secret->next)
        count++;
    struct entry *entries = calloc(count + 1, sizeof *entries);
    if (entries == NULL)
        status = fail(sink, KEYHAUL_UNAVAILABLE, "no memory for a page");
    else
        status = tell_page(jar, prefix, options, after.path != NULL ? &after : NULL, entries, sink);
    free(entries);
    pthread_mutex_unlock(&jar->lock);
    return status;
}

static const keyhaul_option options[] = {
    { KEYHAUL_STR("contents"), KEYHAUL_STR("none: the jar is empty"),
      KEYHAUL_STR("What is in the jar at first: a line for each secret, its path, a space and its value."),
      KEYHAUL_OPTION_CREDENTIAL, 0 },
};

static const keyhaul_plugin plugin = {
    .head = KEYHAUL_HEAD(keyhaul_plugin),
    .name = KEYHAUL_STR("jar-in-c"),
    .version = KEYHAUL_STR("1.0"),
    .summary = KEYHAUL_STR("a jar in memory, the same at every start"),
    .options = options,
    .options_len = 1,
    .option_size = sizeof(keyhaul_option),
    .open = jar_open,
    .close = jar_close,
    .capabilities = jar_capabilities,
    .get = jar_get,
    .stat = jar_stat,
    .put = jar_put,
    .remove = jar_remove,
    .list = jar_list,
};

const keyhaul_plugin *keyhaul_plugin_entry(const keyhaul_host *shown)
{
    host = shown;
    return host->head.major == KEYHAUL_MAJOR ? &plugin : NULL;
}

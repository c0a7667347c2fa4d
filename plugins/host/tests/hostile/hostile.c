/*
 * A plugin that does what no plugin may, one thing for each path that it is asked for. What is wrong
 * with its table is given when it is compiled: TWEAK, and ANSWER for the entry.
 */
#define _DEFAULT_SOURCE
#include <keyhaul_plugin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef TWEAK
#define TWEAK (void)0
#endif
#ifndef ANSWER
#define ANSWER &table
#endif

struct store {
    char name[64];
    char gate[512];
    keyhaul_sink kept;
};

static const keyhaul_host *host;

/* The host's threads, as many as it has for one plugin. */
#define THREADS 16

/* What all stores of this library share. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_key_t key;
static int stores;
static char puts_made[64];

static int is(keyhaul_str text, const char *word)
{
    return text.len == strlen(word) && memcmp(text.ptr, word, text.len) == 0;
}

static void copy(char *to, size_t room, keyhaul_str text)
{
    size_t len = text.len < room - 1 ? text.len : room - 1;
    memcpy(to, text.ptr, len);
    to[len] = 0;
}

static uint32_t give(keyhaul_sink sink, const char *text)
{
    keyhaul_bytes value = { (const uint8_t *)text, strlen(text) };
    return sink.to->value(sink.context, value);
}

static uint32_t say(keyhaul_sink sink, const char *text, size_t len)
{
    keyhaul_str words = { (const uint8_t *)text, len }, none = { NULL, 0 };
    sink.to->error(sink.context, words, none, 0);
    return KEYHAUL_UNAVAILABLE;
}

static void nap(void)
{
    struct timespec moment = { 0, 2000000 };
    nanosleep(&moment, NULL);
}

static void wait_for(const char *gate)
{
    while (access(gate, F_OK) != 0)
        nap();
}

/* What the host is to take for a mistake, and not to read. */
#define NOWHERE ((const uint8_t *)4096)

static uint32_t ask_into(const keyhaul_opening *opening, const void *place)
{
    keyhaul_str name = KEYHAUL_STR("pin");
    return opening->credential(opening->context, name, (keyhaul_bytes *)place);
}

static uint32_t h_open(const keyhaul_call *call, const keyhaul_opening *opening, keyhaul_sink sink,
                       void **out)
{
    struct store *store = calloc(1, sizeof *store);
    (void)call, (void)sink;
    if (store == NULL)
        return KEYHAUL_STORAGE_FULL;
    copy(store->name, sizeof store->name, opening->name);
    for (size_t i = 0; i < opening->options_len; i++)
        if (is(opening->options[i].name, "gate"))
            copy(store->gate, sizeof store->gate, opening->options[i].value);
    if (strcmp(store->name, "hangs-at-open") == 0)
        wait_for(store->gate);
    if (strcmp(store->name, "odd-status") == 0) {
        free(store);
        return 99;
    }
    if (strcmp(store->name, "asks-nowhere") == 0 || strcmp(store->name, "asks-constant") == 0) {
        static const keyhaul_bytes constant = { NULL, 7 };
        uint32_t status = ask_into(opening, store->name[5] == 'n' ? (const void *)NOWHERE : &constant);
        free(store);
        return status == KEYHAUL_OK || constant.len != 7 ? 98 : status;
    }
    if (strcmp(store->name, "faults-at-open") == 0 && access(store->gate, F_OK) != 0) {
        give(sink, "one");
        give(sink, "two");
    }
    pthread_mutex_lock(&lock);
    stores++;
    pthread_mutex_unlock(&lock);
    *out = store;
    return KEYHAUL_OK;
}

static void h_close(void *store)
{
    pthread_mutex_lock(&lock);
    stores--;
    pthread_mutex_unlock(&lock);
    free(store);
}

static uint32_t h_capabilities(void *self, const keyhaul_call *call, keyhaul_sink sink)
{
    struct store *store = self;
    (void)call;
    if (strcmp(store->name, "says-nothing") == 0)
        return KEYHAUL_OK;
    if (strcmp(store->name, "says-all") == 0)
        return sink.to->capabilities(sink.context, UINT64_MAX, UINT64_MAX);
    return sink.to->capabilities(sink.context, KEYHAUL_CAN_READ | KEYHAUL_CAN_LIST | KEYHAUL_CAN_WRITE,
                                 1024);
}

static void *elsewhere(void *sink)
{
    return give(*(keyhaul_sink *)sink, "elsewhere") == KEYHAUL_OK ? "taken" : "refused";
}

static uint32_t dangle(keyhaul_str path, keyhaul_sink sink)
{
    keyhaul_bytes value = { NOWHERE, 8 };
    keyhaul_str text = { NOWHERE, 8 };
    keyhaul_pair pair = { KEYHAUL_STR("version"), { NOWHERE, 8 } };
    if (is(path, "nowhere/value"))
        return sink.to->value(sink.context, value);
    if (is(path, "nowhere/pairs"))
        return sink.to->metadata(sink.context, (const keyhaul_pair *)NOWHERE, 1);
    if (is(path, "nowhere/odd-pairs"))
        return sink.to->metadata(sink.context, (const keyhaul_pair *)(NOWHERE + 1), 1);
    if (is(path, "nowhere/text"))
        return sink.to->metadata(sink.context, &pair, 1);
    sink.to->error(sink.context, text, text, 0);
    return KEYHAUL_UNAVAILABLE;
}

static void chatter(void)
{
    keyhaul_str line = KEYHAUL_STR("one\nline\x1b[31m"), nowhere = { NOWHERE, 8 };
    keyhaul_str endless = { line.ptr, SIZE_MAX }, forged = KEYHAUL_STR("plugin loaded path=/forged");
    host->log(KEYHAUL_LOG_WARN, forged);
    host->log(KEYHAUL_LOG_WARN, line);
    host->log(KEYHAUL_LOG_WARN, nowhere);
    host->log(KEYHAUL_LOG_WARN, endless);
    host->log(4711, line);
}

static void flood(void)
{
    keyhaul_str line = KEYHAUL_STR("and so on");
    for (int i = 0; i < 1000; i++)
        host->log(KEYHAUL_LOG_WARN, line);
}

/* When a thread ends: what the host keeps for it is gone already. */
static void last_words(void *sink)
{
    keyhaul_str line = KEYHAUL_STR("last words");
    host->log(KEYHAUL_LOG_WARN, line);
    give(*(keyhaul_sink *)sink, "last");
}

static void *ends(void *sink)
{
    keyhaul_str line = KEYHAUL_STR("words before");
    host->log(KEYHAUL_LOG_WARN, line);
    pthread_setspecific(key, sink);
    return NULL;
}

static uint32_t number(keyhaul_sink sink, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    return give(sink, text);
}

static uint32_t h_put(void *self, const keyhaul_call *call, keyhaul_str path, keyhaul_bytes value,
                      const keyhaul_put_options *options, keyhaul_sink sink)
{
    (void)self, (void)call, (void)path, (void)options;
    pthread_mutex_lock(&lock);
    strncat(puts_made, (const char *)value.ptr, value.len);
    pthread_mutex_unlock(&lock);
    return sink.to->metadata(sink.context, NULL, 0);
}

static uint32_t h_get(void *self, const keyhaul_call *call, keyhaul_str path,
                      const keyhaul_get_options *options, keyhaul_sink sink)
{
    static char words[100000];
    struct store *store = self;
    (void)options;
    if (is(path, "fine"))
        return give(sink, "fine");
    if (is(path, "never"))
        return KEYHAUL_OK;
    if (is(path, "twice")) {
        give(sink, "one");
        give(sink, "two");
        return KEYHAUL_OK;
    }
    if (is(path, "value-and-error")) {
        give(sink, "hunter2");
        return KEYHAUL_NOT_FOUND;
    }
    if (is(path, "keep")) {
        store->kept = sink;
        return give(sink, "kept");
    }
    if (is(path, "late"))
        return give(sink, give(store->kept, "late") == KEYHAUL_OK ? "taken" : "refused");
    if (is(path, "thread")) {
        pthread_t thread;
        void *said = "none";
        if (pthread_create(&thread, NULL, elsewhere, &sink) == 0)
            pthread_join(thread, &said);
        return give(sink, said);
    }
    if (is(path, "hang")) {
        wait_for(store->gate);
        return give(sink, "back");
    }
    if (is(path, "slow")) {
        nap();
        return give(sink, "slow");
    }
    if (path.len > 8 && memcmp(path.ptr, "nowhere/", 8) == 0)
        return dangle(path, sink);
    if (is(path, "chatter")) {
        chatter();
        return give(sink, "said");
    }
    if (is(path, "flood")) {
        flood();
        return give(sink, "said");
    }
    if (is(path, "last-words")) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, ends, &sink) == 0)
            pthread_join(thread, NULL);
        return give(sink, "said");
    }
    if (is(path, "stores"))
        return number(sink, (uint64_t)stores);
    if (is(path, "deadline"))
        return number(sink, call->deadline_ms);
    if (is(path, "puts"))
        return give(sink, puts_made);
    if (is(path, "together")) {
        pthread_barrier_wait(&barrier);
        return give(sink, "together");
    }
    if (is(path, "patience")) {
        keyhaul_str words = KEYHAUL_STR("wait"), none = { NULL, 0 };
        sink.to->error(sink.context, words, none, UINT64_MAX);
        return KEYHAUL_RATE_LIMITED;
    }
    if (is(path, "lease")) {
        keyhaul_pair pairs[] = { { KEYHAUL_STR("lease-id"), KEYHAUL_STR("x") },
                                 { KEYHAUL_STR("lease-duration"), KEYHAUL_STR("18446744073709551615") },
                                 { KEYHAUL_STR("expires"), KEYHAUL_STR("9999-12-30T22:00:00Z") } };
        give(sink, "lent");
        return sink.to->metadata(sink.context, pairs, 3);
    }
    if (is(path, "words-and-value")) {
        say(sink, "not so bad", 10);
        return give(sink, "served");
    }
    if (is(path, "length") || is(path, "null")) {
        keyhaul_bytes value = { is(path, "null") ? NULL : (const uint8_t *)"x",
                                is(path, "null") ? 1 : SIZE_MAX };
        return sink.to->value(sink.context, value);
    }
    if (is(path, "status"))
        return 77;
    if (is(path, "not-utf8"))
        return say(sink, "a\xff\x1b[31mb", 8);
    if (is(path, "long-words")) {
        memset(words, 'w', sizeof words);
        return say(sink, words, sizeof words);
    }
    if (is(path, "pairs")) {
        keyhaul_pair pair = { KEYHAUL_STR("version"), KEYHAUL_STR("\xff") };
        give(sink, "x");
        return sink.to->metadata(sink.context, &pair, 1);
    }
    if (is(path, "many-pairs")) {
        keyhaul_pair pair = { KEYHAUL_STR("version"), KEYHAUL_STR("1") };
        give(sink, "x");
        return sink.to->metadata(sink.context, &pair, SIZE_MAX / 64);
    }
    if (is(path, "wrong-context")) {
        keyhaul_bytes value = { (const uint8_t *)"x", 1 };
        sink.to->value((void *)0x1234, value);
        return sink.to->value(NULL, value);
    }
    return KEYHAUL_NOT_FOUND;
}

static uint32_t h_stat(void *store, const keyhaul_call *call, keyhaul_str path,
                       const keyhaul_get_options *options, keyhaul_sink sink)
{
    (void)store, (void)call, (void)path, (void)options, (void)sink;
    return KEYHAUL_OK;
}

static uint32_t h_list(void *store, const keyhaul_call *call, keyhaul_str prefix,
                       const keyhaul_list_options *options, keyhaul_sink sink)
{
    keyhaul_str path = KEYHAUL_STR("endless/a"), one = KEYHAUL_STR("turn/a"), two = KEYHAUL_STR("turn/b");
    (void)store, (void)call;
    if (is(prefix, "endless")) {
        char next[24];
        keyhaul_str text = { (const uint8_t *)next, 16 };
        unsigned count = 0;
        do
            snprintf(next, sizeof next, "endless/%08x", count++);
        while (sink.to->entry(sink.context, text, 0) == KEYHAUL_OK);
    }
    else if (is(prefix, "turn")) {
        /* Never where it began, and never at an end. */
        sink.to->entry(sink.context, one, 0);
        sink.to->next(sink.context, options->after.ptr != NULL && is(options->after, "turn/a") ? two : one);
    }
    else if (is(prefix, "outside"))
        sink.to->entry(sink.context, path, 0);
    else if (is(prefix, "circle"))
        sink.to->next(sink.context, path);
    else if (is(prefix, "nowhere")) {
        keyhaul_str nowhere = { NOWHERE, 8 };
        sink.to->entry(sink.context, nowhere, 0);
    }
    else {
        keyhaul_str odd = KEYHAUL_STR("odd/\xff");
        sink.to->entry(sink.context, odd, 0);
    }
    /* Whatever it was told. */
    return KEYHAUL_OK;
}

static keyhaul_option options[] = {
    { KEYHAUL_STR("gate"), KEYHAUL_STR("none"), KEYHAUL_STR("What a hang waits for."),
      KEYHAUL_OPTION_TEXT, 0 },
    { KEYHAUL_STR("pin"), KEYHAUL_STR("none"), KEYHAUL_STR("What is asked for, to a place that is none."),
      KEYHAUL_OPTION_CREDENTIAL, 0 },
};

static struct {
    keyhaul_plugin plugin;
    uint64_t later_versions[64];
} wide = { { .head = KEYHAUL_HEAD(keyhaul_plugin),
             .name = KEYHAUL_STR("hostile"),
             .version = KEYHAUL_STR("6.6"),
             .summary = KEYHAUL_STR("does what no plugin may"),
             .options = options,
             .options_len = 2,
             .option_size = sizeof(keyhaul_option),
             .open = h_open,
             .close = h_close,
             .capabilities = h_capabilities,
             .get = h_get,
             .stat = h_stat,
             .list = h_list },
           { 0 } };

#define table wide.plugin

const keyhaul_plugin *keyhaul_plugin_entry(const keyhaul_host *shown)
{
    (void)&table, (void)h_put;
    host = shown;
    pthread_barrier_init(&barrier, NULL, THREADS);
    pthread_key_create(&key, last_words);
    TWEAK;
    return ANSWER;
}

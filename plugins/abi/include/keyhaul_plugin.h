/*
 * The C interface of keyhaul's plugins. Made from the Rust types of keyhaul-plugin-abi; change those.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A plugin is a library that exports keyhaul_plugin_entry, which answers with a table of functions:
 *
 *     cc -fPIC -shared -o libmine.so mine.c
 *
 * A policy names it by its absolute path, without symbolic links. The file and every folder above it
 * belong to root or to the user that keyhaul runs as, and nobody else can write them:
 *
 *     [stores.mine]
 *     url     = "plugin:///usr/lib/keyhaul/libmine.so"
 *     options = { what = "the plugin declares" }
 *
 * Growth   Every table begins with a keyhaul_head. Fields are only ever appended. Read as much as
 *          the size says and take the rest as zeros: KEYHAUL_HAS tells. Another major version is
 *          refused.
 * Memory   None changes hands. Every pointer is borrowed until the call that it was given in
 *          returns. Whoever allocates a secret's memory wipes it.
 * Text     UTF-8 with a length, not ended by a zero. Absent is a null pointer.
 * Path     Names between slashes, at most 1024 bytes: `web01/root`. Opaque, case-sensitive, without
 *          control characters, empty names, `.` and `..`. Never empty, save as a listing's prefix.
 * Status   0, or an error's kind. Words come through sink.to->error before the call returns, and
 *          hold no byte of a secret. It is the status that decides: a value that came with an
 *          error is dropped.
 * Threads  The host calls from many threads at once, for one store too. They are its own, with a
 *          stack of 2 MiB and all signals blocked. Threads and programs that a plugin starts
 *          inherit that: unblock there what they wait for or are to end by. A sink answers on the
 *          thread of its call until that returns; everything else is refused and does no harm.
 * Time     A call may block. The host stops waiting at its own deadline; a call that has not come
 *          back by then keeps its thread. With 8 of those the plugin's stores are closed until some
 *          come back: ask sink.to->cancelled now and then where a call waits for long.
 * Never    A plugin that calls exit or abort, lets a C++ exception or a longjmp out of a function,
 *          or writes where it should not, takes the host with it.
 */

#ifndef KEYHAUL_PLUGIN_H
#define KEYHAUL_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

/* The head of a table, as in: static const keyhaul_plugin plugin = { KEYHAUL_HEAD(keyhaul_plugin), ... }; */
#define KEYHAUL_HEAD(type) { sizeof(type), KEYHAUL_MAJOR, KEYHAUL_MINOR, KEYHAUL_MAGIC }
/*
 * Whether the other side's table, by its pointer, has this field. To be asked before one is read
 * that a minor version has added: the table of an older host ends before it.
 */
#define KEYHAUL_HAS(table, field) \
    ((size_t)((const char *)&(table)->field - (const char *)(table)) + sizeof (table)->field <= \
     (table)->head.size)
/* A keyhaul_str's initialiser, from a literal. */
#define KEYHAUL_STR(literal) { (const uint8_t *)(literal), sizeof(literal) - 1 }
/* What the entry is declared with, where symbols are hidden by default. */
#if defined(__GNUC__)
#define KEYHAUL_EXPORT __attribute__((visibility("default")))
#else
#define KEYHAUL_EXPORT
#endif

// Another major version is another interface.
#define KEYHAUL_MAJOR 1

// What has been appended since the major version began.
#define KEYHAUL_MINOR 0

// What a table is known by: "khpl".
#define KEYHAUL_MAGIC 1802006636

// It is done.
#define KEYHAUL_OK 0

// The secret is there already, and the call was to create it.
#define KEYHAUL_ALREADY_EXISTS 1

// The version given is not the current one.
#define KEYHAUL_CONFLICT 2

// What is stored is damaged or foreign.
#define KEYHAUL_CORRUPT 3

// A defect. Every status that the host does not know counts as this one.
#define KEYHAUL_INTERNAL 4

// An option is wrong or missing.
#define KEYHAUL_INVALID_CONFIG 5

// The path or its use is wrong.
#define KEYHAUL_INVALID_REFERENCE 6

// There is no such secret, version or field, or it has expired.
#define KEYHAUL_NOT_FOUND 7

// The store knows who asks, and says no.
#define KEYHAUL_PERMISSION_DENIED 8

// The store asks for fewer requests.
#define KEYHAUL_RATE_LIMITED 9

// The store has no room.
#define KEYHAUL_STORAGE_FULL 10

// No answer in time. A retry can help.
#define KEYHAUL_TIMEOUT 11

// The value or the request is over a limit.
#define KEYHAUL_TOO_LARGE 12

// The store does not know who asks.
#define KEYHAUL_UNAUTHENTICATED 13

// The store cannot be reached or cannot serve now. A retry can help.
#define KEYHAUL_UNAVAILABLE 14

// The store cannot do that at all, as its capabilities say.
#define KEYHAUL_UNSUPPORTED 15

// `get`, `get_many` and `stat`.
#define KEYHAUL_CAN_READ 1

// `put` over anything or nothing.
#define KEYHAUL_CAN_WRITE 2

// `put` where there is nothing yet.
#define KEYHAUL_CAN_CREATE 4

// `put` over one version, and `delete` of one: compare and set.
#define KEYHAUL_CAN_UPDATE 8

// `delete`.
#define KEYHAUL_CAN_DELETE 16

// `list`.
#define KEYHAUL_CAN_LIST 32

// `generate`. The host adds it where there is a `put` and no `generate`, and makes the value itself.
#define KEYHAUL_CAN_GENERATE 64

// Versions other than the current one can be read.
#define KEYHAUL_CAN_VERSIONS 128

// Labels.
#define KEYHAUL_CAN_LABELS 256

// Secrets that expire.
#define KEYHAUL_CAN_EXPIRY 512

// Values that are maps of fields.
#define KEYHAUL_CAN_FIELDS 1024

// Writes that can be repeated under the same idempotency id.
#define KEYHAUL_CAN_IDEMPOTENT 2048

// `generate` makes the value at the store's end.
#define KEYHAUL_CAN_GENERATES_REMOTELY 4096

// `put`: anything or nothing may be there.
#define KEYHAUL_PUT_OVERWRITE 0

// `put`: nothing may be there, else KEYHAUL_ALREADY_EXISTS.
#define KEYHAUL_PUT_CREATE 1

// `put`: exactly the version given may be there, else KEYHAUL_CONFLICT; nothing at all is
// KEYHAUL_NOT_FOUND.
#define KEYHAUL_PUT_UPDATE 2

// A recipe's alphabet: A-Z, a-z, 0-9.
#define KEYHAUL_ALPHABET_ALPHANUMERIC 0

// A recipe's alphabet: any byte.
#define KEYHAUL_ALPHABET_BYTES 1

// A recipe's alphabet: 0-9, a-f.
#define KEYHAUL_ALPHABET_HEX 2

// An option: a text.
#define KEYHAUL_OPTION_TEXT 0

// An option: "true" or "false".
#define KEYHAUL_OPTION_BOOLEAN 1

// An option: a credential. The policy names its source, and the plugin asks for the bytes.
#define KEYHAUL_OPTION_CREDENTIAL 2

// An option: a duration, given in whole milliseconds.
#define KEYHAUL_OPTION_DURATION 3

// An option: a whole number, not negative.
#define KEYHAUL_OPTION_INTEGER 4

// An option: a list of texts, given as a pair for each.
#define KEYHAUL_OPTION_TEXTS 5

// A log line: something is broken.
#define KEYHAUL_LOG_ERROR 1

// A log line: something is odd.
#define KEYHAUL_LOG_WARN 2

// A log line: what an operator may want to know.
#define KEYHAUL_LOG_INFO 3

// A log line: what a developer may want to know.
#define KEYHAUL_LOG_DEBUG 4

// How every table begins.
typedef struct keyhaul_head {
  // The size in bytes of the table as its writer knows it, this head included.
  size_t size;
  // KEYHAUL_MAJOR, as the writer knows it.
  uint16_t major;
  // KEYHAUL_MINOR, as the writer knows it.
  uint16_t minor;
  // KEYHAUL_MAGIC.
  uint32_t magic;
} keyhaul_head;

// A text: UTF-8, not ended by a zero. Absent where `ptr` is null.
typedef struct keyhaul_str {
  // Where it begins.
  const uint8_t *ptr;
  // How many bytes it has.
  size_t len;
} keyhaul_str;

// An option that a plugin takes in the policy.
typedef struct keyhaul_option {
  // Its key in the table `options` of the policy.
  struct keyhaul_str name;
  // What holds where it is left out, in words.
  struct keyhaul_str fallback;
  // What it is for, as a sentence.
  struct keyhaul_str help;
  // What it takes: KEYHAUL_OPTION_TEXT and its like.
  uint32_t kind;
  // 0.
  uint32_t reserved;
} keyhaul_option;

// What every call carries.
typedef struct keyhaul_call {
  // How the table begins.
  struct keyhaul_head head;
  // How long the host still waits, in milliseconds. 0: it does not say.
  uint64_t deadline_ms;
  // The request's id, which ties log lines together. May be absent.
  struct keyhaul_str request;
  // Who asks, as the audit shows it. May be absent.
  struct keyhaul_str actor;
} keyhaul_call;

// A name and a text. Names that a reader does not know it passes over: that is how this grows.
typedef struct keyhaul_pair {
  // What it is about.
  struct keyhaul_str name;
  // What holds.
  struct keyhaul_str value;
} keyhaul_pair;

// A value's bytes. Whoever is lent them copies them into memory that is wiped, or nowhere.
typedef struct keyhaul_bytes {
  // Where they begin.
  const uint8_t *ptr;
  // How many there are.
  size_t len;
} keyhaul_bytes;

// How a store is opened.
typedef struct keyhaul_opening {
  // How the table begins.
  struct keyhaul_head head;
  // The store's name in the policy.
  struct keyhaul_str name;
  // The options that the policy gives, credentials left out. Each is one that the plugin
  // declares, and of its kind. A list has a pair for each of its texts.
  const struct keyhaul_pair *options;
  // How many pairs there are.
  size_t options_len;
  // What `credential` is told.
  void *context;
  // Gives a credential's bytes, lent until `open` returns. KEYHAUL_NOT_FOUND where the policy
  // has no such option; KEYHAUL_INVALID_CONFIG and others where its source cannot be read,
  // which is then best returned: the host knows the words. KEYHAUL_INTERNAL where `bytes` is no
  // memory that can be written.
  uint32_t (*credential)(void *context, struct keyhaul_str name, struct keyhaul_bytes *bytes);
} keyhaul_opening;

// What can be answered. Each function copies what it is lent, and says KEYHAUL_OK or why not; after
// a refusal the call cannot succeed any more, and is best ended.
typedef struct keyhaul_answers {
  // How the table begins.
  struct keyhaul_head head;
  // What the store can do, as KEYHAUL_CAN_ bits, and its longest value in bytes.
  uint32_t (*capabilities)(void *context, uint64_t can, uint64_t max_value);
  // The value. Once for each secret that was asked for.
  uint32_t (*value)(void *context, struct keyhaul_bytes value);
  // What is known of the secret: `version`, `created` and `expires` (RFC 3339), `label:NAME`,
  // `lease-id`, `lease-duration` (milliseconds), `lease-renewable` (`true` or `false`); after a delete
  // `recoverable-until`: a time, or empty where it is gone for good. Once for each secret.
  uint32_t (*metadata)(void *context, const struct keyhaul_pair *pairs, size_t pairs_len);
  // Ends what is said of one of many: of the path at `index`, with this status. What was said
  // before belongs to it alone.
  uint32_t (*item)(void *context, size_t index, uint32_t status);
  // A secret (0) or a folder (1) of a listing, by its whole path, in byte order, a secret before
  // a folder of the same path.
  uint32_t (*entry)(void *context, struct keyhaul_str path, uint32_t folder);
  // There is more, and the next page begins here. Not for a page without an entry.
  uint32_t (*next)(void *context, struct keyhaul_str after);
  // What went wrong, in words; what to do about it, which may be absent; and for how long the
  // store asks to be left alone, in milliseconds, or 0. Never a byte of a secret.
  uint32_t (*error)(void *context,
                    struct keyhaul_str message,
                    struct keyhaul_str advice,
                    uint64_t retry_after_ms);
  // 1 where nobody waits for this call any more, and nothing would come of its answer.
  uint32_t (*cancelled)(void *context);
} keyhaul_answers;

// Where a call's answers go, on the thread of the call and until it returns.
//
// It is passed by value, and its table lives as long as the process: who keeps it and uses it too late
// is refused.
typedef struct keyhaul_sink {
  // The functions to call.
  const struct keyhaul_answers *to;
  // What each of them is told first. No pointer to anything.
  void *context;
} keyhaul_sink;

// How to read.
typedef struct keyhaul_get_options {
  // How the table begins.
  struct keyhaul_head head;
  // This version, not the current one, where it is there.
  struct keyhaul_str version;
  // This field of a value that is a map, where it is there. `*` is the whole map, as a JSON object.
  struct keyhaul_str field;
  // 1: answer even where the secret has expired and the store still keeps it.
  uint32_t expired;
  // 0.
  uint32_t reserved;
} keyhaul_get_options;

// How to write.
typedef struct keyhaul_put_options {
  // How the table begins.
  struct keyhaul_head head;
  // KEYHAUL_PUT_OVERWRITE, KEYHAUL_PUT_CREATE or KEYHAUL_PUT_UPDATE.
  uint32_t mode;
  // 0.
  uint32_t reserved;
  // The version that an update is over.
  struct keyhaul_str version;
  // This field of a map, and its siblings stay. `*`: the whole map, as a JSON object.
  struct keyhaul_str field;
  // 32 hexadecimal digits that make a repeated write recognisable: the same again, for the same
  // path, is answered as the first time and writes nothing. May be absent, and may be passed over
  // without KEYHAUL_CAN_IDEMPOTENT.
  struct keyhaul_str idempotency;
  // `expires` (RFC 3339) and `label:NAME`.
  const struct keyhaul_pair *attributes;
  // How many pairs there are.
  size_t attributes_len;
} keyhaul_put_options;

// How to make a value.
typedef struct keyhaul_recipe {
  // How the table begins.
  struct keyhaul_head head;
  // How many characters or bytes.
  size_t length;
  // KEYHAUL_ALPHABET_ALPHANUMERIC, KEYHAUL_ALPHABET_BYTES or KEYHAUL_ALPHABET_HEX.
  uint32_t alphabet;
  // 0.
  uint32_t reserved;
} keyhaul_recipe;

// How to delete.
typedef struct keyhaul_delete_options {
  // How the table begins.
  struct keyhaul_head head;
  // Only where this is the current version, where it is there.
  struct keyhaul_str version;
  // 1: even where somebody is known to use it.
  uint32_t force;
  // 0.
  uint32_t reserved;
} keyhaul_delete_options;

// How to list.
typedef struct keyhaul_list_options {
  // How the table begins.
  struct keyhaul_head head;
  // Where the page before ended, as the plugin called it. Absent: at the beginning.
  struct keyhaul_str after;
  // At most this many entries, and fewer will do. 0: as many as the plugin likes, up to 1000.
  size_t limit;
  // 1: only what lies directly below, and folders for what lies deeper. 0: all of it, and no
  // folders.
  uint32_t shallow;
  // 0.
  uint32_t reserved;
} keyhaul_list_options;

// A plugin. The table and all that it points to live as long as the process and never change.
//
// `open`, `close` and `capabilities` are needed. A capability needs its function: reading needs
// `get` and `stat`.
typedef struct keyhaul_plugin {
  // How the table begins.
  struct keyhaul_head head;
  // What it is called, as `jar`.
  struct keyhaul_str name;
  // Its version, in words.
  struct keyhaul_str version;
  // What it is, in one line.
  struct keyhaul_str summary;
  // The options that it takes.
  const struct keyhaul_option *options;
  // How many there are.
  size_t options_len;
  // The size of one, as the plugin knows it.
  size_t option_size;
  // Opens a store and sets `store` to what every later call is given. Waits for nobody: the
  // first real request may. A plugin can have several stores, open at the same time.
  //
  // With KEYHAUL_OK, and only then, the store is open and will be closed: also where the host
  // refused an answer on the way and goes on as if it had failed. With another status, what
  // `store` is set to is passed over, and what was made for it is the plugin's to take back.
  uint32_t (*open)(const struct keyhaul_call *call,
                   const struct keyhaul_opening *opening,
                   struct keyhaul_sink sink,
                   void **store);
  // Closes a store. No call is under way then, and none follows. It may block, as any call may.
  void (*close)(void *store);
  // Answers with `capabilities`.
  uint32_t (*capabilities)(void *store, const struct keyhaul_call *call, struct keyhaul_sink sink);
  // Answers with `value`, and `metadata` where there is any. KEYHAUL_NOT_FOUND where there is no
  // such secret, version or field, or the secret has expired.
  uint32_t (*get)(void *store,
                  const struct keyhaul_call *call,
                  struct keyhaul_str path,
                  const struct keyhaul_get_options *options,
                  struct keyhaul_sink sink);
  // Answers for each path as `get` and `error` do, and then with `item`, in any order. Its own status
  // is about all of them. Where it is not there, the host calls `get` for each.
  uint32_t (*get_many)(void *store,
                       const struct keyhaul_call *call,
                       const struct keyhaul_str *paths,
                       size_t paths_len,
                       const struct keyhaul_get_options *options,
                       struct keyhaul_sink sink);
  // Answers with `metadata`, without a pair where nothing is known. KEYHAUL_NOT_FOUND where there
  // is no such secret; one that has expired still has metadata where it is kept.
  uint32_t (*stat)(void *store,
                   const struct keyhaul_call *call,
                   struct keyhaul_str path,
                   const struct keyhaul_get_options *options,
                   struct keyhaul_sink sink);
  // Writes: atomic and durable before it returns. Answers with `metadata`, of what is there now.
  uint32_t (*put)(void *store,
                  const struct keyhaul_call *call,
                  struct keyhaul_str path,
                  struct keyhaul_bytes value,
                  const struct keyhaul_put_options *options,
                  struct keyhaul_sink sink);
  // Makes a value and writes it as `put` does. Answers with `metadata`.
  uint32_t (*generate)(void *store,
                       const struct keyhaul_call *call,
                       struct keyhaul_str path,
                       const struct keyhaul_recipe *recipe,
                       const struct keyhaul_put_options *options,
                       struct keyhaul_sink sink);
  // Deletes, with all versions (`delete` is a word of C++). What is not there is deleted already,
  // also where a version is given; KEYHAUL_CONFLICT where another version is there.
  uint32_t (*remove)(void *store,
                     const struct keyhaul_call *call,
                     struct keyhaul_str path,
                     const struct keyhaul_delete_options *options,
                     struct keyhaul_sink sink);
  // Answers with `entry` for each secret below the folder `prefix`, in byte order, a secret before
  // a folder of the same path; and with `next` where there is more. The root is an empty prefix.
  // The secret at `prefix` itself is not listed. Where nothing is below it, the page is empty.
  // Nothing is listed twice, and each page goes on behind the one before: what does not is
  // refused, since it might have no end.
  uint32_t (*list)(void *store,
                   const struct keyhaul_call *call,
                   struct keyhaul_str prefix,
                   const struct keyhaul_list_options *options,
                   struct keyhaul_sink sink);
  // Reaches the store and authenticates, changes nothing and reads no value.
  uint32_t (*probe)(void *store, const struct keyhaul_call *call, struct keyhaul_sink sink);
} keyhaul_plugin;

// What the host shows a plugin. It lives as long as the process.
typedef struct keyhaul_host {
  // How the table begins.
  struct keyhaul_head head;
  // The program's version, in words.
  struct keyhaul_str version;
  // Takes a line for the log, at a KEYHAUL_LOG_ level, from any thread at any time. It is marked
  // as a plugin's, and on the thread of a call with the store. Never a byte of a secret. Of more
  // than 100 lines in 5 seconds the rest is left out.
  void (*log)(uint32_t level, struct keyhaul_str text);
} keyhaul_host;

#endif  /* KEYHAUL_PLUGIN_H */

#ifdef __cplusplus
extern "C" {
#endif
/* The one symbol that a plugin exports. Null refuses: the host is not to its liking. */
KEYHAUL_EXPORT const keyhaul_plugin *keyhaul_plugin_entry(const keyhaul_host *host);
#ifdef __cplusplus
}
#endif

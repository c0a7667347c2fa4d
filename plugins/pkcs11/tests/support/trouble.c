/* A PKCS#11 library in front of SoftHSM's: it writes down what is called, and makes trouble as the
 * file FOLDER/trouble says in words, which SoftHSM itself never does. Built by the tests.
 *
 *   final-try      the token says that one more wrong PIN locks it
 *   hang           searches do not return while it says so
 *   hang-login     the same of logins
 *   hang-open      the same of the opening of sessions
 *   hang-value     the same of the reading of values
 *   locked         the token says that its PIN is locked
 *   no-ids         objects are made without their identifier
 *   no-private     private data objects are refused, as by a YubiHSM 2
 *   opensc         objects are made as OpenSC makes them
 *   public         objects are made for all to read
 *   read-only      the token says that it takes no writes
 *   removed        the token is taken out: its sessions and its login are gone
 *   two-sessions   the token gives out two sessions at most, and searches take a while
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long word;

/* CK_FUNCTION_LIST of version 2.40: its 68 functions in the standard's order. */
struct list {
    unsigned char major, minor;
    void *functions[68];
};

enum { GET_FUNCTION_LIST = 3, GET_SLOT_LIST = 4, GET_TOKEN_INFO = 6, OPEN_SESSION = 12,
       CLOSE_SESSION = 13, CLOSE_ALL = 14, GET_SESSION_INFO = 15, LOGIN = 18, CREATE = 20,
       GET_ATTRIBUTES = 24, FIND_INIT = 26 };

enum { OK = 0, GENERAL_ERROR = 5, ATTRIBUTE_VALUE_INVALID = 0x13, DEVICE_REMOVED = 0x32,
       SESSION_COUNT = 0xb1, TOKEN_NOT_PRESENT = 0xe0 };

enum { PRIVATE = 2, LABEL = 3, APPLICATION = 0x10, VALUE = 0x11, OBJECT_ID = 0x12 };

enum { WRITE_PROTECTED = 1 << 1, FINAL_TRY = 1 << 17, PIN_LOCKED = 1 << 18 };

/* CK_TOKEN_INFO begins with four texts, 96 bytes in all. */
struct token_info {
    char texts[96];
    word flags;
};

struct attribute {
    word type;
    void *value;
    word length;
};

static struct list real, ours;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int sessions;

static int there_is(const char *trouble) {
    char text[64] = "", *rest = text, *word;
    int file = open(FOLDER "/trouble", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    while (length > 0 && (word = strsep(&rest, " ")))
        if (strcmp(word, trouble) == 0)
            return 1;
    return 0;
}

static void called(const char *function) {
    int file = open(FOLDER "/calls", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0)
        return;
    dprintf(file, "%s\n", function);
    close(file);
}

static word get_slot_list(unsigned char present, word *slots, word *count) {
    word (*next)(unsigned char, word *, word *) = real.functions[GET_SLOT_LIST];
    word answer = next(present, slots, count);
    if (answer == OK && present && there_is("removed"))
        *count = 0;
    return answer;
}

static word get_token_info(word slot, struct token_info *info) {
    word (*next)(word, struct token_info *) = real.functions[GET_TOKEN_INFO];
    word (*close_all)(word) = real.functions[CLOSE_ALL];
    if (there_is("removed")) {
        close_all(slot);
        return TOKEN_NOT_PRESENT;
    }
    word answer = next(slot, info);
    if (there_is("final-try"))
        info->flags |= FINAL_TRY;
    if (there_is("locked"))
        info->flags |= PIN_LOCKED;
    if (there_is("read-only"))
        info->flags |= WRITE_PROTECTED;
    return answer;
}

static word open_session(word slot, word flags, void *data, void *notify, word *session) {
    word (*next)(word, word, void *, void *, word *) = real.functions[OPEN_SESSION];
    called("C_OpenSession");
    while (there_is("hang-open"))
        usleep(1000);
    if (there_is("removed"))
        return TOKEN_NOT_PRESENT;
    pthread_mutex_lock(&lock);
    word answer = SESSION_COUNT;
    if (sessions < 2 || !there_is("two-sessions"))
        answer = next(slot, flags, data, notify, session);
    if (answer == OK)
        sessions++;
    pthread_mutex_unlock(&lock);
    return answer;
}

static word close_session(word session) {
    word (*next)(word) = real.functions[CLOSE_SESSION];
    pthread_mutex_lock(&lock);
    word answer = next(session);
    sessions--;
    pthread_mutex_unlock(&lock);
    return answer;
}

/* CK_SESSION_INFO begins with the slot. */
static word get_session_info(word session, word *info) {
    word (*next)(word, word *) = real.functions[GET_SESSION_INFO];
    word (*close_all)(word) = real.functions[CLOSE_ALL];
    word answer = next(session, info);
    if (there_is("removed")) {
        if (answer == OK)
            close_all(*info);
        return DEVICE_REMOVED;
    }
    return answer;
}

static word login(word session, word user, unsigned char *pin, word length) {
    word (*next)(word, word, unsigned char *, word) = real.functions[LOGIN];
    called("C_Login");
    while (there_is("hang-login"))
        usleep(1000);
    return next(session, user, pin, length);
}

/* As sc_asn1_decode_object_id of OpenSC reads it, which takes the tag and the length for numbers
 * too: numbers of an int's size, and fewer than 16 of them. */
static int opensc_reads(const unsigned char *id, word length) {
    int numbers = 2;
    for (word at = 1; at < length; at++) {
        unsigned number = id[at] & 0x7f;
        if (id[at] == 0x80)
            return 0;
        while (id[at] & 0x80) {
            if (++at == length || number > UINT_MAX >> 7)
                return 0;
            number = number << 7 | (id[at] & 0x7f);
        }
        if (number > INT_MAX || ++numbers >= 16)
            return 0;
    }
    return length > 0;
}

static word create(word session, struct attribute *template, word count, word *object) {
    word (*next)(word, struct attribute *, word, word *) = real.functions[CREATE];
    static unsigned char no = 0;
    struct attribute ours[16];
    word kept = 0;
    called("C_CreateObject");
    for (word at = 0; at < count && kept < 16; at++) {
        struct attribute one = template[at];
        if (one.type == PRIVATE && *(unsigned char *)one.value && there_is("no-private"))
            return ATTRIBUTE_VALUE_INVALID;
        if (one.type == PRIVATE && there_is("public"))
            one.value = &no;
        if (one.type == OBJECT_ID && there_is("no-ids"))
            continue;
        if (there_is("opensc")) {
            if (one.type == OBJECT_ID && !opensc_reads(one.value, one.length))
                return ATTRIBUTE_VALUE_INVALID;
            /* To the zero byte, whatever the length. */
            if (one.type == APPLICATION)
                one.length = strlen(one.value);
            if (one.type == LABEL && one.length > 254)
                one.length = 254;
        }
        ours[kept++] = one;
    }
    return next(session, ours, kept, object);
}

static word get_attributes(word session, word object, struct attribute *template, word count) {
    word (*next)(word, word, struct attribute *, word) = real.functions[GET_ATTRIBUTES];
    if (count > 0 && template[0].type == VALUE) {
        called("CKA_VALUE");
        while (there_is("hang-value"))
            usleep(1000);
    }
    return next(session, object, template, count);
}

static word find_init(word session, void *template, word count) {
    word (*next)(word, void *, word) = real.functions[FIND_INIT];
    called("C_FindObjectsInit");
    while (there_is("hang"))
        usleep(1000);
    if (there_is("two-sessions"))
        usleep(2000);
    return next(session, template, count);
}

word C_GetFunctionList(struct list **list) {
    pthread_mutex_lock(&lock);
    if (!real.functions[0]) {
        void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
        word (*next)(struct list **) = library ? dlsym(library, "C_GetFunctionList") : 0;
        struct list *theirs;
        if (next && next(&theirs) == OK)
            real = *theirs;
        ours = real;
        ours.functions[GET_FUNCTION_LIST] = C_GetFunctionList;
        ours.functions[GET_SLOT_LIST] = get_slot_list;
        ours.functions[GET_TOKEN_INFO] = get_token_info;
        ours.functions[OPEN_SESSION] = open_session;
        ours.functions[CLOSE_SESSION] = close_session;
        ours.functions[GET_SESSION_INFO] = get_session_info;
        ours.functions[LOGIN] = login;
        ours.functions[CREATE] = create;
        ours.functions[GET_ATTRIBUTES] = get_attributes;
        ours.functions[FIND_INIT] = find_init;
    }
    pthread_mutex_unlock(&lock);
    *list = &ours;
    return real.functions[0] ? OK : GENERAL_ERROR;
}

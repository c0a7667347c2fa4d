/*
 * The hostile plugin with a function that every library of this source exports under one name: WORD is
 * what it answers here. With UNRESOLVED, it needs a function that nobody has, for a call that never comes.
 */
#define keyhaul_plugin_entry hostile_entry
#include "hostile.c"
#undef keyhaul_plugin_entry

const char *hostile_word(void);
void nobody_has_this(void);

const char *hostile_word(void)
{
    return WORD;
}

const keyhaul_plugin *keyhaul_plugin_entry(const keyhaul_host *shown);

const keyhaul_plugin *keyhaul_plugin_entry(const keyhaul_host *shown)
{
    const char *word = hostile_word();
#if defined UNRESOLVED
    if (shown == NULL)
        nobody_has_this();
#endif
    table.summary.ptr = (const uint8_t *)word;
    table.summary.len = strlen(word);
    return hostile_entry(shown);
}

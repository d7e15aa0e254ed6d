#include "told_place.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "fileio/fileio.h"

/* Is there a digit behind a WORD of TEXT? */
static bool has_number(const char *text, const char *word)
{
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
        if (at[strlen(word)] >= '0' && at[strlen(word)] <= '9')
            return true;
    return false;
}

const char *told_place_lacks(const char *text)
{
    /* In what damage may be met but through a page. */
    static const char *const parts[] = {
        "an inner node",
        "superblock",
        "free-space map",
        "the page table",
        "the catalogue",
        "dictionary",
        "a value that the log names",
    };
    bool log = strstr(text, "/log-") != NULL;

    if (!log && !strstr(text, "/data: "))
        return "no file";
    if (!has_number(text, "byte ") && !strstr(text, "the segment is missing"))
        return "no byte";
    if (log)
        return NULL;
    if (has_number(text, "page ") && strstr(text, " of tree "))
        return NULL;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (strstr(text, parts[i]))
            return NULL;
    return "neither page nor part";
}

/* What a text says of an extent with HEAD. */
static void part_of(const struct bfti_extent_header *head,
                    struct told_place *want)
{
    static const char *const part[] = {
        [BFTI_EXTENT_INNER] = "an inner node of tree t",
        [BFTI_EXTENT_TABLE] = "page table: /db/data",
        [BFTI_EXTENT_CATALOGUE] = "the catalogue: /db/data",
        [BFTI_EXTENT_MAP] = "free-space map, part 0: /db/data",
        [BFTI_EXTENT_VALUE] = " of tree t",
        [BFTI_EXTENT_VALUE_LIST] = " of tree t",
        [BFTI_EXTENT_DICTIONARY] = "dictionary",
    };

    if (head->type == BFTI_EXTENT_LEAF || head->type == BFTI_EXTENT_DELTA)
        (void)snprintf(want->part, sizeof(want->part), "page %llu of tree ",
                       (unsigned long long)le64_get(head->page_id));
    else
        (void)snprintf(want->part, sizeof(want->part), "%s", part[head->type]);
}

void told_place_of(const uint8_t *data, size_t len, size_t at,
                   struct told_place *want)
{
    struct bfti_extent_header head;
    size_t grain = at / BFTI_GRAIN * BFTI_GRAIN;

    if (at < (size_t)2 * BFTI_BLOCK) {
        (void)snprintf(want->byte, sizeof(want->byte), "byte %zu",
                       at / BFTI_BLOCK * BFTI_BLOCK);
        (void)snprintf(want->part, sizeof(want->part), "superblock");
        return;
    }
    /* An extent of several grains begins in an earlier one.  Where none does,
     * nobody will come to the byte. */
    for (;; grain -= BFTI_GRAIN) {
        size_t stored;
        memcpy(&head, data + grain, sizeof(head));
        stored = le32_get(head.stored_len);
        if ((stored >= sizeof(head) && stored <= len - grain &&
             le32_get(head.checksum) ==
                 bfti_crc32c(0, data + grain + 4, stored - 4)) ||
            grain == (size_t)2 * BFTI_BLOCK)
            break;
    }
    (void)snprintf(want->byte, sizeof(want->byte), "extent at byte %zu, ",
                   grain);
    part_of(&head, want);
}

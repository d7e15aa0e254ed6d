/*
 * Filling a caller's buffer from both ends.  Rows lie at the back with the
 * newest lowest; finishing moves them down as one block and turns each table
 * round.
 */
#include "storage/covalue_pack.h"

#include <assert.h>
#include <string.h>

#include "fileio/fileio.h"

enum { ALIGN = 8, ROW_MAX = 64 };

/* So much more than front and back the buffer has to be: both ends are aligned
 * when the tables move. */
static size_t needed(const struct bfti_pack *pack)
{
    return pack->front + pack->back + pack->kept + ALIGN - 1;
}

bft_status bfti_pack_init(struct bfti_pack *pack, void *buf, size_t len,
                          size_t head)
{
    if (len != 0 && buf == NULL)
        return bfti_fail(BFT_INVALID, "covalue store: a buffer is NULL");
    if (len != 0 && (uintptr_t)buf % ALIGN != 0)
        return bfti_fail(BFT_INVALID,
                         "covalue store: a buffer not aligned to %d", ALIGN);
    /* Places are 32 bits; rows hang from an aligned end. */
    if (len > UINT32_MAX)
        len = UINT32_MAX;
    len -= len % ALIGN;
    *pack = (struct bfti_pack){.buf = buf, .len = len, .front = head};
    pack->over = needed(pack) > len;
    if (!pack->over)
        memset(buf, 0, head);
    return BFT_OK;
}

uint8_t *bfti_pack_room(struct bfti_pack *pack, size_t len)
{
    size_t at = pack->front;

    pack->front += len;
    if (pack->over || needed(pack) > pack->len) {
        pack->over = true;
        return NULL;
    }
    return pack->buf + at;
}

uint8_t *bfti_pack_spot(const struct bfti_pack *pack, size_t *room)
{
    static uint8_t nowhere[2];

    *room = 0;
    if (pack->over || needed(pack) >= pack->len)
        return nowhere + 1;
    *room = pack->len - needed(pack);
    return pack->buf + pack->front;
}

uint32_t bfti_pack_bytes(struct bfti_pack *pack, const void *data, size_t len)
{
    uint8_t *room = bfti_pack_room(pack, len);

    if (room == NULL)
        return 0;
    if (len != 0)
        memcpy(room, data, len);
    return (uint32_t)(room - pack->buf);
}

void *bfti_pack_row(struct bfti_pack *pack, size_t len)
{
    pack->back += len;
    if (pack->over || needed(pack) > pack->len) {
        pack->over = true;
        return NULL;
    }
    return pack->buf + pack->len - pack->back;
}

void *bfti_pack_row_at(const struct bfti_pack *pack, size_t back, size_t len,
                       size_t i)
{
    assert(!pack->over && back + (i + 1) * len <= pack->back);
    return pack->buf + pack->len - back - (i + 1) * len;
}

static void turn_round(uint8_t *rows, size_t len, size_t count)
{
    uint8_t row[ROW_MAX];

    assert(len <= ROW_MAX);
    for (size_t i = 0, j = count; i + 1 < j; i++) {
        j--;
        memcpy(row, rows + i * len, len);
        memcpy(rows + i * len, rows + j * len, len);
        memcpy(rows + j * len, row, len);
    }
}

bft_status bfti_pack_finish(struct bfti_pack *pack,
                            const struct bfti_pack_table *tables, size_t count,
                            size_t *used)
{
    size_t at = (pack->front + ALIGN - 1) / ALIGN * ALIGN;

    if (pack->over) {
        *used = (needed(pack) + ALIGN - 1) / ALIGN * ALIGN;
        return BFT_TOO_SMALL;
    }
    memset(pack->buf + pack->front, 0, at - pack->front);
    memmove(pack->buf + at, pack->buf + pack->len - pack->back, pack->back);
    *used = at + pack->back;
    /* The table made last is the lowest. */
    for (size_t i = count; i-- != 0;) {
        turn_round(pack->buf + at, tables[i].row_len, tables[i].count);
        *tables[i].place = (uint32_t)at;
        at += tables[i].row_len * tables[i].count;
    }
    assert(at == *used);
    return BFT_OK;
}

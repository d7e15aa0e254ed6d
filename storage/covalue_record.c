/*
 * The records of the covalue store: how its rows become keys and values, and
 * back.  The table of kinds is in covalue_internal.h.
 */
#include <assert.h>
#include <string.h>

#include "storage/covalue_internal.h"

_Static_assert(1 + BFTI_KEY_NUMBER_MAX + BFT_COVALUE_ID_MAX <= BFT_KEY_MAX,
               "an id of any kind fits its key");

/* --- keys -------------------------------------------------------------------------- */

bft_slice bfti_cokey_tag(struct bfti_cokey *key, uint8_t tag)
{
    key->bytes[0] = tag;
    return (bft_slice){key->bytes, 1};
}

bft_slice bfti_cokey_id(struct bfti_cokey *key, uint8_t tag, bft_slice id)
{
    assert(id.len <= BFT_COVALUE_ID_MAX);
    key->bytes[0] = tag;
    if (id.len != 0)
        memcpy(key->bytes + 1, id.data, id.len);
    return (bft_slice){key->bytes, 1 + id.len};
}

bft_slice bfti_cokey_row(struct bfti_cokey *key, uint8_t tag, uint64_t row)
{
    key->bytes[0] = tag;
    return (bft_slice){key->bytes,
                       1 + bfti_key_put_number(key->bytes + 1, row)};
}

bft_slice bfti_cokey_sessions(struct bfti_cokey *key, uint64_t covalue)
{
    return bfti_cokey_row(key, SESSIONS_OF, covalue);
}

bft_slice bfti_cokey_session(struct bfti_cokey *key, uint64_t covalue,
                             bft_slice id)
{
    size_t len = bfti_cokey_sessions(key, covalue).len;

    assert(id.len <= BFT_COVALUE_ID_MAX);
    if (id.len != 0)
        memcpy(key->bytes + len, id.data, id.len);
    return (bft_slice){key->bytes, len + id.len};
}

bft_slice bfti_cokey_content(struct bfti_cokey *key, uint64_t session,
                             uint64_t idx)
{
    size_t len = bfti_key_put_number(key->bytes, session);

    len += bfti_key_put_number(key->bytes + len, idx);
    return (bft_slice){key->bytes, len};
}

bft_slice bfti_cokey_above(struct bfti_cokey *key, uint64_t session,
                           uint64_t idx)
{
    size_t len = bfti_cokey_content(key, session, idx).len;

    /* No number is the start of another, so the next key is above this. */
    key->bytes[len] = 0;
    return (bft_slice){key->bytes, len + 1};
}

bft_slice bfti_cokey_peers(struct bfti_cokey *key, bft_slice id)
{
    size_t len = bfti_key_text_len(id);

    if (len > BFT_KEY_MAX)
        return (bft_slice){key->bytes, 0};
    return (bft_slice){key->bytes, bfti_key_put_text(key->bytes, id)};
}

bft_slice bfti_cokey_peer(struct bfti_cokey *key, bft_slice id, bft_slice peer)
{
    size_t len = bfti_cokey_peers(key, id).len;

    if (len == 0 || len + peer.len > BFT_KEY_MAX)
        return (bft_slice){key->bytes, 0};
    if (peer.len != 0)
        memcpy(key->bytes + len, peer.data, peer.len);
    return (bft_slice){key->bytes, len + peer.len};
}

/* --- values ------------------------------------------------------------------------ */

enum { HAS_SIGNATURES = 1, HAS_BYTES_SINCE = 2, SESSION_FLAGS = 3 };

size_t bfti_session_encode(uint8_t *out, const struct bfti_session *session)
{
    bool known = session->bytes_since != BFT_COVALUE_NONE;
    size_t len = 0;

    out[len++] = (uint8_t)((session->has_signatures ? HAS_SIGNATURES : 0) |
                           (known ? HAS_BYTES_SINCE : 0));
    len += bfti_key_put_number(out + len, session->row);
    len += bfti_key_put_number(out + len, session->last_idx);
    if (known)
        len += bfti_key_put_number(out + len, session->bytes_since);
    return len;
}

/* Take a number off the front of *VALUE. */
static bool take_number(bft_slice *value, uint64_t *number)
{
    size_t len = bfti_key_get_number(value->data, value->len, number);

    if (len == 0)
        return false;
    *value = (bft_slice){(const uint8_t *)value->data + len, value->len - len};
    return true;
}

bool bfti_session_decode(bft_slice value, struct bfti_session *session)
{
    uint8_t flags;

    if (value.len == 0)
        return false;
    flags = *(const uint8_t *)value.data;
    if ((flags & ~SESSION_FLAGS) != 0)
        return false;
    session->has_signatures = (flags & HAS_SIGNATURES) != 0;
    session->bytes_since = BFT_COVALUE_NONE;
    value = (bft_slice){(const uint8_t *)value.data + 1, value.len - 1};
    if (!take_number(&value, &session->row) ||
        !take_number(&value, &session->last_idx))
        return false;
    if ((flags & HAS_BYTES_SINCE) != 0 &&
        !take_number(&value, &session->bytes_since))
        return false;
    session->signature = value;
    return true;
}

bft_status bfti_covalue_number(bft_slice value, const char *what,
                               uint64_t *number, bft_slice *rest)
{
    if (!take_number(&value, number))
        return bfti_fail(BFT_CORRUPT, "covalue store: %s is no number", what);
    if (rest != NULL)
        *rest = value;
    else if (value.len != 0)
        return bfti_fail(BFT_CORRUPT,
                         "covalue store: %s has %zu bytes too many", what,
                         value.len);
    return BFT_OK;
}

bool bfti_slice_equal(bft_slice a, bft_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool bfti_session_kept(bft_slice id)
{
    return id.len != 0 && ((const char *)id.data)[id.len - 1] == '$';
}

/* See known_states.h. */
#include "known_states.h"

#include <string.h>

#include "long_strings.h"

enum {
    NAMES_MAX = 256,
    /* Names among which one is looked for: neighbours are mostly of the same
     * few sessions.  One that is not found is taken again. */
    NAMES_RECENT = 8,
};

struct packing {
    const uint8_t *view;
    const bft_session_row *session, *end; /* not packed yet */
    int32_t *number;
    size_t used, max;
    bft_slice name[NAMES_MAX];
    unsigned names;
};

static bft_slice name_of(const struct packing *p)
{
    return (bft_slice){p->view + p->session->id, p->session->id_len};
}

/* As the key of an object in JavaScript it would be another thing. */
static bool is_special(bft_slice name)
{
    static const char special[] = "__proto__";

    return name.len == sizeof(special) - 1 &&
           memcmp(name.data, special, name.len) == 0;
}

static bool name_add(struct packing *p, bft_slice name, unsigned *index)
{
    unsigned oldest = p->names < NAMES_RECENT ? 0 : p->names - NAMES_RECENT;

    for (unsigned i = p->names; i-- > oldest;) {
        if (p->name[i].len == name.len &&
            memcmp(p->name[i].data, name.data, name.len) == 0) {
            *index = i;
            return true;
        }
    }
    if (p->names == NAMES_MAX || is_special(name) ||
        !bftn_is_ascii(name.data, name.len))
        return false;
    *index = p->names;
    p->name[p->names++] = name;
    return true;
}

/* The CoValue in row ROW, whose ID is of ASCII if it is said to be, with its
 * sessions, which come next; false: it is not usual, or there is no room. */
static bool covalue_add(struct packing *p, uint64_t row, bft_slice id,
                        bool ascii)
{
    size_t at = p->used;
    int32_t sessions = 0;

    if (p->max - at < 2 || (!ascii && !bftn_is_ascii(id.data, id.len)))
        return false;
    at += 2;
    for (; p->session != p->end && p->session->covalue == row; p->session++) {
        unsigned name;

        if (p->max - at < 2 || p->session->last_idx > INT32_MAX ||
            !name_add(p, name_of(p), &name))
            return false;
        p->number[at++] = (int32_t)name;
        p->number[at++] = (int32_t)p->session->last_idx;
        sessions++;
    }
    p->number[p->used] = (int32_t)id.len;
    p->number[p->used + 1] = sessions;
    p->used = at;
    return true;
}

static void names_finish(struct packing *p, struct bftn_text *out)
{
    for (unsigned i = 0; i < p->names; i++) {
        bftn_text_add(out, p->name[i].data, p->name[i].len);
        p->number[p->used++] = (int32_t)p->name[i].len;
    }
}

struct bftn_known_states bftn_known_states(struct bftn_text *out,
                                           const uint8_t *view, uint64_t row,
                                           const uint8_t *list, int32_t *number,
                                           size_t max)
{
    const bft_covalue_view *head = (const void *)view;
    const bft_id_list *ids = (const void *)list;
    const uint32_t *ends = (const void *)(list + ids->ends);
    const uint8_t *text = list + ids->text;
    const bft_session_row *rows = (const void *)(view + head->sessions);
    struct bftn_known_states states = {0};
    struct packing p;
    bool ascii = bftn_is_ascii(text, ids->text_len);
    uint32_t count = 0;
    uint32_t end = 0; /* of the ids that are taken */

    if (max < NAMES_MAX)
        return states;
    p.view = view;
    p.session = rows;
    p.end = rows + head->session_count;
    p.number = number;
    p.used = 0;
    p.max = max - NAMES_MAX; /* their lengths have room */
    p.names = 0;
    while (count < ids->count &&
           (head->next == 0 || row + count < head->next) &&
           covalue_add(&p, row + count,
                       (bft_slice){text + end, ends[count] - end}, ascii))
        end = ends[count++];
    if (count == 0)
        return states;
    states.covalues = count;
    states.names = p.names;
    states.lengths_at = p.used;
    bftn_text_add(out, text, end);
    states.names_at = out->len;
    names_finish(&p, out);
    states.numbers = p.used;
    return states;
}

void bftn_known_state(struct bftn_text *out, const uint8_t *view, uint64_t row,
                      bft_slice id)
{
    const bft_covalue_view *head = (const void *)view;
    const bft_session_row *rows = (const void *)(view + head->sessions);

    bftn_text_put(out, "{\"id\":");
    bftn_text_string(out, id.data, id.len);
    bftn_text_put(out, ",\"header\":true,\"sessions\":{");
    for (uint32_t i = 0; i < head->session_count && rows[i].covalue == row;
         i++) {
        bftn_text_comma(out);
        bftn_text_string(out, view + rows[i].id, rows[i].id_len);
        bftn_text_put(out, ":");
        bftn_text_number(out, rows[i].last_idx);
    }
    bftn_text_put(out, "}}");
}

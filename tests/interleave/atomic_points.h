/*
 * In front of every file of the library in a build with -DBFT_INTERLEAVE=ON: each
 * atomic operation tells who explores interleavings (explore.c) of itself before it
 * happens.  The operations are what gcc's <stdatomic.h> makes of them; that is why
 * the build asks for gcc.
 */
#ifndef ATOMIC_POINTS_H
#define ATOMIC_POINTS_H

#include <stdatomic.h>
#include <stdbool.h>

/* Where it is written. */
struct atomic_site {
    const char *file;
    int line;
    bool writes;
    /* Of who explores: two threads have met here, one of them writing. */
    bool shared;
    struct atomic_site *next; /* all that were come to */
    char name[40];            /* "wal.c:512"; empty: not come to yet */
};

typedef void atomic_hook(struct atomic_site *site, const volatile void *at);

/* NULL: nobody is told.  One for the whole program, whoever has this header. */
__attribute__((weak)) atomic_hook *atomic_hooked;

/* Operations stand in arguments of others. */
#pragma GCC diagnostic ignored "-Wshadow"

#define ATOMIC_POINT(at_, writes_)                                  \
    do {                                                            \
        static struct atomic_site site_ = {                         \
            .file = __FILE__, .line = __LINE__, .writes = writes_}; \
        if (atomic_hooked != NULL)                                  \
            atomic_hooked(&site_, at_);                             \
    } while (0)

#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_exchange_explicit
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak
#undef atomic_compare_exchange_weak_explicit
#undef atomic_fetch_add
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_or
#undef atomic_fetch_or_explicit
#undef atomic_fetch_and
#undef atomic_fetch_and_explicit
#undef atomic_fetch_xor
#undef atomic_fetch_xor_explicit

/* A comma leaves the qualifier _Atomic behind. */
#define atomic_load_explicit(p, order)       \
    __extension__({                          \
        __auto_type p_ = (p);                \
        __typeof__((void)0, *p_) value_;     \
        ATOMIC_POINT(p_, false);             \
        __atomic_load(p_, &value_, (order)); \
        value_;                              \
    })
#define atomic_store_explicit(p, v, order)     \
    __extension__({                            \
        __auto_type p_ = (p);                  \
        __typeof__((void)0, *p_) value_ = (v); \
        ATOMIC_POINT(p_, true);                \
        __atomic_store(p_, &value_, (order));  \
    })
#define atomic_exchange_explicit(p, v, order)           \
    __extension__({                                     \
        __auto_type p_ = (p);                           \
        __typeof__((void)0, *p_) value_ = (v), old_;    \
        ATOMIC_POINT(p_, true);                         \
        __atomic_exchange(p_, &value_, &old_, (order)); \
        old_;                                           \
    })
#define ATOMIC_COMPARE(p, e, v, weak, order, otherwise)                  \
    __extension__({                                                      \
        __auto_type p_ = (p);                                            \
        __auto_type expected_ = (e);                                     \
        __typeof__((void)0, *p_) value_ = (v);                           \
        ATOMIC_POINT(p_, true);                                          \
        __atomic_compare_exchange(p_, expected_, &value_, weak, (order), \
                                  (otherwise));                          \
    })
#define ATOMIC_FETCH(operation, p, v, order) \
    __extension__({                          \
        __auto_type p_ = (p);                \
        __auto_type value_ = (v);            \
        ATOMIC_POINT(p_, true);              \
        operation(p_, value_, (order));      \
    })

#define atomic_compare_exchange_strong_explicit(p, e, v, order, otherwise) \
    ATOMIC_COMPARE(p, e, v, 0, order, otherwise)
/* Never fails for nothing: a schedule is to repeat. */
#define atomic_compare_exchange_weak_explicit(p, e, v, order, otherwise) \
    ATOMIC_COMPARE(p, e, v, 0, order, otherwise)
#define atomic_fetch_add_explicit(p, v, order) \
    ATOMIC_FETCH(__atomic_fetch_add, p, v, order)
#define atomic_fetch_sub_explicit(p, v, order) \
    ATOMIC_FETCH(__atomic_fetch_sub, p, v, order)
#define atomic_fetch_or_explicit(p, v, order) \
    ATOMIC_FETCH(__atomic_fetch_or, p, v, order)
#define atomic_fetch_and_explicit(p, v, order) \
    ATOMIC_FETCH(__atomic_fetch_and, p, v, order)
#define atomic_fetch_xor_explicit(p, v, order) \
    ATOMIC_FETCH(__atomic_fetch_xor, p, v, order)

#define atomic_load(p)     atomic_load_explicit(p, memory_order_seq_cst)
#define atomic_store(p, v) atomic_store_explicit(p, v, memory_order_seq_cst)
#define atomic_exchange(p, v) \
    atomic_exchange_explicit(p, v, memory_order_seq_cst)
#define atomic_compare_exchange_strong(p, e, v) \
    ATOMIC_COMPARE(p, e, v, 0, memory_order_seq_cst, memory_order_seq_cst)
#define atomic_compare_exchange_weak(p, e, v) \
    ATOMIC_COMPARE(p, e, v, 0, memory_order_seq_cst, memory_order_seq_cst)
#define atomic_fetch_add(p, v) \
    ATOMIC_FETCH(__atomic_fetch_add, p, v, memory_order_seq_cst)
#define atomic_fetch_sub(p, v) \
    ATOMIC_FETCH(__atomic_fetch_sub, p, v, memory_order_seq_cst)
#define atomic_fetch_or(p, v) \
    ATOMIC_FETCH(__atomic_fetch_or, p, v, memory_order_seq_cst)
#define atomic_fetch_and(p, v) \
    ATOMIC_FETCH(__atomic_fetch_and, p, v, memory_order_seq_cst)
#define atomic_fetch_xor(p, v) \
    ATOMIC_FETCH(__atomic_fetch_xor, p, v, memory_order_seq_cst)

#endif

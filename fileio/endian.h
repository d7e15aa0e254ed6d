/*
 * Little-endian numbers as structs of bytes: no padding, readable at any
 * offset, and a raw use does not compile.
 */
#ifndef BFTI_ENDIAN_H
#define BFTI_ENDIAN_H

#include <stdint.h>
#include <string.h>

typedef struct le16 {
    uint8_t byte[2];
} le16;
typedef struct le32 {
    uint8_t byte[4];
} le32;
typedef struct le64 {
    uint8_t byte[8];
} le64;

static inline uint16_t le16_get(le16 x)
{
    return (uint16_t)(x.byte[0] | (unsigned)x.byte[1] << 8);
}

static inline uint32_t le32_get(le32 x)
{
    return (uint32_t)x.byte[0] | (uint32_t)x.byte[1] << 8 |
           (uint32_t)x.byte[2] << 16 | (uint32_t)x.byte[3] << 24;
}

static inline uint64_t le64_get(le64 x)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | x.byte[i];
    return v;
}

static inline le16 le16_of(uint16_t v)
{
    le16 x = {{(uint8_t)v, (uint8_t)(v >> 8)}};
    return x;
}

static inline le32 le32_of(uint32_t v)
{
    le32 x = {{(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
               (uint8_t)(v >> 24)}};
    return x;
}

static inline le64 le64_of(uint64_t v)
{
    le64 x;
    for (int i = 0; i < 8; i++)
        x.byte[i] = (uint8_t)(v >> (8 * i));
    return x;
}

#endif

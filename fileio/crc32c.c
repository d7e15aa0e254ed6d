/*
 * crc32c (Castagnoli, reflected polynomial 0x82f63b78): the checksum of
 * extents, superblocks and log frames.  Processors that have an instruction
 * for it are asked at run time; the others take the table form, which is
 * "slicing by 8" (Kounavis and Berry, 2005).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "endian.h"
#include "pagefile_internal.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define CRC_X86 1
#include <nmmintrin.h>
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#define CRC_ARM 1
#include <arm_acle.h>
#endif

/* A table of one byte position is linear in the byte: entry i is the sum of
 * the entries of i's bits, and the compiler makes 256 constants of eight. */
#define ENTRY(i, a, b, c, d, e, f, g, h)                              \
    (((i)&1 ? (a) : 0u) ^ ((i)&2 ? (b) : 0u) ^ ((i)&4 ? (c) : 0u) ^   \
     ((i)&8 ? (d) : 0u) ^ ((i)&16 ? (e) : 0u) ^ ((i)&32 ? (f) : 0u) ^ \
     ((i)&64 ? (g) : 0u) ^ ((i)&128 ? (h) : 0u))
#define ENTRIES4(i, ...)                                  \
    ENTRY((i), __VA_ARGS__), ENTRY((i) + 1, __VA_ARGS__), \
        ENTRY((i) + 2, __VA_ARGS__), ENTRY((i) + 3, __VA_ARGS__)
#define ENTRIES16(i, ...)                                       \
    ENTRIES4((i), __VA_ARGS__), ENTRIES4((i) + 4, __VA_ARGS__), \
        ENTRIES4((i) + 8, __VA_ARGS__), ENTRIES4((i) + 12, __VA_ARGS__)
#define ENTRIES64(i, ...)                                          \
    ENTRIES16((i), __VA_ARGS__), ENTRIES16((i) + 16, __VA_ARGS__), \
        ENTRIES16((i) + 32, __VA_ARGS__), ENTRIES16((i) + 48, __VA_ARGS__)
#define TABLE(...)                                                   \
    {                                                                \
        ENTRIES64(0, __VA_ARGS__), ENTRIES64(64, __VA_ARGS__),       \
            ENTRIES64(128, __VA_ARGS__), ENTRIES64(192, __VA_ARGS__) \
    }

/* TABLE_OF[k][i]: what byte i adds to the checksum k bytes further on. */
static const uint32_t table_of[8][256] = {
    TABLE(0xf26b8303u, 0xe13b70f7u, 0xc79a971fu, 0x8ad958cfu, 0x105ec76fu,
          0x20bd8edeu, 0x417b1dbcu, 0x82f63b78u),
    TABLE(0x13a29877u, 0x274530eeu, 0x4e8a61dcu, 0x9d14c3b8u, 0x3fc5f181u,
          0x7f8be302u, 0xff17c604u, 0xfbc3faf9u),
    TABLE(0xa541927eu, 0x4f6f520du, 0x9edea41au, 0x38513ec5u, 0x70a27d8au,
          0xe144fb14u, 0xc76580d9u, 0x8b277743u),
    TABLE(0xdd45aab8u, 0xbf672381u, 0x7b2231f3u, 0xf64463e6u, 0xe964b13du,
          0xd725148bu, 0xaba65fe7u, 0x52a0c93fu),
    TABLE(0x38116facu, 0x7022df58u, 0xe045beb0u, 0xc5670b91u, 0x8f2261d3u,
          0x1ba8b557u, 0x37516aaeu, 0x6ea2d55cu),
    TABLE(0xef306b19u, 0xdb8ca0c3u, 0xb2f53777u, 0x6006181fu, 0xc00c303eu,
          0x85f4168du, 0x0e045bebu, 0x1c08b7d6u),
    TABLE(0x68032cc8u, 0xd0065990u, 0xa5e0c5d1u, 0x4e2dfd53u, 0x9c5bfaa6u,
          0x3d5b83bdu, 0x7ab7077au, 0xf56e0ef4u),
    TABLE(0x493c7d27u, 0x9278fa4eu, 0x211d826du, 0x423b04dau, 0x847609b4u,
          0x0d006599u, 0x1a00cb32u, 0x34019664u),
};

static uint32_t crc_table(uint32_t crc, const uint8_t *at, size_t len)
{
    for (; len >= 8; at += 8, len -= 8) {
        le64 word;
        memcpy(&word, at, sizeof word);
        uint64_t v = le64_get(word) ^ crc;
        crc = 0;
        for (unsigned i = 0; i < 8; i++)
            crc ^= table_of[7 - i][v >> (8 * i) & 0xff];
    }
    for (; len > 0; at++, len--)
        crc = crc >> 8 ^ table_of[0][(crc ^ *at) & 0xff];
    return crc;
}

#ifdef CRC_X86

/*
 * The instruction takes three cycles and may start every cycle, so three
 * stretches of LANE bytes run side by side.  Joining them moves a checksum
 * over LANE zero bytes, which is linear in it: one look-up for each byte.
 */
static const size_t lane = 256;

static const uint32_t lane_of[4][256] = {
    TABLE(0xdcb17aa4u, 0xbc8e83b9u, 0x7cf17183u, 0xf9e2e306u, 0xf629b0fdu,
          0xe9bf170bu, 0xd69258e7u, 0xa8c8c73fu),
    TABLE(0x547df88fu, 0xa8fbf11eu, 0x541b94cdu, 0xa837299au, 0x558225c5u,
          0xab044b8au, 0x53e4e1e5u, 0xa7c9c3cau),
    TABLE(0x4a7ff165u, 0x94ffe2cau, 0x2c13b365u, 0x582766cau, 0xb04ecd94u,
          0x6571edd9u, 0xcae3dbb2u, 0x902bc195u),
    TABLE(0x25bbf5dbu, 0x4b77ebb6u, 0x96efd76cu, 0x2833d829u, 0x5067b052u,
          0xa0cf60a4u, 0x4472b7b9u, 0x88e56f72u),
};

static uint32_t over_lane(uint64_t crc)
{
    return lane_of[0][crc & 0xff] ^ lane_of[1][crc >> 8 & 0xff] ^
           lane_of[2][crc >> 16 & 0xff] ^ lane_of[3][crc >> 24 & 0xff];
}

static uint64_t load(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

__attribute__((target("sse4.2"))) static uint32_t
crc_instruction(uint32_t crc, const uint8_t *at, size_t len)
{
    uint64_t a = crc;
    for (; len >= 3 * lane; at += 3 * lane, len -= 3 * lane) {
        uint64_t b = 0, c = 0;
        for (size_t i = 0; i < lane; i += 8) {
            a = _mm_crc32_u64(a, load(at + i));
            b = _mm_crc32_u64(b, load(at + lane + i));
            c = _mm_crc32_u64(c, load(at + 2 * lane + i));
        }
        a = over_lane(over_lane(a) ^ b) ^ c;
    }
    for (; len >= 8; at += 8, len -= 8)
        a = _mm_crc32_u64(a, load(at));
    uint32_t tail = (uint32_t)a;
    for (; len > 0; at++, len--)
        tail = _mm_crc32_u8(tail, *at);
    return tail;
}

static bool have_instruction(void)
{
    return __builtin_cpu_supports("sse4.2") != 0;
}

#elif defined(CRC_ARM)

/* Built for a processor that has it, so there is nothing to ask. */
static uint32_t crc_instruction(uint32_t crc, const uint8_t *at, size_t len)
{
    for (; len >= 8; at += 8, len -= 8) {
        le64 word;
        memcpy(&word, at, sizeof word);
        crc = __crc32cd(crc, le64_get(word));
    }
    for (; len > 0; at++, len--)
        crc = __crc32cb(crc, *at);
    return crc;
}

static bool have_instruction(void)
{
    return true;
}

#else

static uint32_t crc_instruction(uint32_t crc, const uint8_t *at, size_t len)
{
    return crc_table(crc, at, len);
}

static bool have_instruction(void)
{
    return false;
}

#endif

uint32_t bfti_crc32c(uint32_t crc, const void *data, size_t len)
{
    return have_instruction() ? ~crc_instruction(~crc, data, len)
                              : ~crc_table(~crc, data, len);
}

uint32_t bfti_crc32c_table(uint32_t crc, const void *data, size_t len)
{
    return ~crc_table(~crc, data, len);
}

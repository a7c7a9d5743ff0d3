// Numbers as pairs of bf16 tiles, high + low, for attention to prompts with AMX (prompt_amx.cpp).
#pragma once

#include "simd.h"
#include "tiles.h"

namespace parlor {
namespace amx {

constexpr int64_t kWords = 16 * 32;  // bf16 of one of the unit's tiles

// a[i] lane j <-> a[j] lane i, 32 bits each.
__attribute__((always_inline)) inline void transpose(__m512i (&a)[16]) {
    __m512i b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
        b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xDD);
        b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
        b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xDD);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        a[i] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88);
        a[i + 8] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0xDD);
        a[i + 4] = _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0x88);
        a[i + 12] = _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0xDD);
    }
}

inline void store_tile(const __m512i (&rows)[16], uint16_t* tile) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * 32, rows[i]);
}

// 32 rows of 16 floats, row(0) to row(31) -> high and low tile: lane l becomes row l.
template <class Row>
inline void split_and_transpose(Row row, uint16_t* tiles) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
    __m512i high[16], low[16];
    for (int i = 0; i < 16; ++i) {
        __m512i part[2], rest[2];
        for (int j = 0; j < 2; ++j) {
            const __m512 value = row(2 * i + j);
            part[j] = _mm512_and_si512(_mm512_castps_si512(value), upper);
            rest[j] = _mm512_castps_si512(_mm512_sub_ps(value, _mm512_castsi512_ps(part[j])));
        }
        high[i] = upper_words(part[0], part[1]);
        low[i] = upper_words(rest[0], rest[1]);
    }
    transpose(high);
    store_tile(high, tiles);
    transpose(low);
    store_tile(low, tiles + kWords);
}

}  // namespace amx
}  // namespace parlor

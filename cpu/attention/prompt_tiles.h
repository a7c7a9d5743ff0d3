// Numbers as pairs of bf16 tiles, high + low, for attention to prompts with AMX (prompt_amx.cpp).
#pragma once

#include "simd.h"
#include "tiles.h"
#include "turn_pages.h"

namespace parlor {
namespace amx {

constexpr int64_t kWords = 16 * 32;  // bf16 of one of the unit's tiles

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

// 16 rows of 32 floats, halves row(i, 0) and row(i, 1) -> high and low tile; zero from column `valid` on.
template <class Row>
inline void split_rows(Row row, int64_t valid, uint16_t* tiles) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
    for (int i = 0; i < 16; ++i) {
        __m512i part[2], rest[2];
        for (int half = 0; half < 2; ++half) {
            const int64_t left = valid - half * 16;
            const __mmask16 mask = left >= 16 ? static_cast<__mmask16>(0xFFFF) : left > 0 ? first(left) : __mmask16{0};
            const __m512 value = _mm512_maskz_mov_ps(mask, row(i, half));
            part[half] = _mm512_and_si512(_mm512_castps_si512(value), upper);
            rest[half] = _mm512_castps_si512(_mm512_sub_ps(value, _mm512_castsi512_ps(part[half])));
        }
        _mm512_store_si512(tiles + i * 32, upper_row(part[0], part[1]));
        _mm512_store_si512(tiles + kWords + i * 32, upper_row(rest[0], rest[1]));
    }
}

}  // namespace amx
}  // namespace parlor

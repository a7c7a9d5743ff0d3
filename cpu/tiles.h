// AMX's tiles as all kernels with bf16 products want them: eight of 16 rows of 64 bytes, which are pairs of bf16.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers: registers left undefined on purpose
#endif
#include <immintrin.h>

#include <cstdint>

namespace parlor {
namespace amx {

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    void set(int tile, int num_rows, int bytes) {
        rows[tile] = static_cast<uint8_t>(num_rows);
        row_bytes[tile] = static_cast<uint16_t>(bytes);
    }

    void load() const {
        // gcc 12 takes _tile_loadconfig for a read of 8 bytes and drops the other stores; this makes it keep them.
        asm volatile("" ::"m"(*this) : "memory");
        _tile_loadconfig(this);
    }
};

inline void configure_tiles() {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) config.set(tile, 16, 64);
    config.load();
}

// gcc's tile loads and stores do not say that they read and write memory: to stand between them and others.
inline void keep_memory_order() { asm volatile("" ::: "memory"); }

// The upper words of two registers' lanes, next to each other: {first 0, second 0, first 1, second 1 ...}.
alignas(64) constexpr uint16_t kUpperWords[32] = {1, 33, 3, 35, 5, 37, 7, 39, 9, 41, 11, 43, 13, 45, 15, 47,
                                                  17, 49, 19, 51, 21, 53, 23, 55, 25, 57, 27, 59, 29, 61, 31, 63};

inline __m512i upper_words(__m512i first, __m512i second) {
    return _mm512_permutex2var_epi16(first, _mm512_load_si512(kUpperWords), second);
}

// The same one behind the other: {first 0, first 1 ... second 0, second 1 ...}.
alignas(64) constexpr uint16_t kUpperRow[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};

inline __m512i upper_row(__m512i first, __m512i second) {
    return _mm512_permutex2var_epi16(first, _mm512_load_si512(kUpperRow), second);
}

}  // namespace amx
}  // namespace parlor

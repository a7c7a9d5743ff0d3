// Pages of a cache as floats, for attention to prompts with AMX (prompt_amx.cpp).
#pragma once

#include "cache_block.h"

namespace parlor {
namespace amx {

// Keys and values of a page and head as floats, 16 lanes at a time: key(d, j) is dimension d of the keys j to j + 15 of the page,
// value(j, d) the dimensions d to d + 15 of value j. See kernels.h for the layouts.
struct HalfPage {
    const half_t *keys, *values;
    int64_t page_size, head_dim;

    HalfPage(const void* k, const void* v, int64_t size, int64_t dim)
        : keys(static_cast<const half_t*>(k)), values(static_cast<const half_t*>(v)), page_size(size), head_dim(dim) {}

    static constexpr bool kRotatesHeads = false;
    static int64_t block_bytes(int64_t size, int64_t dim) { return size * dim * 2; }
    Vec key(int64_t d, int64_t j) const { return load(keys + d * page_size + j); }
    Vec value(int64_t j, int64_t d) const { return load(values + j * head_dim + d); }
};

template <int kBits>
struct CodePage {
    static constexpr int64_t kInWord = 32 / kBits;
    static constexpr bool kRotatesHeads = true;

    CacheBlock layout;
    const int32_t *keys, *values;
    const half_t *key_scales, *value_scales;  // [groups, page_size]

    CodePage(const void* k, const void* v, int64_t size, int64_t dim)
        : layout{kBits, size, dim}, keys(static_cast<const int32_t*>(k)), values(static_cast<const int32_t*>(v)),
          key_scales(layout.scales(k)), value_scales(layout.scales(v)) {}

    static int64_t block_bytes(int64_t size, int64_t dim) { return CacheBlock{kBits, size, dim}.bytes(); }

    Vec key(int64_t d, int64_t j) const {
        const Vec scale = load(key_scales + d / kCacheGroup * layout.page_size + j);
        return code(keys + d / kInWord * layout.page_size + j, d % kInWord) * scale;
    }
    Vec value(int64_t j, int64_t d) const {
        const float scale = half_number(value_scales[d / kCacheGroup * layout.page_size + j]);
        return code(values + j / kInWord * layout.head_dim + d, j % kInWord) * set1(scale);
    }

  private:
    // Code `index` of 16 words.
    static Vec code(const int32_t* words, int64_t index) {
        const __m512i word = _mm512_loadu_si512(words);
        if (kBits == 8) {
            const unsigned up = static_cast<unsigned>(24 - 8 * index);
            return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(word, up), 24));
        }
        const __m512i nibble = _mm512_srli_epi32(word, static_cast<unsigned>(4 * index));
        return _mm512_cvtepi32_ps(_mm512_and_si512(nibble, _mm512_set1_epi32(15))) - set1(7.5f);
    }

    static float half_number(half_t half) {
        const Vec widened = _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<short>(half)));
        return _mm512_cvtss_f32(widened);
    }
};

}  // namespace amx
}  // namespace parlor

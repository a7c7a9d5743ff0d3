// Keys of a page as values of one: where the keys are the values, too, they lie as kernels.h has keys.
//
// A page is turned once for all rows of a tile, 16 of them and more in models that keep no values: two loads, shuffles and
// stores for what each row multiplies and adds. What a value is, does not change, so neither does a result.
#pragma once

#include "cache_block.h"

namespace parlor {
namespace PARLOR_ISA_NS {

// a[i] lane j <-> a[j] lane i.
#if defined(__AVX512F__)
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

__attribute__((always_inline)) inline void transpose(Vec (&a)[kLanes]) {
    __m512i bits[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) bits[i] = _mm512_castps_si512(a[i]);
    transpose(bits);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = _mm512_castsi512_ps(bits[i]);
}
#elif defined(__AVX2__)
__attribute__((always_inline)) inline void transpose(Vec (&a)[kLanes]) {
    __m256 b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
        a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xEE);
        a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
        a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xEE);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        b[i] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
        b[i + 4] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) a[i] = b[i];
}
#else
inline void transpose(Vec (&a)[kLanes]) {
    const Vec b[kLanes] = {a[0], a[1], a[2], a[3]};
    for (int i = 0; i < kLanes; ++i) a[i] = Vec{b[0][i], b[1][i], b[2][i], b[3][i]};
}
#endif

// keys [head_dim, page_size] -> values [page_size, head_dim], as floats.
template <class Element>
void turn_page(const Element* keys, int64_t page_size, int64_t head_dim, float* values) {
    const auto turn = [&](int64_t d, int64_t j, int64_t dims, int64_t count) {
        Vec rows[kLanes];
        for (int i = 0; i < kLanes; ++i) {
            const Element* const from = keys + (d + i) * page_size + j;
            rows[i] = i >= dims ? zero() : count == kLanes ? load(from) : load_n(from, count);
        }
        transpose(rows);
        for (int i = 0; i < kLanes && i < count; ++i) {
            float* const to = values + (j + i) * head_dim + d;
            if (dims == kLanes) store(to, rows[i]);
            else store_n(to, rows[i], dims);
        }
    };
    for (int64_t d = 0; d < head_dim; d += kLanes)
        for (int64_t j = 0; j < page_size; j += kLanes)
            turn(d, j, head_dim - d < kLanes ? head_dim - d : kLanes, page_size - j < kLanes ? page_size - j : kLanes);
}

// As many words of keys as a word has codes, one behind the other -> the words of values in as many dimensions.
template <int kBits>
inline void turn_words(const int32_t* keys, int32_t* values) {
#if defined(__AVX2__)
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(keys));
    if (kBits == 8) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(values), _mm_shuffle_epi8(first, order));
        return;
    }
    const __m128 a = _mm_castsi128_ps(first), b = _mm_loadu_ps(reinterpret_cast<const float*>(keys + 4));
    const __m128i even = _mm_castps_si128(_mm_shuffle_ps(a, b, 0x88)), odd = _mm_castps_si128(_mm_shuffle_ps(a, b, 0xDD));
    const __m128i low = _mm_set1_epi8(15);
    const __m128i lower = _mm_or_si128(_mm_and_si128(even, low), _mm_slli_epi16(_mm_and_si128(odd, low), 4));
    const __m128i upper = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(even, 4), low), _mm_andnot_si128(low, odd));
    const __m128i even_dims = _mm_shuffle_epi8(lower, order), odd_dims = _mm_shuffle_epi8(upper, order);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values), _mm_unpacklo_epi32(even_dims, odd_dims));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + 4), _mm_unpackhi_epi32(even_dims, odd_dims));
#elif defined(__aarch64__)
    static constexpr uint8_t kOrder[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    const uint8x16_t order = vld1q_u8(kOrder);
    const int32x4_t first = vld1q_s32(keys);
    if (kBits == 8) {
        vst1q_s32(values, vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(first), order)));
        return;
    }
    const int32x4x2_t by_parity = vuzpq_s32(first, vld1q_s32(keys + 4));
    const uint8x16_t even = vreinterpretq_u8_s32(by_parity.val[0]), odd = vreinterpretq_u8_s32(by_parity.val[1]);
    const uint8x16_t lower = vorrq_u8(vandq_u8(even, vdupq_n_u8(15)), vshlq_n_u8(odd, 4));
    const uint8x16_t upper = vorrq_u8(vshrq_n_u8(even, 4), vandq_u8(odd, vdupq_n_u8(0xF0)));
    const int32x4x2_t turned = vzipq_s32(vreinterpretq_s32_u8(vqtbl1q_u8(lower, order)),
                                         vreinterpretq_s32_u8(vqtbl1q_u8(upper, order)));
    vst1q_s32(values, turned.val[0]);
    vst1q_s32(values + 4, turned.val[1]);
#else
    constexpr int kCodes = 32 / kBits;
    for (int i = 0; i < kCodes; ++i) {
        uint32_t word = 0;
        for (int j = 0; j < kCodes; ++j)
            word |= (static_cast<uint32_t>(keys[j]) >> (i * kBits) & ((1u << kBits) - 1)) << (j * kBits);
        values[i] = static_cast<int32_t>(word);
    }
#endif
}

// Words of keys [head_dim / c, page_size] -> of values [page_size / c, head_dim]; c codes a word.
template <int kBits>
void turn_codes(const int32_t* keys, int64_t page_size, int64_t head_dim, int32_t* values) {
    constexpr int64_t kCodes = 32 / kBits;
    for (int64_t d = 0; d < head_dim; d += kCodes)
        for (int64_t j = 0; j < page_size; j += kCodes)
            turn_words<kBits>(keys + d / kCodes * page_size + j, values + j / kCodes * head_dim + d);
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

// Products of a rounded cache's codes with AVX-512 and VNNI, see code_products.h.
//
// Bound by multiplying: a dot instruction takes four unsigned by four signed bytes in each of 16 lanes. Codes of 8 bits are
// taken plus 128; what that adds is known from the sum of the other factor, which has two planes of int8:
// value = 256 * high + low. Codes of 4 bits are unsigned as they are. A word of a plane has four numbers in the order of the
// codes that it meets: of 8-bit codes neighbours, of 4-bit ones the even and then the odd of eight.
#pragma once

namespace parlor {
namespace PARLOR_ISA_NS {

template <int kBits>
struct CodeProducts {
    static constexpr int kRun = 16;

    static void pack_query(const float* q, int64_t head_dim, float inverse, int32_t* words, float* offsets) {
        const Vec factor = set1(inverse);
        int32_t sum = 0;
        for (int64_t d = 0; d < head_dim; d += 16, words += 8) {
            const __m512 values = head_dim - d < 16 ? load_n(q + d, head_dim - d) : load(q + d);
            const __m512i codes = _mm512_cvtps_epi32(values * factor);
            store_planes(codes, words);
            sum = (d % kCacheGroup == 0 ? 0 : sum) + _mm512_reduce_add_epi32(codes);
            // What is to be subtracted of a group: an integer's bits for 8-bit codes.
            const int32_t offset = -128 * sum;
            if (kBits == 8) std::memcpy(offsets + d / kCacheGroup, &offset, sizeof offset);
            else offsets[d / kCacheGroup] = 7.5f * static_cast<float>(sum);
        }
    }

    template <int kRows>
    static void score_keys(const CodeKeys& keys, const int32_t* queries, const float* offsets, float* scores) {
        const int64_t groups = keys.groups();
        const __mmask16 mask = keys.count < 16 ? first(keys.count) : static_cast<__mmask16>(0xFFFF);
        const int32_t* words = keys.words;
        for (int64_t g = 0; g < groups; ++g) {
            __m512i high[kRows], low[kRows];
#pragma GCC unroll 8
            for (int row = 0; row < kRows; ++row) {
                high[row] = _mm512_setzero_si512();
                low[row] = kBits == 8 ? broadcast(offsets + row * groups + g) : _mm512_setzero_si512();
            }
            for (int64_t i = keys.dims(g) * kBits / 32; i > 0; --i, words += keys.page_size, queries += 16 / kBits) {
                const __m512i word = _mm512_maskz_loadu_epi32(mask, words);
                if (kBits == 8) {
                    add<kRows, kQueryStride>(low, high, _mm512_xor_si512(word, _mm512_set1_epi8(-128)), queries);
                } else {
                    const __m512i even = low_nibbles(word), odd = low_nibbles(_mm512_srli_epi32(word, 4));
#pragma GCC unroll 8
                    for (int row = 0; row < kRows; ++row) {
                        low[row] = _mm512_dpbusd_epi32(low[row], even, broadcast(queries + row * kQueryStride));
                        low[row] = _mm512_dpbusd_epi32(low[row], odd, broadcast(queries + row * kQueryStride + 2));
                    }
                }
            }
            const __m512 scales = load(keys.scales + g * kCodeStride);
#pragma GCC unroll 8
            for (int row = 0; row < kRows; ++row) {
                float* const score = scores + row * kCodeStride;
                __m512 dot = _mm512_cvtepi32_ps(kBits == 8 ? joined(low[row], high[row]) : low[row]);
                if (kBits == 4) dot = dot - set1(offsets[row * groups + g]);
                store(score, fma(dot, scales, g == 0 ? zero() : load(score)));
            }
        }
    }

    static int32_t round_weights(const float* p, const float* scales, float factor, int32_t* words, int64_t count) {
        __m512i total = _mm512_setzero_si512();
        for (int64_t j = 0; j < count; j += 16, words += 8) {
            const __m512i weights = _mm512_cvtps_epi32(load(p + j) * (load(scales + j) * set1(factor)));
            total = _mm512_add_epi32(total, weights);
            store_planes(weights, words);
        }
        return _mm512_reduce_add_epi32(total);
    }

    template <int kRows>
    static void add_values(const CodeValues& values, int64_t d, const CodeMix& mix) {
        const int64_t lanes = values.head_dim - d;
        const __mmask16 mask = lanes < 16 ? first(lanes) : static_cast<__mmask16>(0xFFFF);
        __m512i high[kRows], low[kRows];
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) high[row] = low[row] = _mm512_setzero_si512();
        for (int64_t i = 0; i < values.num_pages; ++i) {
            const int32_t* words = values.pages[i] + d;
            const int32_t* weights = mix.weights + i * values.page_size / 2;
            for (int64_t left = values.keys(i) * kBits / 32; left > 0; --left, words += values.head_dim, weights += 16 / kBits) {
                const __m512i word = _mm512_maskz_loadu_epi32(mask, words);
                if (kBits == 8) {
                    add<kRows, kWeightStride>(low, high, _mm512_xor_si512(word, _mm512_set1_epi8(-128)), weights);
                } else {
                    add<kRows, kWeightStride>(low, high, low_nibbles(word), weights);
                    add<kRows, kWeightStride>(low, high, low_nibbles(_mm512_srli_epi32(word, 4)), weights + 2);
                }
            }
        }
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
            const __m512i sum = joined(low[row], high[row]), weights = _mm512_set1_epi32(mix.weight_sums[row]);
            // Of 4-bit codes twice the sum of weight * (code - 7.5).
            const __m512i mixed =
                kBits == 8 ? _mm512_sub_epi32(sum, _mm512_slli_epi32(weights, 7))
                           : _mm512_sub_epi32(_mm512_slli_epi32(sum, 1), _mm512_sub_epi32(_mm512_slli_epi32(weights, 4), weights));
            float* const to = mix.sums + row * mix.stride + d;
            store(to, fma(_mm512_cvtepi32_ps(mixed), set1(mix.units[row]), load(to) * set1(mix.old_factors[row])));
        }
    }

  private:
    static __m512i broadcast(const void* word) {
        int32_t value;
        std::memcpy(&value, word, sizeof value);
        return _mm512_set1_epi32(value);
    }
    static __m512i low_nibbles(__m512i words) { return _mm512_and_si512(words, _mm512_set1_epi8(15)); }
    static __m512i joined(__m512i low, __m512i high) { return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low); }

    template <int kRows, int64_t kStride>
    __attribute__((always_inline)) static void add(__m512i* low, __m512i* high, __m512i codes, const int32_t* planes) {
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
            low[row] = _mm512_dpbusd_epi32(low[row], codes, broadcast(planes + row * kStride));
            high[row] = _mm512_dpbusd_epi32(high[row], codes, broadcast(planes + row * kStride + 1));
        }
    }

    // 16 numbers -> for each four a word of the low and one of the high plane.
    __attribute__((always_inline)) static void store_planes(__m512i numbers, int32_t* words) {
        alignas(64) static constexpr int32_t kEvenOdd[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
        alignas(64) static constexpr int64_t kLowerHalves[8] = {0, 2, 4, 6, 0, 2, 4, 6};
        alignas(16) static constexpr int8_t kPlanes[16] = {0, 4, 8, 12, 1, 5, 9, 13, -1, -1, -1, -1, -1, -1, -1, -1};
        if (kBits == 4) numbers = _mm512_permutexvar_epi32(_mm512_load_si512(kEvenOdd), numbers);
        const __m512i rounded = _mm512_add_epi32(numbers, _mm512_set1_epi32(128));  // its second byte is the high plane
        const __m512i bytes = _mm512_ternarylogic_epi32(numbers, rounded, _mm512_set1_epi32(0xFF), 0xE4);
        const __m128i order = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kPlanes));
        const __m512i planes = _mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(order));
        const __m512i packed = _mm512_permutexvar_epi64(_mm512_load_si512(kLowerHalves), planes);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), _mm512_castsi512_si256(packed));
    }
};

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

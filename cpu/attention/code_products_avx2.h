// Products of a rounded cache's codes with AVX2, see code_products.h.
//
// Bound by multiplying: AVX2 makes 32 products of 16 bits or 64 of 8 bits in the time of 16 FMAs. Codes of 8 bits, and all
// codes of values, are widened to 16 bits; 4-bit codes of keys are multiplied as bytes.
#pragma once

namespace parlor {
namespace PARLOR_ISA_NS {

template <int kBits>
struct CodeProducts {
    static constexpr int kRun = 8;

    static void pack_query(const float* q, int64_t head_dim, float inverse, int32_t* words, float* offsets) {
        for (int64_t d = 0; d < head_dim; d += 8, words += kBits == 8 ? 4 : 2) {
            int32_t codes[8];
            for (int64_t i = 0; i < 8; ++i) codes[i] = static_cast<int32_t>(std::nearbyint(q[d + i] * inverse));
            if (kBits == 4) {  // bytes of the even nibbles, then of the odd ones
                words[0] = four_bytes(codes[0], codes[2], codes[4], codes[6]);
                words[1] = four_bytes(codes[1], codes[3], codes[5], codes[7]);
                float& offset = offsets[d / kCacheGroup];
                if (d % kCacheGroup == 0) offset = 0.0f;
                for (const int32_t code : codes) offset += 7.5f * static_cast<float>(code);
            } else {
                for (int64_t i = 0; i < 4; ++i) words[i] = two_halves(codes[i / 2 * 4 + i % 2], codes[i / 2 * 4 + i % 2 + 2]);
            }
        }
    }

    template <int kRows>
    static void score_keys(const CodeKeys& keys, const int32_t* queries, const float* offsets, float* scores) {
        const int64_t groups = keys.groups();
        const int32_t* words = keys.words;
        for (int64_t g = 0; g < groups; ++g) {
            __m256i sums[kRows];
#pragma GCC unroll 16
            for (__m256i& sum : sums) sum = _mm256_setzero_si256();
            for (int64_t i = keys.dims(g) * kBits / 32; i > 0; --i, words += keys.page_size, queries += 2) {
                const __m256i word = words_at(words);
                __m256i even, odd;
                if (kBits == 8) {
                    even = _mm256_srai_epi16(_mm256_slli_epi16(word, 8), 8);
                    odd = _mm256_srai_epi16(word, 8);
                } else {
                    even = _mm256_and_si256(word, _mm256_set1_epi8(15));
                    odd = _mm256_and_si256(_mm256_srli_epi16(word, 4), _mm256_set1_epi8(15));
                }
#pragma GCC unroll 16
                for (int row = 0; row < kRows; ++row) {
                    const __m256i q0 = _mm256_set1_epi32(queries[row * kQueryStride]);
                    const __m256i q1 = _mm256_set1_epi32(queries[row * kQueryStride + 1]);
                    if (kBits == 8) {
                        sums[row] = add_pairs(add_pairs(sums[row], even, q0), odd, q1);
                    } else {  // at most 8 products of 2 * 15 * 127 in 16 bits
                        sums[row] = _mm256_add_epi16(sums[row], _mm256_maddubs_epi16(even, q0));
                        sums[row] = _mm256_add_epi16(sums[row], _mm256_maddubs_epi16(odd, q1));
                    }
                }
            }
            const __m256 scales = _mm256_loadu_ps(keys.scales + g * kCodeStride);
#pragma GCC unroll 16
            for (int row = 0; row < kRows; ++row) {
                float* const score = scores + row * kCodeStride;
                __m256i sum = sums[row];
                if (kBits == 4) sum = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
                __m256 dot = _mm256_cvtepi32_ps(sum);
                if (kBits == 4) dot = _mm256_sub_ps(dot, _mm256_set1_ps(offsets[row * groups + g]));
                const __m256 before = g == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(score);
                _mm256_storeu_ps(score, _mm256_fmadd_ps(dot, scales, before));
            }
        }
    }

    // Pairs of rounded weights in the order in which add_values() meets the codes.
    static int32_t round_weights(const float* p, const float* scales, float factor, int32_t* pairs, int64_t count) {
        __m256i total = _mm256_setzero_si256();
        for (int64_t j = 0; j < count; j += 8, pairs += 4) {
            const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(scales + j), _mm256_set1_ps(factor));
            const __m256i w = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(p + j), scale));
            total = _mm256_add_epi32(total, w);
            __m128i low = _mm256_castsi256_si128(w), high = _mm256_extracti128_si256(w, 1);
            if (kBits == 8) {  // 0 2, 1 3, 4 6, 5 7
                const __m128i even = _mm_unpacklo_epi64(low, high);
                high = _mm_unpackhi_epi64(low, high);
                low = even;
            }
            _mm_storeu_si128(reinterpret_cast<__m128i*>(pairs), _mm_or_si128(low, _mm_slli_epi32(high, 16)));
        }
        __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
        sum = _mm_add_epi32(sum, _mm_unpackhi_epi64(sum, sum));
        return _mm_cvtsi128_si32(sum) + _mm_extract_epi32(sum, 1);
    }

    template <int kRows>
    static void add_values(const CodeValues& values, int64_t d, const CodeMix& mix) {
        __m256i sums[kRows];
#pragma GCC unroll 16
        for (__m256i& sum : sums) sum = _mm256_setzero_si256();
        for (int64_t i = 0; i < values.num_pages; ++i) {
            const int32_t* words = values.pages[i] + d;
            const int32_t* pairs = mix.weights + i * values.page_size / 2;
            for (int64_t left = values.keys(i); left > 0; left -= 8, words += values.head_dim * kBits / 4, pairs += 4) {
                __m256i codes[4];
                const __m256i word = words_at(words);
                if (kBits == 8) {
                    const __m256i second = words_at(words + values.head_dim);
                    codes[0] = _mm256_srai_epi16(_mm256_slli_epi16(word, 8), 8);
                    codes[1] = _mm256_srai_epi16(word, 8);
                    codes[2] = _mm256_srai_epi16(_mm256_slli_epi16(second, 8), 8);
                    codes[3] = _mm256_srai_epi16(second, 8);
                } else {
                    const __m256i mask = _mm256_set1_epi16(15);
                    codes[0] = _mm256_and_si256(word, mask);
                    codes[1] = _mm256_and_si256(_mm256_srli_epi16(word, 4), mask);
                    codes[2] = _mm256_and_si256(_mm256_srli_epi16(word, 8), mask);
                    codes[3] = _mm256_srli_epi16(word, 12);
                }
#pragma GCC unroll 16
                for (int row = 0; row < kRows; ++row) {
                    const int32_t* const pair = pairs + row * kWeightStride;
#pragma GCC unroll 16
                    for (int c = 0; c < 4; ++c)
                        sums[row] = add_pairs(sums[row], codes[c], _mm256_set1_epi32(pair[c]));
                }
            }
        }
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row) {
            float* const to = mix.sums + row * mix.stride + d;
            const __m256 mixed = _mm256_cvtepi32_ps(centred(sums[row], mix.weight_sums[row]));
            const __m256 before = _mm256_mul_ps(_mm256_loadu_ps(to), _mm256_set1_ps(mix.old_factors[row]));
            _mm256_storeu_ps(to, _mm256_fmadd_ps(mixed, _mm256_set1_ps(mix.units[row]), before));
        }
    }

  private:
    static int32_t four_bytes(int32_t a, int32_t b, int32_t c, int32_t d) {
        return (a & 0xFF) | (b & 0xFF) << 8 | (c & 0xFF) << 16 | d * (1 << 24);
    }
    static int32_t two_halves(int32_t a, int32_t b) { return (a & 0xFFFF) | b * (1 << 16); }

    static __m256i add_pairs(__m256i sum, __m256i a, __m256i b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
    static __m256i words_at(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

    // q4: twice the sum of weight * (code - 7.5).
    static __m256i centred(__m256i sum, int32_t weights) {
        return kBits == 8 ? sum : _mm256_sub_epi32(_mm256_slli_epi32(sum, 1), _mm256_set1_epi32(15 * weights));
    }
};

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

// Products of a rounded cache's codes with NEON's dot products, see code_products.h.
//
// Bound by multiplying: sdot takes four signed bytes of each of four lanes times four of a query or of weights, which have two
// planes of int8: value = 256 * high + low, next to each other in memory. Four numbers of a plane are a word, in the order of
// the codes that they meet: of 8-bit codes neighbours, of 4-bit ones the even and then the odd of eight.
#pragma once

namespace parlor {
namespace PARLOR_ISA_NS {

template <int kBits>
struct CodeProducts {
    static constexpr int kRun = 8;

    static void pack_query(const float* q, int64_t head_dim, float inverse, int32_t* words, float* offsets) {
        int32_t sum = 0;
        for (int64_t d = 0; d < head_dim; d += 8, words += 4) {
            const Numbers codes = rounded(load(q + d) * set1(inverse), load(q + d + 4) * set1(inverse));
            store_planes(codes, words);
            sum = (d % kCacheGroup == 0 ? 0 : sum) + vaddvq_s32(vaddq_s32(codes.first, codes.second));
            offsets[d / kCacheGroup] = kBits == 4 ? 7.5f * static_cast<float>(sum) : 0.0f;
        }
    }

    template <int kRows>
    static void score_keys(const CodeKeys& keys, const int32_t* queries, const float* offsets, float* scores) {
        constexpr int kWords = kRows <= 4 ? 2 : 1;  // registers of keys whose sums are there at once
        for (int key = 0; key < kRun; key += kWords * kLanes)
            score_words<kRows, kWords>(keys, key, queries, offsets, scores + key);
    }

    static int32_t round_weights(const float* p, const float* scales, float factor, int32_t* words, int64_t count) {
        int32x4_t total = vdupq_n_s32(0);
        const auto weigh = [&](int64_t j) { return load(p + j) * (load(scales + j) * set1(factor)); };
        for (int64_t j = 0; j < count; j += 8, words += 4) {
            const Numbers weights = rounded(weigh(j), weigh(j + 4));
            total = vaddq_s32(total, vaddq_s32(weights.first, weights.second));
            store_planes(weights, words);
        }
        return vaddvq_s32(total);
    }

    template <int kRows>
    static void add_values(const CodeValues& values, int64_t d, const CodeMix& mix) {
        int32x4_t high[kRows], low[kRows];
        for (int row = 0; row < kRows; ++row) high[row] = low[row] = vdupq_n_s32(0);
        for (int64_t i = 0; i < values.num_pages; ++i) {
            const int32_t* words = values.pages[i] + d;
            const int32_t* weights = mix.weights + i * values.page_size / 2;
            for (int64_t left = values.keys(i) * kBits / 32; left > 0; --left, words += values.head_dim, weights += 16 / kBits) {
                const int8x16_t word = bytes_at(words);
                for (int row = 0; row < kRows; ++row) {
                    const int32_t* const planes = weights + row * kWeightStride;
                    if (kBits == 8) add(&low[row], &high[row], word, planes);
                    else add(&low[row], &high[row], even(word), planes), add(&low[row], &high[row], odd(word), planes + 2);
                }
            }
        }
        for (int row = 0; row < kRows; ++row) {
            int32x4_t sum = joined(low[row], high[row]);
            if (kBits == 4)  // twice the sum of weight * (code - 7.5)
                sum = vsubq_s32(vshlq_n_s32(sum, 1), vdupq_n_s32(15 * mix.weight_sums[row]));
            float* const to = mix.sums + row * mix.stride + d;
            store(to, fma((Vec)vcvtq_f32_s32(sum), set1(mix.units[row]), load(to) * set1(mix.old_factors[row])));
        }
    }

  private:
    struct Numbers {
        int32x4_t first, second;
    };

    static Numbers rounded(Vec first, Vec second) {
        return {vcvtnq_s32_f32((float32x4_t)first), vcvtnq_s32_f32((float32x4_t)second)};
    }
    static int8x16_t bytes_at(const int32_t* words) { return vreinterpretq_s8_s32(vld1q_s32(words)); }
    static int8x16_t even(int8x16_t bytes) { return vandq_s8(bytes, vdupq_n_s8(15)); }
    static int8x16_t odd(int8x16_t bytes) { return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(bytes), 4)); }
    static int32x4_t joined(int32x4_t low, int32x4_t high) { return vaddq_s32(vshlq_n_s32(high, 8), low); }

    // `planes`: a word of the low and one of the high plane.
    static void add(int32x4_t* low, int32x4_t* high, int8x16_t codes, const int32_t* planes) {
        const int8x8_t factors = vreinterpret_s8_s32(vld1_s32(planes));
        *low = vdotq_lane_s32(*low, codes, factors, 0);
        *high = vdotq_lane_s32(*high, codes, factors, 1);
    }

    // Queries of 4-bit codes have 8 bits, and so no high plane.
    template <int kRows, int kWords>
    static void score_words(const CodeKeys& keys, int key, const int32_t* queries, const float* offsets, float* scores) {
        const int64_t groups = keys.groups();
        const int32_t* words = keys.words + key;
        for (int64_t g = 0; g < groups; ++g) {
            int32x4_t high[kRows][kWords], low[kRows][kWords];
            for (int row = 0; row < kRows; ++row)
                for (int v = 0; v < kWords; ++v) high[row][v] = low[row][v] = vdupq_n_s32(0);
            for (int64_t i = keys.dims(g) * kBits / 32; i > 0; --i, words += keys.page_size, queries += 16 / kBits) {
                int8x16_t codes[kWords];
                for (int v = 0; v < kWords; ++v) codes[v] = bytes_at(words + v * kLanes);
                for (int row = 0; row < kRows; ++row) {
                    const int32_t* const planes = queries + row * kQueryStride;
                    for (int v = 0; v < kWords; ++v) {
                        if (kBits == 8) {
                            add(&low[row][v], &high[row][v], codes[v], planes);
                        } else {
                            const int8x16_t factors = bytes_at(planes);
                            low[row][v] = vdotq_laneq_s32(low[row][v], even(codes[v]), factors, 0);
                            low[row][v] = vdotq_laneq_s32(low[row][v], odd(codes[v]), factors, 2);
                        }
                    }
                }
            }
            for (int row = 0; row < kRows; ++row)
                for (int v = 0; v < kWords; ++v) {
                    float* const score = scores + row * kCodeStride + v * kLanes;
                    Vec dot = (Vec)vcvtq_f32_s32(joined(low[row][v], high[row][v]));
                    if (kBits == 4) dot = dot - set1(offsets[row * groups + g]);
                    store(score, fma(dot, load(keys.scales + g * kCodeStride + key + v * kLanes), g == 0 ? zero() : load(score)));
                }
        }
    }

    // Eight numbers -> for each four a word of the low and one of the high plane.
    static void store_planes(const Numbers& n, int32_t* words) {
        const auto narrowed = [](int32x4_t first, int32x4_t second) {  // the lowest bytes
            const int8x8_t bytes = vmovn_s16(vcombine_s16(vmovn_s32(first), vmovn_s32(second)));
            if (kBits == 8) return vreinterpret_s32_s8(bytes);
            return vzip1_s32(vreinterpret_s32_s8(vuzp1_s8(bytes, bytes)), vreinterpret_s32_s8(vuzp2_s8(bytes, bytes)));
        };
        const auto upper = [](int32x4_t x) { return vshrq_n_s32(vaddq_s32(x, vdupq_n_s32(128)), 8); };
        const int32x2_t low = narrowed(n.first, n.second), high = narrowed(upper(n.first), upper(n.second));
        vst1_s32(words, vzip1_s32(low, high));
        vst1_s32(words + 2, vzip2_s32(low, high));
    }
};

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

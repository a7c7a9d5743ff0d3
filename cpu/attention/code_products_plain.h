// Products of a rounded cache's codes in plain C++, see code_products.h: numbers one by one, in their order.
#pragma once

#include <algorithm>

namespace parlor {
namespace PARLOR_ISA_NS {

template <int kBits>
struct CodeProducts {
    static constexpr int kRun = 8;

    static void pack_query(const float* q, int64_t head_dim, float inverse, int32_t* words, float* offsets) {
        auto* const codes = reinterpret_cast<int16_t*>(words);
        for (int64_t d = 0; d < head_dim; ++d) {
            codes[d] = static_cast<int16_t>(std::nearbyint(q[d] * inverse));
            float& offset = offsets[d / kCacheGroup];
            offset = (d % kCacheGroup == 0 ? 0.0f : offset) + 7.5f * static_cast<float>(codes[d]);
        }
    }

    template <int kRows>
    static void score_keys(const CodeKeys& keys, const int32_t* queries, const float* offsets, float* scores) {
        for (int row = 0; row < kRows; ++row) {
            const auto* const query = reinterpret_cast<const int16_t*>(queries + row * kQueryStride);
            float* const score = scores + row * kCodeStride;
            std::fill_n(score, kRun, 0.0f);
            for (int64_t g = 0; g < keys.groups(); ++g) {
                int32_t sums[kRun] = {};
                const int64_t end = g * kCacheGroup + keys.dims(g);
                for (int64_t d = g * kCacheGroup; d < end; ++d) {
                    const int32_t* const words = keys.words + d / kInWord * keys.page_size;
                    for (int64_t j = 0; j < kRun; ++j) sums[j] += query[d] * code(words[j], d % kInWord);
                }
                const float offset = kBits == 4 ? offsets[row * keys.groups() + g] : 0.0f;
                for (int64_t j = 0; j < kRun; ++j)
                    score[j] += (static_cast<float>(sums[j]) - offset) * keys.scales[g * kCodeStride + j];
            }
        }
    }

    static int32_t round_weights(const float* p, const float* scales, float factor, int32_t* weights, int64_t count) {
        int32_t total = 0;
        for (int64_t j = 0; j < count; ++j) {
            const auto weight = static_cast<int32_t>(std::nearbyint(p[j] * (scales[j] * factor)));
            reinterpret_cast<int16_t*>(weights)[j] = static_cast<int16_t>(weight);
            total += weight;
        }
        return total;
    }

    template <int kRows>
    static void add_values(const CodeValues& values, int64_t d, const CodeMix& mix) {
        for (int row = 0; row < kRows; ++row) {
            int32_t sums[kLanes] = {};
            const auto* const weights = reinterpret_cast<const int16_t*>(mix.weights + row * kWeightStride);
            for (int64_t j = 0; j < values.num_keys; ++j) {
                const int64_t in_page = j % values.page_size;
                const int32_t* const words = values.pages[j / values.page_size] + in_page / kInWord * values.head_dim + d;
                for (int64_t k = 0; k < kLanes; ++k) sums[k] += weights[j] * code(words[k], in_page % kInWord);
            }
            float* const to = mix.sums + row * mix.stride + d;
            for (int64_t k = 0; k < kLanes; ++k) {
                const int32_t sum = kBits == 4 ? 2 * sums[k] - 15 * mix.weight_sums[row] : sums[k];
                to[k] = to[k] * mix.old_factors[row] + static_cast<float>(sum) * mix.units[row];
            }
        }
    }

  private:
    static constexpr int64_t kInWord = 32 / kBits;

    static int32_t code(int32_t word, int64_t i) {
        const uint32_t bits = static_cast<uint32_t>(word) >> (i * kBits);
        return kBits == 8 ? static_cast<int8_t>(bits & 0xFF) : static_cast<int32_t>(bits & 15);
    }
};

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

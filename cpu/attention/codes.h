// A block of attention to a rounded cache (PARLOR_Q8, PARLOR_Q4), in integers.
//
// Codes are never widened to floats. A row's scores: the query is rounded to 16 bits (q8) or 8 bits (q4: an error of 1/250
// of its largest element, a tenth of what the key's 4 bits cost), dotted with the codes of each group exactly, and scaled.
// Its sums over values: exp(score - the block's maximum) times the value's scale is rounded to 15 bits of the largest
// one in the block, and multiplied with the codes exactly. What a row gets depends on the keys that it sees alone.
// The layout of words and scales is in kernels.h: a lane's word holds codes of one sum. code_products.h multiplies.
#pragma once

#include "code_products.h"
#include "tile.h"
#include "turn_pages.h"

namespace parlor {
namespace PARLOR_ISA_NS {

template <int kBits>
class CodeBlocks {
  public:
    static constexpr bool kRotatesHeads = true;

    CodeBlocks(const TileView& view, float* memory)
        : view_(view), layout_{kBits, view.a.page_size, view.a.head_dim}, groups_(layout_.groups()), key_scales_(memory),
          value_scales_(key_scales_ + groups_ * kCodeStride), scores_(value_scales_ + groups_ * kCodeStride),
          query_scales_(scores_ + kMaxCodeRows * kCodeStride), offsets_(query_scales_ + view.plan.max_rows),
          queries_(reinterpret_cast<int32_t*>(offsets_ + view.plan.max_rows * groups_)),
          weights_(queries_ + view.plan.max_rows * kQueryStride),
          turned_(weights_ + groups_ * kMaxCodeRows * kWeightStride) {}

    static int64_t num_floats(const AttentionArgs& a, const Plan& plan) {
        const int64_t groups = CacheBlock{kBits, a.page_size, a.head_dim}.groups();
        return (2 * groups + kMaxCodeRows) * kCodeStride + groups * kMaxCodeRows * kWeightStride +
               plan.max_rows * (1 + groups + kQueryStride) +
               (a.v_cache ? 0 : plan.block_pages * a.page_size * a.head_dim * kBits / 32);
    }

    void load_queries() {
        for (int64_t r = 0; r < view_.rows; ++r) {
            const float* q = view_.query(r);
            const auto magnitude = [](Vec x) { return max(x, zero() - x); };
            Vec tops = set1(1e-30f);  // a query of zeros has scores of zero
            for_lanes(view_.a.head_dim, [&](int64_t i) { tops = max(magnitude(load(q + i)), tops); },
                      [&](int64_t i, int64_t n) { tops = max(magnitude(load_n(q + i, n)), tops); });
            const float top = largest(tops);
            query_scales_[r] = top / kQueryTop<kBits> * view_.a.scale;
            Products::pack_query(q, view_.a.head_dim, kQueryTop<kBits> / top, queries_ + r * kQueryStride, offsets_ + r * groups_);
        }
    }

    void run(State& state, int64_t start, int64_t end) {
        first_page_ = start / view_.a.page_size;
        start_ = start;
        keys_ = end - start;
        pages_ = (keys_ + view_.a.page_size - 1) / view_.a.page_size;
        values_ = {{}, pages_, view_.a.page_size, keys_, view_.a.head_dim};
        for (int64_t i = 0; i < pages_; ++i) values_.pages[i] = value_words(i);
        load_scales();
        int64_t r = view_.first_row_that_sees(start);
        fetches_ahead_ = true;
        for (; r + 8 <= view_.rows; r += 8) run_rows<8>(state, r);
        if (r + 4 <= view_.rows) run_rows<4>(state, r), r += 4;
        if (r + 2 <= view_.rows) run_rows<2>(state, r), r += 2;
        if (r < view_.rows) run_rows<1>(state, r);
    }

  private:
    using Products = CodeProducts<kBits>;
    static constexpr int kRun = Products::kRun;
    static constexpr int64_t kDims = kLanes;  // that add_values() takes

    const uint8_t* key_block(int64_t i) const { return view_.block(view_.a.k_cache, first_page_ + i); }

    const uint8_t* value_block(int64_t i) const {
        return view_.a.v_cache ? view_.block(view_.a.v_cache, first_page_ + i) : key_block(i);
    }

    // The values' codes of page i of the block as kernels.h has them: those of keys are turned around.
    const int32_t* value_words(int64_t i) {
        const auto* const words = reinterpret_cast<const int32_t*>(value_block(i));
        if (view_.a.v_cache) return words;
        int32_t* const turned = turned_ + i * view_.a.page_size * view_.a.head_dim * kBits / 32;
        turn_codes<kBits>(words, view_.a.page_size, view_.a.head_dim, turned);
        return turned;
    }

    // Keys of page i of the block, in whole runs.
    int64_t runs_of_page(int64_t i) const {
        return (std::min(view_.a.page_size, keys_ - i * view_.a.page_size) + kRun - 1) / kRun;
    }

    // Scales of the block's keys and values as floats, zero behind its end; the largest scale of the values.
    void load_scales() {
        const int64_t n = view_.a.page_size;
        for (int64_t i = 0; i < pages_; ++i) {
            const half_t* keys = layout_.scales(key_block(i));
            const half_t* values = layout_.scales(value_block(i));
            for (int64_t g = 0; g < groups_; ++g) {
                widen(keys + g * n, key_scales_ + g * kCodeStride + i * n);
                widen(values + g * n, value_scales_ + g * kCodeStride + i * n);
            }
        }
        for (int64_t g = 0; g < groups_; ++g) {
            std::fill(value_scales_ + g * kCodeStride + keys_, value_scales_ + (g + 1) * kCodeStride, 0.0f);
        }
    }

    // Of the same page of the next block the part that goes with a run of this one. gcc sees no effect in a function
    // that only prefetches and drops its calls, unless it has inlined them before it looks.
    __attribute__((always_inline)) void prefetch(const void* cache, int64_t index, int64_t run) const {
        if (index >= view_.num_pages()) return;
        const uint8_t* const block = view_.block(cache, index);
        const int64_t bytes = view_.plan.block_bytes * kRun / view_.a.page_size;
#pragma GCC unroll 4
        for (int64_t i = run * bytes; i < (run + 1) * bytes; i += 64) __builtin_prefetch(block + i, 0, 2);
    }

    void widen(const half_t* from, float* to) const {
        for_lanes(view_.a.page_size, [&](int64_t i) { store(to + i, load(from + i)); },
                  [&](int64_t i, int64_t n) { store_n(to + i, load_n(from + i, n), n); });
    }

    template <int kRows>
    void run_rows(State& state, int64_t r) {
        for (int64_t i = 0; i < pages_; ++i) {
            const auto* words = reinterpret_cast<const int32_t*>(key_block(i));
            const int64_t runs = runs_of_page(i), first = i * view_.a.page_size;
            for (int64_t run = 0; run < runs; ++run) {
                if (fetches_ahead_) {
                    prefetch(view_.a.k_cache, first_page_ + pages_ + i, run);
                    if (view_.a.v_cache) prefetch(view_.a.v_cache, first_page_ + pages_ + i, run);
                }
                const int64_t key = run * kRun;
                Products::template score_keys<kRows>(
                    {words + key, view_.a.page_size, view_.a.page_size - key, view_.a.head_dim, key_scales_ + first + key},
                    queries_ + r * kQueryStride, offsets_ + r * groups_, scores_ + first + key);
            }
        }
        fetches_ahead_ = false;
        float old_factor[kRows], factor[kRows];
        for (int row = 0; row < kRows; ++row) {
            const int64_t visible = std::min(keys_, view_.keys_of_row(r + row) - start_);
            const int64_t hidden =
                std::min(std::max<int64_t>(0, view_.first_key_of_row(r + row) - start_), visible);
            exponentiate(state, r + row, scores_ + row * kCodeStride, hidden, visible, old_factor[row], factor[row]);
            round_weights(row, scores_ + row * kCodeStride, hidden, visible);
        }
        for (int64_t g = 0; g < groups_; ++g) {
            float units[kRows];
            for (int row = 0; row < kRows; ++row) units[row] = factor[row] * units_[g][row] * (kBits == 4 ? 0.5f : 1.0f);
            const CodeMix mix{weights_ + g * kMaxCodeRows * kWeightStride, weight_sums_[g], units, old_factor,
                              state.sum + r * view_.plan.padded_dim, view_.plan.padded_dim};
            const int64_t end = std::min((g + 1) * kCacheGroup, view_.a.head_dim);
            for (int64_t d = g * kCacheGroup; d < end; d += kDims) Products::template add_values<kRows>(values_, d, mix);
        }
    }

    // Scores of a row, not yet times the query's scale, become exp(score - their maximum); the state gets their sum.
    // Keys before `hidden` and from `visible` on get none.
    void exponentiate(State& state, int64_t r, float* scores, int64_t hidden, int64_t visible, float& old_factor,
                      float& factor) {
        const int64_t count = round_up(keys_, kLanes > kRun ? kLanes : kRun);
        std::fill(scores + visible, scores + count, kMinusInfinity);
        std::fill(scores, scores + hidden, kMinusInfinity);
        float query_scale = query_scales_[r];
        if (view_.a.softcap > 0) cap_scores(scores, count, query_scale, view_.a.softcap), query_scale = 1.0f;
        Vec top = set1(kMinusInfinity);
        for (int64_t j = 0; j < count; j += kLanes) top = max(top, load(scores + j));
        const float block_max = largest(top) * query_scale;
        const float new_max = std::max(state.max[r], block_max);
        const Vec scale = set1(query_scale);
        const Vec subtracted = set1(block_max == kMinusInfinity ? 0.0f : -block_max);
        Vec weight = zero();
        for (int64_t j = 0; j < count; j += kLanes) {
            const Vec p = exp_or_zero(fma(load(scores + j), scale, subtracted));
            store(scores + j, p);
            weight = weight + p;
        }
        old_factor = state.max[r] == kMinusInfinity ? 0.0f : std::exp(state.max[r] - new_max);
        factor = block_max == kMinusInfinity ? 0.0f : std::exp(block_max - new_max);  // a row that sees none of the block
        float* const sums = state.weight + r * kLanes;
        store(sums, fma(weight, set1(factor), load(sums) * set1(old_factor)));
        state.max[r] = new_max;
    }

    // weights_[g][row] = p * scale of the value, as 15 bits of the largest scale that the row sees, in pairs.
    void round_weights(int row, const float* p, int64_t hidden, int64_t visible) {
        for (int64_t g = 0; g < groups_; ++g) {
            const float* const scales = value_scales_ + g * kCodeStride;
            if (row == 0 || hidden != seen_first_ || visible != seen_last_)
                top_scales_[g] = largest_scale(scales + hidden, visible - hidden);
            const float top = top_scales_[g], factor = top > 0.0f ? kWeightTop / top : 0.0f;
            units_[g][row] = top / kWeightTop;
            weight_sums_[g][row] = Products::round_weights(
                p, scales, factor, weights_ + (g * kMaxCodeRows + row) * kWeightStride, round_up(keys_, kRun));
        }
        seen_first_ = hidden, seen_last_ = visible;
    }

    static float largest_scale(const float* scales, int64_t count) {
        Vec top = zero();
        for_lanes(count, [&](int64_t i) { top = max(top, load(scales + i)); },
                  [&](int64_t i, int64_t n) { top = max(top, load_n(scales + i, n)); });
        return largest(top);
    }

    static constexpr int64_t kMaxGroups = 1024 / kCacheGroup;  // operations.cpp refuses larger heads

    const TileView& view_;
    const CacheBlock layout_;
    const int64_t groups_;
    float* const key_scales_;       // [groups, kCodeStride]
    float* const value_scales_;     // [groups, kCodeStride]
    float* const scores_;           // [kMaxCodeRows, kCodeStride]
    float* const query_scales_;     // [rows] the softmax's scale included
    float* const offsets_;          // [rows, groups] of the query's codes
    int32_t* const queries_;        // [rows, kQueryStride]
    int32_t* const weights_;        // [groups, kMaxCodeRows, kWeightStride]
    int32_t* const turned_;         // [block_pages, page_size * head_dim codes]: values, where the keys are these
    float units_[kMaxGroups][kMaxCodeRows];         // a rounded weight of 1
    int32_t weight_sums_[kMaxGroups][kMaxCodeRows]; // of the rounded weights
    float top_scales_[kMaxGroups];                  // the largest of the values that the last row saw
    int64_t seen_first_ = 0, seen_last_ = 0;        // which these were
    int64_t start_, first_page_, keys_, pages_;     // the present block
    CodeValues values_;                             // of it
    bool fetches_ahead_;                            // while its first rows are computed
};

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

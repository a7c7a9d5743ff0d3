// A block of attention to a rounded cache (PARLOR_Q8, PARLOR_Q4), in integers.
//
// Bound by multiplying: AVX2 makes 32 products of 16 bits or 64 of 8 bits in the time of 16 FMAs, so codes are never
// widened to floats. A row's scores: the query is rounded to 16 bits (q8) or 8 bits (q4: an error of 1/250 of its
// largest element, a tenth of what the key's 4 bits cost), dotted with the codes of each group exactly, and scaled.
// Its sums over values: exp(score - the block's maximum) times the value's scale is rounded to 15 bits of the largest
// one in the block, and multiplied with the codes exactly. What a row gets depends on the keys that it sees alone.
// The layout of words and scales is in kernels.h: a lane's word holds codes of one sum.
#pragma once

#include "tile.h"

namespace parlor {
namespace PARLOR_ISA_NS {

template <int kBits>
class CodeBlocks {
  public:
    static constexpr bool kRotatesHeads = true;

    CodeBlocks(const TileView& view, float* memory)
        : view_(view), layout_{kBits, view.a.page_size, view.a.head_dim}, groups_(layout_.groups()),
          query_stride_(view.plan.max_rows), key_scales_(memory), value_scales_(key_scales_ + groups_ * kStride),
          scores_(value_scales_ + groups_ * kStride), query_scales_(scores_ + kMaxRows * kStride),
          query_sums_(query_scales_ + view.plan.max_rows),
          queries_(reinterpret_cast<int32_t*>(query_sums_ + view.plan.max_rows * groups_)),
          weights_(queries_ + view.plan.max_rows * view.a.head_dim * kQueryBits / 32) {}

    static int64_t num_floats(const AttentionArgs& a, const Plan& plan) {
        const int64_t groups = CacheBlock{kBits, a.page_size, a.head_dim}.groups();
        return (2 * groups + kMaxRows + groups * kMaxRows / 2) * kStride +
               plan.max_rows * (1 + groups + a.head_dim * kQueryBits / 32);
    }

    void load_queries() {
        for (int64_t r = 0; r < view_.rows; ++r) {
            const float* q = view_.query(r);
            float top = 0.0f;
            for (int64_t d = 0; d < view_.a.head_dim; ++d) top = std::max(top, std::abs(q[d]));
            top = std::max(top, 1e-30f);  // a query of zeros has scores of zero
            const float inverse = kQueryTop / top;
            query_scales_[r] = top / kQueryTop * view_.a.scale;
            int32_t* words = queries_ + r;
            for (int64_t d = 0; d < view_.a.head_dim; d += 8, words += 8 * kQueryBits / 32 * query_stride_) {
                int32_t codes[8];
                for (int64_t i = 0; i < 8; ++i) codes[i] = static_cast<int32_t>(std::nearbyint(q[d + i] * inverse));
                if (kBits == 4) {  // bytes of the even nibbles, then of the odd ones
                    words[0] = four_bytes(codes[0], codes[2], codes[4], codes[6]);
                    words[query_stride_] = four_bytes(codes[1], codes[3], codes[5], codes[7]);
                } else {
                    for (int64_t i = 0; i < 4; ++i) {
                        const int32_t* pair = codes + i / 2 * 4 + i % 2;
                        words[i * query_stride_] = two_halves(pair[0], pair[2]);
                    }
                }
                float& sum = query_sums_[r * groups_ + d / kCacheGroup];
                if (d % kCacheGroup == 0) sum = 0.0f;
                for (const int32_t code : codes) sum += static_cast<float>(code);
            }
        }
    }

    void run(State& state, int64_t start, int64_t end) {
        first_page_ = start / view_.a.page_size;
        start_ = start;
        keys_ = end - start;
        pages_ = (keys_ + view_.a.page_size - 1) / view_.a.page_size;
        load_scales();
        int64_t r = view_.first_row_that_sees(start);
        fetches_ahead_ = true;
        for (; r + 8 <= view_.rows; r += 8) run_rows<8>(state, r);
        if (r + 4 <= view_.rows) run_rows<4>(state, r), r += 4;
        if (r + 2 <= view_.rows) run_rows<2>(state, r), r += 2;
        if (r < view_.rows) run_rows<1>(state, r);
    }

  private:
    static constexpr int kQueryBits = kBits == 8 ? 16 : 8;
    static constexpr float kQueryTop = kBits == 8 ? 32767.0f : 127.0f;
    static constexpr float kWeightTop = 32760.0f;  // below 2^15, whatever a product's rounding adds
    static constexpr int64_t kMaxRows = 8;         // sums of a lane: 8 of 16 registers
    static constexpr int64_t kInWord = 32 / kBits;
    static constexpr int kRun = 8;                 // keys that are worked on at once
    static constexpr int64_t kStride = 512 + 16;   // most keys of a block (operations.cpp), and a line against aliases

    static int32_t four_bytes(int32_t a, int32_t b, int32_t c, int32_t d) {
        return (a & 0xFF) | (b & 0xFF) << 8 | (c & 0xFF) << 16 | d * (1 << 24);
    }
    static int32_t two_halves(int32_t a, int32_t b) { return (a & 0xFFFF) | b * (1 << 16); }

    const uint8_t* key_block(int64_t i) const { return view_.block(view_.a.k_cache, first_page_ + i); }
    const uint8_t* value_block(int64_t i) const { return view_.block(view_.a.v_cache, first_page_ + i); }

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
                widen(keys + g * n, key_scales_ + g * kStride + i * n);
                widen(values + g * n, value_scales_ + g * kStride + i * n);
            }
        }
        for (int64_t g = 0; g < groups_; ++g) {
            std::fill(value_scales_ + g * kStride + keys_, value_scales_ + (g + 1) * kStride, 0.0f);
        }
    }

    // Of the same page of the next block the part that goes with a run of this one. gcc sees no effect in a function
    // that only prefetches and drops its calls, unless it has inlined them before it looks.
    __attribute__((always_inline)) void prefetch(const void* cache, int64_t index, int64_t run) const {
        if (index >= view_.num_pages()) return;
        const uint8_t* const block = view_.block(cache, index);
        const int64_t bytes = view_.plan.block_bytes * kRun / view_.a.page_size;
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
                    prefetch(view_.a.v_cache, first_page_ + pages_ + i, run);
                }
                score_keys<kRows>(words + run * 8, r, first + run * 8);
            }
        }
        fetches_ahead_ = false;
        float old_factor[kRows], factor[kRows];
        for (int row = 0; row < kRows; ++row) {
            const int64_t visible = std::min(keys_, view_.keys_of_row(r + row) - start_);
            const int64_t hidden =
                std::min(std::max<int64_t>(0, view_.first_key_of_row(r + row) - start_), visible);
            exponentiate(state, r + row, scores_ + row * kStride, hidden, visible, old_factor[row], factor[row]);
            round_weights(row, scores_ + row * kStride, hidden, visible);
        }
        for (int64_t d = 0; d < view_.a.head_dim; d += 8) add_values<kRows>(state, r, d, old_factor, factor);
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
            const float* const scales = value_scales_ + g * kStride;
            const float top = largest_scale(scales + hidden, visible - hidden);
            const float factor = top > 0.0f ? kWeightTop / top : 0.0f;
            units_[g % kMaxGroups][row] = top / kWeightTop;
            weight_sums_[g % kMaxGroups][row] =
                round_run(p, scales, factor, weights_ + (g * kMaxRows + row) * kStride / 2, round_up(keys_, kRun));
        }
    }

    static float largest_scale(const float* scales, int64_t count) {
        Vec top = zero();
        for_lanes(count, [&](int64_t i) { top = max(top, load(scales + i)); },
                  [&](int64_t i, int64_t n) { top = max(top, load_n(scales + i, n)); });
        return largest(top);
    }

#if defined(__AVX2__)
    static __m256i add_pairs(__m256i sum, __m256i a, __m256i b) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
        return _mm256_dpwssd_epi32(sum, a, b);
#else
        return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
    }

    static __m256i words_at(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

    // scores_[row][first ..] for 8 keys, `words` their first.
    template <int kRows>
    void score_keys(const int32_t* words, int64_t r, int64_t first) {
        const int64_t n = view_.a.page_size;
        const int32_t* queries = queries_ + r;
        for (int64_t g = 0; g < groups_; ++g) {
            const int64_t word_rows = std::min(kCacheGroup, view_.a.head_dim - g * kCacheGroup) / kInWord;
            __m256i sums[kRows];
#pragma GCC unroll 16
            for (__m256i& sum : sums) sum = _mm256_setzero_si256();
            for (int64_t i = 0; i < word_rows; ++i, words += n, queries += 2 * query_stride_) {
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
                    const __m256i q0 = _mm256_set1_epi32(queries[row]);
                    const __m256i q1 = _mm256_set1_epi32(queries[query_stride_ + row]);
                    if (kBits == 8) {
                        sums[row] = add_pairs(add_pairs(sums[row], even, q0), odd, q1);
                    } else {  // at most 8 products of 2 * 15 * 127 in 16 bits
                        sums[row] = _mm256_add_epi16(sums[row], _mm256_maddubs_epi16(even, q0));
                        sums[row] = _mm256_add_epi16(sums[row], _mm256_maddubs_epi16(odd, q1));
                    }
                }
            }
            const __m256 scales = _mm256_loadu_ps(key_scales_ + g * kStride + first);
#pragma GCC unroll 16
            for (int row = 0; row < kRows; ++row) {
                float* const score = scores_ + row * kStride + first;
                __m256i sum = sums[row];
                if (kBits == 4) sum = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
                __m256 dot = _mm256_cvtepi32_ps(sum);
                if (kBits == 4)
                    dot = _mm256_sub_ps(dot, _mm256_set1_ps(7.5f * query_sums_[(r + row) * groups_ + g]));
                const __m256 before = g == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(score);
                _mm256_storeu_ps(score, _mm256_fmadd_ps(dot, scales, before));
            }
        }
    }

    // Pairs of rounded weights in the order in which add_values() meets the codes; returns their sum.
    static int32_t round_run(const float* p, const float* scales, float factor, int32_t* pairs, int64_t count) {
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

    // state.sum[r ..][d .. d + 8], over all keys of the block.
    template <int kRows>
    void add_values(State& state, int64_t r, int64_t d, const float* old_factor, const float* factor) {
        const int64_t head_dim = view_.a.head_dim, g = d / kCacheGroup;
        __m256i sums[kRows];
#pragma GCC unroll 16
        for (__m256i& sum : sums) sum = _mm256_setzero_si256();
        for (int64_t i = 0; i < pages_; ++i) {
            const int32_t* words = reinterpret_cast<const int32_t*>(value_block(i)) + d;
            const int32_t* pairs = weights_ + (g * kMaxRows * kStride + i * view_.a.page_size) / 2;
            for (int64_t run = runs_of_page(i); run > 0; --run, words += head_dim * 8 / kInWord, pairs += 4) {
                __m256i codes[4];
                const __m256i word = words_at(words);
                if (kBits == 8) {
                    const __m256i second = words_at(words + head_dim);
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
                    const int32_t* const pair = pairs + row * kStride / 2;
#pragma GCC unroll 16
                    for (int c = 0; c < 4; ++c)
                        sums[row] = add_pairs(sums[row], codes[c], _mm256_set1_epi32(pair[c]));
                }
            }
        }
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row) {
            float* const to = state.sum + (r + row) * view_.plan.padded_dim + d;
            const __m256 mixed = _mm256_cvtepi32_ps(centred(sums[row], weight_sums_[g % kMaxGroups][row]));
            const __m256 unit = _mm256_set1_ps(factor[row] * units_[g % kMaxGroups][row] * (kBits == 4 ? 0.5f : 1.0f));
            const __m256 before = _mm256_mul_ps(_mm256_loadu_ps(to), _mm256_set1_ps(old_factor[row]));
            _mm256_storeu_ps(to, _mm256_fmadd_ps(mixed, unit, before));
        }
    }

    // q4: twice the sum of weight * (code - 7.5).
    static __m256i centred(__m256i sum, int32_t weights) {
        return kBits == 8 ? sum : _mm256_sub_epi32(_mm256_slli_epi32(sum, 1), _mm256_set1_epi32(15 * weights));
    }
#else
    static int32_t code(int32_t word, int64_t i) {
        const uint32_t bits = static_cast<uint32_t>(word) >> (i * kBits);
        return kBits == 8 ? static_cast<int8_t>(bits & 0xFF) : static_cast<int32_t>(bits & 15);
    }

    // Code i of a word's 4 or 8 dimensions, as load_queries() packed them.
    int32_t query_code(const int32_t* words, int64_t d) const {
        const auto word = static_cast<uint32_t>(words[(d / kInWord * 2 + d % 2) * query_stride_]);
        const int64_t shift = d % kInWord / 2 * kQueryBits;
        return kBits == 4 ? static_cast<int32_t>(static_cast<int8_t>(word >> shift)) : static_cast<int16_t>(word >> shift);
    }

    template <int kRows>
    void score_keys(const int32_t* words, int64_t r, int64_t first) {
        for (int row = 0; row < kRows; ++row) {
            const int32_t* const query = queries_ + r + row;
            float* const score = scores_ + row * kStride + first;
            std::fill_n(score, 8, 0.0f);
            for (int64_t g = 0; g < groups_; ++g) {
                int32_t sums[8] = {};
                const int64_t end = std::min((g + 1) * kCacheGroup, view_.a.head_dim);
                for (int64_t d = g * kCacheGroup; d < end; ++d) {
                    const int32_t q = query_code(query, d);
                    const int32_t* const keys = words + d / kInWord * view_.a.page_size;
                    for (int64_t j = 0; j < 8; ++j) sums[j] += q * code(keys[j], d % kInWord);
                }
                const float offset = kBits == 4 ? 7.5f * query_sums_[(r + row) * groups_ + g] : 0.0f;
                for (int64_t j = 0; j < 8; ++j)
                    score[j] += (static_cast<float>(sums[j]) - offset) * key_scales_[g * kStride + first + j];
            }
        }
    }

    static int32_t round_run(const float* p, const float* scales, float factor, int32_t* weights, int64_t count) {
        int32_t total = 0;
        for (int64_t j = 0; j < count; ++j) {
            const auto weight = static_cast<int32_t>(std::nearbyint(p[j] * (scales[j] * factor)));
            reinterpret_cast<int16_t*>(weights)[j] = static_cast<int16_t>(weight);
            total += weight;
        }
        return total;
    }

    template <int kRows>
    void add_values(State& state, int64_t r, int64_t d, const float* old_factor, const float* factor) {
        const int64_t head_dim = view_.a.head_dim, g = d / kCacheGroup;
        for (int row = 0; row < kRows; ++row) {
            int32_t sums[8] = {};
            const auto* weights = reinterpret_cast<const int16_t*>(weights_ + (g * kMaxRows + row) * kStride / 2);
            for (int64_t j = 0; j < keys_; ++j) {
                const int64_t i = j / view_.a.page_size, in_page = j % view_.a.page_size;
                const auto* words = reinterpret_cast<const int32_t*>(value_block(i)) + in_page / kInWord * head_dim + d;
                for (int64_t k = 0; k < 8; ++k) sums[k] += weights[j] * code(words[k], in_page % kInWord);
            }
            float* const to = state.sum + (r + row) * view_.plan.padded_dim + d;
            const float unit = factor[row] * units_[g % kMaxGroups][row] * (kBits == 4 ? 0.5f : 1.0f);
            for (int64_t k = 0; k < 8; ++k) {
                const int32_t sum = kBits == 4 ? 2 * sums[k] - 15 * weight_sums_[g % kMaxGroups][row] : sums[k];
                to[k] = to[k] * old_factor[row] + static_cast<float>(sum) * unit;
            }
        }
    }
#endif

    static constexpr int64_t kMaxGroups = 1024 / kCacheGroup;  // operations.cpp refuses larger heads

    const TileView& view_;
    const CacheBlock layout_;
    const int64_t groups_;
    const int64_t query_stride_;    // rows side by side, so that their distance is a constant
    float* const key_scales_;       // [groups, kStride]
    float* const value_scales_;     // [groups, kStride]
    float* const scores_;           // [kMaxRows, kStride]
    float* const query_scales_;     // [rows] the softmax's scale included
    float* const query_sums_;       // [rows, groups] of the query's codes
    int32_t* const queries_;        // [words, query_stride] codes in the order of a word's
    int32_t* const weights_;        // [groups, kMaxRows, kStride / 2] pairs of 16 bits
    float units_[kMaxGroups][kMaxRows];         // a rounded weight of 1
    int32_t weight_sums_[kMaxGroups][kMaxRows]; // of the rounded weights
    int64_t start_, first_page_, keys_, pages_; // the present block
    bool fetches_ahead_;                        // while its first rows are computed
};

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

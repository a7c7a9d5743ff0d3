// A block of attention to a cache of float16 or float32: keys [head_dim, page_size], values [page_size, head_dim].
//
// Bound by FMA where several query heads share a key head (two for each number that is read), by memory otherwise.
// Keys are the lanes of a vector, so nothing is summed across lanes. Many rows go over pages that were widened to
// floats once; few rows widen as they load. A sum's order is the same either way: dimension by dimension, key by key.
// Where the keys are the values, too, their pages are turned around, which 16 rows and more share (see LatentAttention of the Spec).
#pragma once

#include "tile.h"
#include "turn_pages.h"

namespace parlor {
namespace PARLOR_ISA_NS {

template <class Element>
class NumberBlocks {
  public:
    static constexpr bool kRotatesHeads = false;

    NumberBlocks(const TileView& view, float* memory)
        : view_(view), n_(view.a.page_size), padded_page_(round_up(n_, kLanes)),
          score_stride_(view.plan.block_pages * padded_page_), q_(memory),
          scores_(q_ + view.plan.max_rows * view.plan.padded_dim),
          widened_(scores_ + view.plan.max_rows * score_stride_) {}

    static int64_t num_floats(const AttentionArgs& a, const Plan& plan) {
        return plan.max_rows * (plan.padded_dim + plan.block_pages * round_up(a.page_size, kLanes)) +
               kVectors / 2 * round_up(a.page_size * a.head_dim, 16);
    }

    // Scaled here once.
    void load_queries() {
        const Vec scale = set1(view_.a.scale);
        for (int64_t r = 0; r < view_.rows; ++r) {
            const float* from = view_.query(r);
            float* to = q_ + r * view_.plan.padded_dim;
            for_lanes(view_.a.head_dim, [&](int64_t i) { store(to + i, load(from + i) * scale); },
                      [&](int64_t i, int64_t n) { store(to + i, load_n(from + i, n) * scale); });
        }
    }

    // All scores, then their exponentials, then the values page by page.
    void run(State& state, int64_t start, int64_t end) {
        const int64_t first_row = view_.first_row_that_sees(start), rows = view_.rows - first_row;
        const int64_t first_page = start / n_, pages = (end - start + n_ - 1) / n_;
        const bool widens = sizeof(Element) < sizeof(float) && rows > kMaxRows * 2;
        for (int64_t i = 0; i < pages;) {
            const int64_t count = kVectors == 4 && n_ == 2 * kLanes && i + 1 < pages ? 2 : 1;
            const Element* const keys[2] = {page(view_.a.k_cache, first_page + i),
                                            page(view_.a.k_cache, first_page + i + count - 1)};
            Fetch next = fetch(view_.a.k_cache, first_page + i + kPagesAhead, count, first_row,
                               n_ / (2 * kLanes) * view_.a.head_dim);
            float* const scores = scores_ + i * padded_page_;
            if (widens) {
                const float* const widened[2] = {widen(keys[0]),
                                                 count == 2 ? widen(keys[1], n_ * view_.a.head_dim) : nullptr};
                compute_scores(widened, count, next, first_row, scores);
            } else {
                compute_scores(keys, count, next, first_row, scores);
            }
            i += count;
        }
        for (int64_t r = first_row; r < view_.rows; ++r)
            exponentiate(state, r, view_.first_key_of_row(r) - start, std::min(end, view_.keys_of_row(r)) - start, pages);
        for (int64_t i = 0; i < pages; ++i) {
            const int64_t count = std::min(n_, end - start - i * n_);
            const float* const p = scores_ + i * padded_page_;
            if (!view_.a.v_cache) {
                turn_page(page(view_.a.k_cache, first_page + i), n_, view_.a.head_dim, widened_);
                Fetch none = no_fetch();
                add_values(state, widened_, none, first_row, count, p);
                continue;
            }
            const Element* const values = page(view_.a.v_cache, first_page + i);
            Fetch next = fetch(view_.a.v_cache, first_page + i + kPagesAhead, 1, first_row,
                               view_.a.head_dim / (fetching_vectors() * kLanes) * n_);
            if (widens) add_values(state, widen(values), next, first_row, count, p);
            else add_values(state, values, next, first_row, count, p);
        }
    }

  private:
    static constexpr int64_t kPagesAhead = 2;  // one is a tenth slower where each row has a key head of its own

    // Rows that go over a page together, and vectors of each: the sums, what is loaded and a factor lie in registers.
#if defined(__AVX512F__)
    static constexpr int kMaxRows = 6, kVectors = 4;  // 24 + 4 + 1 of 32; the fewer loads for an FMA, the nearer to one a cycle
#elif defined(__AVX2__)
    static constexpr int kMaxRows = 6, kVectors = 2;  // 12 + 2 + 1 of 16
#elif defined(__aarch64__)
    static constexpr int kMaxRows = 8, kVectors = 2;  // 16 + 2 + 1 of 32
#else
    static constexpr int kMaxRows = 4, kVectors = 2;
#endif

    const Element* page(const void* cache, int64_t index) const {
        return reinterpret_cast<const Element*>(view_.block(cache, index));
    }

    // What is prefetched while a page is worked on, a little in each step: all at once holds up the loads. Into L2: a line on
    // its way to L1 takes one of its few places from the loads until memory has answered.
    struct Fetch {
        const char* at;
        int64_t step;  // bytes; 0: nothing is to be fetched, and `at` lies in the cache
        int64_t other; // where the second line of a wide step is: the next one, or of another page

        void one_step() {
            __builtin_prefetch(at, 0, 2);
            if (kVectors == 4) __builtin_prefetch(at + other, 0, 2);
            at += step;
        }
    };

    // One page or two from `index` on, in as many steps as the rows from first_row on take, `steps` for each run of them.
    Fetch fetch(const void* cache, int64_t index, int64_t count, int64_t first_row, int64_t steps) const {
        if (index >= view_.num_pages() || steps == 0) return no_fetch();
        const int64_t num_steps = steps * ((view_.rows - first_row + kMaxRows - 1) / kMaxRows);
        const char* const at = reinterpret_cast<const char*>(page(cache, index));
        const bool has_second = count == 2 && index + 1 < view_.num_pages();
        const int64_t other = has_second ? reinterpret_cast<const char*>(page(cache, index + 1)) - at : 64;
        return {at, (view_.plan.block_bytes + num_steps - 1) / num_steps, other};
    }

    // Of the passes over values that prefetch: small heads have no wide ones.
    int64_t fetching_vectors() const { return view_.a.head_dim >= kVectors * kLanes ? kVectors : 2; }

    Fetch no_fetch() const { return {reinterpret_cast<const char*>(q_), 0, 0}; }

    const float* widen(const Element* numbers, int64_t offset = 0) {
        float* const to = widened_ + offset;
        for_lanes(n_ * view_.a.head_dim, [&](int64_t i) { store(to + i, load(numbers + i)); },
                  [&](int64_t i, int64_t n) { store_n(to + i, load_n(numbers + i, n), n); });
        return to;
    }

    // visit(std::integral_constant<int, count>, r) for the rows from r on, in even runs of at most kMaxRows.
    template <class Visit>
    void for_rows(int64_t r, Visit visit) {
        while (r < view_.rows) {
            const int64_t left = view_.rows - r;
            const int64_t count = left >= 2 * kMaxRows ? kMaxRows : left > kMaxRows ? (left + 1) / 2 : left;
            visit_rows<kMaxRows>(count, r, visit);
            r += count;
        }
    }

    template <int kRows, class Visit>
    static void visit_rows(int64_t count, int64_t r, Visit& visit) {
        if (count == kRows) return visit(std::integral_constant<int, kRows>(), r);
        if constexpr (kRows > 1) visit_rows<kRows - 1>(count, r, visit);
    }

    // scores[r][j] = q[r] . key j for a whole page, or two. Those behind the sequence's end are computed from whatever
    // lies there and replaced in exponentiate().
    template <class Number>
    void compute_scores(const Number* const (&pages)[2], int64_t count, Fetch& next, int64_t first_row, float* scores) {
        Fetch none = no_fetch();
        const Number *const keys = pages[0], *const others = pages[1];
        for_rows(first_row, [&](auto rows, int64_t r) {
            constexpr int kRows = decltype(rows)::value;
            if constexpr (kVectors == 4) {
                if (count == 2)
                    return score_keys<kRows, 4>(r, scores, next, [&](int64_t d, int v) {
                        return load((v < 2 ? keys : others) + d * n_ + v % 2 * kLanes);
                    });
            }
            int64_t j = 0;
            for (; j + 2 * kLanes <= n_; j += 2 * kLanes)
                score_keys<kRows, 2>(r, scores + j, next,
                                     [&](int64_t d, int v) { return load(keys + d * n_ + j + v * kLanes); });
            for (; j + kLanes <= n_; j += kLanes)
                score_keys<kRows, 1>(r, scores + j, none, [&](int64_t d, int) { return load(keys + d * n_ + j); });
            if (j < n_)
                score_keys<kRows, 1>(r, scores + j, none,
                                     [&](int64_t d, int) { return load_n(keys + d * n_ + j, n_ - j); });
        });
    }

    template <int kRows, int kCount, class Keys>
    void score_keys(int64_t r, float* scores, Fetch& fetches, Keys keys) {
        const int64_t padded_dim = view_.plan.padded_dim, head_dim = view_.a.head_dim;
        const float* const q = q_ + r * padded_dim;
        Vec sums[kRows][kCount];
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 16
            for (int v = 0; v < kCount; ++v) sums[row][v] = zero();
        Fetch next = fetches;
#pragma GCC unroll 4
        for (int64_t d = 0; d < head_dim; ++d) {
            next.one_step();
            Vec key[kCount];
#pragma GCC unroll 16
            for (int v = 0; v < kCount; ++v) key[v] = keys(d, v);
#pragma GCC unroll 16
            for (int row = 0; row < kRows; ++row) {
                const Vec query = set1(q[row * padded_dim + d]);
#pragma GCC unroll 16
                for (int v = 0; v < kCount; ++v) sums[row][v] = fma(query, key[v], sums[row][v]);
            }
        }
        fetches = next;
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 16
            for (int v = 0; v < kCount; ++v)
                store(scores + (r + row) * score_stride_ + v * kLanes, sums[row][v]);
    }

    // Scores of row r become exp(score - max), zero before key `hidden` of the block and from `visible` on; earlier sums
    // are scaled to the new maximum.
    void exponentiate(State& state, int64_t r, int64_t hidden, int64_t visible, int64_t pages) {
        float* const scores = scores_ + r * score_stride_;
        const bool sees_all = hidden <= 0 && visible == pages * padded_page_;
        for (int64_t i = 0; !sees_all && i < pages; ++i) {
            const int64_t in_page = std::max<int64_t>(0, std::min(visible - i * n_, n_));
            std::fill(scores + i * padded_page_ + in_page, scores + (i + 1) * padded_page_, kMinusInfinity);
            const int64_t too_old = std::min(std::max<int64_t>(0, hidden - i * n_), n_);
            std::fill(scores + i * padded_page_, scores + i * padded_page_ + too_old, kMinusInfinity);
        }
        const int64_t count = pages * padded_page_;
        if (view_.a.softcap > 0) cap_scores(scores, count, 1.0f, view_.a.softcap);
        Vec top = set1(state.max[r]);
        for (int64_t j = 0; j < count; j += kLanes) top = max(top, load(scores + j));
        const float new_max = largest(top);
        if (new_max > state.max[r]) rescale(state, r, new_max);
        Vec weight = load(state.weight + r * kLanes);
        const Vec subtracted = set1(new_max == kMinusInfinity ? 0.0f : new_max);  // -inf only from broken inputs
        for (int64_t j = 0; j < count; j += kLanes) {
            const Vec p = exp_or_zero(load(scores + j) - subtracted);
            store(scores + j, p);
            weight = weight + p;
        }
        store(state.weight + r * kLanes, weight);
    }

    void rescale(State& state, int64_t r, float new_max) {
        if (state.max[r] != kMinusInfinity) {
            const Vec factor = set1(std::exp(state.max[r] - new_max));
            float* const weight = state.weight + r * kLanes;
            store(weight, load(weight) * factor);
            float* const row = state.sum + r * view_.plan.padded_dim;
            for (int64_t i = 0; i < view_.plan.padded_dim; i += kLanes) store(row + i, load(row + i) * factor);
        }
        state.max[r] = new_max;
    }

    template <class Number>
    void add_values(State& state, const Number* values, Fetch& next, int64_t first_row, int64_t count,
                    const float* p) {
        const int64_t n = view_.a.head_dim;
        Fetch none = no_fetch();
        for_rows(first_row, [&](auto rows, int64_t r) {
            constexpr int kRows = decltype(rows)::value;
            int64_t i = 0;
            for (; kVectors == 4 && i + 4 * kLanes <= n; i += 4 * kLanes)
                add_columns<kRows, kVectors>(state, r, i, count, p, next,
                                             [&](int64_t j, int v) { return load(values + j * n + i + v * kLanes); });
            for (; i + 2 * kLanes <= n; i += 2 * kLanes)
                add_columns<kRows, 2>(state, r, i, count, p, fetching_vectors() == 2 ? next : none,
                                      [&](int64_t j, int v) { return load(values + j * n + i + v * kLanes); });
            for (; i + kLanes <= n; i += kLanes)
                add_columns<kRows, 1>(state, r, i, count, p, none,
                                      [&](int64_t j, int) { return load(values + j * n + i); });
            if (i < n)
                add_columns<kRows, 1>(state, r, i, count, p, none,
                                      [&](int64_t j, int) { return load_n(values + j * n + i, n - i); });
        });
    }

    // sum[r..][i..] += p[r..][j] * value(j)[i..] over the keys j of the page
    template <int kRows, int kCount, class Value>
    void add_columns(State& state, int64_t r, int64_t i, int64_t count, const float* p, Fetch& fetches, Value value) {
        const int64_t padded_dim = view_.plan.padded_dim;
        p += r * score_stride_;
        float* const to = state.sum + r * padded_dim + i;
        Vec sums[kRows][kCount];
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 16
            for (int v = 0; v < kCount; ++v) sums[row][v] = load(to + row * padded_dim + v * kLanes);
        Fetch next = fetches;
#pragma GCC unroll 4
        for (int64_t j = 0; j < count; ++j) {
            next.one_step();
            Vec values[kCount];
#pragma GCC unroll 16
            for (int v = 0; v < kCount; ++v) values[v] = value(j, v);
#pragma GCC unroll 16
            for (int row = 0; row < kRows; ++row) {
                const Vec weight = set1(p[row * score_stride_ + j]);
#pragma GCC unroll 16
                for (int v = 0; v < kCount; ++v) sums[row][v] = fma(weight, values[v], sums[row][v]);
            }
        }
        fetches = next;
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 16
            for (int v = 0; v < kCount; ++v) store(to + row * padded_dim + v * kLanes, sums[row][v]);
    }

    const TileView& view_;
    const int64_t n_;  // keys of a page
    const int64_t padded_page_, score_stride_;
    float* const q_;        // [rows, padded_dim]
    float* const scores_;   // [rows, block_pages * padded_page]: each page of the block starts a vector
    float* const widened_;  // [kVectors / 2 * page_size * head_dim]: a page as floats, of keys or of values; or two, of keys
};

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

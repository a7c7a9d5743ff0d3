// Causal attention over the paged cache, for prompts and decode steps alike.
//
// Bound by reading the cache when decoding (2 * head_dim * element size for each key and key head), by FMA for
// prompts. A tile is the rows (token, query head) that share a key head, so each page comes from memory once for all
// of them. Keys lie transposed in their page: 16 or 8 keys are the lanes of a vector, nothing is summed across lanes.
//
// Arithmetic of one row, always the same: keys in blocks, an online softmax over the blocks of a split
// (about kSplitKeys keys, counted from the first key), splits merged in ascending order. Few rows share their splits
// among the threads, many rows go through them one after the other; neither the batch nor the number of
// threads nor the size of the prompt's chunk changes a bit of the result.
// Reference: paged_attention() in model/kernels/reference.py.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cache_block.h"
#include "operations.h"
#include "simd.h"
#include "thread_team.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int64_t kSplitKeys = 256;     // 128 KiB of fp16 cache at head_dim 128: enough to hide the merge
constexpr int64_t kBlockKeys = 128;     // keys between two looks at the running maximum
constexpr int64_t kTileRows = 64;       // rows that share a page in the L1 cache, if a token has no more query heads
constexpr int64_t kPagesAhead = 2;      // prefetch distance; a page of one row takes longer than memory's latency
constexpr int64_t kMaxTokensInSplits = 8;  // sequences with more query tokens are not split among threads
#if defined(__AVX512F__)
constexpr int kRowsAtOnce = 8;  // with two vectors each: 16 sums, two loaded vectors, one factor in 32 registers
#else
constexpr int kRowsAtOnce = 4;  // 8 + 2 + 1 of 16 registers
#endif
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// What all parts of a call share: sizes of tiles and of the scratch memory.
struct Plan {
    int64_t group;         // query heads of a key head
    int64_t tile_tokens;
    int64_t max_rows;      // rows of a tile
    int64_t split_keys;    // a multiple of the block
    int64_t block_pages;
    int64_t padded_dim;    // head_dim in whole vectors
    int64_t padded_page;   // page_size in whole vectors
    int64_t score_stride;  // block_pages * padded_page
    int64_t num_slots = 0; // split results that wait for the merge
    int64_t total_cost = 0;
    int64_t widened_floats;  // a block of a quantized cache

    int64_t state_floats() const { return round_up(max_rows * (padded_dim + kLanes + 1), 16); }
    int64_t part_floats() const {
        return 2 * state_floats() + round_up(max_rows * (padded_dim + score_stride) + widened_floats, 16);
    }
};

// Running softmax of a tile: out = sum / (sum of the weight's lanes) once all keys are in.
struct State {
    float* sum;     // [rows, padded_dim] sum of exp(score - max) * value
    float* weight;  // [rows, kLanes] sums of exp(score - max), by the key's lane
    float* max;     // [rows] largest score so far

    State(float* memory, const Plan& plan)
        : sum(memory), weight(memory + plan.max_rows * plan.padded_dim), max(weight + plan.max_rows * kLanes) {}

    void clear(int64_t rows, int64_t padded_dim) {
        std::fill_n(sum, rows * padded_dim, 0.0f);
        std::fill_n(weight, rows * kLanes, 0.0f);
        std::fill_n(max, rows, kMinusInfinity);
    }
};

// A tile of query tokens of one sequence and one key head, over a run of splits.
struct Item {
    int64_t sequence, kv_head;
    int64_t first_token, num_tokens;  // of the sequence's query tokens
    int64_t first_split, num_splits;  // of this item
    int64_t all_splits;               // of the tile
    int64_t slot;                     // where a lone split's result goes; -1: the item is the whole tile
    int64_t cost;
};

int64_t query_tokens(const AttentionArgs& a, int64_t s) { return int64_t{a.cu_seqlens[s + 1]} - a.cu_seqlens[s]; }

// visit(item) for every item of the batch, always in the same order.
template <class Visit>
void for_each_item(const AttentionArgs& a, const Plan& plan, Visit visit) {
    int64_t slot = 0;
    for (int64_t s = 0; s < a.num_sequences; ++s) {
        const int64_t tokens = query_tokens(a, s), past = a.seq_lens[s] - tokens;
        for (int64_t h = 0; h < a.num_kv_heads; ++h) {
            for (int64_t first = 0; first < tokens; first += plan.tile_tokens) {
                const int64_t count = std::min(plan.tile_tokens, tokens - first);
                const int64_t keys = past + first + count;
                const int64_t splits = (keys + plan.split_keys - 1) / plan.split_keys;
                const int64_t cost_of_key = count * plan.group + 8;  // 8: reading and widening, in rows
                if (splits == 1 || tokens > kMaxTokensInSplits) {
                    visit(Item{s, h, first, count, 0, splits, splits, -1, keys * cost_of_key});
                    continue;
                }
                for (int64_t split = 0; split < splits; ++split) {
                    const int64_t in_split = std::min(plan.split_keys, keys - split * plan.split_keys);
                    visit(Item{s, h, first, count, split, 1, splits, slot++, in_split * cost_of_key});
                }
            }
        }
    }
}

Plan make_plan(const AttentionArgs& a) {
    Plan plan;
    plan.group = a.num_heads / a.num_kv_heads;
    plan.tile_tokens = std::max<int64_t>(1, kTileRows / plan.group);
    plan.block_pages = std::max<int64_t>(1, kBlockKeys / a.page_size);
    const int64_t block_keys = plan.block_pages * a.page_size;
    plan.split_keys = std::max<int64_t>(1, kSplitKeys / block_keys) * block_keys;
    plan.padded_dim = round_up(a.head_dim, kLanes);
    plan.padded_page = round_up(a.page_size, kLanes);
    plan.score_stride = plan.block_pages * plan.padded_page;
    plan.widened_floats = a.cache_dtype == PARLOR_Q8 || a.cache_dtype == PARLOR_Q4 ? a.page_size * a.head_dim : 0;
    int64_t longest = 1;
    for (int64_t s = 0; s < a.num_sequences; ++s) longest = std::max(longest, query_tokens(a, s));
    plan.max_rows = std::min(plan.tile_tokens, longest) * plan.group;
    for_each_item(a, plan, [&](const Item& item) {
        plan.num_slots = std::max(plan.num_slots, item.slot + 1);
        plan.total_cost += item.cost;
    });
    return plan;
}

// How Tile reads a cache of plain numbers: the blocks are as it needs them.
template <class Element_>
struct PlainCache {
    using Element = Element_;
    static constexpr int kBits = 0;
};

// A quantized cache: each block becomes floats in memory of the tile's own when its turn comes.
template <int kBits_>
struct QuantizedCache {
    using Element = float;
    static constexpr int kBits = kBits_;
};

// The work on one item.
template <class Cache>
class Tile {
    using Element = typename Cache::Element;

  public:
    Tile(const AttentionArgs& args, const Plan& plan, const Item& item, float* memory)
        : a_(args), plan_(plan), item_(item), rows_(item.num_tokens * plan.group), state_(memory, plan),
          total_(memory + plan.state_floats(), plan), q_(memory + 2 * plan.state_floats()),
          scores_(q_ + plan.max_rows * plan.padded_dim), widened_(scores_ + plan.max_rows * plan.score_stride),
          first_row_of_q_(args.cu_seqlens[item.sequence] + item.first_token),
          first_position_(args.seq_lens[item.sequence] - query_tokens(args, item.sequence) + item.first_token) {}

    void run(float* slots) {
        load_queries();
        if (item_.slot >= 0) {
            run_split(item_.first_split);
            store_slot(slots + item_.slot * plan_.state_floats());
            return;
        }
        total_.clear(rows_, plan_.padded_dim);
        for (int64_t split = 0; split < item_.num_splits; ++split) {
            run_split(split);
            merge(state_);
        }
        write_out();
    }

    // The tile's splits lie in consecutive slots.
    void finish(float* slots) {
        total_.clear(rows_, plan_.padded_dim);
        for (int64_t split = 0; split < item_.all_splits; ++split)
            merge(State(slots + (item_.slot + split) * plan_.state_floats(), plan_));
        write_out();
    }

  private:
    // Rows are (token, head of the group); scaled here once.
    void load_queries() {
        const Vec scale = set1(a_.scale);
        for (int64_t r = 0; r < rows_; ++r) {
            const float* from = a_.q + (first_row_of_q_ + r / plan_.group) * a_.q_stride +
                                (item_.kv_head * plan_.group + r % plan_.group) * a_.head_dim;
            float* to = q_ + r * plan_.padded_dim;
            for_lanes(a_.head_dim, [&](int64_t i) { store(to + i, load(from + i) * scale); },
                      [&](int64_t i, int64_t n) { store(to + i, load_n(from + i, n) * scale); });
        }
    }

    int64_t keys_of_row(int64_t r) const { return first_position_ + r / plan_.group + 1; }

    int64_t block_index(int64_t index) const {
        const int64_t page = a_.block_table[item_.sequence * a_.block_table_stride + index];
        return page * a_.num_kv_heads + item_.kv_head;
    }

    const Element* page(const void* cache, int64_t index) const {
        return static_cast<const Element*>(cache) + block_index(index) * a_.page_size * a_.head_dim;
    }

    const Element* keys(int64_t index) {
        if constexpr (Cache::kBits == 0) return page(a_.k_cache, index);
        else return widen_block(a_.k_cache, index, true);
    }

    const Element* values(int64_t index) {
        if constexpr (Cache::kBits == 0) return page(a_.v_cache, index);
        else return widen_block(a_.v_cache, index, false);
    }

    // A quantized block as floats: keys [head_dim, page_size], values [page_size, head_dim].
    const float* widen_block(const void* cache, int64_t index, bool are_keys) {
        constexpr int64_t kInWord = Cache::kBits == 8 ? 4 : 8;
        const CacheBlock layout{Cache::kBits, a_.page_size, a_.head_dim};
        const uint8_t* codes = static_cast<const uint8_t*>(cache) + block_index(index) * layout.bytes();
        const half_t* scales = layout.scales(codes);
        for (int64_t d = 0; d < a_.head_dim; ++d) {
            for (int64_t j = 0; j < a_.page_size; ++j) {
                const int64_t in_word = (are_keys ? d : j) % kInWord;
                const int64_t word = are_keys ? d / kInWord * a_.page_size + j : j / kInWord * a_.head_dim + d;
                const uint8_t byte = codes[word * 4 + in_word * Cache::kBits / 8];
                const float number = Cache::kBits == 8 ? static_cast<float>(static_cast<int8_t>(byte))
                                                       : static_cast<float>(in_word % 2 ? byte >> 4 : byte & 15) - 7.5f;
                const float scale = load_n(scales + d / kCacheGroup * a_.page_size + j, 1)[0];
                widened_[are_keys ? d * a_.page_size + j : j * a_.head_dim + d] = number * scale;
            }
        }
        return widened_;
    }

    void run_split(int64_t split) {
        state_.clear(rows_, plan_.padded_dim);
        const int64_t end = std::min((split + 1) * plan_.split_keys, keys_of_row(rows_ - 1));
        for (int64_t start = split * plan_.split_keys; start < end; start += plan_.block_pages * a_.page_size)
            run_block(start, std::min(end, start + plan_.block_pages * a_.page_size));
    }

    // Keys start .. end: all scores, then their exponentials, then the values page by page.
    void run_block(int64_t start, int64_t end) {
        const int64_t hidden_tokens = std::max<int64_t>(0, start - first_position_);  // see none of these keys
        const int64_t first_row = std::min(hidden_tokens * plan_.group, rows_);
        const int64_t first_page = start / a_.page_size, pages = (end - start + a_.page_size - 1) / a_.page_size;
        for (int64_t i = 0; i < pages; ++i) {
            compute_scores(keys(first_page + i), ahead(a_.k_cache, first_page + i), first_row,
                           scores_ + i * plan_.padded_page);
        }
        for (int64_t r = first_row; r < rows_; ++r)
            exponentiate(r, std::min(end, keys_of_row(r)) - start, pages);
        for (int64_t i = 0; i < pages; ++i)
            add_values(values(first_page + i), ahead(a_.v_cache, first_page + i), first_row,
                       std::min(a_.page_size, end - start - i * a_.page_size), scores_ + i * plan_.padded_page);
    }

    // The page to prefetch while page `index` is worked on; nullptr if there is none.
    const Element* ahead(const void* cache, int64_t index) const {
        if (Cache::kBits != 0) return nullptr;
        const int64_t pages = (keys_of_row(rows_ - 1) + a_.page_size - 1) / a_.page_size;
        return index + kPagesAhead < pages ? page(cache, index + kPagesAhead) : nullptr;
    }

    // scores[r][j] = q[r] . key j for the whole page; keys lie transposed, [head_dim, page_size]. Those behind the
    // sequence's end are computed from whatever lies there and replaced in exponentiate().
    void compute_scores(const Element* keys, const Element* next, int64_t first_row, float* scores) {
        int64_t r = first_row;
        for (; r + kRowsAtOnce <= rows_; r += kRowsAtOnce, next = nullptr)
            score_rows<kRowsAtOnce>(keys, next, r, scores);
        for (; r < rows_; ++r, next = nullptr) score_rows<1>(keys, next, r, scores);
    }

    template <int kRows>
    void score_rows(const Element* keys, const Element* next, int64_t r, float* scores) {
        const int64_t n = a_.page_size;
        int64_t j = 0;
        for (; j + 2 * kLanes <= n; j += 2 * kLanes)
            score_keys<kRows, 2>(r, scores + j, next ? next + j : nullptr,
                                 [&](int64_t d, int v) { return load(keys + d * n + j + v * kLanes); });
        for (; j + kLanes <= n; j += kLanes)
            score_keys<kRows, 1>(r, scores + j, nullptr, [&](int64_t d, int) { return load(keys + d * n + j); });
        if (j < n)
            score_keys<kRows, 1>(r, scores + j, nullptr,
                                 [&](int64_t d, int) { return load_n(keys + d * n + j, n - j); });
    }

    template <int kRows, int kVectors, class Keys>
    void score_keys(int64_t r, float* scores, const Element* next, Keys keys) {
        const float* const q = q_ + r * plan_.padded_dim;
        Vec sums[kRows][kVectors];
        for (int row = 0; row < kRows; ++row)
            for (int v = 0; v < kVectors; ++v) sums[row][v] = zero();
        for (int64_t d = 0; d < a_.head_dim; ++d) {
            if (next) prefetch<kVectors>(next + d * a_.page_size);
            Vec key[kVectors];
            for (int v = 0; v < kVectors; ++v) key[v] = keys(d, v);
            for (int row = 0; row < kRows; ++row) {
                const Vec query = set1(q[row * plan_.padded_dim + d]);
                for (int v = 0; v < kVectors; ++v) sums[row][v] = fma(query, key[v], sums[row][v]);
            }
        }
        for (int row = 0; row < kRows; ++row)
            for (int v = 0; v < kVectors; ++v)
                store(scores + (r + row) * plan_.score_stride + v * kLanes, sums[row][v]);
    }

    // Into the L2 cache: what these vectors will be read from.
    template <int kVectors>
    static void prefetch(const Element* p) {
        constexpr int64_t kPerLine = 64 / sizeof(Element);
        for (int64_t i = 0; i < kVectors * kLanes; i += kPerLine) __builtin_prefetch(p + i, 0, 2);
    }

    // Scores of row r become exp(score - max), zero from key `visible` of the block on; earlier sums are scaled to
    // the new maximum.
    void exponentiate(int64_t r, int64_t visible, int64_t pages) {
        float* const scores = scores_ + r * plan_.score_stride;
        for (int64_t i = 0; i < pages; ++i) {
            const int64_t in_page = std::max<int64_t>(0, std::min(visible - i * a_.page_size, a_.page_size));
            std::fill(scores + i * plan_.padded_page + in_page, scores + (i + 1) * plan_.padded_page, kMinusInfinity);
        }
        const int64_t count = pages * plan_.padded_page;
        Vec top = set1(state_.max[r]);
        for (int64_t j = 0; j < count; j += kLanes) top = max(top, load(scores + j));
        const float new_max = largest(top);
        if (new_max > state_.max[r]) rescale(r, new_max);
        Vec weight = load(state_.weight + r * kLanes);
        const Vec subtracted = set1(new_max == kMinusInfinity ? 0.0f : new_max);  // -inf only from broken inputs
        for (int64_t j = 0; j < count; j += kLanes) {
            const Vec p = exp_or_zero(load(scores + j) - subtracted);
            store(scores + j, p);
            weight = weight + p;
        }
        store(state_.weight + r * kLanes, weight);
    }

    void rescale(int64_t r, float new_max) {
        if (state_.max[r] != kMinusInfinity) {
            const Vec factor = set1(std::exp(state_.max[r] - new_max));
            float* const weight = state_.weight + r * kLanes;
            store(weight, load(weight) * factor);
            float* const row = state_.sum + r * plan_.padded_dim;
            for (int64_t i = 0; i < plan_.padded_dim; i += kLanes) store(row + i, load(row + i) * factor);
        }
        state_.max[r] = new_max;
    }

    void add_values(const Element* values, const Element* next, int64_t first_row, int64_t count, const float* p) {
        int64_t r = first_row;
        for (; r + kRowsAtOnce <= rows_; r += kRowsAtOnce, next = nullptr)
            add_values_to<kRowsAtOnce>(values, next, r, count, p);
        for (; r < rows_; ++r, next = nullptr) add_values_to<1>(values, next, r, count, p);
    }

    template <int kRows>
    void add_values_to(const Element* values, const Element* next, int64_t r, int64_t count, const float* p) {
        const int64_t n = a_.head_dim;
        int64_t i = 0;
        for (; i + 2 * kLanes <= n; i += 2 * kLanes)
            add_columns<kRows, 2>(r, i, count, p, next ? next + i : nullptr,
                                  [&](int64_t j, int v) { return load(values + j * n + i + v * kLanes); });
        for (; i + kLanes <= n; i += kLanes)
            add_columns<kRows, 1>(r, i, count, p, nullptr, [&](int64_t j, int) { return load(values + j * n + i); });
        if (i < n)
            add_columns<kRows, 1>(r, i, count, p, nullptr,
                                  [&](int64_t j, int) { return load_n(values + j * n + i, n - i); });
    }

    // sum[r..][i..] += p[r..][j] * value(j)[i..] over the keys j of the page
    template <int kRows, int kVectors, class Value>
    void add_columns(int64_t r, int64_t i, int64_t count, const float* p, const Element* next, Value value) {
        p += r * plan_.score_stride;
        float* const to = state_.sum + r * plan_.padded_dim + i;
        Vec sums[kRows][kVectors];
        for (int row = 0; row < kRows; ++row)
            for (int v = 0; v < kVectors; ++v) sums[row][v] = load(to + row * plan_.padded_dim + v * kLanes);
        for (int64_t j = 0; j < count; ++j) {
            if (next) prefetch<kVectors>(next + j * a_.head_dim);
            Vec values[kVectors];
            for (int v = 0; v < kVectors; ++v) values[v] = value(j, v);
            for (int row = 0; row < kRows; ++row) {
                const Vec weight = set1(p[row * plan_.score_stride + j]);
                for (int v = 0; v < kVectors; ++v) sums[row][v] = fma(weight, values[v], sums[row][v]);
            }
        }
        for (int row = 0; row < kRows; ++row)
            for (int v = 0; v < kVectors; ++v) store(to + row * plan_.padded_dim + v * kLanes, sums[row][v]);
    }

    void store_slot(float* memory) {
        State slot(memory, plan_);
        std::copy_n(state_.max, rows_, slot.max);
        std::copy_n(state_.weight, rows_ * kLanes, slot.weight);
        std::copy_n(state_.sum, rows_ * plan_.padded_dim, slot.sum);
    }

    void merge(const State& split) {
        for (int64_t r = 0; r < rows_; ++r) {
            if (split.max[r] == kMinusInfinity) continue;  // the row sees none of these keys
            const float new_max = std::max(total_.max[r], split.max[r]);
            const float old_factor = std::exp(total_.max[r] - new_max), factor = std::exp(split.max[r] - new_max);
            total_.max[r] = new_max;
            const auto add = [&](float* to, const float* from, int64_t count) {
                for (int64_t i = 0; i < count; i += kLanes)
                    store(to + i, fma(load(from + i), set1(factor), load(to + i) * set1(old_factor)));
            };
            add(total_.weight + r * kLanes, split.weight + r * kLanes, kLanes);
            add(total_.sum + r * plan_.padded_dim, split.sum + r * plan_.padded_dim, plan_.padded_dim);
        }
    }

    void write_out() {
        for (int64_t r = 0; r < rows_; ++r) {
            const Vec factor = set1(1.0f / sum(load(total_.weight + r * kLanes)));
            float* from = total_.sum + r * plan_.padded_dim;
            if (Cache::kBits != 0) hadamard(from, a_.head_dim);
            float* to = a_.out + (first_row_of_q_ + r / plan_.group) * a_.num_heads * a_.head_dim +
                        (item_.kv_head * plan_.group + r % plan_.group) * a_.head_dim;
            for_lanes(a_.head_dim, [&](int64_t i) { store(to + i, load(from + i) * factor); },
                      [&](int64_t i, int64_t n) { store_n(to + i, load(from + i) * factor, n); });
        }
    }

    const AttentionArgs& a_;
    const Plan& plan_;
    const Item& item_;
    const int64_t rows_;
    State state_, total_;  // of the present split; of all splits so far
    float* q_;             // [rows, padded_dim]
    float* scores_;        // [rows, score_stride]: each page of the block starts a vector
    float* widened_;       // [head_dim, page_size] or [page_size, head_dim]: a quantized block as floats
    const int64_t first_row_of_q_, first_position_;
};

template <class Cache>
int attend_as(const AttentionArgs& a) {
    const Plan plan = make_plan(a);
    const int64_t num_threads = team().size();
    const int64_t floats = plan.num_slots * plan.state_floats() + num_threads * round_up(plan.part_floats(), 16);
    float* const memory = static_cast<float*>(team().scratch(static_cast<size_t>(floats) * sizeof(float)));
    if (!memory) return PARLOR_ERROR_MEMORY;
    float* const slots = memory + num_threads * round_up(plan.part_floats(), 16);
    team().run([&](int part, int num_parts) {
        float* const own = memory + part * round_up(plan.part_floats(), 16);
        // Static shares of the cost: an item belongs to the part that its middle falls into.
        int64_t cost_before = 0;
        for_each_item(a, plan, [&](const Item& item) {
            const int64_t middle = 2 * cost_before + item.cost;
            cost_before += item.cost;
            if (middle * num_parts / (2 * plan.total_cost) == part) Tile<Cache>(a, plan, item, own).run(slots);
        });
        if (plan.num_slots == 0) return;
        team().barrier();
        int64_t tile = 0;
        for_each_item(a, plan, [&](const Item& item) {
            if (item.slot < 0 || item.first_split != 0) return;
            if (tile++ % num_parts == part) Tile<Cache>(a, plan, item, own).finish(slots);
        });
    });
    return PARLOR_OK;
}

}  // namespace

int attend(const AttentionArgs& a) {
    switch (a.cache_dtype) {
        case PARLOR_F32: return attend_as<PlainCache<float>>(a);
        case PARLOR_F16: return attend_as<PlainCache<half_t>>(a);
        case PARLOR_Q8: return attend_as<QuantizedCache<8>>(a);
        default: return attend_as<QuantizedCache<4>>(a);
    }
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

// What attention to any cache kind shares: the plan of a call, its tiles, and the softmax that is carried from block
// to block. numbers.h and codes.h compute a block, attention.cpp runs the tiles.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "cache_block.h"
#include "operations.h"
#include "simd.h"

namespace parlor {
namespace PARLOR_ISA_NS {

constexpr int64_t kSplitKeys = 256;  // 128 KiB of fp16 cache at head_dim 128: enough to hide the merge
constexpr int64_t kBlockKeys = 128;  // keys between two looks at the maximum
constexpr int64_t kTileRows = 64;    // rows that share a page in the L1 cache, if a token has no more query heads
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// What all parts of a call share: sizes of tiles and of the scratch memory.
struct Plan {
    int64_t group;         // query heads of a key head
    int64_t tile_tokens;
    int64_t max_rows;      // rows of a tile
    int64_t split_keys;    // a multiple of the block
    int64_t block_pages;
    int64_t block_bytes;   // of the keys (or values) of a page and head
    int64_t padded_dim;    // head_dim in whole vectors
    int64_t block_floats;  // memory for computing a block
    int64_t num_slots = 0; // split results that wait for the merge
    int64_t num_items = 0, num_tiles = 0;

    int64_t state_floats() const { return round_up(max_rows * (padded_dim + kLanes + 1), 16); }
    int64_t part_floats() const { return 2 * state_floats() + round_up(block_floats, 16); }
};

// cap * tanh(score * scale / cap); tanh(x) = 1 - 2 / (exp(2 * x) + 1). What is -inf stays so.
inline void cap_scores(float* scores, int64_t count, float scale, float cap) {
    const Vec factor = set1(2.0f * scale / cap), top = set1(cap);
    for (int64_t j = 0; j < count; j += kLanes) {
        const Vec capped = top * (set1(1.0f) - set1(2.0f) / (exp(load(scores + j) * factor) + set1(1.0f)));
        alignas(64) float values[kLanes];
        store(values, capped);
        for (int i = 0; i < kLanes; ++i) scores[j + i] = scores[j + i] == kMinusInfinity ? kMinusInfinity : values[i];
    }
}

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
    int64_t first_split;              // of this item: the one split of a lone one
    int64_t begin_split, end_split;   // of the tile; those before hold keys that none of its rows sees
    int64_t slot;                     // where a lone split's result goes; -1: the item is the whole tile
};

inline int64_t query_tokens(const AttentionArgs& a, int64_t s) {
    return int64_t{a.cu_seqlens[s + 1]} - a.cu_seqlens[s];
}

// Where the rows and keys of an item are. Rows are (token, head of the group).
struct TileView {
    const AttentionArgs& a;
    const Plan& plan;
    const Item& item;
    const int64_t rows, first_row_of_q, first_position;

    TileView(const AttentionArgs& args, const Plan& plan_, const Item& item_)
        : a(args), plan(plan_), item(item_), rows(item_.num_tokens * plan_.group),
          first_row_of_q(args.cu_seqlens[item_.sequence] + item_.first_token),
          first_position(args.seq_lens[item_.sequence] - query_tokens(args, item_.sequence) + item_.first_token) {}

    const float* query(int64_t r) const {
        return a.q + (first_row_of_q + r / plan.group) * a.q_stride +
               (item.kv_head * plan.group + r % plan.group) * a.head_dim;
    }
    float* output(int64_t r) const {
        return a.out + (first_row_of_q + r / plan.group) * a.num_heads * a.head_dim +
               (item.kv_head * plan.group + r % plan.group) * a.head_dim;
    }
    int64_t keys_of_row(int64_t r) const { return first_position + r / plan.group + 1; }
    int64_t first_key_of_row(int64_t r) const { return first_key(keys_of_row(r), a.window); }
    int64_t num_keys() const { return keys_of_row(rows - 1); }
    int64_t num_pages() const { return (num_keys() + a.page_size - 1) / a.page_size; }

    // The first row that sees key `start`.
    int64_t first_row_that_sees(int64_t start) const {
        return std::min(std::max<int64_t>(0, start - first_position) * plan.group, rows);
    }

    // Keys or values of the sequence's page `index`.
    const uint8_t* block(const void* cache, int64_t index) const {
        const int64_t page = a.block_table[item.sequence * a.block_table_stride + index];
        return static_cast<const uint8_t*>(cache) + (page * a.num_kv_heads + item.kv_head) * plan.block_bytes;
    }
};

// The work on one item. Blocks: load_queries(), then run(state, start, end) adds the keys start .. end, at most
// plan.block_pages pages, to the state.
template <class Blocks>
class Tile {
  public:
    Tile(const AttentionArgs& args, const Plan& plan, const Item& item, float* memory)
        : view_(args, plan, item), state_(memory, plan), total_(memory + plan.state_floats(), plan),
          blocks_(view_, memory + 2 * plan.state_floats()) {}

    void run(float* slots) {
        const Plan& plan = view_.plan;
        blocks_.load_queries();
        if (view_.item.slot >= 0) {
            run_split(view_.item.first_split);
            store_slot(slots + view_.item.slot * plan.state_floats());
            return;
        }
        total_.clear(view_.rows, plan.padded_dim);
        for (int64_t split = view_.item.begin_split; split < view_.item.end_split; ++split) {
            run_split(split);
            merge(state_);
        }
        write_out();
    }

    // The tile's splits lie in consecutive slots.
    void finish(float* slots) {
        const Plan& plan = view_.plan;
        total_.clear(view_.rows, plan.padded_dim);
        for (int64_t split = 0; split < view_.item.end_split - view_.item.begin_split; ++split)
            merge(State(slots + (view_.item.slot + split) * plan.state_floats(), plan));
        write_out();
    }

  private:
    void run_split(int64_t split) {
        const Plan& plan = view_.plan;
        state_.clear(view_.rows, plan.padded_dim);
        const int64_t end = std::min((split + 1) * plan.split_keys, view_.num_keys());
        const int64_t step = plan.block_pages * view_.a.page_size;
        const int64_t first = view_.first_key_of_row(0);  // blocks that no row sees would change no bit
        for (int64_t start = split * plan.split_keys; start < end; start += step)
            if (start + step > first) blocks_.run(state_, start, std::min(end, start + step));
    }

    void store_slot(float* memory) {
        State slot(memory, view_.plan);
        std::copy_n(state_.max, view_.rows, slot.max);
        std::copy_n(state_.weight, view_.rows * kLanes, slot.weight);
        std::copy_n(state_.sum, view_.rows * view_.plan.padded_dim, slot.sum);
    }

    void merge(const State& split) {
        const int64_t padded_dim = view_.plan.padded_dim;
        for (int64_t r = 0; r < view_.rows; ++r) {
            if (split.max[r] == kMinusInfinity) continue;  // the row sees none of these keys
            const float rise = split.max[r] - total_.max[r], smaller = std::exp(-std::fabs(rise));
            const float old_factor = rise > 0 ? smaller : 1.0f, factor = rise > 0 ? 1.0f : smaller;
            total_.max[r] = std::max(total_.max[r], split.max[r]);
            const auto add = [&](float* to, const float* from, int64_t count) {
                for (int64_t i = 0; i < count; i += kLanes)
                    store(to + i, fma(load(from + i), set1(factor), load(to + i) * set1(old_factor)));
            };
            add(total_.weight + r * kLanes, split.weight + r * kLanes, kLanes);
            add(total_.sum + r * padded_dim, split.sum + r * padded_dim, padded_dim);
        }
    }

    void write_out() {
        for (int64_t r = 0; r < view_.rows; ++r) {
            const Vec factor = set1(inverse_total(r));
            float* from = total_.sum + r * view_.plan.padded_dim;
            float* to = view_.output(r);
            if (Blocks::kRotatesHeads) hadamard(from, view_.a.head_dim);
            for_lanes(view_.a.head_dim, [&](int64_t i) { store(to + i, load(from + i) * factor); },
                      [&](int64_t i, int64_t n) { store_n(to + i, load(from + i) * factor, n); });
        }
    }

    // 1 over the sum of the row's weights, relative to its largest score; a sink is one weight more.
    float inverse_total(int64_t r) const {
        const float total = sum(load(total_.weight + r * kLanes));
        if (!view_.a.sinks) return 1.0f / total;
        const float sink = view_.a.sinks[view_.item.kv_head * view_.plan.group + r % view_.plan.group];
        const float top = std::max(total_.max[r], sink), seen = std::exp(total_.max[r] - top);
        return seen / (total * seen + std::exp(sink - top));
    }

    const TileView view_;
    State state_, total_;  // of the present split; of all splits so far
    Blocks blocks_;
};

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

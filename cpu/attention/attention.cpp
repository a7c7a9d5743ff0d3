// Causal attention over the paged cache, for prompts and decode steps alike.
//
// A tile is the rows (token, query head) that share a key head, so each page comes from memory once for all of them.
// What bounds a block of keys is told in numbers.h (fp16, fp32) and codes.h (q8, q4).
//
// Arithmetic of one row, always the same: keys in blocks, an online softmax over the blocks of a split
// (about kSplitKeys keys, counted from the first key), splits merged in ascending order. Few rows share their splits
// among the threads, many rows go through them one after the other; neither the batch nor the number of
// threads nor the size of the prompt's chunk changes a bit of the result.
// Reference: paged_attention() in model/kernels/reference/operations.py.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own headers: registers left undefined on purpose
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include "codes.h"
#include "numbers.h"
#include "thread_team.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int64_t kMaxTokensInSplits = 8;  // sequences with more query tokens are not split among threads

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
                const int64_t end = (keys + plan.split_keys - 1) / plan.split_keys;
                const int64_t begin = first_key(past + first + 1, a.window) / plan.split_keys;
                if (end - begin == 1 || tokens > kMaxTokensInSplits) {
                    visit(Item{s, h, first, count, begin, begin, end, -1});
                    continue;
                }
                for (int64_t split = begin; split < end; ++split) visit(Item{s, h, first, count, split, begin, end, slot++});
            }
        }
    }
}

int64_t block_bytes(const AttentionArgs& a) {
    if (a.cache_dtype == PARLOR_F32 || a.cache_dtype == PARLOR_F16)
        return a.page_size * a.head_dim * (a.cache_dtype == PARLOR_F32 ? 4 : 2);
    return CacheBlock{a.cache_dtype == PARLOR_Q8 ? 8 : 4, a.page_size, a.head_dim}.bytes();
}

template <class Blocks>
Plan make_plan(const AttentionArgs& a) {
    Plan plan;
    plan.group = a.num_heads / a.num_kv_heads;
    plan.tile_tokens = std::max<int64_t>(1, kTileRows / plan.group);
    plan.block_pages = std::max<int64_t>(1, kBlockKeys / a.page_size);
    plan.block_bytes = block_bytes(a);
    const int64_t block_keys = plan.block_pages * a.page_size;
    plan.split_keys = std::max<int64_t>(1, kSplitKeys / block_keys) * block_keys;
    plan.padded_dim = round_up(a.head_dim, kLanes);
    int64_t longest = 1;
    for (int64_t s = 0; s < a.num_sequences; ++s) longest = std::max(longest, query_tokens(a, s));
    plan.max_rows = std::min(plan.tile_tokens, longest) * plan.group;
    plan.block_floats = Blocks::num_floats(a, plan);
    for_each_item(a, plan, [&](const Item& item) {
        plan.num_slots = std::max(plan.num_slots, item.slot + 1);
        ++plan.num_items;
        plan.num_tiles += item.first_split == item.begin_split;
    });
    return plan;
}

template <class Blocks>
int attend_with(const AttentionArgs& a) {
    const Plan plan = make_plan<Blocks>(a);
    const int64_t num_threads = team().size();
    const int64_t floats = plan.num_slots * plan.state_floats() + num_threads * plan.part_floats();
    float* const memory = static_cast<float*>(team().scratch(static_cast<size_t>(floats) * sizeof(float)));
    if (!memory) return PARLOR_ERROR_MEMORY;
    float* const slots = memory + num_threads * plan.part_floats();
    team().parallel_for(plan.num_items, [&](int64_t begin, int64_t end, int part) {
        int64_t i = 0;
        for_each_item(a, plan, [&](const Item& item) {
            if (i >= begin && i < end) Tile<Blocks>(a, plan, item, memory + part * plan.part_floats()).run(slots);
            ++i;
        });
    });
    if (plan.num_slots == 0) return PARLOR_OK;
    team().parallel_for(plan.num_tiles, [&](int64_t begin, int64_t end, int part) {
        int64_t i = 0;
        for_each_item(a, plan, [&](const Item& item) {
            if (item.first_split != item.begin_split) return;
            if (item.slot >= 0 && i >= begin && i < end)
                Tile<Blocks>(a, plan, item, memory + part * plan.part_floats()).finish(slots);
            ++i;
        });
    });
    return PARLOR_OK;
}

}  // namespace

int attend(const AttentionArgs& a) {
    switch (a.cache_dtype) {
        case PARLOR_F32: return attend_with<NumberBlocks<float>>(a);
        case PARLOR_F16: return attend_with<NumberBlocks<half_t>>(a);
        case PARLOR_Q8: return attend_with<CodeBlocks<8>>(a);
        default: return attend_with<CodeBlocks<4>>(a);
    }
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor

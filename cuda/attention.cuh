// What the three ways to attend have in common: the arguments, a row and its keys, weights, shared memory. See attention.cu.
#pragma once

#include <cmath>

#include "cache.cuh"

namespace parlor {

struct Attention;
// Of float16 keys and values of their own in runs of 32, heads of 64 or 128; PARLOR_ERROR_MEMORY where a block has too little.
int attend_in_groups(const Device& device, const Attention& a, int64_t num_tokens, void* stream);

struct Attention {
    const float* q;
    int64_t q_stride;
    Cache cache;
    const int32_t* block_table;
    int64_t block_table_stride, max_pages;
    const int32_t *cu_seqlens, *seq_lens;
    float* out;
    int num_sequences;
    int64_t first_row;
    int num_heads, group;
    int max_splits;      // of a row that is as long as can be
    float scale;
    int64_t window;      // 0: all keys; negative: those of a chunk of -window
    float softcap;       // 0: none
    const float* sinks;  // [num_heads] or null
    float* partial;     // [row, head block, split][heads of block][head_dim + 2]: sums, largest score, sum of weights
    unsigned* tickets;  // [row, head block]
};

namespace {

constexpr int kThreads = 128;
constexpr int kBlockKeys = kThreads;
constexpr int kAtOnce = 16;  // numbers of a thread that are on their way
constexpr int kMaxSplits = 64;
constexpr int kBlocksOfMultiprocessor = 4;  // that are to be there for the splits of few rows
constexpr int kFewestBlocks = 4;            // that take a row's splits by turns, should it be much longer than the others

// The sequence of a row, and the keys that it sees.
struct Row {
    int sequence;
    int64_t keys;
};

__device__ __forceinline__ Row find_row(const Attention& a, int64_t row) {
    int low = 0, high = a.num_sequences;  // cu_seqlens[low] <= row < cu_seqlens[high]
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (a.cu_seqlens[middle] <= row) low = middle; else high = middle;
    }
    return {low, int64_t{a.seq_lens[low]} - a.cu_seqlens[low + 1] + row + 1};
}

// Scores become weights, relative to the largest score so far; a warp does one head at a time.
__device__ __forceinline__ void weigh(float* weights, int heads, float* largest, float* totals, float* faded) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = warp; i < heads; i += kThreads / 32) {
        float* const w = weights + i * kBlockKeys;
        float best = largest[i];
        for (int key = lane; key < kBlockKeys; key += 32) best = fmaxf(best, w[key]);
        best = warp_max(best);
        float total = 0.0f;
        for (int key = lane; key < kBlockKeys; key += 32) {
            w[key] = expf(w[key] - best);
            total += w[key];
        }
        total = warp_sum(total);
        __syncwarp();
        if (lane == 0) {
            faded[i] = expf(largest[i] - best);
            totals[i] = totals[i] * faded[i] + total;
            largest[i] = best;
        }
    }
}

// Shared memory of a block, in floats; parts: threads that share a dimension of a small head.
struct Layout {
    int q, weights, sums, total;
    int parts;
};
// by_pages: as attend_to_pages() has it. in_groups: the sums lie where keys and values of a block were.
__host__ __device__ inline Layout layout_of(int heads, int head_dim, bool by_pages, bool in_groups) {
    const int parts = by_pages ? kThreads / 32 : head_dim >= kThreads ? 1 : kThreads / head_dim;
    const int q = heads * head_dim, weights = heads * kBlockKeys, sums = parts * heads * head_dim;
    return {0, q, q + weights, q + weights + (in_groups ? kBlockKeys * head_dim : sums), parts};
}

// Blocks a processor: left to itself ptxas aims at ten and spills (sm_80 to 90); with four it does for the most sums (sm_120),
// and of keys that are the values (sm_86 and 89).
constexpr int blocks_at_once(int kind, int heads, bool of_keys) { return kind == PARLOR_Q4 && (heads > 4 || of_keys) ? 3 : 4; }

// What a block has in shared memory for its queries.
struct Shared {
    float *q, *weights, *sums;        // see Layout; sums of each part
    float *largest, *totals, *faded;  // [heads]
    int *pages, *slots;               // [kBlockKeys]
};

}  // namespace
}  // namespace parlor

// Attention of up to eight queries that share a key, by tensor cores: keys and values in float16 that lie in whole runs of 32 in
// their pages, heads of kDims. A warp takes a run: all of its keys and values are on their way to shared memory at once, 16 KB with
// 128 dimensions, and come from there turned, as the product wants pairs of dimensions of a key, and of keys in a dimension.
//
//   scores [16 keys x 8 queries] += keys [16 x 16 dimensions] * queries^T
//   sums [16 dimensions x 8 queries] += values^T [16 x 16 keys] * weights^T
//
// Queries and weights are two float16 each, what rounding takes away being the second: the result is that of float32, as long as
// no query times the scale is beyond 65,504. A warp has some 570 instructions a run of 128 dimensions, where eight queries take
// 2,048 multiplications of float32 and 256 conversions. As attend_to_pages() otherwise.
#pragma once

#include "attention.cuh"

namespace parlor {
namespace {

constexpr int kGroupHeads = 8;
constexpr int kGroupRun = 32;
constexpr int kGroupBlocks = 3;  // of a multiprocessor, whose shared memory has no room for more

// Two numbers as a pair of float16, and what rounding takes away from them as another.
struct SplitPair {
    uint32_t high, low;

    __device__ __forceinline__ explicit SplitPair(float2 numbers) {
        const half2 rounded = __floats2half2_rn(numbers.x, numbers.y);
        const float2 given = __half22float2(rounded);
        high = bits_of(rounded);
        low = bits_of(__floats2half2_rn(numbers.x - given.x, numbers.y - given.y));
    }
    static __device__ __forceinline__ uint32_t bits_of(half2 pair) {
        return static_cast<uint32_t>(__half_as_ushort(__low2half(pair))) |
               static_cast<uint32_t>(__half_as_ushort(__high2half(pair))) << 16;
    }
};

// A warp's run of keys and values in shared memory, in pieces of eight numbers. Which piece of a row lies where changes from row to
// row, so that eight rows of one column lie in different banks.
template <int kDims>
struct GroupTile {
    half* keys;    // [kDims][4 pieces]
    half* values;  // [32 keys][kDims / 8 pieces]

    __device__ __forceinline__ GroupTile(float* memory, int warp)
        : keys(reinterpret_cast<half*>(memory) + warp * 2 * kGroupRun * kDims), values(keys + kGroupRun * kDims) {}
    __device__ __forceinline__ half* key_piece(int dimension, int piece) const {
        return keys + dimension * kGroupRun + 8 * (piece ^ (dimension / 2 & 3));
    }
    __device__ __forceinline__ half* value_piece(int key, int piece) const { return values + key * kDims + 8 * (piece ^ (key & 7)); }
};

template <int kDims>
__device__ __forceinline__ void attend_by_tensor_cores(const Attention& a, const Row& place, int kv_head, int heads, int64_t begin,
                                                       int64_t end, int64_t first_key, const Shared& s) {
    constexpr int kSteps = kDims / 16, kPieces = kDims / 8;
    const Cache& c = a.cache;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int of_matrix = lane % 8, matrix = lane / 8;
    const GroupTile<kDims> tile(s.sums, warp);
    float sums[kSteps][4] = {};  // of 16 dimensions: g and g + 8, of the queries 2t and 2t + 1
    if (threadIdx.x < kGroupHeads) s.largest[threadIdx.x] = -INFINITY, s.totals[threadIdx.x] = 0.0f;
    for (int64_t first = begin; first < end; first += kBlockKeys) {
        const int count = static_cast<int>(end - first < kBlockKeys ? end - first : kBlockKeys);
        const int hidden = first_key > first ? static_cast<int>(first_key - first) : 0;
        const bool has_keys = warp * kGroupRun < count;
        const int64_t index = (first + warp * kGroupRun) / c.page_size, slot = (first + warp * kGroupRun) % c.page_size;
        int64_t page = has_keys && index < a.max_pages ? a.block_table[place.sequence * a.block_table_stride + index] : -1;
        const bool is_known = page >= 0 && page < c.num_pages;
        page = is_known ? page : 0;  // any will do: the weights are NaN
        __syncthreads();  // queries are there; the block before is done with weights
        if (has_keys) {
            // Of the keys eight of the dimension lane / 4, and of every eighth from there on.
            const half* keys = reinterpret_cast<const half*>(block_of(c, c.keys, page, kv_head)) + slot + lane / 4 * c.page_size +
                               lane % 4 * 8;
            half* const of_keys = tile.key_piece(lane / 4, lane % 4);
#pragma unroll
            for (int i = 0; i < kPieces; ++i, keys += 8 * c.page_size) copy_async_16(of_keys + i * 8 * kGroupRun, keys);
            commit_copies();
            const half* const values = reinterpret_cast<const half*>(block_of(c, c.values, page, kv_head)) + slot * kDims + lane * 8;
#pragma unroll
            for (int i = 0; i < kPieces; ++i) {
                const int own = (lane + 32 * i) / kPieces, key = warp * kGroupRun + own;
                half* const piece = tile.value_piece(own, lane % kPieces);
                if (key >= hidden && key < count) copy_async_16(piece, values + i * 256);
                else *reinterpret_cast<uint4*>(piece) = make_uint4(0, 0, 0, 0);  // whatever lies there
            }
            commit_copies();
            wait_for_copies<1>();
            __syncwarp();
            float scores[2][4] = {};  // of 16 keys: g and g + 8, of the queries 2t and 2t + 1
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
                const float2* const q = reinterpret_cast<const float2*>(s.q + g * kDims + step * 16) + t;
                const SplitPair q0(q[0]), q1(q[4]);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    uint32_t k[4];
                    load_matrices_turned(k, tile.key_piece(step * 16 + matrix / 2 * 8 + of_matrix, 2 * i + matrix % 2));
                    mma_m16n8k16(scores[i], k, q0.high, q1.high);
                    mma_m16n8k16(scores[i], k, q0.low, q1.low);
                }
            }
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const int key = warp * kGroupRun + 16 * i + g + j / 2 * 8;
                    float score = scores[i][j];
                    if (a.softcap > 0.0f) score = a.softcap * tanhf(score / a.softcap);
                    s.weights[(2 * t + j % 2) * kBlockKeys + key] = key < hidden || key >= count ? -INFINITY : is_known ? score : NAN;
                }
        } else {
            for (int h = 0; h < kGroupHeads; ++h) s.weights[h * kBlockKeys + threadIdx.x] = -INFINITY;
        }
        __syncthreads();
        weigh(s.weights, heads, s.largest, s.totals, s.faded);
        __syncthreads();
        if (!has_keys) continue;  // and none of the blocks behind
        wait_for_copies<0>();
        __syncwarp();
        float faded[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) faded[j] = 2 * t + j < heads ? s.faded[2 * t + j] : 0.0f;
#pragma unroll
        for (int step = 0; step < kSteps; ++step)
#pragma unroll
            for (int j = 0; j < 4; ++j) sums[step][j] *= faded[j % 2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            // Of queries that are not there the weights are what was left of scores: 0, or NaN like all others.
            const float2* const weights = reinterpret_cast<const float2*>(s.weights + g * kBlockKeys + warp * kGroupRun + 16 * i) + t;
            const float2 none = make_float2(0.0f, 0.0f);
            const SplitPair w0(g < heads ? weights[0] : none), w1(g < heads ? weights[4] : none);
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
                uint32_t v[4];
                load_matrices_turned(v, tile.value_piece(16 * i + matrix / 2 * 8 + of_matrix, 2 * step + matrix % 2));
                mma_m16n8k16(sums[step], v, w0.high, w1.high);
                mma_m16n8k16(sums[step], v, w0.low, w1.low);
            }
        }
    }
    __syncthreads();  // all are done with keys and values: the sums lie there
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
        for (int j = 0; j < 4; ++j)
            s.sums[(warp * kGroupHeads + 2 * t + j % 2) * kDims + step * 16 + g + j / 2 * 8] = sums[step][j];
    __syncthreads();
    for (int i = threadIdx.x; i < heads * kDims; i += kThreads)  // the first warp's take the sums of all
        for (int w = 1; w < kThreads / 32; ++w) s.sums[i] += s.sums[w * kGroupHeads * kDims + i];
}

}  // namespace
}  // namespace parlor

// Attention to keys and values in float16 that lie in whole runs of 32 in their pages, for heads of kDims: a warp takes such a
// run at a time, looks its page up once and reads by 16 bytes a lane, eight keys of one dimension or eight dimensions of one
// value. All keys of a run are on their way at once, 8 KB a warp with 128 dimensions, and for one query the values too
// before the softmax. As attend_to() in attention_kernel.cuh otherwise.
#pragma once

#include "attention.cuh"

namespace parlor {
namespace {

constexpr int kRun = 32;
constexpr int kOfLoad = 8;  // numbers

__device__ __forceinline__ float2 pair_of(uint32_t word) {
    return __half22float2(__halves2half2(__ushort_as_half(static_cast<unsigned short>(word)),
                                         __ushort_as_half(static_cast<unsigned short>(word >> 16))));
}
// Call each(j, number) with the eight of a load.
template <class Each>
__device__ __forceinline__ void for_numbers(const uint4& loaded, Each each) {
    const uint32_t words[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float2 pair = pair_of(words[j]);
        each(2 * j, pair.x);
        each(2 * j + 1, pair.y);
    }
}

// sums[8] of the eight lanes that differ in lane / 4, added up: each has the one of key lane / 4.
__device__ __forceinline__ float sum_of_parts(float (&sums)[kOfLoad]) {
#pragma unroll
    for (int half = 4; half > 0; half /= 2) {
        const bool is_upper = threadIdx.x & (4 * half);
#pragma unroll
        for (int j = 0; j < half; ++j) {
            const float given = is_upper ? sums[j] : sums[j + half], kept = is_upper ? sums[j + half] : sums[j];
            sums[j] = kept + __shfl_xor_sync(0xffffffffu, given, 4 * half);
        }
    }
    return sums[0];
}

template <int kHeads, int kDims>
__device__ __forceinline__ void attend_to_pages(const Attention& a, const Row& place, int kv_head, int heads, int64_t begin,
                                                int64_t end, int64_t first_key, const Shared& s) {
    constexpr int kLoads = kDims / kOfLoad;            // of a run's keys, or of its values, by a lane
    constexpr int kLanesOfValue = kDims / kOfLoad;
    constexpr int kAtATime = kHeads == 1 ? kLoads : kLoads / 2;  // as registers allow
    const Cache& c = a.cache;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float sums[kHeads][kOfLoad] = {};
    if (threadIdx.x < kHeads) s.largest[threadIdx.x] = -INFINITY, s.totals[threadIdx.x] = 0.0f;
    for (int64_t first = begin; first < end; first += kBlockKeys) {
        const int count = static_cast<int>(end - first < kBlockKeys ? end - first : kBlockKeys);
        const int hidden = first_key > first ? static_cast<int>(first_key - first) : 0;
        const bool has_keys = warp * kRun < count;
        const int64_t index = (first + warp * kRun) / c.page_size, slot = (first + warp * kRun) % c.page_size;
        int64_t page = has_keys && index < a.max_pages ? a.block_table[place.sequence * a.block_table_stride + index] : -1;
        const bool is_known = page >= 0 && page < c.num_pages;
        page = is_known ? page : 0;  // any will do: the weights are NaN
        // Of the values: dimensions kOfLoad * (lane % kLanesOfValue) and following of key lane / kLanesOfValue.
        const uint4* const values =
            reinterpret_cast<const uint4*>(block_of(c, c.values, page, kv_head)) + slot * kLanesOfValue + lane;
        uint4 loaded[kAtATime];
        __syncthreads();  // the block before is done with weights
        if (has_keys) {
            // Of the keys: kOfLoad * (lane % 4) and following in dimension lane / 4.
            const uint4* const keys = reinterpret_cast<const uint4*>(block_of(c, c.keys, page, kv_head)) +
                                      (slot + lane / 4 * c.page_size) / kOfLoad + lane % 4;
            float scores[kHeads][kOfLoad] = {};
#pragma unroll
            for (int part = 0; part < kLoads; part += kAtATime) {
#pragma unroll
                for (int i = 0; i < kAtATime; ++i) loaded[i] = keys[(part + i) * c.page_size];
#pragma unroll
                for (int i = 0; i < kAtATime; ++i)
#pragma unroll
                    for (int h = 0; h < kHeads; ++h) {
                        const float q = s.q[h * kDims + (part + i) * 8 + lane / 4];
                        for_numbers(loaded[i], [&](int j, float key) { scores[h][j] += q * key; });
                    }
            }
            if (kHeads == 1)
#pragma unroll
                for (int i = 0; i < kAtATime; ++i) loaded[i] = values[32 * i];
            const int key = warp * kRun + lane % 4 * kOfLoad + lane / 4;
#pragma unroll
            for (int h = 0; h < kHeads; ++h) {
                float score = sum_of_parts(scores[h]);
                if (a.softcap > 0.0f) score = a.softcap * tanhf(score / a.softcap);
                s.weights[h * kBlockKeys + key] = key < hidden || key >= count ? -INFINITY : is_known ? score : NAN;
            }
        } else {
            for (int h = 0; h < kHeads; ++h) s.weights[h * kBlockKeys + threadIdx.x] = -INFINITY;
        }
        __syncthreads();
        weigh(s.weights, heads, s.largest, s.totals, s.faded);
        __syncthreads();
        if (!has_keys) continue;  // and none of the blocks behind
#pragma unroll
        for (int h = 0; h < kHeads; ++h)
#pragma unroll
            for (int j = 0; j < kOfLoad; ++j) sums[h][j] *= h < heads ? s.faded[h] : 0.0f;
#pragma unroll
        for (int part = 0; part < kLoads; part += kAtATime) {
            if (kHeads > 1)
#pragma unroll
                for (int i = 0; i < kAtATime; ++i) loaded[i] = values[32 * (part + i)];
#pragma unroll
            for (int i = 0; i < kAtATime; ++i) {
                const int key = warp * kRun + (32 / kLanesOfValue) * (part + i) + lane / kLanesOfValue;
                if (key < hidden || key >= count) loaded[i] = make_uint4(0, 0, 0, 0);  // whatever lies there
#pragma unroll
                for (int h = 0; h < kHeads; ++h) {
                    const float weight = s.weights[h * kBlockKeys + key];
                    for_numbers(loaded[i], [&](int j, float value) { sums[h][j] += weight * value; });
                }
            }
        }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h)
#pragma unroll
        for (int j = 0; j < kOfLoad; ++j) {
#pragma unroll
            for (int offset = kLanesOfValue; offset < 32; offset *= 2)
                sums[h][j] += __shfl_xor_sync(0xffffffffu, sums[h][j], offset);
            if (lane < kLanesOfValue) s.sums[(warp * kHeads + h) * kDims + lane * kOfLoad + j] = sums[h][j];
        }
    __syncthreads();
    for (int i = threadIdx.x; i < heads * kDims; i += kThreads)  // the first warp's take the sums of all
        for (int w = 1; w < kThreads / 32; ++w) s.sums[i] += s.sums[w * kHeads * kDims + i];
}

}  // namespace
}  // namespace parlor

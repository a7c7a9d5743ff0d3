// Queries, keys and values as a product leaves them: rotated, keys and values rounded to float16 and put into the cache.
// What rope_write_kv() does in a kernel of its own, with the same arithmetic; see rope.cu. In front of attention that saves a
// kernel, which reads 48 KB and takes 1.6 us.
//
// A pair of tiles has 16 dimensions of the lower half of a head and the same of its upper half: what is rotated together,
// unless that is two neighbours.
#pragma once

#include <cmath>

#include "cache.cuh"
#include "linear.cuh"

namespace parlor {
namespace {

struct Heads {
    const float *cosines, *sines;  // [max_positions, head_dim / 2]
    int64_t max_positions;
    const int32_t* positions;
    const int64_t* slots;
    int num_heads;                 // of queries
    bool is_interleaved;
    Cache cache;
};

// Of a row, looked up by one thread: -1 where it lies outside its table.
struct HeadPlace {
    int position, slot;
};
__device__ __forceinline__ HeadPlace place_of(const Heads& h, int row) {
    const int32_t position = h.positions[row];
    const int64_t slot = h.slots[row];
    return {position >= 0 && position < h.max_positions ? position : -1,
            slot >= 0 && slot < h.cache.num_pages * h.cache.page_size ? static_cast<int>(slot) : -1};
}

// values: of a lane's outputs g and g + 8 of the tiles with the dimensions `first` .. + 15 of the lower and the upper half of a
// head. All lanes of a warp call this; a row of queries goes to `out`. is_there: of rows that are not, nothing is stored.
__device__ __forceinline__ void store_head(const Heads& h, int head, int first, const float (&values)[2][2], const HeadPlace& place,
                                           bool is_there, float* out) {
    const int g = threadIdx.x % 32 / 4, half_dim = static_cast<int>(h.cache.head_dim) / 2;
    const int kv_heads = static_cast<int>(h.cache.num_kv_heads);
    const bool is_query = head < h.num_heads, is_value = head >= h.num_heads + kv_heads;
    const int64_t angles = static_cast<int64_t>(place.position < 0 || !is_there ? 0 : place.position) * half_dim;
    const unsigned page_size = static_cast<unsigned>(h.cache.page_size), slot = static_cast<unsigned>(max(place.slot, 0));
    half* const block = is_query ? nullptr
        : reinterpret_cast<half*>(block_of(h.cache, is_value ? h.cache.values : h.cache.keys, slot / page_size,
                                           head - h.num_heads - (is_value ? kv_heads : 0)));
#pragma unroll 1  // as registers allow
    for (int upper = 0; upper < 2; ++upper) {
        const int d = first + g + 8 * upper;  // and half_dim + d
        float own[2] = {upper ? values[0][1] : values[0][0], upper ? values[1][1] : values[1][0]};
        if (h.is_interleaved) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float other = __shfl_xor_sync(0xffffffffu, own[i], 4);  // of the dimension beside it
                if (is_value) continue;
                const int64_t angle = angles + (d + i * half_dim) / 2;
                const float cosine = h.cosines[angle], sine = h.sines[angle];
                own[i] = g % 2 == 0 ? own[i] * cosine - other * sine : own[i] * cosine + other * sine;
            }
        } else if (!is_value) {
            const float low = own[0], cosine = h.cosines[angles + d], sine = h.sines[angles + d];
            own[0] = low * cosine - own[1] * sine;
            own[1] = own[1] * cosine + low * sine;
        }
        if (!is_there || (!is_query && place.slot < 0)) continue;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int at = d + i * half_dim;
            const float value = is_value || place.position >= 0 ? own[i] : NAN;
            if (is_query) out[head * 2 * half_dim + at] = value;
            else block[is_value ? slot % page_size * (2 * half_dim) + at : at * page_size + slot % page_size] = __float2half_rn(value);
        }
    }
}

}  // namespace
}  // namespace parlor

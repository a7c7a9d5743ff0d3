// What the threads of a block that samples share: sums, the best token, and the selection by counting that cuts are made of.
//
// Everything that is added up is an integer: weights (0 .. 1) count in units of 2^-45, so that sums do not depend on the
// order of additions and atomics are harmless. Sums of floats go over the vocabulary in one order, never over the
// candidates, which lie as atomics left them.
#pragma once

#include <cmath>

#include "launch.cuh"

namespace parlor {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 256;
constexpr int kAtOnce = 8;  // numbers of a thread that are on their way
constexpr double kUnits = 35184372088832.0;  // 2^45: a vocabulary of 2^18 tokens stays below 2^63
using Count = unsigned long long;

// What the block's threads share.
struct Shared {
    Count bins[kBins];
    Count partial[kWarps + 1];
    double best_of_warp[kWarps];
    int best_id_of_warp[kWarps];
    double best;
    int best_id;
    Count key, left;
    int num_candidates;
    int32_t chosen;
};

__device__ __forceinline__ Count units_of(double weight) { return static_cast<Count>(weight * kUnits + 0.5); }
__device__ __forceinline__ Count bits_of(double value) { return static_cast<Count>(__double_as_longlong(value)); }

// In one place: inlined wherever several are on their way they would be nine tenths of the code.
__device__ __attribute__((noinline)) double exp_of(double x) { return exp(x); }
__device__ __attribute__((noinline)) double log_of(double x) { return log(x); }

// each(i, values[i]) for a thread's share of 0 .. count - 1, ascending. Several loads come before what `each` does with the
// first, which may store there: one after the other they would take a latency each, and a vocabulary has some hundred.
template <class T, class Each>
__device__ __forceinline__ void for_each(const T* values, int count, Each each) {
#pragma unroll 1
    for (int first = threadIdx.x; first < count; first += kAtOnce * kThreads) {
        T loaded[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) loaded[i] = first + i * kThreads < count ? values[first + i * kThreads] : T{};
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i)
            if (first + i * kThreads < count) each(first + i * kThreads, loaded[i]);
    }
}

// Sum over the block, in every thread.
__device__ __forceinline__ Count block_total(Count value, Shared& s) {
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    __syncthreads();
    if (threadIdx.x % 32 == 0) s.partial[threadIdx.x / 32] = value;
    __syncthreads();
    Count total = 0;
    for (int i = 0; i < kWarps; ++i) total += s.partial[i];
    return total;
}

// The same of floats, in one order.
__device__ __forceinline__ double block_sum(double value, Shared& s) {
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    __syncthreads();
    if (threadIdx.x % 32 == 0) s.best_of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    double total = 0.0;
    for (int i = 0; i < kWarps; ++i) total += s.best_of_warp[i];
    __syncthreads();
    return total;
}

// The last key up to which a cut keeps candidates, and the largest id that it keeps of those with that very key.
struct Threshold {
    Count key = ~Count{0};
    int id = 0x7fffffff;

    __device__ bool keeps(Count k, int i) const { return k < key || (k == key && i <= id); }
};

// The smallest key for which the amounts of all keys up to it reach `target`, which the sum of all amounts does.
// `left` is what those with that key must contribute. Items are 0 .. count - 1; each(item, key, amount) says if it counts.
template <class Each>
__device__ __forceinline__ Count select_key(int count, int first_shift, Count target, Shared& s, Count& left, Each each) {
    Count prefix = 0;
    left = target;
    for (int shift = first_shift; shift >= 0; shift -= 8) {
        __syncthreads();
        for (int i = threadIdx.x; i < kBins; i += kThreads) s.bins[i] = 0;
        __syncthreads();
        for (int item = threadIdx.x; item < count; item += kThreads) {
            Count key, amount;
            if (!each(item, key, amount)) continue;
            if (shift < first_shift && key >> (shift + 8) != prefix) continue;
            atomicAdd(&s.bins[key >> shift & 0xff], amount);
        }
        __syncthreads();
        if (threadIdx.x < 32) {
            constexpr int kOfLane = kBins / 32;
            Count sum = 0;
            for (int i = 0; i < kOfLane; ++i) sum += s.bins[threadIdx.x * kOfLane + i];
            Count before = sum;
            for (int offset = 1; offset < 32; offset *= 2) {
                const Count other = __shfl_up_sync(0xffffffffu, before, offset);
                if (static_cast<int>(threadIdx.x) >= offset) before += other;
            }
            const unsigned reached = __ballot_sync(0xffffffffu, before >= left);
            const int lane = reached ? __ffs(reached) - 1 : 31;
            if (static_cast<int>(threadIdx.x) == lane) {
                Count missing = left - (before - sum);
                int bin = lane * kOfLane;
                while (bin < (lane + 1) * kOfLane - 1 && s.bins[bin] < missing) missing -= s.bins[bin++];
                s.key = prefix << 8 | static_cast<Count>(bin);
                s.left = missing;
            }
        }
        __syncthreads();
        prefix = s.key;
        left = s.left;
    }
    return prefix;
}

// A token and its number; of several with the largest the first.
struct Best {
    double value = -INFINITY;
    int id = 0x7fffffff;

    __device__ void see(double other, int other_id) {
        if (other > value || (other == value && other_id < id)) value = other, id = other_id;
    }
};

// The best of all threads, into s.best and s.best_id.
__device__ __forceinline__ void share_best(Best best, Shared& s) {
    for (int offset = 16; offset > 0; offset /= 2) {
        const double other = __shfl_xor_sync(0xffffffffu, best.value, offset);
        best.see(other, __shfl_xor_sync(0xffffffffu, best.id, offset));
    }
    if (threadIdx.x % 32 == 0) s.best_of_warp[threadIdx.x / 32] = best.value, s.best_id_of_warp[threadIdx.x / 32] = best.id;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < kWarps; ++i) best.see(s.best_of_warp[i], s.best_id_of_warp[i]);
        s.best = best.value, s.best_id = best.id;
    }
    __syncthreads();
}

// The same of x.
__device__ __forceinline__ void find_best(const double* x, int vocab_size, Shared& s) {
    Best best;
    for_each(x, vocab_size, [&](int id, double value) { best.see(value, id); });
    share_best(best, s);
}

}  // namespace
}  // namespace parlor

// What is taken from logits before any is cut: penalties, DRY, biases and the end that comes too early.
#pragma once

#include "sampling_block.cuh"

namespace parlor {
namespace {

constexpr double kMostPenalty = 1e30;  // as in cpu/sampling_penalties.h
constexpr int64_t kMostBeyondAllowed = 256;

__device__ __forceinline__ void penalize(const sampling_row& row, double* x, int32_t* latest, int32_t* counts,
                                         int vocab_size) {
    const int64_t range = row.repetition_range > 0 ? row.repetition_range : row.num_tokens;
    const int64_t most = range + row.repetition_decay, reach = most < row.num_tokens ? most : row.num_tokens;
    if (row.repetition_penalty != 1.0) {
        for (int64_t i = row.num_tokens - reach + threadIdx.x; i < row.num_tokens; i += kThreads) {
            const int32_t id = row.history[i];
            if (id >= 0 && id < vocab_size) atomicMax(latest + id, static_cast<int32_t>(i) + 1);
        }
        __syncthreads();
        for (int64_t i = row.num_tokens - reach + threadIdx.x; i < row.num_tokens; i += kThreads) {
            const int32_t id = row.history[i];
            if (id < 0 || id >= vocab_size || latest[id] != static_cast<int32_t>(i) + 1) continue;
            const int64_t distance = row.num_tokens - 1 - i;
            const double faded = distance < range ? 0.0
                : static_cast<double>(distance - range) / static_cast<double>(row.repetition_decay);
            const double strength = row.repetition_penalty + (1.0 - row.repetition_penalty) * faded;
            x[id] = x[id] > 0 ? x[id] / strength : x[id] * strength;
        }
        __syncthreads();
    }
    if (row.presence_penalty != 0.0 || row.frequency_penalty != 0.0) {
        for (int64_t i = row.prompt_length + threadIdx.x; i < row.num_tokens; i += kThreads) {
            const int32_t id = row.history[i];
            if (id >= 0 && id < vocab_size) atomicAdd(counts + id, 1);
        }
        __syncthreads();
        for_each(counts, vocab_size, [&](int id, int32_t count) {
            if (count > 0) x[id] -= row.presence_penalty + row.frequency_penalty * count;
        });
        __syncthreads();
    }
}

// How many tokens up to history[end] are those up to the last one, none of them a break; at most `most`.
__device__ __forceinline__ int64_t repeated_length(const sampling_row& row, int64_t first, int64_t end, int64_t most) {
    int64_t length = 0;
    for (; length < most && end - length >= first; ++length) {
        const int64_t at = row.num_tokens - 1 - length;
        if (row.history[end - length] != row.history[at] || (row.breaks && row.breaks[at])) break;
    }
    return length;
}

__device__ __forceinline__ void penalize_repeated_sequences(const sampling_row& row, double* x, int32_t* lengths,
                                                            int vocab_size) {
    for (int id = threadIdx.x; id < vocab_size; id += kThreads) lengths[id] = 0;
    __syncthreads();
    const int64_t reach = row.dry_penalty_last_n < 0 || row.dry_penalty_last_n > row.num_tokens ? row.num_tokens
                                                                                                : row.dry_penalty_last_n;
    const int64_t first = row.num_tokens - reach, most = row.dry_allowed_length + kMostBeyondAllowed;
    for (int64_t i = first + 1 + threadIdx.x; i < row.num_tokens; i += kThreads) {
        const int32_t id = row.history[i];
        if (id < 0 || id >= vocab_size || (row.breaks && row.breaks[i])) continue;
        atomicMax(lengths + id, static_cast<int32_t>(repeated_length(row, first, i - 1, most)));
    }
    __syncthreads();
    for_each(lengths, vocab_size, [&](int id, int64_t length) {
        if (length == 0) return;
        lengths[id] = 0;
        if (length < row.dry_allowed_length) return;
        const double penalty = row.dry_multiplier * pow(row.dry_base, static_cast<double>(length - row.dry_allowed_length));
        x[id] -= penalty < kMostPenalty ? penalty : kMostPenalty;
    });
    __syncthreads();
}

__device__ __forceinline__ void add_biases(const sampling_row& row, double* x, int vocab_size) {
    for (int64_t i = threadIdx.x; i < row.num_biases; i += kThreads)
        if (row.bias_ids[i] >= 0 && row.bias_ids[i] < vocab_size) x[row.bias_ids[i]] += row.bias_values[i];
    __syncthreads();
    if (row.num_tokens - row.prompt_length < row.min_new_tokens)
        for (int64_t i = threadIdx.x; i < row.num_eos_ids; i += kThreads)
            if (row.eos_ids[i] >= 0 && row.eos_ids[i] < vocab_size) x[row.eos_ids[i]] = -INFINITY;
    __syncthreads();
}

}  // namespace
}  // namespace parlor

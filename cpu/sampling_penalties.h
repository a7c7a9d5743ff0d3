// What is taken from logits before any is cut: what is not allowed, penalties, DRY, biases, an end that comes too early.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels.h"

namespace parlor {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

constexpr int64_t kMostBeyondAllowed = 256;    // what is repeated counts up to so many tokens more than are allowed
constexpr double kMostPenalty = 1e30;

void keep_allowed(const sampling_row& row, double* x, int64_t vocab_size) {
    if (!row.allowed) return;
    for (int64_t i = 0; i < vocab_size; ++i)
        if (!(row.allowed[i / 32] >> (i % 32) & 1)) x[i] = kMinusInfinity;
}

// The strength of a token whose latest occurrence lies `distance` tokens back.
double strength_at(const sampling_row& row, int64_t range, int64_t distance) {
    if (distance < range) return row.repetition_penalty;
    const double faded = static_cast<double>(distance - range) / static_cast<double>(row.repetition_decay);
    return row.repetition_penalty + (1.0 - row.repetition_penalty) * faded;
}

void penalize_repetition(const sampling_row& row, double* x, int32_t* seen, int64_t vocab_size) {
    if (row.repetition_penalty == 1.0) return;
    const int64_t range = row.repetition_range > 0 ? row.repetition_range : row.num_tokens;
    const int64_t reach = std::min(row.num_tokens, range + row.repetition_decay);
    std::memset(seen, 0, static_cast<size_t>(vocab_size) * sizeof(int32_t));
    for (int64_t distance = 0; distance < reach; ++distance) {
        const int32_t token_id = row.history[row.num_tokens - 1 - distance];
        if (token_id < 0 || token_id >= vocab_size || seen[token_id]) continue;
        seen[token_id] = 1;
        const double strength = strength_at(row, range, distance);
        x[token_id] = x[token_id] > 0 ? x[token_id] / strength : x[token_id] * strength;
    }
}

void penalize_reply(const sampling_row& row, double* x, int32_t* counts, int64_t vocab_size) {
    if (row.presence_penalty == 0.0 && row.frequency_penalty == 0.0) return;
    std::memset(counts, 0, static_cast<size_t>(vocab_size) * sizeof(int32_t));
    for (int64_t i = row.prompt_length; i < row.num_tokens; ++i) {
        const int32_t token_id = row.history[i];
        if (token_id >= 0 && token_id < vocab_size) ++counts[token_id];
    }
    for (int64_t i = row.prompt_length; i < row.num_tokens; ++i) {
        const int32_t token_id = row.history[i];
        if (token_id < 0 || token_id >= vocab_size || counts[token_id] == 0) continue;
        x[token_id] -= row.presence_penalty + row.frequency_penalty * counts[token_id];
        counts[token_id] = 0;
    }
}

// How many tokens up to history[end] are those up to the last one, none of them a break; at most `most`.
int64_t repeated_length(const sampling_row& row, int64_t first, int64_t end, int64_t most) {
    int64_t length = 0;
    for (; length < most && end - length >= first; ++length) {
        const int64_t at = row.num_tokens - 1 - length;
        if (row.history[end - length] != row.history[at] || (row.breaks && row.breaks[at])) break;
    }
    return length;
}

void penalize_repeated_sequences(const sampling_row& row, double* x, int32_t* lengths, int64_t vocab_size) {
    if (row.dry_multiplier == 0.0 || row.num_tokens < 2) return;
    std::memset(lengths, 0, static_cast<size_t>(vocab_size) * sizeof(int32_t));
    const int64_t first = row.dry_penalty_last_n < 0 ? 0 : std::max<int64_t>(0, row.num_tokens - row.dry_penalty_last_n);
    const int64_t most = row.dry_allowed_length + kMostBeyondAllowed;
    const auto can_follow = [&](int64_t i) {
        return !(row.breaks && row.breaks[i]) && row.history[i] >= 0 && row.history[i] < vocab_size;
    };
    for (int64_t i = first + 1; i < row.num_tokens; ++i) {
        if (!can_follow(i)) continue;
        const int32_t length = static_cast<int32_t>(repeated_length(row, first, i - 1, most));
        lengths[row.history[i]] = std::max(lengths[row.history[i]], length);
    }
    for (int64_t i = first + 1; i < row.num_tokens; ++i) {
        if (!can_follow(i)) continue;
        int32_t& length = lengths[row.history[i]];
        if (length > 0 && length >= row.dry_allowed_length)
            x[row.history[i]] -= std::min(kMostPenalty, row.dry_multiplier * std::pow(row.dry_base,
                                          static_cast<double>(length - row.dry_allowed_length)));
        length = 0;
    }
}

void add_biases(const sampling_row& row, double* x, int64_t vocab_size) {
    for (int64_t i = 0; i < row.num_biases; ++i)
        if (row.bias_ids[i] >= 0 && row.bias_ids[i] < vocab_size) x[row.bias_ids[i]] += row.bias_values[i];
    if (row.num_tokens - row.prompt_length >= row.min_new_tokens) return;
    for (int64_t i = 0; i < row.num_eos_ids; ++i)
        if (row.eos_ids[i] >= 0 && row.eos_ids[i] < vocab_size) x[row.eos_ids[i]] = kMinusInfinity;
}

}  // namespace
}  // namespace parlor

// The sampling chain: penalties, cuts, one counter-based random number a token. In float64, on one thread a sequence.
//
// Bound by one pass of exp() over the vocabulary (sampling_weights.cpp).
// Reference, with the exact meaning of each stage: sample() in model/kernels/reference/sampling.py.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels.h"
#include "operations.h"
#include "sampling_chain.h"
#include "sampling_penalties.h"
#include "thread_team.h"

namespace parlor {
namespace {

void load_logits(const float* logits, double* x, int64_t vocab_size) {
    for (int64_t i = 0; i < vocab_size; ++i) {
        const double v = logits[i];
        x[i] = v != v ? kMinusInfinity : v > std::numeric_limits<float>::max() ? 3.4e38 : v;
    }
}

// Random numbers in [0, 1) with 53 bits.
struct Uniforms {
    double of_choice, of_xtc;
};

// Philox4x32-10, key `seed`, counter (position, 0): the first two words are a number, the others another.
Uniforms philox_uniforms(uint64_t seed, uint64_t position) {
    uint32_t c0 = static_cast<uint32_t>(position), c1 = static_cast<uint32_t>(position >> 32), c2 = 0, c3 = 0;
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t product0 = uint64_t{0xD2511F53} * c0, product1 = uint64_t{0xCD9E8D57} * c2;
        c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(product1);
        c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(product0);
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    const auto number = [](uint32_t high, uint32_t low) {
        return (static_cast<double>(high >> 5) * 67108864.0 + static_cast<double>(low >> 6)) / 9007199254740992.0;
    };
    return {number(c0, c1), number(c2, c3)};
}

int32_t pick(const double* weights, int64_t vocab_size, double u) {
    double total = 0.0;
    for (int64_t i = 0; i < vocab_size; ++i) total += weights[i];
    const double target = u * total;
    double running = 0.0;
    for (int64_t i = 0; i < vocab_size; ++i) {
        running += weights[i];
        if (running > target) return static_cast<int32_t>(i);
    }
    return -1;  // not reached: the same sum in the same order is larger than u < 1 times itself
}

bool is_of_logits(uint64_t stage) { return stage == PARLOR_STAGE_PENALTIES || stage == PARLOR_STAGE_DRY; }

bool has_stage(uint64_t stages, uint64_t stage) {
    for (; stages != 0; stages >>= 4)
        if ((stages & 15) == stage) return true;
    return false;
}

int32_t sample_row(const float* logits, const sampling_row& row, float* probabilities, double* surprise,
                   int64_t vocab_size, const Workspace& work) {
    double* x = work.values;
    load_logits(logits, x, vocab_size);
    keep_allowed(row, x, vocab_size);
    uint64_t stages = row.stages;
    for (; is_of_logits(stages & 15); stages >>= 4) {
        if ((stages & 15) == PARLOR_STAGE_DRY) {
            penalize_repeated_sequences(row, x, work.counts, vocab_size);
            continue;
        }
        penalize_repetition(row, x, work.counts, vocab_size);
        penalize_reply(row, x, work.counts, vocab_size);
    }
    add_biases(row, x, vocab_size);
    if (probabilities) std::fill_n(probabilities, vocab_size, 0.0f);
    if (surprise) *surprise = 0.0;
    const int64_t best_id = std::max_element(x, x + vocab_size) - x;  // the first of equals
    const double best = x[best_id];
    if (best == kMinusInfinity) return -1;
    if (row.temperature == 0.0 && has_stage(stages, PARLOR_STAGE_TEMPERATURE)) {
        if (probabilities) probabilities[best_id] = 1.0f;
        return static_cast<int32_t>(best_id);
    }
    const Uniforms u = philox_uniforms(row.seed, static_cast<uint64_t>(row.num_tokens));
    Chain(row, work, vocab_size, best, u.of_xtc).run(stages);
    if (probabilities) {
        double total = 0.0;
        for (int64_t i = 0; i < vocab_size; ++i) total += x[i];
        for (int64_t i = 0; i < vocab_size; ++i) probabilities[i] = static_cast<float>(x[i] / total);
    }
    const int32_t chosen = pick(x, vocab_size, u.of_choice);
    if (surprise) {
        double total = 0.0;
        for (int64_t i = 0; i < vocab_size; ++i) total += x[i];
        *surprise = std::log2(total / x[chosen]);
    }
    return chosen;
}

bool in_range(double x, double low, double high) { return x >= low && x <= high; }

// Whether there are only stages that are known, and those of logits come first.
bool is_in_order(uint64_t stages) {
    while (is_of_logits(stages & 15)) stages >>= 4;
    for (; stages != 0; stages >>= 4)
        if ((stages & 15) < PARLOR_STAGE_TOP_N_SIGMA || (stages & 15) > PARLOR_STAGE_MIROSTAT) return false;
    return true;
}

int check_row(const sampling_row& row) {
    if (row.num_tokens < 0 || row.prompt_length < 0 || row.prompt_length > row.num_tokens || row.num_biases < 0 ||
        row.num_eos_ids < 0)
        return PARLOR_ERROR_SIZE;
    if ((row.num_tokens > 0 && !row.history) || (row.num_biases > 0 && (!row.bias_ids || !row.bias_values)) ||
        (row.num_eos_ids > 0 && !row.eos_ids))
        return PARLOR_ERROR_POINTER;
    const bool is_valid = row.repetition_penalty > 0.0 && std::isfinite(row.repetition_penalty) &&
                          std::isfinite(row.presence_penalty) && std::isfinite(row.frequency_penalty) &&
                          row.temperature >= 0.0 && std::isfinite(row.temperature) && in_range(row.top_p, 0.0, 1.0) &&
                          in_range(row.min_p, 0.0, 1.0) && in_range(row.typical_p, 0.0, 1.0) &&
                          row.repetition_range >= 0 && row.repetition_decay >= 0 && row.top_k >= 0 &&
                          row.top_n_sigma >= 0.0 && std::isfinite(row.top_n_sigma) && row.dynatemp_range >= 0.0 &&
                          std::isfinite(row.dynatemp_range) && row.dynatemp_exponent >= 0.0 &&
                          std::isfinite(row.dynatemp_exponent) && in_range(row.xtc_probability, 0.0, 1.0) &&
                          in_range(row.xtc_threshold, 0.0, 1.0) && row.dry_multiplier >= 0.0 &&
                          std::isfinite(row.dry_multiplier) && row.dry_base >= 1.0 && std::isfinite(row.dry_base) &&
                          row.dry_allowed_length >= 1 && row.dry_allowed_length <= INT32_MAX / 2 &&
                          row.dry_penalty_last_n >= -1 && std::isfinite(row.mirostat_mu) && is_in_order(row.stages);
    return is_valid ? PARLOR_OK : PARLOR_ERROR_VALUE;
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int sample(const float* logits, int64_t logits_stride, const sampling_row* const* rows, int32_t* chosen,
                      float* probabilities, double* surprises, int64_t num_sequences, int64_t vocab_size, void*) {
    if (num_sequences == 0) return PARLOR_OK;
    if (num_sequences < 0 || vocab_size <= 0 || vocab_size > INT32_MAX || logits_stride < vocab_size)
        return PARLOR_ERROR_SIZE;
    if (!logits || !rows || !chosen) return PARLOR_ERROR_POINTER;
    for (int64_t s = 0; s < num_sequences; ++s) {
        if (!rows[s]) return PARLOR_ERROR_POINTER;
        if (const int error = check_row(*rows[s])) return error;
    }
    const size_t bytes = Workspace::bytes(vocab_size);
    char* const memory = static_cast<char*>(team().scratch(bytes * static_cast<size_t>(team().size())));
    if (!memory) return PARLOR_ERROR_MEMORY;
    team().parallel_for(num_sequences, [&](int64_t begin, int64_t end, int part) {
        const Workspace work(memory + static_cast<size_t>(part) * bytes, vocab_size);
        for (int64_t s = begin; s < end; ++s)
            chosen[s] = sample_row(logits + s * logits_stride, *rows[s],
                                   probabilities ? probabilities + s * vocab_size : nullptr,
                                   surprises ? surprises + s : nullptr, vocab_size, work);
    });
    return PARLOR_OK;
}

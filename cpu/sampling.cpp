// The sampling chain: penalties, cuts, one counter-based random number a token. In float64, on one thread a sequence.
//
// Bound by one pass of exp() over the vocabulary (sampling_weights.cpp). Cuts select by halving (std::nth_element)
// instead of sorting, and tokens that no later step can keep are left out before.
// Reference, with the exact meaning of each step: sample() in model/kernels/reference/operations.py.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels.h"
#include "operations.h"
#include "thread_team.h"

namespace parlor {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

struct Candidate {
    double weight;  // exp((logit - largest) / temperature)
    double key;     // what the present cut orders by, ascending
    int32_t token_id;
};

bool before(const Candidate& a, const Candidate& b) {
    return a.key != b.key ? a.key < b.key : a.token_id < b.token_id;
}

// Scratch memory of one thread.
struct Workspace {
    double* values;         // [vocab_size] logits, then weights
    Candidate* candidates;  // [vocab_size]
    int32_t* counts;        // [vocab_size]

    static size_t bytes(int64_t vocab_size) {
        const size_t bytes_of_token = sizeof(double) + sizeof(Candidate) + sizeof(int32_t);
        return (static_cast<size_t>(vocab_size) * bytes_of_token + 63) / 64 * 64;
    }
    Workspace(char* memory, int64_t vocab_size)
        : values(reinterpret_cast<double*>(memory)), candidates(reinterpret_cast<Candidate*>(values + vocab_size)),
          counts(reinterpret_cast<int32_t*>(candidates + vocab_size)) {}
};

void load_logits(const float* logits, double* x, int64_t vocab_size) {
    for (int64_t i = 0; i < vocab_size; ++i) {
        const double v = logits[i];
        x[i] = v != v ? kMinusInfinity : v > std::numeric_limits<float>::max() ? 3.4e38 : v;
    }
}

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

void add_biases(const sampling_row& row, double* x, int64_t vocab_size) {
    for (int64_t i = 0; i < row.num_biases; ++i)
        if (row.bias_ids[i] >= 0 && row.bias_ids[i] < vocab_size) x[row.bias_ids[i]] += row.bias_values[i];
    if (row.num_tokens - row.prompt_length >= row.min_new_tokens) return;
    for (int64_t i = 0; i < row.num_eos_ids; ++i)
        if (row.eos_ids[i] >= 0 && row.eos_ids[i] < vocab_size) x[row.eos_ids[i]] = kMinusInfinity;
}

// How many of the candidates, in the order of before(), have a weight of at least `target` together. They come first
// afterwards, in no order. All of them if they fall short.
int64_t shortest_run(Candidate* c, int64_t count, double target) {
    constexpr int64_t kFewEnoughToSort = 32;
    int64_t low = 0, high = count;  // the border lies in low .. high
    double mass = 0.0;              // of c[0 .. low]
    while (high - low > kFewEnoughToSort) {
        const int64_t middle = low + (high - low) / 2;
        std::nth_element(c + low, c + middle, c + high, before);
        double mass_of_half = 0.0;
        for (int64_t i = low; i < middle; ++i) mass_of_half += c[i].weight;
        if (mass + mass_of_half >= target) {
            high = middle;
        } else {
            low = middle;
            mass += mass_of_half;
        }
    }
    std::sort(c + low, c + high, before);
    for (int64_t i = low; i < high; ++i) {
        mass += c[i].weight;
        if (mass >= target) return i + 1;
    }
    return high;
}

double sum_of_weights(const Candidate* c, int64_t count) {
    double total = 0.0;
    for (int64_t i = 0; i < count; ++i) total += c[i].weight;
    return total;
}

// Tokens lighter than the result cannot survive top-p and min-p. Those below (1 - top_p) * total / vocab_size weigh
// less than 1 - top_p together, so the run that reaches top_p ends before them.
double weight_floor(const sampling_row& row, double total, int64_t vocab_size) {
    const double outside = row.top_p < 1.0 ? (1.0 - row.top_p) * total / static_cast<double>(vocab_size) : 0.0;
    return std::max(outside * (1.0 - 1e-9), row.min_p);
}

// The tokens of at least `floor`, in ascending order of their ids.
int64_t gather(const double* weights, int64_t vocab_size, double floor, Candidate* c) {
    int64_t count = 0;
    for (int64_t i = 0; i < vocab_size; ++i)
        if (weights[i] > 0.0 && weights[i] >= floor) c[count++] = {weights[i], -weights[i], static_cast<int32_t>(i)};
    return count;
}

// The k heaviest tokens, in no order: a buffer of 2k that is halved when full, so that most tokens meet one comparison.
int64_t gather_top_k(const double* weights, int64_t vocab_size, int64_t k, Candidate* c) {
    const int64_t capacity = std::min(2 * k + 64, vocab_size);
    int64_t count = 0;
    double floor = 0.0;  // an equal later token loses its tie
    for (int64_t i = 0; i < vocab_size; ++i) {
        if (!(weights[i] > floor)) continue;
        if (count == capacity) {
            std::nth_element(c, c + k - 1, c + count, before);
            count = k;
            floor = c[k - 1].weight;
            if (!(weights[i] > floor)) continue;
        }
        c[count++] = {weights[i], -weights[i], static_cast<int32_t>(i)};
    }
    if (count <= k) return count;
    std::nth_element(c, c + k - 1, c + count, before);
    return k;
}

int64_t cut_typical(const sampling_row& row, Candidate* c, int64_t count) {
    const double total = sum_of_weights(c, count);
    double negative_entropy = 0.0;
    for (int64_t i = 0; i < count; ++i) {
        const double p = c[i].weight / total;
        c[i].key = p > 0 ? std::log(p) : kMinusInfinity;
        if (p > 0) negative_entropy += p * c[i].key;
    }
    for (int64_t i = 0; i < count; ++i) c[i].key = std::fabs(negative_entropy - c[i].key);
    return shortest_run(c, count, row.typical_p * total);
}

// Steps 5 to 8 on the weights of the whole vocabulary; what is cut becomes zero.
void cut(const sampling_row& row, double* weights, Candidate* c, int64_t vocab_size) {
    const bool has_cut = row.top_k > 0 || row.top_p < 1.0 || row.min_p > 0.0 || row.typical_p < 1.0;
    if (!has_cut) return;
    double total = 0.0;
    int64_t count;
    if (row.top_k > 0 && row.top_k < vocab_size) {
        count = gather_top_k(weights, vocab_size, row.top_k, c);
        total = sum_of_weights(c, count);
    } else {
        for (int64_t i = 0; i < vocab_size; ++i) total += weights[i];
        count = gather(weights, vocab_size, weight_floor(row, total, vocab_size), c);
    }
    if (row.top_p < 1.0) count = shortest_run(c, count, row.top_p * total);
    count = std::remove_if(c, c + count, [&](const Candidate& x) { return x.weight < row.min_p; }) - c;
    if (row.typical_p < 1.0) count = cut_typical(row, c, count);
    std::fill_n(weights, vocab_size, 0.0);
    for (int64_t i = 0; i < count; ++i) weights[c[i].token_id] = c[i].weight;
}

// Philox4x32-10, key `seed`, counter (position, 0): the first two words as a number in [0, 1) with 53 bits.
double philox_uniform(uint64_t seed, uint64_t position) {
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
    return (static_cast<double>(c0 >> 5) * 67108864.0 + static_cast<double>(c1 >> 6)) / 9007199254740992.0;
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

int32_t sample_row(const float* logits, const sampling_row& row, float* probabilities, int64_t vocab_size,
                   const Workspace& work) {
    double* x = work.values;
    load_logits(logits, x, vocab_size);
    keep_allowed(row, x, vocab_size);
    penalize_repetition(row, x, work.counts, vocab_size);
    penalize_reply(row, x, work.counts, vocab_size);
    add_biases(row, x, vocab_size);
    if (probabilities) std::fill_n(probabilities, vocab_size, 0.0f);
    const int64_t best_id = std::max_element(x, x + vocab_size) - x;  // the first of equals
    const double best = x[best_id];
    if (best == kMinusInfinity) return -1;
    if (row.temperature == 0.0) {
        if (probabilities) probabilities[best_id] = 1.0f;
        return static_cast<int32_t>(best_id);
    }
    PARLOR_PICK(weigh_logits)(x, vocab_size, best, row.temperature);
    cut(row, x, work.candidates, vocab_size);
    if (probabilities) {
        double total = 0.0;
        for (int64_t i = 0; i < vocab_size; ++i) total += x[i];
        for (int64_t i = 0; i < vocab_size; ++i) probabilities[i] = static_cast<float>(x[i] / total);
    }
    return pick(x, vocab_size, philox_uniform(row.seed, static_cast<uint64_t>(row.num_tokens)));
}

bool in_range(double x, double low, double high) { return x >= low && x <= high; }

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
                          row.repetition_range >= 0 && row.repetition_decay >= 0 && row.top_k >= 0;
    return is_valid ? PARLOR_OK : PARLOR_ERROR_VALUE;
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int sample(const float* logits, int64_t logits_stride, const sampling_row* const* rows, int32_t* chosen,
                      float* probabilities, int64_t num_sequences, int64_t vocab_size, void*) {
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
                                   probabilities ? probabilities + s * vocab_size : nullptr, vocab_size, work);
    });
    return PARLOR_OK;
}

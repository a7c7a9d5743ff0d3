// The sampling chain on the GPU, one block a sequence: penalties, cuts, one counter-based random number a token.
//
// Bound by one exp() a token of the vocabulary in float64 and by passes over the weights: 128,256 tokens are 1 MB, read
// from the L2 cache by one multiprocessor. Only the chosen token goes back to the host.
// Everything that is added up is an integer: weights (0 .. 1) count in units of 2^-45, so that sums do not depend on the
// order of additions and atomics are harmless. A cut is a threshold: the largest key that is kept, and the largest
// token id among equal keys, found 8 bits at a time by counting (radix selection), without sorting. What is cut gets the
// weight 0. Sums of floats go over the vocabulary in one order, never over the candidates, which lie as atomics left them.
// Rows whose values lie outside their range (see check_row in cpu/sampling.cpp) get -1.
// Reference, with the exact meaning of each stage: sample() in model/kernels/reference/sampling.py.
#include <cmath>

#include "launch.cuh"
#include "workspace.cuh"

namespace parlor {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 256;
constexpr double kUnits = 35184372088832.0;  // 2^45: a vocabulary of 2^18 tokens stays below 2^63
constexpr int64_t kMaxVocabulary = 1 << 18;
constexpr double kFarBelow = 708.0, kLeastTemperature = 1e-6, kMostPenalty = 1e30;  // as in cpu/sampling.cpp
constexpr int64_t kMostBeyondAllowed = 256;
using Count = unsigned long long;

struct Sampling {
    const float* logits;
    int64_t logits_stride;
    const sampling_row* const* rows;
    int32_t* chosen;
    float* probabilities;
    double* surprises;
    int64_t vocab_size;
    double* weights;    // [rows, vocab_size] logits, then weights
    int32_t* latest;    // [rows, vocab_size] index of the latest occurrence, plus one; then ids of candidates
    int32_t* counts;    // [rows, vocab_size]
};

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

__device__ __forceinline__ bool is_of_logits(uint64_t stage) {
    return stage == PARLOR_STAGE_PENALTIES || stage == PARLOR_STAGE_DRY;
}

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
        for (int id = threadIdx.x; id < vocab_size; id += kThreads)
            if (counts[id] > 0) x[id] -= row.presence_penalty + row.frequency_penalty * counts[id];
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
    for (int id = threadIdx.x; id < vocab_size; id += kThreads) {
        const int64_t length = lengths[id];
        lengths[id] = 0;
        if (length == 0 || length < row.dry_allowed_length) continue;
        const double penalty = row.dry_multiplier * pow(row.dry_base, static_cast<double>(length - row.dry_allowed_length));
        x[id] -= penalty < kMostPenalty ? penalty : kMostPenalty;
    }
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

// The largest x and the first token that has it, into s.best and s.best_id.
__device__ __forceinline__ void find_best(const double* x, int vocab_size, Shared& s) {
    double best = -INFINITY;
    int best_id = 0x7fffffff;
    for (int id = threadIdx.x; id < vocab_size; id += kThreads)
        if (x[id] > best) best = x[id], best_id = id;
    for (int offset = 16; offset > 0; offset /= 2) {
        const double other = __shfl_xor_sync(0xffffffffu, best, offset);
        const int other_id = __shfl_xor_sync(0xffffffffu, best_id, offset);
        if (other > best || (other == best && other_id < best_id)) best = other, best_id = other_id;
    }
    if (threadIdx.x % 32 == 0) s.best_of_warp[threadIdx.x / 32] = best, s.best_id_of_warp[threadIdx.x / 32] = best_id;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < kWarps; ++i) {
            const double other = s.best_of_warp[i];
            const int other_id = s.best_id_of_warp[i];
            if (other > best || (other == best && other_id < best_id)) best = other, best_id = other_id;
        }
        s.best = best, s.best_id = best_id;
    }
    __syncthreads();
}

// A cut by order: heavy tokens first, or those first whose surprise is as expected.
struct Cut {
    Count target = 0;  // how much is to stay; 0: no cut
    bool by_count = false, by_surprise = false;
    double total = 1.0, negative_entropy = 0.0;

    __device__ Count key_of(double weight) const {
        return by_surprise ? bits_of(fabs(negative_entropy - log(weight / total))) : ~bits_of(weight);
    }
};

// Let a threshold keep the first candidates, by key and then by id, that reach the target; amounts are 1 or units.
__device__ __forceinline__ void cut_at(double* weights, const int32_t* ids, int count, const Cut& cut, Shared& s) {
    Count left;
    Threshold threshold;
    threshold.key = select_key(count, 56, cut.target, s, left, [&](int item, Count& key, Count& amount) {
        const double weight = weights[ids[item]];
        if (!(weight > 0.0)) return false;
        key = cut.key_of(weight);
        amount = cut.by_count ? 1 : units_of(weight);
        return true;
    });
    // Of equal keys the lowest ids. Their weights may differ (two surprises), so amounts are counted here as well.
    const Count key_reached = threshold.key;
    Count rest;
    threshold.id = static_cast<int>(select_key(count, 24, left, s, rest, [&](int item, Count& key, Count& amount) {
        const double weight = weights[ids[item]];
        if (!(weight > 0.0) || cut.key_of(weight) != key_reached) return false;
        key = static_cast<Count>(ids[item]);
        amount = cut.by_count ? 1 : units_of(weight);
        return true;
    }));
    for (int item = threadIdx.x; item < count; item += kThreads) {
        const double weight = weights[ids[item]];
        if (weight > 0.0 && !threshold.keeps(cut.key_of(weight), ids[item])) weights[ids[item]] = 0.0;
    }
    __syncthreads();
}

__device__ __forceinline__ Count share_of(double share, Count total) {
    const Count target = static_cast<Count>(ceil(share * static_cast<double>(total)));
    return target < 1 ? 1 : target > total ? total : target;
}

// The stages after the penalties, in the order of the row. Until one needs weights, x holds logits; then weights, and what
// is left are candidates: ids[0 .. count - 1], where x is not 0.
struct Chain {
    const sampling_row& row;
    double* x;        // [vocab_size]
    int32_t* ids;     // [vocab_size]
    int vocab_size;
    double best;      // the largest logit
    double u_of_xtc;
    Shared& s;
    double temperature = 1.0;
    bool is_gathered = false, is_best_left = true;
    int count = 0;

    __device__ void run(uint64_t stages) {
        for (; stages != 0; stages >>= 4) {
            const double min_p = (stages >> 4 & 15) == PARLOR_STAGE_MIN_P ? row.min_p : 0.0;
            Cut cut;
            switch (stages & 15) {
                case PARLOR_STAGE_TOP_N_SIGMA: if (row.top_n_sigma > 0.0) cut_top_n_sigma(); break;
                case PARLOR_STAGE_TEMPERATURE: change_temperature(); break;
                case PARLOR_STAGE_TOP_K: if (row.top_k > 0) cut = top_k(min_p); break;
                case PARLOR_STAGE_TOP_P: if (row.top_p < 1.0) cut = top_p(min_p); break;
                case PARLOR_STAGE_MIN_P: if (row.min_p > 0.0) cut_min_p(); break;
                case PARLOR_STAGE_TYPICAL_P: if (row.typical_p < 1.0) cut = typical_p(); break;
                case PARLOR_STAGE_XTC: if (u_of_xtc < row.xtc_probability) cut_xtc(); break;
                case PARLOR_STAGE_MIROSTAT: cut_mirostat(); break;
            }
            if (cut.target > 0) cut_at(x, ids, count, cut, s);
        }
        if (!is_gathered) weigh();
    }

    // The sum of all weights.
    __device__ Count weigh() {
        Count mine = 0;
        for (int id = threadIdx.x; id < vocab_size; id += kThreads) {
            x[id] = exp((x[id] - best) / temperature);
            mine += units_of(x[id]);
        }
        return block_total(mine, s);
    }

    __device__ void gather_from(double floor) {
        if (threadIdx.x == 0) s.num_candidates = 0;
        __syncthreads();
        for (int id = threadIdx.x; id < vocab_size; id += kThreads) {
            if (x[id] > 0.0 && x[id] >= floor) ids[atomicAdd(&s.num_candidates, 1)] = id;
            else x[id] = 0.0;
        }
        __syncthreads();
        count = s.num_candidates;
        is_gathered = true;
    }

    // The sum of the weights that are left, all of them candidates.
    __device__ Count gather_all() {
        if (!is_gathered) {
            const Count total = weigh();
            gather_from(0.0);
            return total;
        }
        Count mine = 0;
        for (int item = threadIdx.x; item < count; item += kThreads) mine += units_of(x[ids[item]]);
        return block_total(mine, s);
    }

    __device__ void keep_from(double floor) {
        for (int item = threadIdx.x; item < count; item += kThreads)
            if (x[ids[item]] < floor) x[ids[item]] = 0.0;
        __syncthreads();
    }

    __device__ double largest() {
        if (!is_best_left) find_best(x, vocab_size, s);
        return is_best_left ? 1.0 : s.best;
    }

    // The logit of a token below the largest one, in units of the temperature; false if it is not left.
    __device__ bool is_left(int id, double& below) const {
        if (is_gathered) {
            below = log(x[id]);
            return x[id] > 0.0;
        }
        below = (x[id] - best) / temperature;
        return below >= -kFarBelow;
    }

    __device__ void cut_top_n_sigma() {
        const double top = is_gathered ? log(largest()) : 0.0;
        double below, sum = 0.0, variance = 0.0;
        Count mine = 0;
        for (int id = threadIdx.x; id < vocab_size; id += kThreads)
            if (is_left(id, below)) sum += below, ++mine;
        const double left = static_cast<double>(block_total(mine, s)), mean = block_sum(sum, s) / left;
        for (int id = threadIdx.x; id < vocab_size; id += kThreads)
            if (is_left(id, below)) variance += (below - mean) * (below - mean);
        const double floor = top - row.top_n_sigma * sqrt(block_sum(variance, s) / left);
        for (int id = threadIdx.x; id < vocab_size; id += kThreads)
            if (!is_left(id, below) || below < floor) x[id] = is_gathered ? 0.0 : -INFINITY;
        __syncthreads();
    }

    __device__ void change_temperature() {
        const double before = temperature;
        temperature = row.dynatemp_range > 0.0 ? dynamic_temperature() : row.temperature;
        if (!is_gathered) return;
        const double top = largest();  // which may lie far below what was cut
        for (int item = threadIdx.x; item < count; item += kThreads) {
            double& weight = x[ids[item]];
            if (weight > 0.0) weight = exp(log(weight / top) * before / temperature);
        }
        is_best_left = true;
        __syncthreads();
    }

    // Between temperature - range and temperature + range, by the entropy's share of what it could be at most.
    __device__ double dynamic_temperature() {
        double below, total = 0.0, surprise = 0.0;  // surprise: sum of w ln w
        Count mine = 0;
        for (int id = threadIdx.x; id < vocab_size; id += kThreads) {
            if (!is_left(id, below)) continue;
            const double weight = exp(below);
            total += weight, surprise += weight * below, ++mine;
        }
        const Count left = block_total(mine, s);
        total = block_sum(total, s);
        surprise = block_sum(surprise, s);
        if (left <= 1) return row.temperature;
        const double entropy = log(total) - surprise / total;
        const double share = fmin(1.0, fmax(0.0, entropy / log(static_cast<double>(left))));
        const double low = fmax(0.0, row.temperature - row.dynatemp_range), high = row.temperature + row.dynatemp_range;
        return fmax(kLeastTemperature, low + (high - low) * pow(share, row.dynatemp_exponent));
    }

    // min_p: of the next stage; lighter tokens would be cut there.
    __device__ Cut top_k(double min_p) {
        if (!is_gathered) {
            weigh();
            gather_from(min_p);
        }
        Count mine = 0;
        for (int item = threadIdx.x; item < count; item += kThreads) mine += x[ids[item]] > 0.0;
        const bool is_cut = static_cast<Count>(row.top_k) < block_total(mine, s);
        return {is_cut ? static_cast<Count>(row.top_k) : 0, true};
    }

    // All below (1 - top_p) * total / vocab_size weigh less than 1 - top_p together.
    __device__ Cut top_p(double min_p) {
        Count total;
        if (is_gathered) {
            total = gather_all();
        } else {
            total = weigh();
            const double outside = (1.0 - row.top_p) * (static_cast<double>(total) / kUnits) / vocab_size;
            gather_from(fmax(outside * (1.0 - 1e-9), min_p));
        }
        return {share_of(row.top_p, total)};
    }

    __device__ void cut_min_p() {
        if (is_gathered) return keep_from(row.min_p * largest());
        weigh();
        gather_from(row.min_p);
    }

    __device__ Cut typical_p() {
        const Count mass = gather_all();
        const double total = static_cast<double>(mass) / kUnits;
        Count entropy = 0;  // -p ln p lies between 0 and 0.37
        for (int item = threadIdx.x; item < count; item += kThreads) {
            const double p = x[ids[item]] / total;
            if (p > 0.0) entropy += units_of(fmax(-p * log(p), 0.0));
        }
        is_best_left = false;
        return {share_of(row.typical_p, mass), false, true, total, -static_cast<double>(block_total(entropy, s)) / kUnits};
    }

    // Of the tokens that have at least the threshold all but the last: the lightest, of equal ones that with the largest id.
    __device__ void cut_xtc() {
        const double least = row.xtc_threshold * (static_cast<double>(gather_all()) / kUnits);
        double lightest = INFINITY;
        int last = -1;
        for (int item = threadIdx.x; item < count; item += kThreads) {
            const double weight = x[ids[item]];
            if (!(weight > 0.0) || weight < least) continue;
            if (weight < lightest || (weight == lightest && ids[item] > last)) lightest = weight, last = ids[item];
        }
        for (int offset = 16; offset > 0; offset /= 2) {
            const double other = __shfl_xor_sync(0xffffffffu, lightest, offset);
            const int other_id = __shfl_xor_sync(0xffffffffu, last, offset);
            if (other < lightest || (other == lightest && other_id > last)) lightest = other, last = other_id;
        }
        if (threadIdx.x % 32 == 0) s.best_of_warp[threadIdx.x / 32] = lightest, s.best_id_of_warp[threadIdx.x / 32] = last;
        __syncthreads();
        for (int i = 0; i < kWarps; ++i)
            if (s.best_of_warp[i] < lightest || (s.best_of_warp[i] == lightest && s.best_id_of_warp[i] > last))
                lightest = s.best_of_warp[i], last = s.best_id_of_warp[i];
        __syncthreads();
        if (last < 0) return;
        for (int item = threadIdx.x; item < count; item += kThreads)
            if (x[ids[item]] >= least && ids[item] != last) x[ids[item]] = 0.0;
        is_best_left = false;
        __syncthreads();
    }

    // Tokens of more surprise than mu; the likeliest one stays.
    __device__ void cut_mirostat() {
        const double floor = exp2(-row.mirostat_mu) * (static_cast<double>(gather_all()) / kUnits);
        find_best(x, vocab_size, s);
        const double top = s.best;
        const int likeliest = s.best_id;
        for (int item = threadIdx.x; item < count; item += kThreads)
            if (top < floor ? ids[item] != likeliest : x[ids[item]] < floor) x[ids[item]] = 0.0;
        __syncthreads();
    }
};

// Random numbers in [0, 1) with 53 bits.
struct Uniforms {
    double of_choice, of_xtc;
};

__device__ __forceinline__ double number_of(uint32_t high, uint32_t low) {
    return (static_cast<double>(high >> 5) * 67108864.0 + static_cast<double>(low >> 6)) / 9007199254740992.0;
}

// Philox4x32-10, key `seed`, counter (position, 0): the first two words are a number, the others another.
__device__ __forceinline__ Uniforms philox_uniforms(uint64_t seed, uint64_t position) {
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
    return {number_of(c0, c1), number_of(c2, c3)};
}

// The first token, in the order of ids, at which the running sum of what is kept exceeds u times its total.
__device__ __forceinline__ void pick(const double* weights, int vocab_size, double u, float* probabilities, double* surprise,
                                     Shared& s) {
    const int chunk = (vocab_size + kThreads - 1) / kThreads;
    const int begin = min(chunk * static_cast<int>(threadIdx.x), vocab_size), end = min(begin + chunk, vocab_size);
    Count mine = 0;
    for (int id = begin; id < end; ++id)
        mine += units_of(weights[id]);
    const Count total = block_total(mine, s);
    Count before = mine;  // sum of this warp's lanes up to this one
    for (int offset = 1; offset < 32; offset *= 2) {
        const Count other = __shfl_up_sync(0xffffffffu, before, offset);
        if (static_cast<int>(threadIdx.x % 32) >= offset) before += other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 31) s.partial[threadIdx.x / 32] = before;
    __syncthreads();
    before -= mine;
    for (unsigned warp = 0; warp < threadIdx.x / 32; ++warp) before += s.partial[warp];
    const Count target = static_cast<Count>(u * static_cast<double>(total));
    if (mine > 0 && before <= target && before + mine > target) {
        int id = begin;
        for (;; ++id) {
            before += units_of(weights[id]);
            if (before > target) break;
        }
        s.chosen = id;
    }
    if (probabilities)
        for (int id = threadIdx.x; id < vocab_size; id += kThreads)
            probabilities[id] = static_cast<float>(weights[id] / (static_cast<double>(total) / kUnits));
    __syncthreads();
    if (surprise && threadIdx.x == 0 && s.chosen >= 0)
        *surprise = log2(static_cast<double>(total) / kUnits / weights[s.chosen]);
}

__device__ __forceinline__ bool is_between(double x, double low, double high) { return x >= low && x <= high; }

// Whether there are only stages that are known, and those of logits come first.
__device__ __forceinline__ bool is_in_order(uint64_t stages) {
    while (is_of_logits(stages & 15)) stages >>= 4;
    for (; stages != 0; stages >>= 4)
        if ((stages & 15) < PARLOR_STAGE_TOP_N_SIGMA || (stages & 15) > PARLOR_STAGE_MIROSTAT) return false;
    return true;
}

__device__ __forceinline__ bool has_stage(uint64_t stages, uint64_t stage) {
    for (; stages != 0; stages >>= 4)
        if ((stages & 15) == stage) return true;
    return false;
}

__device__ __forceinline__ bool is_valid(const sampling_row& row) {
    return row.num_tokens >= 0 && row.num_tokens < 0x7fffffff && row.prompt_length >= 0 &&
           row.prompt_length <= row.num_tokens && row.repetition_penalty > 0.0 && isfinite(row.repetition_penalty) &&
           isfinite(row.presence_penalty) && isfinite(row.frequency_penalty) && row.temperature >= 0.0 &&
           isfinite(row.temperature) && is_between(row.top_p, 0.0, 1.0) && is_between(row.min_p, 0.0, 1.0) &&
           is_between(row.typical_p, 0.0, 1.0) && row.repetition_range >= 0 && row.repetition_decay >= 0 && row.top_k >= 0 &&
           row.top_n_sigma >= 0.0 && isfinite(row.top_n_sigma) && row.dynatemp_range >= 0.0 &&
           isfinite(row.dynatemp_range) && row.dynatemp_exponent >= 0.0 && isfinite(row.dynatemp_exponent) &&
           is_between(row.xtc_probability, 0.0, 1.0) && is_between(row.xtc_threshold, 0.0, 1.0) &&
           row.dry_multiplier >= 0.0 && isfinite(row.dry_multiplier) && row.dry_base >= 1.0 && isfinite(row.dry_base) &&
           row.dry_allowed_length >= 1 && row.dry_allowed_length <= 0x3fffffff && row.dry_penalty_last_n >= -1 &&
           isfinite(row.mirostat_mu) && is_in_order(row.stages);
}

// Grid: sequences.
__global__ void __launch_bounds__(kThreads, 1) sampling_kernel(const Sampling a) {
    SHARED_ARRAY(Shared, one, 1);
    Shared& s = *one;
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int64_t index = blockIdx.x;
    const int vocab_size = static_cast<int>(a.vocab_size);
    const sampling_row& row = *a.rows[index];
    const float* const logits = a.logits + index * a.logits_stride;
    float* const probabilities = a.probabilities ? a.probabilities + index * a.vocab_size : nullptr;
    double* const x = a.weights + index * a.vocab_size;
    int32_t* const latest = a.latest + index * a.vocab_size;
    int32_t* const counts = a.counts + index * a.vocab_size;
    double* const surprise = a.surprises ? a.surprises + index : nullptr;
    if (threadIdx.x == 0) {
        s.chosen = -1;
        if (surprise) *surprise = 0.0;
    }
    for (int id = threadIdx.x; id < vocab_size; id += kThreads) {
        const double logit = logits[id];
        const bool is_allowed = !row.allowed || row.allowed[id / 32] >> (id % 32) & 1;
        x[id] = logit != logit || !is_allowed ? -INFINITY : logit > 3.4028234663852886e38 ? 3.4e38 : logit;
        latest[id] = counts[id] = 0;
        if (probabilities) probabilities[id] = 0.0f;
    }
    __syncthreads();
    if (!is_valid(row)) {
        if (threadIdx.x == 0) a.chosen[index] = -1;
        return;
    }
    uint64_t stages = row.stages;
    for (; is_of_logits(stages & 15); stages >>= 4) {
        if ((stages & 15) == PARLOR_STAGE_DRY) penalize_repeated_sequences(row, x, counts, vocab_size);
        else penalize(row, x, latest, counts, vocab_size);
    }
    add_biases(row, x, vocab_size);
    find_best(x, vocab_size, s);
    const double best = s.best;
    if (best == -INFINITY || (row.temperature == 0.0 && has_stage(stages, PARLOR_STAGE_TEMPERATURE))) {
        if (threadIdx.x == 0) {
            a.chosen[index] = best == -INFINITY ? -1 : s.best_id;
            if (probabilities && best != -INFINITY) probabilities[s.best_id] = 1.0f;
        }
        return;
    }
    const Uniforms u = philox_uniforms(row.seed, static_cast<uint64_t>(row.num_tokens));
    Chain{row, x, latest, vocab_size, best, u.of_xtc, s}.run(stages);
    pick(x, vocab_size, u.of_choice, probabilities, surprise, s);
    if (threadIdx.x == 0) a.chosen[index] = s.chosen;
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int sample(const float* logits, int64_t logits_stride, const sampling_row* const* rows, int32_t* chosen,
                      float* probabilities, double* surprises, int64_t num_sequences, int64_t vocab_size, void* stream) {
    if (num_sequences < 0 || vocab_size < 1 || vocab_size > kMaxVocabulary || logits_stride < vocab_size)
        return PARLOR_ERROR_SIZE;
    if (num_sequences == 0) return PARLOR_OK;
    if (!logits || !rows || !chosen || !is_aligned(logits, 4) || !is_aligned(rows, 8) || !is_aligned(chosen, 4))
        return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    int64_t at_once = std::min(num_sequences, kMaxGridX);
    Sampling a{};
    for (; at_once > 0; at_once /= 2) {  // as many as the workspace has room for
        Scratch scratch = Workspace::of(stream).scratch();
        a.weights = scratch.take<double>(at_once * vocab_size);
        a.latest = scratch.take<int32_t>(at_once * vocab_size);
        a.counts = scratch.take<int32_t>(at_once * vocab_size);
        if (a.weights && a.latest && a.counts) break;
    }
    if (at_once == 0) return PARLOR_ERROR_MEMORY;
    a.logits_stride = logits_stride;
    a.vocab_size = vocab_size;
    for (int64_t first = 0; first < num_sequences; first += at_once) {
        a.logits = logits + first * logits_stride;
        a.rows = rows + first;
        a.chosen = chosen + first;
        a.probabilities = probabilities ? probabilities + first * vocab_size : nullptr;
        a.surprises = surprises ? surprises + first : nullptr;
        const dim3 grid(static_cast<unsigned>(std::min(at_once, num_sequences - first)));
        const int error = launch(device, sampling_kernel, grid, dim3(kThreads), 0, stream, a);
        if (error) return error;
    }
    return PARLOR_OK;
}

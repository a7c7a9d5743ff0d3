// The sampling chain on the GPU, one block a sequence: penalties, cuts, one counter-based random number a token.
//
// Bound by one exp() a token of the vocabulary in float64 and by passes over the weights: 128,256 tokens are 1 MB, read
// from the L2 cache by one multiprocessor. Only the chosen token goes back to the host.
// Everything that is added up is an integer: weights (0 .. 1) count in units of 2^-45, so that sums do not depend on the
// order of additions and atomics are harmless. A cut is a threshold: the largest key that is kept, and the largest
// token id among equal keys, found 8 bits at a time by counting (radix selection), without sorting.
// Rows whose values lie outside their range (see check_row in cpu/sampling.cpp) get -1.
// Reference, with the exact meaning of each step: sample() in model/kernels/reference/operations.py.
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
using Count = unsigned long long;

struct Sampling {
    const float* logits;
    int64_t logits_stride;
    const sampling_row* const* rows;
    int32_t* chosen;
    float* probabilities;
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

// Penalties and biases on x; steps 1 to 3 of the chain.
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

// Which tokens the cuts leave.
struct Cuts {
    Threshold by_weight;   // keys: the bits of a weight, inverted, so that they ascend as weights descend
    double min_p = 0.0;
    bool is_typical = false;
    Threshold by_surprise; // keys: the bits of the distance from the expected surprise
    double total = 1.0, negative_entropy = 0.0;

    __device__ bool keeps_weight(double weight, int id) const {
        return weight > 0.0 && weight >= min_p && by_weight.keeps(~bits_of(weight), id);
    }
    __device__ Count surprise(double weight) const { return bits_of(fabs(negative_entropy - log(weight / total))); }
    __device__ bool keeps(double weight, int id) const {
        return keeps_weight(weight, id) && (!is_typical || by_surprise.keeps(surprise(weight), id));
    }
};

struct Candidates {
    const double* weights;
    const int32_t* ids;
    int count;
};

// Let a threshold keep the first candidates, by key and then by id, that reach `target`; amounts are 1 or units.
template <class Key>
__device__ __forceinline__ Threshold cut_at(const Candidates& c, const Cuts& cuts, bool by_count, Count target, Shared& s,
                                            Key key_of) {
    Count left;
    Threshold threshold;
    threshold.key = select_key(c.count, 56, target, s, left, [&](int item, Count& key, Count& amount) {
        const int id = c.ids[item];
        const double weight = c.weights[id];
        if (!cuts.keeps_weight(weight, id)) return false;
        key = key_of(weight);
        amount = by_count ? 1 : units_of(weight);
        return true;
    });
    // Of equal keys the lowest ids. Their weights may differ (two surprises), so amounts are counted here as well.
    const Count key_reached = threshold.key;
    Count rest;
    threshold.id = static_cast<int>(select_key(c.count, 24, left, s, rest, [&](int item, Count& key, Count& amount) {
        const int id = c.ids[item];
        const double weight = c.weights[id];
        if (!cuts.keeps_weight(weight, id) || key_of(weight) != key_reached) return false;
        key = static_cast<Count>(id);
        amount = by_count ? 1 : units_of(weight);
        return true;
    }));
    return threshold;
}

__device__ __forceinline__ Count share_of(double share, Count total) {
    const Count target = static_cast<Count>(ceil(share * static_cast<double>(total)));
    return target < 1 ? 1 : target > total ? total : target;
}

// Sum of the units that the cuts leave, over the candidates.
__device__ __forceinline__ Count mass_of(const Candidates& c, const Cuts& cuts, Shared& s) {
    Count mass = 0;
    for (int item = threadIdx.x; item < c.count; item += kThreads)
        if (cuts.keeps_weight(c.weights[c.ids[item]], c.ids[item])) mass += units_of(c.weights[c.ids[item]]);
    return block_total(mass, s);
}

// Steps 5 to 8. `ids` has room for the whole vocabulary.
__device__ __forceinline__ Cuts make_cuts(const sampling_row& row, const double* weights, int32_t* ids, int vocab_size,
                                          Count total, Shared& s) {
    Cuts cuts;
    if (row.top_k <= 0 && row.top_p >= 1.0 && row.min_p <= 0.0 && row.typical_p >= 1.0) return cuts;
    // Tokens lighter than the floor survive neither top-p nor min-p: all below (1 - top_p) * total / vocab_size weigh less
    // than 1 - top_p together. What top-k leaves is another total.
    double floor = row.top_k > 0 && row.top_p < 1.0 ? 0.0 : row.min_p;
    if (row.top_k <= 0 && row.top_p < 1.0)
        floor = fmax(floor, (1.0 - row.top_p) * (static_cast<double>(total) / kUnits) / vocab_size * (1.0 - 1e-9));
    if (threadIdx.x == 0) s.num_candidates = 0;
    __syncthreads();
    for (int id = threadIdx.x; id < vocab_size; id += kThreads)
        if (weights[id] > 0.0 && weights[id] >= floor) ids[atomicAdd(&s.num_candidates, 1)] = id;
    __syncthreads();
    const Candidates c{weights, ids, s.num_candidates};
    const auto by_weight = [](double weight) { return ~bits_of(weight); };
    if (row.top_k > 0 && row.top_k < c.count)
        cuts.by_weight = cut_at(c, cuts, true, static_cast<Count>(row.top_k), s, by_weight);
    if (row.top_p < 1.0) {
        const Count mass = row.top_k > 0 ? mass_of(c, cuts, s) : total;
        cuts.by_weight = cut_at(c, cuts, false, share_of(row.top_p, mass), s, by_weight);
    }
    cuts.min_p = row.min_p;
    if (row.typical_p < 1.0) {
        const Count mass = mass_of(c, cuts, s);
        cuts.total = static_cast<double>(mass) / kUnits;
        Count entropy = 0;  // -p ln p lies between 0 and 0.37
        for (int item = threadIdx.x; item < c.count; item += kThreads) {
            const double weight = weights[ids[item]];
            if (!cuts.keeps_weight(weight, ids[item])) continue;
            const double p = weight / cuts.total;
            entropy += units_of(-p * log(p) > 0.0 ? -p * log(p) : 0.0);
        }
        cuts.negative_entropy = -static_cast<double>(block_total(entropy, s)) / kUnits;
        const Cuts before = cuts;
        cuts.by_surprise = cut_at(c, cuts, false, share_of(row.typical_p, mass), s,
                                  [&](double weight) { return before.surprise(weight); });
        cuts.is_typical = true;
    }
    return cuts;
}

// Philox4x32-10, key `seed`, counter (position, 0): the first two words as a number in [0, 1) with 53 bits.
__device__ __forceinline__ double philox_uniform(uint64_t seed, uint64_t position) {
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

// The first token, in the order of ids, at which the running sum of what is kept exceeds u times its total.
__device__ __forceinline__ void pick(const double* weights, const Cuts& cuts, int vocab_size, double u, float* probabilities,
                                     Shared& s) {
    const int chunk = (vocab_size + kThreads - 1) / kThreads;
    const int begin = min(chunk * static_cast<int>(threadIdx.x), vocab_size), end = min(begin + chunk, vocab_size);
    Count mine = 0;
    for (int id = begin; id < end; ++id)
        if (cuts.keeps(weights[id], id)) mine += units_of(weights[id]);
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
            if (cuts.keeps(weights[id], id)) before += units_of(weights[id]);
            if (before > target) break;
        }
        s.chosen = id;
    }
    if (probabilities)
        for (int id = threadIdx.x; id < vocab_size; id += kThreads)
            probabilities[id] = cuts.keeps(weights[id], id)
                ? static_cast<float>(weights[id] / (static_cast<double>(total) / kUnits)) : 0.0f;
    __syncthreads();
}

__device__ __forceinline__ bool is_between(double x, double low, double high) { return x >= low && x <= high; }

__device__ __forceinline__ bool is_valid(const sampling_row& row) {
    return row.num_tokens >= 0 && row.num_tokens < 0x7fffffff && row.prompt_length >= 0 &&
           row.prompt_length <= row.num_tokens && row.repetition_penalty > 0.0 && isfinite(row.repetition_penalty) &&
           isfinite(row.presence_penalty) && isfinite(row.frequency_penalty) && row.temperature >= 0.0 &&
           isfinite(row.temperature) && is_between(row.top_p, 0.0, 1.0) && is_between(row.min_p, 0.0, 1.0) &&
           is_between(row.typical_p, 0.0, 1.0) && row.repetition_range >= 0 && row.repetition_decay >= 0 && row.top_k >= 0;
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
    if (threadIdx.x == 0) s.chosen = -1;
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
    penalize(row, x, latest, counts, vocab_size);
    find_best(x, vocab_size, s);
    const double best = s.best;
    if (best == -INFINITY || row.temperature == 0.0) {
        if (threadIdx.x == 0) {
            a.chosen[index] = best == -INFINITY ? -1 : s.best_id;
            if (probabilities && best != -INFINITY) probabilities[s.best_id] = 1.0f;
        }
        return;
    }
    Count mine = 0;
    for (int id = threadIdx.x; id < vocab_size; id += kThreads) {
        x[id] = exp((x[id] - best) / row.temperature);
        mine += units_of(x[id]);
    }
    const Count total = block_total(mine, s);
    const Cuts cuts = make_cuts(row, x, latest, vocab_size, total, s);
    pick(x, cuts, vocab_size, philox_uniform(row.seed, static_cast<uint64_t>(row.num_tokens)), probabilities, s);
    if (threadIdx.x == 0) a.chosen[index] = s.chosen;
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int sample(const float* logits, int64_t logits_stride, const sampling_row* const* rows, int32_t* chosen,
                      float* probabilities, int64_t num_sequences, int64_t vocab_size, void* stream) {
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
        Scratch scratch = Workspace::of(device.number).scratch();
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
        const dim3 grid(static_cast<unsigned>(std::min(at_once, num_sequences - first)));
        const int error = launch(device, sampling_kernel, grid, dim3(kThreads), 0, stream, a);
        if (error) return error;
    }
    return PARLOR_OK;
}

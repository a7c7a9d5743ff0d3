// The sampling chain on the GPU, one block a sequence: penalties, cuts, one counter-based random number a token.
//
// Bound by one exp() a token of the vocabulary in float64 and by passes over the weights: 128,256 tokens are 1 MB, read
// from the L2 cache by one multiprocessor. Only the chosen token goes back to the host.
// Rows whose values lie outside their range (see check_row in cpu/sampling.cpp) get -1.
// Reference, with the exact meaning of each stage: sample() in model/kernels/reference/sampling.py.
#include "sampling_chain.cuh"
#include "sampling_penalties.cuh"
#include "workspace.cuh"

namespace parlor {
namespace {

constexpr int64_t kMaxVocabulary = 1 << 18;

struct Sampling {
    const float* logits;
    int64_t logits_stride;
    const sampling_row* const* rows;
    const int32_t* previous;  // [rows] the last token of each history, which is not there yet; or null
    int32_t* chosen;
    float* probabilities;
    double* surprises;
    int64_t vocab_size;
    double* weights;    // [rows, vocab_size] logits, then weights
    int32_t* latest;    // [rows, vocab_size] index of the latest occurrence, plus one; then ids of candidates
    int32_t* counts;    // [rows, vocab_size]
};

__device__ __forceinline__ bool is_of_logits(uint64_t stage) {
    return stage == PARLOR_STAGE_PENALTIES || stage == PARLOR_STAGE_DRY;
}

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

// The first token, in the order of ids, at which the running sum of what is kept exceeds u times its total. Each warp adds up
// a part of the vocabulary; then the same is done with the part in which it lies, until each thread has a token.
__device__ __forceinline__ void pick(const double* weights, int vocab_size, double u, float* probabilities, double* surprise,
                                     Shared& s) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int begin = 0, end = vocab_size;
    Count total = 0, target = 0;
    for (bool is_first = true; is_first || end - begin > 1; is_first = false) {
        const int part = (end - begin + kWarps - 1) / kWarps;
        const int first = min(begin + warp * part, end), count = min(part, end - first);
        Count sum = 0;
#pragma unroll 4
        for (int i = lane; i < count; i += 32) sum += units_of(weights[first + i]);
        for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        __syncthreads();
        if (lane == 0) s.partial[warp] = sum;
        __syncthreads();
        if (is_first) {
            for (int i = 0; i < kWarps; ++i) total += s.partial[i];
            if (total == 0) break;
            target = static_cast<Count>(u * static_cast<double>(total));
            target = target < total ? target : total - 1;
        }
        int chosen = 0;
        while (chosen < kWarps - 1 && s.partial[chosen] <= target) target -= s.partial[chosen++];
        begin = min(begin + chosen * part, end), end = min(begin + part, end);
    }
    if (threadIdx.x == 0 && total > 0) s.chosen = begin;
    if (probabilities)
        for_each(weights, vocab_size, [&](int id, double weight) {
            probabilities[id] = static_cast<float>(weight / (static_cast<double>(total) / kUnits));
        });
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
        // The history is this call's copy.
        if (a.previous && row.num_tokens > 0) const_cast<int32_t*>(row.history)[row.num_tokens - 1] = a.previous[index];
    }
    uint64_t stages = row.stages;
    const bool has_penalties = is_of_logits(stages & 15);
    Best best_of_thread;
    for_each(logits, vocab_size, [&](int id, double logit) {
        const bool is_allowed = !row.allowed || row.allowed[id / 32] >> (id % 32) & 1;
        x[id] = logit != logit || !is_allowed ? -INFINITY : logit > 3.4028234663852886e38 ? 3.4e38 : logit;
        best_of_thread.see(x[id], id);
        if (has_penalties) latest[id] = counts[id] = 0;
        if (probabilities) probabilities[id] = 0.0f;
    });
    __syncthreads();
    if (!is_valid(row)) {
        if (threadIdx.x == 0) a.chosen[index] = -1;
        return;
    }
    for (; is_of_logits(stages & 15); stages >>= 4) {
        if ((stages & 15) == PARLOR_STAGE_DRY) penalize_repeated_sequences(row, x, counts, vocab_size);
        else penalize(row, x, latest, counts, vocab_size);
    }
    add_biases(row, x, vocab_size);
    if (has_penalties || row.num_biases > 0 || row.num_eos_ids > 0) find_best(x, vocab_size, s);
    else share_best(best_of_thread, s);
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

extern "C" int sample_after(const float* logits, int64_t logits_stride, const sampling_row* const* rows,
                            const int32_t* previous, int32_t* chosen, float* probabilities, double* surprises,
                            int64_t num_sequences, int64_t vocab_size, void* stream) {
    if (num_sequences < 0 || vocab_size < 1 || vocab_size > kMaxVocabulary || logits_stride < vocab_size)
        return PARLOR_ERROR_SIZE;
    if (num_sequences == 0) return PARLOR_OK;
    if (!logits || !rows || !chosen || !is_aligned(logits, 4) || !is_aligned(rows, 8) || !is_aligned(chosen, 4) ||
        !is_aligned(previous, 4))
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
        a.previous = previous ? previous + first : nullptr;
        a.chosen = chosen + first;
        a.probabilities = probabilities ? probabilities + first * vocab_size : nullptr;
        a.surprises = surprises ? surprises + first : nullptr;
        const dim3 grid(static_cast<unsigned>(std::min(at_once, num_sequences - first)));
        const int error = launch(device, sampling_kernel, grid, dim3(kThreads), 0, stream, a);
        if (error) return error;
    }
    return PARLOR_OK;
}

extern "C" int sample(const float* logits, int64_t logits_stride, const sampling_row* const* rows, int32_t* chosen,
                      float* probabilities, double* surprises, int64_t num_sequences, int64_t vocab_size, void* stream) {
    return sample_after(logits, logits_stride, rows, nullptr, chosen, probabilities, surprises, num_sequences, vocab_size,
                        stream);
}

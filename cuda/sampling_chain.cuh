// The stages of sampling that cut what is unlikely, in the order of the row.
//
// A cut is a threshold: the largest key that is kept, and the largest token id among equal keys, found 8 bits at a time
// by counting (radix selection), without sorting. What is cut gets the weight 0.
#pragma once

#include "sampling_block.cuh"

namespace parlor {
namespace {

constexpr double kFarBelow = 708.0, kLeastTemperature = 1e-6;  // as in cpu/sampling_chain.h

// A cut by order: heavy tokens first, or those first whose surprise is as expected.
struct Cut {
    Count target = 0;  // how much is to stay; 0: no cut
    bool by_count = false, by_surprise = false;
    double total = 1.0, negative_entropy = 0.0;

    __device__ Count key_of(double weight) const {
        return by_surprise ? bits_of(fabs(negative_entropy - log_of(weight / total))) : ~bits_of(weight);
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

// Tokens that are surely lighter than a floor, told without float64, which most GPUs have little of: an exact weight takes
// some 45 such operations, and of a vocabulary all but some ten tokens are light.
struct Light {
    double best;
    float factor, limit;  // to powers of two; the floor's, less what rounding may do

    __device__ Light(double best, double temperature, double floor)
        : best(best), factor(static_cast<float>(1.4426950408889634 / temperature)),
          limit(floor > 0.0 ? static_cast<float>(log2(floor)) - 0.01f : -INFINITY) {}

    __device__ __forceinline__ bool is(double logit, float& exponent) const {
        exponent = static_cast<float>(logit - best) * factor;
        return exponent < limit;
    }
    // Of 2^exponent, to some 2^-32.
    __device__ static __forceinline__ Count units_of(float exponent) {
        constexpr int kShift = 13;  // 2^45 are 1
        return Count{static_cast<uint32_t>(exp2f(exponent) * 4294967296.0f)} << kShift;
    }
};

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

    // The sum of all weights, for a cut that keeps none below `floor`: those are not left, and their sum need not be exact.
    __device__ Count weigh_from(double floor) {
        const Light light(best, temperature, floor);
        Count mine = 0;
        for_each(x, vocab_size, [&](int id, double logit) {
            float exponent;
            double weight = 0.0;
            if (light.is(logit, exponent)) {
                mine += Light::units_of(exponent);
            } else {
                weight = exp_of((logit - best) / temperature);
                mine += units_of(weight);
            }
            x[id] = weight;
        });
        return block_total(mine, s);
    }

    // The sum of all weights.
    __device__ Count weigh() {
        Count mine = 0;
        for_each(x, vocab_size, [&](int id, double logit) {
            const double weight = exp_of((logit - best) / temperature);
            x[id] = weight;
            mine += units_of(weight);
        });
        return block_total(mine, s);
    }

    __device__ void gather_from(double floor) {
        gather(floor, [](double weight) { return weight; });
    }

    // weigh() and gather_from() in one, where nobody asks for the sum.
    __device__ void weigh_and_gather_from(double floor) {
        const Light light(best, temperature, floor);
        gather(floor, [&](double logit) {
            float exponent;
            return light.is(logit, exponent) ? 0.0 : exp_of((logit - best) / temperature);
        });
    }

    template <class WeightOf>
    __device__ __forceinline__ void gather(double floor, WeightOf weight_of) {
        if (threadIdx.x == 0) s.num_candidates = 0;
        __syncthreads();
        for_each(x, vocab_size, [&](int id, double value) {
            const double weight = weight_of(value);
            const bool stays = weight > 0.0 && weight >= floor;
            if (stays) ids[atomicAdd(&s.num_candidates, 1)] = id;
            x[id] = stays ? weight : 0.0;
        });
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

    // How far a token lies below the largest logit, in units of the temperature; false if it is not left. value: its x.
    __device__ bool is_left(double value, double& below) const {
        if (is_gathered) {
            below = log_of(value);
            return value > 0.0;
        }
        below = (value - best) / temperature;
        return below >= -kFarBelow;
    }

    __device__ void cut_top_n_sigma() {
        const double top = is_gathered ? log_of(largest()) : 0.0;
        double below, sum = 0.0, variance = 0.0;
        Count mine = 0;
        for_each(x, vocab_size, [&](int, double value) {
            if (is_left(value, below)) sum += below, ++mine;
        });
        const double left = static_cast<double>(block_total(mine, s)), mean = block_sum(sum, s) / left;
        for_each(x, vocab_size, [&](int, double value) {
            if (is_left(value, below)) variance += (below - mean) * (below - mean);
        });
        const double floor = top - row.top_n_sigma * sqrt(block_sum(variance, s) / left);
        for_each(x, vocab_size, [&](int id, double value) {
            if (!is_left(value, below) || below < floor) x[id] = is_gathered ? 0.0 : -INFINITY;
        });
        __syncthreads();
    }

    __device__ void change_temperature() {
        const double before = temperature;
        temperature = row.dynatemp_range > 0.0 ? dynamic_temperature() : row.temperature;
        if (!is_gathered) return;
        const double top = largest();  // which may lie far below what was cut
        for (int item = threadIdx.x; item < count; item += kThreads) {
            double& weight = x[ids[item]];
            if (weight > 0.0) weight = exp_of(log_of(weight / top) * before / temperature);
        }
        is_best_left = true;
        __syncthreads();
    }

    // Between temperature - range and temperature + range, by the entropy's share of what it could be at most.
    __device__ double dynamic_temperature() {
        double below, total = 0.0, surprise = 0.0;  // surprise: sum of w ln w
        Count mine = 0;
        for_each(x, vocab_size, [&](int, double value) {
            if (!is_left(value, below)) return;
            const double weight = exp_of(below);
            total += weight, surprise += weight * below, ++mine;
        });
        const Count left = block_total(mine, s);
        total = block_sum(total, s);
        surprise = block_sum(surprise, s);
        if (left <= 1) return row.temperature;
        const double entropy = log_of(total) - surprise / total;
        const double share = fmin(1.0, fmax(0.0, entropy / log_of(static_cast<double>(left))));
        const double low = fmax(0.0, row.temperature - row.dynatemp_range), high = row.temperature + row.dynatemp_range;
        return fmax(kLeastTemperature, low + (high - low) * pow(share, row.dynatemp_exponent));
    }

    // min_p: of the next stage; lighter tokens would be cut there.
    __device__ Cut top_k(double min_p) {
        if (!is_gathered) weigh_and_gather_from(min_p);
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
            total = weigh_from(fmax((1.0 - row.top_p) / vocab_size, min_p));  // the best one alone weighs 1
            const double outside = (1.0 - row.top_p) * (static_cast<double>(total) / kUnits) / vocab_size;
            gather_from(fmax(outside * (1.0 - 1e-9), min_p));
        }
        return {share_of(row.top_p, total)};
    }

    __device__ void cut_min_p() {
        if (is_gathered) return keep_from(row.min_p * largest());
        weigh_and_gather_from(row.min_p);
    }

    __device__ Cut typical_p() {
        const Count mass = gather_all();
        const double total = static_cast<double>(mass) / kUnits;
        Count entropy = 0;  // -p ln p lies between 0 and 0.37
        for (int item = threadIdx.x; item < count; item += kThreads) {
            const double p = x[ids[item]] / total;
            if (p > 0.0) entropy += units_of(fmax(-p * log_of(p), 0.0));
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

}  // namespace
}  // namespace parlor

// The stages of sampling behind the penalties, which cut what is unlikely, in the order of the row.
//
// Cuts select by halving (std::nth_element) instead of sorting, and tokens that no later stage can keep are left out
// before.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels.h"
#include "operations.h"
#include "sampling_penalties.h"

namespace parlor {
namespace {

constexpr double kFarBelow = 708.0;           // exp(-708) is about the least that a double holds in full
constexpr double kLeastTemperature = 1e-6;    // that the dynamic one comes to

struct Candidate {
    double weight;  // exp((logit - largest) / temperature)
    double key;     // what the present stage orders by, ascending
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

// The stages after the penalties, in the order of the row. Until one needs weights, `values` holds logits, and all tokens
// that have one are left; then it holds weights, and what is left are candidates.
class Chain {
  public:
    Chain(const sampling_row& row, const Workspace& work, int64_t vocab_size, double best, double u_of_xtc)
        : row_(row), values_(work.values), c_(work.candidates), vocab_size_(vocab_size), best_(best), u_of_xtc_(u_of_xtc) {}

    // Leaves weights in `values`; what is cut becomes zero.
    void run(uint64_t stages) {
        for (; stages != 0; stages >>= 4) {
            switch (stages & 15) {
                case PARLOR_STAGE_TOP_N_SIGMA: cut_top_n_sigma(); break;
                case PARLOR_STAGE_TEMPERATURE: change_temperature(); break;
                case PARLOR_STAGE_TOP_K: cut_top_k(); break;
                case PARLOR_STAGE_TOP_P: cut_top_p((stages >> 4 & 15) == PARLOR_STAGE_MIN_P ? row_.min_p : 0.0); break;
                case PARLOR_STAGE_MIN_P: cut_min_p(); break;
                case PARLOR_STAGE_TYPICAL_P: cut_typical_p(); break;
                case PARLOR_STAGE_XTC: cut_xtc(); break;
                case PARLOR_STAGE_MIROSTAT: cut_mirostat(); break;
            }
        }
        if (!is_gathered_) {
            weigh();
            return;
        }
        std::fill_n(values_, vocab_size_, 0.0);
        for (int64_t i = 0; i < count_; ++i) values_[c_[i].token_id] = c_[i].weight;
    }

  private:
    const sampling_row& row_;
    double* const values_;
    Candidate* const c_;
    const int64_t vocab_size_;
    const double best_;      // the largest logit
    const double u_of_xtc_;
    double temperature_ = 1.0;
    bool is_gathered_ = false;
    int64_t count_ = 0;      // of candidates

    void weigh() { PARLOR_PICK(weigh_logits)(values_, vocab_size_, best_, temperature_); }

    double total_of_values() const {
        double total = 0.0;
        for (int64_t i = 0; i < vocab_size_; ++i) total += values_[i];
        return total;
    }

    void gather_from(double floor) {
        count_ = gather(values_, vocab_size_, floor, c_);
        is_gathered_ = true;
    }

    void gather_all() {
        if (is_gathered_) return;
        weigh();
        gather_from(0.0);
    }

    double largest() const {
        double found = 0.0;
        for (int64_t i = 0; i < count_; ++i) found = std::max(found, c_[i].weight);
        return found;
    }

    void keep_from(double floor) {
        count_ = std::remove_if(c_, c_ + count_, [&](const Candidate& x) { return x.weight < floor; }) - c_;
    }

    void order_by_weight() {
        for (int64_t i = 0; i < count_; ++i) c_[i].key = -c_[i].weight;
    }

    // Logits here lie below the largest one, in units of the present temperature.
    void cut_top_n_sigma() {
        if (row_.top_n_sigma <= 0.0) return;
        if (is_gathered_) {
            for (int64_t i = 0; i < count_; ++i) c_[i].key = std::log(c_[i].weight);
            double mean = 0.0, variance = 0.0, highest = kMinusInfinity;
            for (int64_t i = 0; i < count_; ++i) mean += c_[i].key, highest = std::max(highest, c_[i].key);
            mean /= static_cast<double>(count_);
            for (int64_t i = 0; i < count_; ++i) variance += (c_[i].key - mean) * (c_[i].key - mean);
            const double floor = highest - row_.top_n_sigma * std::sqrt(variance / static_cast<double>(count_));
            count_ = std::remove_if(c_, c_ + count_, [&](const Candidate& x) { return x.key < floor; }) - c_;
            return;
        }
        const double least = best_ - kFarBelow * temperature_;
        double mean = 0.0, variance = 0.0, count = 0.0;
        for (int64_t i = 0; i < vocab_size_; ++i)
            if (values_[i] >= least) mean += values_[i] - best_, count += 1.0;
        mean /= count;
        for (int64_t i = 0; i < vocab_size_; ++i)
            if (values_[i] >= least) variance += (values_[i] - best_ - mean) * (values_[i] - best_ - mean);
        const double floor = -row_.top_n_sigma * std::sqrt(variance / count);
        for (int64_t i = 0; i < vocab_size_; ++i)
            if (values_[i] < least || values_[i] - best_ < floor) values_[i] = kMinusInfinity;
    }

    void change_temperature() {
        const double before = temperature_;
        temperature_ = row_.dynatemp_range > 0.0 ? dynamic_temperature() : row_.temperature;
        if (!is_gathered_) return;
        const double top = largest();  // which may lie far below what was cut
        for (int64_t i = 0; i < count_; ++i) {
            const double below = std::log(c_[i].weight / top) * before / temperature_;
            c_[i].weight = below < -kFarBelow ? 0.0 : std::exp(below);
        }
        keep_from(std::numeric_limits<double>::min());
    }

    // Between temperature - range and temperature + range, by the entropy's share of what it could be at most.
    double dynamic_temperature() {
        double total = 0.0, surprise = 0.0, count = 0.0;  // surprise: sum of w ln w
        if (is_gathered_) {
            for (int64_t i = 0; i < count_; ++i) {
                total += c_[i].weight;
                surprise += c_[i].weight * std::log(c_[i].weight);
            }
            count = static_cast<double>(count_);
        } else {
            double* const logits = reinterpret_cast<double*>(c_);  // kept here meanwhile
            std::copy_n(values_, vocab_size_, logits);
            weigh();
            for (int64_t i = 0; i < vocab_size_; ++i) {
                if (!(values_[i] > 0.0)) continue;
                total += values_[i];
                surprise += values_[i] * (logits[i] - best_);
                count += 1.0;
            }
            std::copy_n(logits, vocab_size_, values_);
        }
        if (count <= 1.0) return row_.temperature;
        const double entropy = std::log(total) - surprise / total;
        const double share = std::min(1.0, std::max(0.0, entropy / std::log(count)));
        const double low = std::max(0.0, row_.temperature - row_.dynatemp_range);
        const double high = row_.temperature + row_.dynatemp_range;
        return std::max(kLeastTemperature, low + (high - low) * std::pow(share, row_.dynatemp_exponent));
    }

    void cut_top_k() {
        const int64_t k = row_.top_k;
        if (k <= 0) return;
        if (!is_gathered_) {
            if (k >= vocab_size_) return gather_all();
            weigh();
            count_ = gather_top_k(values_, vocab_size_, k, c_);
            is_gathered_ = true;
        } else if (k < count_) {
            order_by_weight();
            std::nth_element(c_, c_ + k - 1, c_ + count_, before);
            count_ = k;
        }
    }

    // Tokens below (1 - top_p) * total / vocab_size weigh less than 1 - top_p together, so the run that reaches top_p ends
    // before them. `min_p`: of the next stage; lighter tokens would be cut there.
    void cut_top_p(double min_p) {
        if (row_.top_p >= 1.0) return;
        double total;
        if (is_gathered_) {
            total = sum_of_weights(c_, count_);
            order_by_weight();
        } else {
            weigh();
            total = total_of_values();
            const double outside = (1.0 - row_.top_p) * total / static_cast<double>(vocab_size_);
            gather_from(std::max(outside * (1.0 - 1e-9), min_p));
        }
        count_ = shortest_run(c_, count_, row_.top_p * total);
    }

    void cut_min_p() {
        if (row_.min_p <= 0.0) return;
        if (is_gathered_) return keep_from(row_.min_p * largest());
        weigh();
        gather_from(row_.min_p);
    }

    void cut_typical_p() {
        if (row_.typical_p >= 1.0) return;
        gather_all();
        const double total = sum_of_weights(c_, count_);
        double negative_entropy = 0.0;
        for (int64_t i = 0; i < count_; ++i) {
            const double p = c_[i].weight / total;
            c_[i].key = p > 0 ? std::log(p) : kMinusInfinity;
            if (p > 0) negative_entropy += p * c_[i].key;
        }
        for (int64_t i = 0; i < count_; ++i) c_[i].key = std::fabs(negative_entropy - c_[i].key);
        count_ = shortest_run(c_, count_, row_.typical_p * total);
    }

    // Of the tokens that have at least the threshold all but the last.
    void cut_xtc() {
        if (u_of_xtc_ >= row_.xtc_probability) return;
        gather_all();
        order_by_weight();
        const double least = row_.xtc_threshold * sum_of_weights(c_, count_);
        const Candidate* last = nullptr;
        for (int64_t i = 0; i < count_; ++i)
            if (c_[i].weight >= least && (!last || before(*last, c_[i]))) last = c_ + i;
        if (!last) return;
        const Candidate kept = *last;
        count_ = std::remove_if(c_, c_ + count_, [&](const Candidate& x) {
            return x.weight >= least && x.token_id != kept.token_id;
        }) - c_;
    }

    // Tokens of more surprise than mu; the likeliest one stays.
    void cut_mirostat() {
        gather_all();
        order_by_weight();
        const Candidate likeliest = *std::min_element(c_, c_ + count_, before);
        keep_from(std::exp2(-row_.mirostat_mu) * sum_of_weights(c_, count_));
        if (count_ == 0) c_[count_++] = likeliest;
    }
};

}  // namespace
}  // namespace parlor

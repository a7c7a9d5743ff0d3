// The sampling chain: penalties, cuts, one counter-based random number a token. In float64, on one thread a sequence.
//
// Bound by one pass of exp() over the vocabulary (sampling_weights.cpp). Cuts select by halving (std::nth_element)
// instead of sorting, and tokens that no later stage can keep are left out before.
// Reference, with the exact meaning of each stage: sample() in model/kernels/reference/sampling.py.
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

constexpr double kFarBelow = 708.0;           // exp(-708) is about the least that a double holds in full
constexpr double kLeastTemperature = 1e-6;    // that the dynamic one comes to

constexpr int64_t kMostBeyondAllowed = 256;    // what is repeated counts up to so many tokens more than are allowed
constexpr double kMostPenalty = 1e30;

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

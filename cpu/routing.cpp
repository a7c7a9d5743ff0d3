// Which experts a token goes to, and what each of them counts.
//
// Bound by exp() and by comparing each value once with the least of the chosen: a microsecond a token of 128 experts. Every
// row is computed alone and in the same order.
// Reference: route() in model/kernels/reference/experts.py.
#include <cmath>
#include <cstring>

#include "kernels.h"
#include "thread_team.h"

namespace parlor {
namespace {

constexpr int64_t kMaxExperts = 4096, kMaxChosen = 64;
constexpr int64_t kRowsPerShare = 8;  // fewer are not worth another thread

// The `count` largest of values[0 .. n), the first first. A value that is no number is chosen where too few others are.
struct Largest {
    int64_t count, filled = 0;
    float values[kMaxExperts];
    int32_t indices[kMaxExperts];

    explicit Largest(int64_t count) : count(count) {}

    void offer(float value, int64_t index) {
        if (std::isnan(value)) value = -INFINITY;
        if (filled == count && !(value > values[count - 1])) return;
        int64_t place = filled < count ? filled++ : count - 1;
        for (; place > 0 && value > values[place - 1]; --place) {
            values[place] = values[place - 1];
            indices[place] = indices[place - 1];
        }
        values[place] = value;
        indices[place] = static_cast<int32_t>(index);
    }
};

float softmax_sum(const float* scores, int64_t n, float* largest) {
    *largest = scores[0];
    for (int64_t i = 1; i < n; ++i) *largest = scores[i] > *largest ? scores[i] : *largest;
    float sum = 0.0f;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(scores[i] - *largest);
    return sum;
}

// By what the experts are ordered. Softmax and sigmoid keep the order of scores, where nothing is added.
void rank(const routing_rules& r, const float* scores, float* ranks) {
    if (!r.correction && r.num_groups == 1) {
        std::memcpy(ranks, scores, sizeof(float) * static_cast<size_t>(r.num_experts));
        return;
    }
    float largest = 0.0f;
    const float sum = r.scoring == PARLOR_ROUTE_SOFTMAX ? softmax_sum(scores, r.num_experts, &largest) : 1.0f;
    for (int64_t i = 0; i < r.num_experts; ++i) {
        const float value = r.scoring == PARLOR_ROUTE_SOFTMAX   ? std::exp(scores[i] - largest) / sum
                            : r.scoring == PARLOR_ROUTE_SIGMOID ? 1.0f / (1.0f + std::exp(-scores[i]))
                                                                : scores[i];
        ranks[i] = r.correction ? value + r.correction[i] : value;
    }
}

// Whether each group is among the best.
void mark_groups(const routing_rules& r, const float* ranks, bool* is_kept) {
    const int64_t size = r.num_experts / r.num_groups;
    Largest best(r.top_groups);
    for (int64_t g = 0; g < r.num_groups; ++g) {
        Largest own(r.best_of_group < size ? r.best_of_group : size);
        for (int64_t i = 0; i < size; ++i) own.offer(ranks[g * size + i], i);
        float sum = 0.0f;
        for (int64_t i = 0; i < own.count; ++i) sum += own.values[i];
        best.offer(sum, g);
        is_kept[g] = false;
    }
    for (int64_t i = 0; i < best.filled; ++i) is_kept[best.indices[i]] = true;
}

void choose(const routing_rules& r, const float* ranks, int32_t* chosen) {
    bool is_kept[kMaxExperts] = {true};
    if (r.num_groups > 1) mark_groups(r, ranks, is_kept);
    const int64_t size = r.num_experts / r.num_groups;
    Largest best(r.top_k);
    for (int64_t g = 0; g < r.num_groups; ++g)
        for (int64_t i = g * size; is_kept[g] && i < (g + 1) * size; ++i) best.offer(ranks[i], i);
    std::memcpy(chosen, best.indices, sizeof(int32_t) * static_cast<size_t>(r.top_k));
}

// The share of the expert chosen as number j, of the near ones that are left.
float share_of_near(const routing_rules& r, const float* scores, const int32_t* chosen, int64_t j) {
    const float own = scores[chosen[j]];
    float sum = 0.0f;
    for (int64_t i = 0; i < r.num_experts; ++i) {
        bool is_left = true;
        for (int64_t earlier = 0; earlier < j; ++earlier) is_left = is_left && chosen[earlier] != i;
        const bool is_far = (own - scores[i]) / std::fmax(std::fabs(scores[i]), own) > r.margin;
        if (is_left && !is_far) sum += std::exp(scores[i] - own);
    }
    return 1.0f / sum;
}

void share(const routing_rules& r, const float* scores, const int32_t* chosen, float* shares) {
    float largest = 0.0f, sum = 0.0f;
    for (int64_t j = 0; j < r.top_k; ++j) shares[j] = scores[chosen[j]];
    if (r.scoring == PARLOR_ROUTE_SOFTMAX_OF_NEAR) {
        for (int64_t j = 0; j < r.top_k; ++j) shares[j] = share_of_near(r, scores, chosen, j);
    } else if (r.scoring == PARLOR_ROUTE_SIGMOID) {
        for (int64_t j = 0; j < r.top_k; ++j) shares[j] = 1.0f / (1.0f + std::exp(-shares[j]));
    } else {
        const bool is_of_all = r.scoring == PARLOR_ROUTE_SOFTMAX;
        const float total = is_of_all ? softmax_sum(scores, r.num_experts, &largest) : softmax_sum(shares, r.top_k, &largest);
        for (int64_t j = 0; j < r.top_k; ++j) shares[j] = std::exp(shares[j] - largest) / total;
    }
    for (int64_t j = 0; j < r.top_k; ++j) sum += shares[j];
    for (int64_t j = 0; j < r.top_k; ++j) {
        if (r.is_renormalized) shares[j] /= sum + r.share_eps;
        shares[j] *= r.scale;
        if (r.expert_scale) shares[j] *= r.expert_scale[chosen[j]];
    }
}

bool are_sizes(const routing_rules& r) {
    return r.num_experts >= 1 && r.num_experts <= kMaxExperts && r.top_k >= 1 && r.top_k <= kMaxChosen &&
           r.num_groups >= 1 && r.num_experts % r.num_groups == 0 && r.top_groups >= 1 && r.top_groups <= r.num_groups &&
           r.num_groups <= 1024 && r.best_of_group >= 1 && r.best_of_group <= 2 && r.top_k <= r.num_experts / r.num_groups * r.top_groups;
}

}  // namespace
}  // namespace parlor

extern "C" int route(const float* scores, int64_t scores_stride, const routing_rules* rules, int32_t* chosen, float* shares,
                     int64_t num_rows, void*) {
    using namespace parlor;
    if (!rules) return PARLOR_ERROR_POINTER;
    if (num_rows < 0 || !are_sizes(*rules) || (num_rows > 1 && scores_stride < rules->num_experts)) return PARLOR_ERROR_SIZE;
    if (rules->scoring < PARLOR_ROUTE_SOFTMAX || rules->scoring > PARLOR_ROUTE_SOFTMAX_OF_NEAR) return PARLOR_ERROR_VALUE;
    if (num_rows == 0) return PARLOR_OK;
    if (!scores || !chosen || !shares) return PARLOR_ERROR_POINTER;
    team().parallel_for(num_rows, [&](int64_t begin, int64_t end, int) {
        float ranks[kMaxExperts];
        for (int64_t row = begin; row < end; ++row) {
            rank(*rules, scores + row * scores_stride, ranks);
            choose(*rules, ranks, chosen + row * rules->top_k);
            share(*rules, scores + row * scores_stride, chosen + row * rules->top_k, shares + row * rules->top_k);
        }
    }, kRowsPerShare);
    return PARLOR_OK;
}

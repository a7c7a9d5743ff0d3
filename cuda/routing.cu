// Which experts a token goes to, and what each of them counts.
//
// Bound by the rounds of choosing one expert after the other, a few barriers each; a token's scores are 2 KB at most
// but for a few models.
// Reference: route() in model/kernels/reference/experts.py.
#include "launch.cuh"

namespace parlor {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxExperts = 4096, kMaxChosen = 64, kMaxGroups = 1024;

struct Best {
    float value;
    int index;  // -1: none
};

// The larger value, of equal ones the lower index; what is no number comes last.
__device__ __forceinline__ Best better(const Best& a, const Best& b) {
    if (a.index < 0) return b;
    if (b.index < 0) return a;
    if (a.value != b.value) return a.value > b.value ? a : b;
    return a.index < b.index ? a : b;
}

__device__ __forceinline__ float number(float value) { return value == value ? value : -INFINITY; }

// The best open one of values[0 .. n), the same in all threads; it is closed.
__device__ __forceinline__ int take_best(const float* values, bool* is_open, int n, Best* of_warps) {
    Best best{0.0f, -1};
    for (int i = threadIdx.x; i < n; i += kThreads)
        if (is_open[i]) best = better(best, Best{number(values[i]), i});
    for (int offset = 16; offset > 0; offset /= 2) {
        const Best other{__shfl_xor_sync(0xffffffffu, best.value, offset), __shfl_xor_sync(0xffffffffu, best.index, offset)};
        best = better(best, other);
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = best;
    __syncthreads();
    best = of_warps[0];
    for (int warp = 1; warp < kWarps; ++warp) best = better(best, of_warps[warp]);
    if (threadIdx.x == 0 && best.index >= 0) is_open[best.index] = false;
    __syncthreads();
    return best.index;
}

// max or sum over the block, the same in all threads and in a fixed order.
template <bool kIsMax>
__device__ __forceinline__ float reduced(float value, float* of_warps) {
    value = kIsMax ? warp_max(value) : warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    float total = of_warps[0];
    for (int warp = 1; warp < kWarps; ++warp) total = kIsMax ? fmaxf(total, of_warps[warp]) : total + of_warps[warp];
    return total;
}

struct Softmax {
    float largest, sum;
    __device__ float of(float score) const { return expf(score - largest) / sum; }
};

__device__ __forceinline__ Softmax softmax(const float* scores, int n, float* of_warps) {
    float largest = -INFINITY, sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += kThreads) largest = fmaxf(largest, scores[i]);
    largest = reduced<true>(largest, of_warps);
    for (int i = threadIdx.x; i < n; i += kThreads) sum += expf(scores[i] - largest);
    return {largest, reduced<false>(sum, of_warps)};
}

__device__ __forceinline__ float sigmoid(float score) { return 1.0f / (1.0f + expf(-score)); }

// The share of `own` in a softmax of what is open and near it; `own` itself is open no longer.
__device__ __forceinline__ float share_of_near(const float* scores, float own, const bool* is_open, int n, float margin,
                                               float* of_warps) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += kThreads)
        if (is_open[i] && !((own - scores[i]) / fmaxf(fabsf(scores[i]), own) > margin)) sum += expf(scores[i] - own);
    return 1.0f / (1.0f + reduced<false>(sum, of_warps));
}

// Close the experts of all but the best groups.
__device__ __forceinline__ void close_groups(const routing_rules& r, const float* ranks, bool* is_open, float* of_groups,
                                             bool* is_open_group, Best* of_warps) {
    const int groups = static_cast<int>(r.num_groups), size = static_cast<int>(r.num_experts) / groups;
    for (int g = threadIdx.x; g < groups; g += kThreads) {
        float first = -INFINITY, second = -INFINITY;
        for (int i = g * size; i < (g + 1) * size; ++i) {
            const float value = number(ranks[i]);
            if (value > first) second = first, first = value;
            else if (value > second) second = value;
        }
        of_groups[g] = r.best_of_group == 2 && size > 1 ? first + second : first;
        is_open_group[g] = true;
    }
    __syncthreads();
    for (int i = 0; i < r.top_groups; ++i) take_best(of_groups, is_open_group, groups, of_warps);
    for (int i = threadIdx.x; i < r.num_experts; i += kThreads) is_open[i] = !is_open_group[i / size];
    __syncthreads();
}

// A block has a row.
__global__ void __launch_bounds__(kThreads) route_kernel(const float* all_scores, int64_t scores_stride, const routing_rules r,
                                                         int32_t* all_chosen, float* all_shares) {
    SHARED_ARRAY(float, ranks, kMaxExperts);
    SHARED_ARRAY(bool, is_open, kMaxExperts);
    SHARED_ARRAY(float, of_groups, kMaxGroups);
    SHARED_ARRAY(bool, is_open_group, kMaxGroups);
    SHARED_ARRAY(Best, best_of_warps, kWarps);
    SHARED_ARRAY(float, of_warps, kWarps);
    SHARED_ARRAY(float, own, kMaxChosen);
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int n = static_cast<int>(r.num_experts), top_k = static_cast<int>(r.top_k);
    const float* const scores = all_scores + blockIdx.x * scores_stride;
    int32_t* const chosen = all_chosen + int64_t{blockIdx.x} * top_k;
    float* const shares = all_shares + int64_t{blockIdx.x} * top_k;
    const bool is_softmax = r.scoring == PARLOR_ROUTE_SOFTMAX, is_sigmoid = r.scoring == PARLOR_ROUTE_SIGMOID;
    const bool is_near = r.scoring == PARLOR_ROUTE_SOFTMAX_OF_NEAR;
    Softmax of_all{0.0f, 1.0f};
    if (is_softmax) of_all = softmax(scores, n, of_warps);
    // Softmax and sigmoid keep the order of scores, where nothing is added.
    const bool by_score = (!r.correction && r.num_groups == 1) || (!is_softmax && !is_sigmoid);
    for (int i = threadIdx.x; i < n; i += kThreads) {
        const float value = by_score ? scores[i] : is_softmax ? of_all.of(scores[i]) : sigmoid(scores[i]);
        ranks[i] = r.correction ? value + r.correction[i] : value;
        is_open[i] = true;
    }
    __syncthreads();
    if (r.num_groups > 1) close_groups(r, ranks, is_open, of_groups, is_open_group, best_of_warps);
    for (int j = 0; j < top_k; ++j) {
        const int expert = take_best(ranks, is_open, n, best_of_warps);
        const float near = is_near ? share_of_near(scores, scores[expert], is_open, n, r.margin, of_warps) : 0.0f;
        if (threadIdx.x == 0) {
            chosen[j] = expert;
            own[j] = is_near      ? near
                     : is_softmax ? of_all.of(scores[expert])
                     : is_sigmoid ? sigmoid(scores[expert])
                                  : scores[expert];
        }
    }
    if (threadIdx.x != 0) return;
    if (!is_softmax && !is_sigmoid && !is_near) {
        float largest = own[0], sum = 0.0f;
        for (int j = 1; j < top_k; ++j) largest = fmaxf(largest, own[j]);
        for (int j = 0; j < top_k; ++j) sum += expf(own[j] - largest);
        for (int j = 0; j < top_k; ++j) own[j] = expf(own[j] - largest) / sum;
    }
    float sum = 0.0f;
    for (int j = 0; j < top_k; ++j) sum += own[j];
    for (int j = 0; j < top_k; ++j) {
        float share = r.is_renormalized ? own[j] / (sum + r.share_eps) : own[j];
        share *= r.scale;
        shares[j] = r.expert_scale ? share * r.expert_scale[chosen[j]] : share;
    }
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int route(const float* scores, int64_t scores_stride, const routing_rules* rules, int32_t* chosen, float* shares,
                     int64_t num_rows, void* stream) {
    if (!rules) return PARLOR_ERROR_POINTER;
    const routing_rules& r = *rules;
    if (num_rows < 0 || num_rows > kMaxGridX || r.num_experts < 1 || r.num_experts > kMaxExperts || r.top_k < 1 ||
        r.top_k > kMaxChosen || r.num_groups < 1 || r.num_groups > kMaxGroups || r.num_experts % r.num_groups != 0 ||
        r.top_groups < 1 || r.top_groups > r.num_groups || r.best_of_group < 1 || r.best_of_group > 2 ||
        r.top_k > r.num_experts / r.num_groups * r.top_groups || (num_rows > 1 && scores_stride < r.num_experts))
        return PARLOR_ERROR_SIZE;
    if (r.scoring < PARLOR_ROUTE_SOFTMAX || r.scoring > PARLOR_ROUTE_SOFTMAX_OF_NEAR) return PARLOR_ERROR_VALUE;
    if (num_rows == 0) return PARLOR_OK;
    if (!scores || !chosen || !shares || !is_aligned(scores, 4)) return PARLOR_ERROR_POINTER;
    Device device;
    if (const int error = device.read()) return error;
    return launch(device, route_kernel, dim3(static_cast<unsigned>(num_rows)), dim3(kThreads), 0, stream, scores,
                  scores_stride, r, chosen, shares);
}

// Low-rank products beside a weight: out += scale * (x @ down^T) @ up, by the adapter of each row.
//
// A block makes kOutputs outputs of one row: first the row of x @ down^T that they need, a warp for each number, then a
// thread for each output. Every block of a row makes that anew: rank * k numbers out of the L2 cache (64 KB at rank 16
// and 2,048 columns) instead of a second launch. Bound by reading down and up, rank * (k + n) numbers; when decoding by
// the launch. The table of adapters lies on the device, so that a captured step takes whatever adapters its rows have; a
// row whose adapter is not there becomes NaN.
// Reference: lora() in model/kernels/reference/lora.py.
#include <cmath>

#include "launch.cuh"

namespace parlor {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kOutputs = 512;

struct Lora {
    const float* x;
    int64_t x_stride;
    const float* norm_weight;  // or null
    float eps;
    const int32_t* row_adapters;
    const lora_adapter* adapters;
    int64_t num_adapters, n, k;
    float* out;
    int64_t out_stride;
};

__device__ __forceinline__ float number(const void* numbers, int64_t dtype, int64_t i) {
    if (dtype == PARLOR_F16) return __half2float(static_cast<const half*>(numbers)[i]);
    if (dtype == PARLOR_BF16)
        return __uint_as_float(static_cast<unsigned>(static_cast<const unsigned short*>(numbers)[i]) << 16);
    return static_cast<const float*>(numbers)[i];
}

// Grid: blocks of outputs, rows.
__global__ void __launch_bounds__(kThreads, 4) lora_kernel(const Lora a) {
    SHARED_ARRAY(float, products, PARLOR_LORA_RANK);
    SHARED_ARRAY(float, of_warps, kWarps);
    let_next_kernel_start();
    wait_for_previous_kernel();
    const int64_t row = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * kOutputs;
    const int64_t last = first + kOutputs < a.n ? first + kOutputs : a.n;
    const int32_t index = a.row_adapters[row];
    if (index < 0) return;
    float* const out = a.out + row * a.out_stride;
    if (index >= a.num_adapters) {
        for (int64_t i = first + threadIdx.x; i < last; i += kThreads) out[i] = NAN;
        return;
    }
    const lora_adapter& adapter = a.adapters[index];
    if (adapter.rank == 0) return;
    const float* const x = a.x + row * a.x_stride;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float factor = 1.0f;
    if (a.norm_weight) {
        float squares = 0.0f;
        for (int64_t i = threadIdx.x; i < a.k; i += kThreads) squares += x[i] * x[i];
        squares = warp_sum(squares);
        if (lane == 0) of_warps[warp] = squares;
        __syncthreads();
        float total = 0.0f;
        for (int i = 0; i < kWarps; ++i) total += of_warps[i];
        factor = 1.0f / sqrtf(total / static_cast<float>(a.k) + a.eps);
    }
    for (int64_t s = 0; s < adapter.num_segments; ++s) {
        const auto& segment = adapter.segments[s];
        if (segment.first >= last || segment.first + segment.count <= first) continue;
        for (int64_t r = segment.first_rank + warp; r < segment.first_rank + segment.rank; r += kWarps) {
            float sum = 0.0f;
            for (int64_t i = lane; i < a.k; i += 32) {
                const float value = a.norm_weight ? x[i] * factor * a.norm_weight[i] : x[i];
                sum += value * number(adapter.down, adapter.dtype, r * a.k + i);
            }
            sum = warp_sum(sum);
            if (lane == 0) products[r] = sum;
        }
    }
    __syncthreads();
    for (int64_t s = 0; s < adapter.num_segments; ++s) {
        const auto& segment = adapter.segments[s];
        const int64_t begin = first > segment.first ? first : segment.first;
        const int64_t end = last < segment.first + segment.count ? last : segment.first + segment.count;
        for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
            const int64_t up = segment.up_start + i - segment.first;
            float sum = 0.0f;
            for (int64_t r = 0; r < segment.rank; ++r)
                sum += products[segment.first_rank + r] * number(adapter.up, adapter.dtype, up + r * segment.count);
            out[i] += sum * segment.scale;
        }
    }
}

}  // namespace
}  // namespace parlor

using namespace parlor;

extern "C" int lora(const float* x, int64_t x_stride, const float* norm_weight, float eps, const int32_t* row_adapters,
                    const lora_adapter* adapters, int64_t num_adapters, int64_t n, int64_t k, float* out,
                    int64_t out_stride, int64_t m, void* stream) {
    if (m == 0) return PARLOR_OK;
    if (num_adapters <= 0 || n <= 0 || k <= 0 || m < 0 || x_stride < k || out_stride < n ||
        divide_up(n, kOutputs) > kMaxGridX)
        return PARLOR_ERROR_SIZE;
    if (!x || !row_adapters || !adapters || !out || !is_aligned(x, 4) || !is_aligned(norm_weight, 4) ||
        !is_aligned(row_adapters, 4) || !is_aligned(adapters, 8) || !is_aligned(out, 4))
        return PARLOR_ERROR_POINTER;
    if (!(eps >= 0)) return PARLOR_ERROR_VALUE;
    Device device;
    if (const int error = device.read()) return error;
    for (int64_t first = 0; first < m; first += kMaxGridY) {  // of rows a grid has no more
        const int64_t rows = std::min(kMaxGridY, m - first);
        const Lora a{x + first * x_stride, x_stride, norm_weight, eps, row_adapters + first, adapters, num_adapters,
                     n, k, out + first * out_stride, out_stride};
        const int error = launch(device, lora_kernel, dim3(static_cast<unsigned>(divide_up(n, kOutputs)),
                                 static_cast<unsigned>(rows)), dim3(kThreads), 0, stream, a);
        if (error) return error;
    }
    return PARLOR_OK;
}
